//! Open files: reading, writing, and the close that publishes.

use super::{Attributes, Fs, is_sure};
use crate::closing::{self, Caller, Memory};
use crate::control::ControlFile;
use crate::errno::{Result, errno, io_errno};
use crate::growing::LARGE;
use crate::inodes::{Ino, Node};
use crate::local;
use crate::readahead::{self, RemoteFile};
use crate::spool::Spool;
use bytes::Bytes;
use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};
use nix::libc;
use s4::client::blocking;
use s4::error::{Error, ErrorKind};
use s4::file::{AtPosition, read_full};
use s4::key::Key;
use s4::protocol::{Change, KeyStat};
use s4::stored::draft;
use std::ffi::OsStr;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// Remote keys up to this size come whole when they are opened, and any key when it is published goes in one request.
const SMALL: u64 = 256 * 1024;

/// How long who opens a file waits while it is just being published.
const PUBLISHING: Duration = Duration::from_secs(1);

/// How long it may take to find out who has a file open or in memory.
const LOOK: Duration = Duration::from_secs(1);

/// Files below this size are copied when they are published: that costs less than to find out who else has them open.
const SMALL_COPY: u64 = 1 << 20;

/// An open file.
pub enum Handle {
    /// A key of this machine.
    Local(Arc<File>),
    Small(Bytes),
    Remote(RemoteFile),
    Spool {
        spool: Arc<Spool>,
        /// The process that opened it, whose close publishes; `None` if it only reads.
        writer: Option<u32>,
    },
    Control(ControlFile),
}

/// How the kernel is to treat an open file.
pub struct OpenedFile {
    pub handle: u64,
    /// A file that the kernel may read and write instead of asking us.
    pub backing: Option<Arc<File>>,
    /// True if the kernel must not cache it.
    pub direct: bool,
}

impl Fs {
    pub async fn open(&self, ino: Ino, flags: i32, caller: Caller) -> Result<OpenedFile> {
        let writes = flags & libc::O_ACCMODE != libc::O_RDONLY || flags & libc::O_TRUNC != 0;
        match self.node(ino)? {
            Node::Dir(_) => Err(Errno::EISDIR),
            // The kernel opens these without us.
            Node::Special(_) => Err(Errno::ENXIO),
            Node::Control(path) => {
                let file = self.control.open(&path, writes, caller).await?;
                Ok(OpenedFile { handle: self.handles().add_file(Handle::Control(file)), backing: None, direct: true })
            }
            Node::Key(key, stat) => {
                let opened = self.open_key(&key, &stat).await?;
                if writes {
                    // Refused only now, since one that is gone is looked up again, and may be made anew.
                    self.handles().files.remove(&opened.handle);
                    return Err(Errno::EPERM);
                }
                Ok(opened)
            }
            Node::Spool(spool) => {
                let turn = tokio::time::timeout(PUBLISHING, spool.publishing.lock()).await;
                // While it is being published, its bytes are read and nobody is to change them.
                if writes && (turn.is_err() || spool.is_published()) {
                    return Err(Errno::EPERM);
                }
                // What others still store in the file by a mapping is in no key: who reads it then reads the key.
                if spool.is_published() {
                    return Err(Errno::ESTALE);
                }
                drop(turn);
                if flags & libc::O_TRUNC != 0 {
                    spool.truncate(0).map_err(io_errno)?;
                }
                self.open_spool(spool, flags, writes.then(|| caller.process()))
            }
        }
    }

    async fn open_key(&self, key: &Key, stat: &KeyStat) -> Result<OpenedFile> {
        if let Some(dir) = self.local.dir(self.home(key)) {
            match local::open(dir, key, stat).map_err(io_errno)? {
                Some(file) => {
                    let file = Arc::new(file);
                    let handle = self.handles().add_file(Handle::Local(file.clone()));
                    return Ok(OpenedFile { handle, backing: Some(file), direct: false });
                }
                None if self.local.is_there(self.home(key)) => return Err(Errno::ESTALE),
                // Its node says what has become of its disk.
                None => {}
            }
        }
        // A key that is another one now is looked up again by the kernel.
        let changed = |e: Error| match e.kind() {
            ErrorKind::NotFound => Errno::ESTALE,
            _ => errno(&e),
        };
        let handle = match stat.checksum.len <= SMALL {
            true => Handle::Small(readahead::read_small(&self.client, key, stat.checksum).await.map_err(changed)?),
            false => {
                // Of no bytes: it makes sure of the key, and has the node hold it open.
                self.client.open_range(key, stat.checksum, 0).await.map_err(changed)?;
                Handle::Remote(RemoteFile::new(self.client.clone(), key.clone(), stat.checksum, &self.budget))
            }
        };
        Ok(OpenedFile { handle: self.handles().add_file(handle), backing: None, direct: false })
    }

