//! Open files: creating, opening, reading, writing and closing them.

use super::attributes::Attributes;
use super::closes::Closes;
use super::handles::Handles;
use super::namespace::Namespace;
use super::publisher::SMALL;
use crate::control::ControlFile;
use crate::errno::{Result, errno, io_errno};
use crate::inodes::{Ino, Node};
use crate::local;
use crate::proc::Caller;
use crate::remote_file::{ReadBudget, RemoteFile, read_small};
use crate::size_watcher::SizeWatcher;
use crate::spool::Spool;
use crate::spool::files::SpoolFiles;
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
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;

/// How long an open waits while the file is being published.
const PUBLISHING: Duration = Duration::from_secs(1);

/// How long an open of a file that was just published waits for the kernel to release its writers.
const SETTLING: Duration = Duration::from_millis(50);

/// An open file.
enum Handle {
    /// A key of this machine.
    Local(Arc<File>),
    Small(Bytes),
    Remote(RemoteFile),
    Spool {
        spool: Arc<Spool>,
        /// The process that opened the handle for writing, whose close publishes; 0 if we cannot see it. `None` if the
        /// handle only reads.
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

/// The open files of the mount.
pub struct Files {
    namespace: Arc<Namespace>,
    handles: Handles<Handle>,
    spool_files: Arc<SpoolFiles>,
    size_watcher: SizeWatcher,
    closes: Closes,
    budget: ReadBudget,
}

impl Files {
    pub fn new(
        namespace: Arc<Namespace>,
        spool_files: Arc<SpoolFiles>,
        size_watcher: SizeWatcher,
        closes: Closes,
    ) -> Self {
        Self { namespace, handles: Handles::default(), spool_files, size_watcher, closes, budget: ReadBudget::new() }
    }

    pub async fn open(&self, ino: Ino, flags: i32, caller: Caller) -> Result<OpenedFile> {
        let writes = flags & libc::O_ACCMODE != libc::O_RDONLY || flags & libc::O_TRUNC != 0;
        match self.namespace.node(ino)? {
            Node::Dir(..) => Err(Errno::EISDIR),
            // The kernel opens these without us.
            Node::Special(_) => Err(Errno::ENXIO),
            Node::Control(path) => {
                let file = self.namespace.control.open(&path, writes, caller).await?;
                Ok(OpenedFile { handle: self.handles.add(Handle::Control(file)), backing: None, direct: true })
            }
            Node::Key(key, stat) => self.open_published(ino, key, stat, flags, writes.then_some(caller)).await,
            Node::Spool(spool) => self.open_unpublished(ino, spool, flags, writes.then_some(caller)).await,
        }
    }

    async fn open_unpublished(
        &self,
        ino: Ino,
        spool: Arc<Spool>,
        flags: i32,
        writer: Option<Caller>,
    ) -> Result<OpenedFile> {
        let could_publish = spool.may_publish();
        let turn = tokio::time::timeout(PUBLISHING, spool.publishing.lock()).await;
        // While it is being published, its bytes are read and must not change.
        if writer.is_some() && (turn.is_err() || spool.is_published()) {
            return Err(Errno::EPERM);
        }
        if spool.is_published() {
            drop(turn);
            return self.open_settled(ino, &spool).await;
        }
        // During the wait, the name may have become a key, or may have been freed.
        let is_same = matches!(self.namespace.node(ino)?, Node::Spool(now) if Arc::ptr_eq(&now, &spool));
        if writer.is_some() && (!is_same || (could_publish && !spool.may_publish())) {
            return Err(Errno::ESTALE);
        }
        if flags & libc::O_TRUNC != 0 {
            spool.truncate(0).map_err(io_errno)?;
        }
        let opened = self.open_spool(ino, spool.clone(), flags, writer.map(Caller::process));
        // Held until here: a publish counts the open handles.
        drop(turn);
        opened
    }

    /// Opens a key. A `writer` may open only an empty one.
    async fn open_published(
        &self,
        ino: Ino,
        key: Key,
        stat: KeyStat,
        flags: i32,
        writer: Option<Caller>,
    ) -> Result<OpenedFile> {
        let (handle, backing) = self.open_key(&key, &stat).await?;
        let Some(writer) = writer else {
            self.namespace.inodes.add_open(ino);
            return Ok(OpenedFile { handle: self.handles.add(handle), backing, direct: false });
        };
        // Refused only after the key was found: if it is gone, the kernel looks up the name again, and may create a new
        // file.
        if stat.checksum.len > 0 {
            return Err(Errno::EPERM);
        }
        let (file, dir) = self.spool_files.take(self.namespace.local_dir(&key)).map_err(io_errno)?;
        let spool = Arc::new(Spool::over_empty(file, dir, key, stat));
        match self.namespace.inodes.write_empty(ino, &spool) {
            true => self.open_spool(ino, spool, flags, Some(writer.process())),
            // The kernel looks it up again, and gets another number.
            false => Err(Errno::ESTALE),
        }
    }

    /// Opens a file for reading that was just published, once no descriptor can write to it any more. If a descriptor
    /// or a mapping remains, the file may differ from the key. Then the kernel must look up the key again, which gets
    /// another number.
    async fn open_settled(&self, ino: Ino, spool: &Arc<Spool>) -> Result<OpenedFile> {
        let settled = async {
            loop {
                let notified = spool.settled.notified();
                if let Node::Key(key, stat) = self.namespace.node(ino)? {
                    return self.open_published(ino, key, stat, libc::O_RDONLY, None).await;
                }
                notified.await;
            }
        };
        match tokio::time::timeout(SETTLING, settled).await {
            Ok(opened) => opened,
            Err(_) => {
                self.namespace.inodes.detach_key(ino, &spool.key());
                Err(Errno::ESTALE)
            }
        }
    }

    /// Opens a key for reading. Returns the handle, and a file that the kernel may read instead. Errors: ESTALE if it
    /// is gone or was replaced, so that the kernel looks it up again.
    async fn open_key(&self, key: &Key, stat: &KeyStat) -> Result<(Handle, Option<Arc<File>>)> {
        if let Some(dir) = self.namespace.local_dir(key) {
            match local::open(dir, key, stat).map_err(io_errno)? {
                Some(file) => {
                    let file = Arc::new(file);
                    return Ok((Handle::Local(file.clone()), Some(file)));
                }
                None if self.namespace.local.is_there(self.namespace.home(key)) => return Err(Errno::ESTALE),
                // The data directory is not at its path any more: the node is asked.
                None => {}
            }
        }
        let stale = |e: Error| match e.kind() {
            ErrorKind::NotFound => Errno::ESTALE,
            _ => errno(&e),
        };
        let client = &self.namespace.client;
        if stat.checksum.len <= SMALL {
            let bytes = read_small(client, key, stat.checksum).await.map_err(stale)?;
            return Ok((Handle::Small(bytes), None));
        }
        // Reads no bytes: it checks that the key is there, and makes the node keep it open.
        client.open_range(key, stat.checksum, 0).await.map_err(stale)?;
        let file = RemoteFile::new(client.clone(), key.clone(), stat.checksum, &self.budget);
        Ok((Handle::Remote(file), None))
    }

    fn open_spool(&self, ino: Ino, spool: Arc<Spool>, flags: i32, writer: Option<u32>) -> Result<OpenedFile> {
        let backing = spool.add_handle(flags, writer.is_some()).map_err(io_errno)?;
        self.namespace.inodes.add_open(ino);
        let handle = self.handles.add(Handle::Spool { spool, writer });
        Ok(OpenedFile { handle, backing: Some(backing), direct: false })
    }

    /// Creates a file that is to become a key. `mode` and `flags` are those of open(2).
    pub async fn create(
        &self,
        parent: Ino,
        name: &OsStr,
        mode: u32,
        flags: i32,
        caller: Caller,
    ) -> Result<(Attributes, OpenedFile)> {
        if let Some(path) = self.namespace.control_created(parent, name)? {
            let file = self.namespace.control.open(&path, true, caller).await?;
            let attributes = self.namespace.enter(Node::Control(path))?;
            let handle = self.handles.add(Handle::Control(file));
            return Ok((attributes, OpenedFile { handle, backing: None, direct: true }));
        }
        let key = self.namespace.key_in(parent, name)?;
        if self.namespace.specials.at(key.as_str()).is_some() {
            return Err(Errno::EEXIST);
        }
        // On the node that the key belongs to, the file can be linked as it is.
        let local_dir = self.namespace.local_dir(&key);
        let (file, dir) = self.spool_files.take(local_dir).map_err(io_errno)?;
        let spool = Arc::new(Spool::new(file, dir, key, mode));
        if local_dir.is_none() {
            self.size_watcher.watch(&spool);
        }
        let attributes = self.namespace.enter(Node::Spool(spool.clone()))?;
        let opened = self.open_spool(attributes.ino, spool, flags, Some(caller.process()))?;
        Ok((attributes, opened))
    }

    /// True if a read of this handle may wait for a disk. Other reads wait at most for the network.
    pub fn may_wait_for_a_disk(&self, handle: u64) -> bool {
        let handle = self.handles.get(handle);
        handle.is_ok_and(|handle| !matches!(&*handle, Handle::Remote(_) | Handle::Small(_)))
    }

    pub async fn read(&self, handle: u64, offset: u64, size: u32) -> Result<Bytes> {
        let handle = self.handles.get(handle)?;
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
        match &*self.handles.get(handle)? {
            Handle::Spool { spool, writer: Some(_) } => spool.write(offset, bytes).map_err(io_errno),
            Handle::Control(file) => file.write(offset, bytes),
            Handle::Spool { .. } | Handle::Local(_) | Handle::Small(_) | Handle::Remote(_) => Err(Errno::EBADF),
        }
    }

    /// Sets the length of a file that is being written, or allocates blocks for it.
    pub fn allocate(&self, handle: u64, offset: u64, len: u64, mode: i32) -> Result<()> {
        match &*self.handles.get(handle)? {
            Handle::Spool { spool, writer: Some(_) } => {
                let _change = spool.lock_for_change().map_err(io_errno)?;
                let flags = FallocateFlags::from_bits(mode).ok_or(Errno::EOPNOTSUPP)?;
                // An upload would send the allocated blocks as zeros.
                spool.take_upload();
                fallocate(&*spool.file().map_err(io_errno)?, flags, offset as i64, len as i64)
            }
            Handle::Spool { .. } | Handle::Local(_) | Handle::Small(_) | Handle::Remote(_) | Handle::Control(_) => {
                Err(Errno::EBADF)
            }
        }
    }

    pub async fn fsync(&self, handle: u64) -> Result<()> {
        match &*self.handles.get(handle)? {
            Handle::Spool { spool, .. } => spool.file().and_then(|file| file.sync_data()).map_err(io_errno),
            Handle::Local(_) | Handle::Small(_) | Handle::Remote(_) | Handle::Control(_) => Ok(()),
        }
    }

    /// Handles a close by `caller`. The publishing close returns the result of the publish.
    pub async fn flush(&self, ino: Ino, handle: u64, caller: Caller) -> Result<()> {
        let handle = self.handles.get(handle)?;
        match &*handle {
            Handle::Spool { spool, writer: Some(opener) } => self.closes.flush(ino, spool, *opener, caller).await,
            Handle::Control(file) => file.close(ino, caller).await,
            Handle::Spool { .. } | Handle::Local(_) | Handle::Small(_) | Handle::Remote(_) => Ok(()),
        }
    }

    /// The last descriptor of a handle is closed; errors can only be logged.
    pub async fn release(&self, ino: Ino, handle: u64) {
        match self.handles.remove(handle).as_deref() {
            Some(Handle::Spool { spool, writer }) => self.closes.release(ino, spool, writer.is_some()).await,
            Some(Handle::Control(file)) => file.release().await,
            Some(Handle::Local(_) | Handle::Small(_) | Handle::Remote(_)) => self.namespace.inodes.remove_open(ino),
            None => {}
        }
    }

    /// Releases all open files after an unmount: the kernel sends no more releases.
    pub async fn release_all(self: &Arc<Self>) {
        let mut releases = JoinSet::new();
        for (number, handle) in self.handles.all() {
            if let Handle::Spool { spool, .. } = &*handle
                && let Some(ino) = self.namespace.inodes.number_of(spool)
            {
                let files = self.clone();
                releases.spawn(async move { files.release(ino, number).await });
            }
        }
        releases.join_all().await;
    }
}

fn read_file(file: &File, offset: u64, size: u32) -> Result<Bytes> {
    let mut bytes = vec![0; size as usize];
    let filled = read_full(file, &mut bytes, offset).map_err(io_errno)?;
    bytes.truncate(filled);
    Ok(bytes.into())
}
