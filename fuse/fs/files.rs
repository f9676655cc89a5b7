//! Open files: making, opening, reading, writing.

use super::publish::SMALL;
use super::{Attributes, Fs};
use crate::control::ControlFile;
use crate::errno::{Result, errno, io_errno};
use crate::inodes::{Ino, Node};
use crate::local;
use crate::proc::Caller;
use crate::readahead::{self, RemoteFile};
use crate::spool::Spool;
use bytes::Bytes;
use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};
use nix::libc;
use s4::error::{Error, ErrorKind};
use s4::file::read_full;
use s4::key::Key;
use s4::protocol::KeyStat;
use std::ffi::OsStr;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// How long who opens a file waits while it is just being published.
const PUBLISHING: Duration = Duration::from_secs(1);

/// How long who opens a file that was just published waits for the kernel to say that its writers are done.
const SETTLING: Duration = Duration::from_millis(50);

/// An open file.
pub enum Handle {
    /// A key of this machine.
    Local(Arc<File>),
    Small(Bytes),
    Remote(RemoteFile),
    Spool {
        spool: Arc<Spool>,
        /// The process that opened it, whose close publishes, 0 for one that cannot be seen; `None` if it only reads.
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
            Node::Dir(..) => Err(Errno::EISDIR),
            // The kernel opens these without us.
            Node::Special(_) => Err(Errno::ENXIO),
            Node::Control(path) => {
                let file = self.control.open(&path, writes, caller).await?;
                Ok(OpenedFile { handle: self.handles().add_file(Handle::Control(file)), backing: None, direct: true })
            }
            Node::Key(key, stat) => self.open_published(ino, key, stat, flags, writes.then_some(caller)).await,
            Node::Spool(spool) => {
                let was_open_ended = spool.is_open_ended();
                let turn = tokio::time::timeout(PUBLISHING, spool.publishing.lock()).await;
                // While it is being published, its bytes are read and nobody is to change them.
                if writes && (turn.is_err() || spool.is_whole()) {
                    return Err(Errno::EPERM);
                }
                if spool.is_whole() {
                    drop(turn);
                    return self.open_settled(ino, &spool).await;
                }
                // Its last writer may just have been done with it: its name is a key's now, or nothing's.
                let is_same = matches!(self.node(ino)?, Node::Spool(now) if Arc::ptr_eq(&now, &spool));
                if writes && (!is_same || (was_open_ended && !spool.is_open_ended())) {
                    return Err(Errno::ESTALE);
                }
                if flags & libc::O_TRUNC != 0 {
                    spool.truncate(0).map_err(io_errno)?;
                }
                // Only then may it be published: who publishes counts the handles.
                let opened = self.open_spool(ino, spool.clone(), flags, writes.then(|| caller.process()));
                drop(turn);
                opened
            }
        }
    }

    /// Opens a key; for a `writer` only if it is empty.
    async fn open_published(
        &self,
        ino: Ino,
        key: Key,
        stat: KeyStat,
        flags: i32,
        writer: Option<Caller>,
    ) -> Result<OpenedFile> {
        let opened = self.open_key(&key, &stat).await?;
        let Some(writer) = writer else {
            self.inodes.opened(ino);
            return Ok(opened);
        };
        // Refused only now, since one that is gone is looked up again, and may be made anew.
        self.handles().files.remove(&opened.handle);
        if stat.checksum.len > 0 {
            return Err(Errno::EPERM);
        }
        let (file, dir) = self.spool_file(&key)?;
        let spool = Arc::new(Spool::over_empty(file, dir, key, stat));
        match self.inodes.write_empty(ino, &spool) {
            true => self.open_spool(ino, spool, flags, Some(writer.process())),
            // It is looked up again, and has another number then.
            false => Err(Errno::ESTALE),
        }
    }

    /// Opens what was just published for reading, once nobody can write to the file any more. What a descriptor or a mapping that
    /// is left still stores in the file is in no key: who reads it then reads the key, which gets another number.
    async fn open_settled(&self, ino: Ino, spool: &Arc<Spool>) -> Result<OpenedFile> {
        let settled = async {
            loop {
                let told = spool.settled.notified();
                if let Node::Key(key, stat) = self.node(ino)? {
                    return self.open_published(ino, key, stat, libc::O_RDONLY, None).await;
                }
                told.await;
            }
        };
        match tokio::time::timeout(SETTLING, settled).await {
            Ok(opened) => opened,
            Err(_) => {
                self.inodes.part_from_key(ino, &spool.key());
                Err(Errno::ESTALE)
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

    fn open_spool(&self, ino: Ino, spool: Arc<Spool>, flags: i32, writer: Option<u32>) -> Result<OpenedFile> {
        let backing = spool.opened(flags, writer.is_some()).map_err(io_errno)?;
        self.inodes.opened(ino);
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
        let (file, dir) = self.spool_file(&key)?;
        let stays = self.local.dir(self.home(&key)).is_some();
        let spool = Arc::new(Spool::new(file, dir, key, mode));
        self.growing.watch(&spool, stays);
        let attributes = self.entered(Node::Spool(spool.clone()))?;
        let opened = self.open_spool(attributes.ino, spool, flags, Some(caller.process()))?;
        Ok((attributes, opened))
    }

    /// An unnamed file that is to become `key`, and where it was made.
    fn spool_file(&self, key: &Key) -> Result<(Arc<File>, PathBuf)> {
        // On the key's own node the file can be linked as it is.
        let local = self.local.dir(self.home(key));
        let made_in = |dir: &Path| self.spool_files.take(dir).map(|file| (file, dir.to_owned()));
        made_in(local.unwrap_or(&self.spool_dir)).or_else(|_| made_in(&self.spool_dir)).map_err(io_errno)
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
            Handle::Spool { spool, writer: Some(_) } => {
                let _changing = spool.changing().map_err(io_errno)?;
                let flags = FallocateFlags::from_bits(mode).ok_or(Errno::EOPNOTSUPP)?;
                // Blocks that are given before they are written would be sent as zeros.
                spool.take_ahead();
                fallocate(&*spool.file().map_err(io_errno)?, flags, offset as i64, len as i64)
            }
            Handle::Spool { .. } | Handle::Local(_) | Handle::Small(_) | Handle::Remote(_) | Handle::Control(_) => {
                Err(Errno::EBADF)
            }
        }
    }

    pub async fn fsync(&self, handle: u64) -> Result<()> {
        match &*self.handle(handle)? {
            Handle::Spool { spool, .. } => spool.file().and_then(|file| file.sync_data()).map_err(io_errno),
            Handle::Local(_) | Handle::Small(_) | Handle::Remote(_) | Handle::Control(_) => Ok(()),
        }
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