    fn open_spool(&self, spool: Arc<Spool>, flags: i32, writer: Option<u32>) -> Result<OpenedFile> {
        let backing = spool.opened(flags).map_err(io_errno)?;
        let handle = self.handles().add_file(Handle::Spool { spool, writer });
        Ok(OpenedFile { handle, backing: Some(backing), direct: false })
    }

    /// Makes a file that is to become a key. `mode` and `flags` are those of open(2).
    pub async fn create(
        &self,
        parent: Ino,
        name: &OsStr,
        mode: u32,
        flags: i32,
        caller: Caller,
    ) -> Result<(Attributes, OpenedFile)> {
        if let Some(path) = self.control.made(&self.node(parent)?, name)? {
            let file = self.control.open(&path, true, caller).await?;
            let attributes = self.entered(Node::Control(path))?;
            let handle = self.handles().add_file(Handle::Control(file));
            return Ok((attributes, OpenedFile { handle, backing: None, direct: true }));
        }
        let key = self.key_in(parent, name)?;
        if self.specials.at(key.as_str()).is_some() {
            return Err(Errno::EEXIST);
        }
        // On the key's own node the file can be linked as it is.
        let local = self.local.dir(self.home(&key));
        let made_in = |dir| self.spool_files.take(dir).map(|file| (file, dir));
        let (file, dir) =
            made_in(local.unwrap_or(&self.spool_dir)).or_else(|_| made_in(&self.spool_dir)).map_err(io_errno)?;
        let spool = Arc::new(Spool::new(file, dir.to_owned(), key, mode));
        self.growing.watch(&spool, local.is_some());
        let attributes = self.entered(Node::Spool(spool.clone()))?;
        let opened = self.open_spool(spool, flags, Some(caller.process()))?;
        Ok((attributes, opened))
    }

    /// True if a read of this handle may wait for a disk, and not only for the network.
    pub fn may_wait_for_a_disk(&self, handle: u64) -> bool {
        let handle = self.handle(handle);
        handle.is_ok_and(|handle| !matches!(&*handle, Handle::Remote(_) | Handle::Small(_)))
    }

    pub async fn read(&self, handle: u64, offset: u64, size: u32) -> Result<Bytes> {
        let handle = self.handle(handle)?;
        match &*handle {
            Handle::Local(file) => read_file(file, offset, size),
            Handle::Spool { spool, .. } => read_file(&*spool.file().map_err(io_errno)?, offset, size),
            Handle::Small(bytes) => {
                let from = (offset as usize).min(bytes.len());
                Ok(bytes.slice(from..from.saturating_add(size as usize).min(bytes.len())))
            }
            Handle::Remote(file) => file.read(offset, size.into()).await.map_err(|e| match errno(&e) {
                Errno::ENOENT => Errno::EIO,
                errno => errno,
            }),
            Handle::Control(file) => file.read(offset, size as usize).await,
        }
    }

    pub fn write(&self, handle: u64, offset: u64, bytes: &[u8]) -> Result<()> {
        match &*self.handle(handle)? {
            Handle::Spool { spool, writer: Some(_) } => spool.write(offset, bytes).map_err(io_errno),
            Handle::Control(file) => file.write(offset, bytes),
            Handle::Spool { .. } | Handle::Local(_) | Handle::Small(_) | Handle::Remote(_) => Err(Errno::EBADF),
        }
    }

    /// Gives a file that is being written its length, or its blocks, before they are written.
    pub fn allocate(&self, handle: u64, offset: u64, len: u64, mode: i32) -> Result<()> {
        match &*self.handle(handle)? {
            Handle::Spool { spool, writer: Some(_) } if !spool.is_published() => {
                let flags = FallocateFlags::from_bits(mode).ok_or(Errno::EOPNOTSUPP)?;
                // Blocks that are given before they are written would be sent as zeros.
                spool.take_ahead();
                fallocate(&*spool.file().map_err(io_errno)?, flags, offset as i64, len as i64)
            }
            Handle::Spool { .. } => Err(Errno::EPERM),
            Handle::Local(_) | Handle::Small(_) | Handle::Remote(_) | Handle::Control(_) => Err(Errno::EBADF),
        }
    }

    /// One descriptor is closed. Publishes if it is the close that does, and tells how that went.
    pub async fn flush(&self, handle: u64, caller: Caller) -> Result<()> {
        let handle = self.handle(handle)?;
        let (spool, writer) = match &*handle {
            Handle::Spool { spool, writer: Some(writer) } => (spool, *writer),
            Handle::Control(file) => return file.close(caller).await,
            Handle::Spool { .. } | Handle::Local(_) | Handle::Small(_) | Handle::Remote(_) => return Ok(()),
        };
        if spool.was_written_late() {
            tracing::warn!("{}: written to after its publishing close; that is in no key", spool.key());
            return Err(Errno::EIO);
        }
        let memory = caller.memory();
        let killed = memory == Memory::Gone && caller.is_killed();
        spool.set_killed(killed);
        // Of one that executes a program it is not to be known whether it has another descriptor. The last close will tell.
        if killed || memory == Memory::New || !caller.is_of(writer) || !spool.is_pending() {
            return Ok(());
        }
        // A process that has another descriptor of it has only moved one, mostly before anything is written.
        let (shown, written) = (self.shown(spool), spool.len().map_err(io_errno)? > 0);
        let look = if written { closing::has_open } else { closing::has_moved };
        if look(writer, &shown) {
            return Ok(());
        }
        // What it stores through a mapping is published once that is gone too.
        let mapped = match spool.is_mappable() {
            false => false,
            // It waits for us, so that nobody is changing its memory: the look need not wait either.
            true if caller.thread == writer && caller.is_alone() => closing::has_mapped(writer, &shown),
            true => self.looked(move || closing::has_mapped(writer, &shown)).await,
        };
        if mapped {
            return Ok(());
        }
        // Nothing was written yet, but a child may have inherited the descriptor to do so.
        if !written && closing::has_children(writer) {
            return Ok(());
        }
        self.publish(spool).await
    }

    /// The last descriptor is closed, and nobody hears how it went.
    pub async fn release(&self, ino: Ino, handle: u64) {
        let handle = self.handles().files.remove(&handle);
        let spool = match handle.as_deref() {
            Some(Handle::Spool { spool, .. }) => spool,
            Some(Handle::Control(file)) => return file.release().await,
            Some(Handle::Local(_) | Handle::Small(_) | Handle::Remote(_)) | None => return,
        };
        if !spool.closed() {
            return;
        }
        if spool.is_pending() {
            if spool.was_killed() {
                spool.discard();
                self.inodes.unname_spool(spool);
            } else if let Err(errno) = self.publish(spool).await {
                tracing::error!("{}: not published: {}", spool.key(), errno.desc());
            }
        }
        self.inodes.drop_unnamed(ino);
        if let Some(file) = spool.end() {
            self.spool_files.keep(&spool.dir, file);
        }
    }

    pub async fn fsync(&self, handle: u64) -> Result<()> {
        match &*self.handle(handle)? {
            Handle::Spool { spool, .. } => spool.file().and_then(|file| file.sync_data()).map_err(io_errno),
            Handle::Local(_) | Handle::Small(_) | Handle::Remote(_) | Handle::Control(_) => Ok(()),
        }
    }

    /// The path of a file that is being written, as /proc shows it.
    fn shown(&self, spool: &Spool) -> PathBuf {
        self.mountpoint.join(spool.key().as_str())
    }

    /// Publishes a file, once.
    async fn publish(&self, spool: &Arc<Spool>) -> Result<()> {
        let _under_way = self.publishing.subscribe();
        let _turn = spool.publishing.lock().await;
        if !spool.is_pending() {
            return Ok(());
        }
        let (key, change) = (spool.key(), spool.change());
        let making = self.misses.making_key(&key);
        let published = self.publish_bytes(spool, &key, change).await;
        making.end(is_sure(&published));
        if published.is_ok()
            && spool.change() != change
            && let Err(error) = self.client.change(&key, spool.change()).await
        {
            // Published it is, so the close must not say that it is not.
            tracing::warn!("published, but the mode and time that it was given meanwhile are lost: {error}");
        }
        self.inodes.unname_spool(spool);
        match published {
            Ok(snapshot) => {
                spool.set_published(snapshot);
                Ok(())
            }
            Err(error) => {
                tracing::warn!("{key}: not published: {error}");
                spool.discard();
                Err(Errno::from_raw(error.kind().errno()))
            }
        }
    }

    /// Returns how the file looked when its bytes were taken.
    async fn publish_bytes(
        &self,
        spool: &Arc<Spool>,
        key: &Key,
        change: Change,
    ) -> s4::error::Result<(u64, SystemTime)> {
        let failed = |e: std::io::Error| Error::io(key, &e);
        if spool.len().map_err(failed)? >= LARGE {
            let grown = spool.clone();
            // To make some changes its time for a moment.
            blocking(move || grown.stop_room()).await;
        }
        let (file, snapshot) = (spool.file().map_err(failed)?, spool.snapshot().map_err(failed)?);
        if snapshot.0 <= SMALL {
            let bytes = read_file(&file, 0, snapshot.0 as u32).map_err(|e| failed(e.into()))?;
            return self.client.put_small(key, bytes, change).await.map(|()| snapshot);
        }
        if let Some(dir) = self.local.dir(self.home(key)) {
            match self.publish_here(spool, key, dir).await {
                // A daemon that cannot see our file takes its bytes.
                Err(error) if error.kind() == ErrorKind::BadRequest => {}
                done => return done,
            }
        }
        if let Some(ahead) = spool.take_ahead()
            && ahead.publish(file.clone(), snapshot.0, change).await?
        {
            return Ok(snapshot);
        }
        let input = AtPosition::new(file, 0);
        self.client.put_born(key, input, "the spool", change).await.map(|_| snapshot)
    }

    /// Has the daemon of this machine link the file itself, or a copy where others may still write to it: the kernel lets
    /// them write without asking us.
    async fn publish_here(&self, spool: &Arc<Spool>, key: &Key, dir: &Path) -> s4::error::Result<(u64, SystemTime)> {
        let failed = |e: std::io::Error| Error::io(key, &e);
        let (file, snapshot) = (spool.file().map_err(failed)?, spool.snapshot().map_err(failed)?);
        let shown = self.shown(spool);
        let copied = match snapshot.0 < SMALL_COPY || self.looked(move || closing::anyone_has_open(&shown)).await {
            true => {
                let (original, dir) = (file.clone(), dir.to_owned());
                Some(blocking(move || copy(original, &dir)).await.map_err(failed)?)
            }
            false => None,
        };
        if copied.is_none() && snapshot.0 >= LARGE {
            let grown = spool.clone();
            blocking(move || grown.end_room()).await;
        }
        // The daemon reads the whole file before it answers.
        self.client.patient(snapshot.0).adopt(key, &spool.adoption(copied.as_ref().unwrap_or(&file))?).await?;
        match copied {
            Some(_) => Ok(snapshot),
            // Linked, it has the key's time now.
            None => spool.snapshot().map_err(failed),
        }
    }

    /// What a look at processes finds, or true if it takes too long: one that hangs while it executes another program holds up
    /// who looks at it. So few look at once that those who are held up take little; the others wait for their turn.
    async fn looked(&self, look: impl FnOnce() -> bool + Send + 'static) -> bool {
        let looked = async {
            // It would fail once the semaphore is closed, which it never is.
            let permit = self.looks.clone().acquire_owned().await.ok()?;
            let look = move || (look(), permit).0;
            Some(blocking(look).await)
        };
        tokio::time::timeout(LOOK, looked).await.ok().flatten().unwrap_or(true)
    }

    pub(super) fn handle(&self, handle: u64) -> Result<Arc<Handle>> {
        self.handles().files.get(&handle).cloned().ok_or(Errno::EBADF)
    }
}

fn read_file(file: &File, offset: u64, size: u32) -> Result<Bytes> {
    let mut bytes = vec![0; size as usize];
    let filled = read_full(file, &mut bytes, offset).map_err(io_errno)?;
    bytes.truncate(filled);
    Ok(bytes.into())
}

fn copy(file: Arc<File>, dir: &Path) -> std::io::Result<File> {
    let mut copy = draft(dir)?;
    std::io::copy(&mut AtPosition::new(file, 0), &mut copy)?;
    Ok(copy)
}
