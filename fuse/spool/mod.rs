//! A file that is being written: an unnamed local file until its publishing close. [`state`] has the states that it
//! goes through. When and how it is published is left to [`fs`](crate::fs).

pub mod files;
mod state;

use crate::eager_upload::EagerUpload;
use crate::proc::since_boot;
use nix::errno::Errno;
use nix::libc;
use s4::error::{Error, Result};
use s4::hasher;
use s4::key::Key;
use s4::protocol::{Change, Handoff, KeyStat, Metadata};
use s4::time::{from_nanoseconds, to_nanoseconds};
pub use state::{LastClose, Snapshot};
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};
use std::time::{Duration, SystemTime};

type State = state::State<EagerUpload>;

pub struct Spool {
    /// The directory in which the file was created.
    pub dir: PathBuf,
    inner: Mutex<Inner>,
    /// Read-locked while bytes are written, so that sealing waits for the write.
    changes: RwLock<()>,
    /// Notified once no descriptor can write to the file any more.
    pub settled: tokio::sync::Notify,
    /// Held while the file is published, so that a second close waits for the outcome of the first.
    pub publishing: tokio::sync::Mutex<()>,
}

/// Guards what changes besides the bytes.
struct Inner {
    state: State,
    /// `None` once the spool cannot be opened again. The kernel may know the inode for much longer, while another spool
    /// already uses the file.
    file: Option<Arc<File>>,
    key: Key,
    /// False once the file is unlinked, or its name stands for a key. Changed only under the lock of the inode table.
    has_name: bool,
    /// When this spool was created. The file may be older.
    created: SystemTime,
    /// When this spool was created, by a clock that is never set.
    created_since_boot: Duration,
    mode: u32,
    /// As set by the user. Without it, the time of the last write counts.
    mtime: Option<SystemTime>,
    /// Open handles, and those of them that may write.
    handles: Handles,
    /// A handle was opened for reading and writing, so that a mapping may write to the file.
    mappable: bool,
    /// A daemon may still link the file.
    handed_over: bool,
}

/// Counts of open handles.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Handles {
    pub all: u64,
    /// Those of them that may write.
    pub writers: u64,
}

impl Inner {
    /// `modified` is the time of the file, which may have served another spool before.
    fn mtime(&self, modified: SystemTime) -> SystemTime {
        self.mtime.unwrap_or(modified.max(self.created))
    }

    fn file(&self) -> std::io::Result<&Arc<File>> {
        self.file.as_ref().ok_or_else(|| std::io::Error::from_raw_os_error(libc::ESTALE))
    }
}

impl Spool {
    /// A spool on an unnamed file in `dir`. It is to become `key`.
    pub fn new(file: Arc<File>, dir: PathBuf, key: Key, mode: u32) -> Self {
        Self::of(file, dir, key, mode, State::new(None))
    }

    /// A spool on an unnamed file whose bytes are to replace the empty key `stat`.
    pub fn over_empty(file: Arc<File>, dir: PathBuf, key: Key, stat: KeyStat) -> Self {
        Self::of(file, dir, key, stat.mode, State::new(Some(stat)))
    }

    fn of(file: Arc<File>, dir: PathBuf, key: Key, mode: u32, state: State) -> Self {
        let inner = Inner {
            state,
            file: Some(file),
            key,
            has_name: true,
            created: SystemTime::now(),
            created_since_boot: since_boot(),
            mode,
            mtime: None,
            handles: Handles::default(),
            mappable: false,
            handed_over: false,
        };
        Self {
            dir,
            inner: Mutex::new(inner),
            changes: RwLock::default(),
            settled: tokio::sync::Notify::default(),
            publishing: tokio::sync::Mutex::default(),
        }
    }

    /// Errors: ESTALE once the spool cannot be opened again.
    pub fn file(&self) -> std::io::Result<Arc<File>> {
        self.lock().file().cloned()
    }

    pub fn age(&self) -> Duration {
        since_boot().saturating_sub(self.lock().created_since_boot)
    }

    pub fn key(&self) -> Key {
        self.lock().key.clone()
    }

    /// Renames the file. Cancels an upload, which went to the node of the old name.
    pub fn set_key(&self, key: Key) {
        let mut inner = self.lock();
        inner.key = key;
        inner.state.take_upload();
    }

    pub fn mode(&self) -> u32 {
        self.lock().mode
    }

    pub fn set_mode(&self, mode: u32) {
        self.lock().mode = mode & 0o7777;
    }

    pub fn set_mtime(&self, mtime: SystemTime) {
        self.lock().mtime = Some(mtime);
    }

    /// Length, blocks of 512 bytes, and time of the last change.
    pub fn attributes(&self) -> std::io::Result<(u64, u64, SystemTime)> {
        let inner = self.lock();
        if let Some(stat) = inner.state.stat().filter(|_| inner.state.is_published() || inner.file.is_none()) {
            let len = stat.checksum.len;
            return Ok((len, len.div_ceil(512), from_nanoseconds(stat.mtime)));
        }
        let found = inner.file()?.metadata()?;
        Ok((found.len(), found.blocks(), inner.mtime(found.modified()?)))
    }

    /// The time of the last change of a file that looks like `snapshot`.
    pub fn mtime(&self, snapshot: Snapshot) -> SystemTime {
        self.lock().mtime(snapshot.modified)
    }

    pub fn len(&self) -> std::io::Result<u64> {
        self.file()?.metadata().map(|found| found.len())
    }

    /// The lock to hold while bytes are changed. Errors: no change is allowed any more.
    pub fn lock_for_change(&self) -> std::io::Result<RwLockReadGuard<'_, ()>> {
        let changes = self.changes.read().unwrap_or_else(PoisonError::into_inner);
        match self.lock().state.refusal() {
            Some(errno) => Err(errno.into()),
            None => Ok(changes),
        }
    }

    /// Returns the length and time of the file. If it has bytes, they cannot change from now on.
    pub fn seal(&self) -> std::io::Result<Snapshot> {
        let _no_changes = self.changes.write().unwrap_or_else(PoisonError::into_inner);
        let snapshot = self.snapshot()?;
        self.lock().state.seal(snapshot.len);
        Ok(snapshot)
    }

    pub fn write(&self, offset: u64, bytes: &[u8]) -> std::io::Result<()> {
        let _change = self.lock_for_change()?;
        let mut inner = self.lock();
        inner.mtime = None;
        let file = inner.file()?.clone();
        drop(inner);
        file.write_all_at(bytes, offset)
    }

    pub fn truncate(&self, len: u64) -> std::io::Result<()> {
        let _change = self.lock_for_change()?;
        let mut inner = self.lock();
        inner.state.take_upload();
        inner.file()?.set_len(len)
    }

    /// True once its bytes are a key, which never changes again.
    pub fn is_published(&self) -> bool {
        self.lock().state.is_published()
    }

    /// The key that was published from this file. It may be empty.
    pub fn stat(&self) -> Option<KeyStat> {
        self.lock().state.stat().cloned()
    }

    /// Records changed attributes of the key.
    pub fn set_stat(&self, change: Change) {
        self.lock().state.set_attributes(change);
    }

    fn snapshot(&self) -> std::io::Result<Snapshot> {
        let found = self.file()?.metadata()?;
        Ok(Snapshot { len: found.len(), modified: found.modified()? })
    }

    /// Records that the file was published with the length and time of `snapshot`.
    pub fn set_published(&self, snapshot: Snapshot, stat: KeyStat) {
        self.lock().state.publish(snapshot, stat);
    }

    /// True if the length or time of the file has changed since it was published.
    pub fn has_changed(&self) -> bool {
        let published = self.lock().state.snapshot();
        published.is_some_and(|then| self.snapshot().map_or(true, |now| now != then))
    }

    /// True if the file holds other bytes than were published. Such bytes are in no key: where the kernel writes the
    /// file itself, a late write may succeed. A changed time alone is no late write: if the file itself became a key of
    /// this machine, setting the time of the key changes the file. Blocks.
    pub fn was_written_late(&self) -> bool {
        let (Some(stat), Ok(file), Ok(now)) = (self.stat(), self.file(), self.snapshot()) else { return true };
        if now.len != stat.checksum.len || hasher::of_file(&file).ok() != Some(stat.checksum) {
            return true;
        }
        self.lock().state.set_snapshot(now);
        false
    }

    /// Records that the file will not become a key: it was unlinked, or its writer was killed.
    pub fn discard(&self) {
        self.lock().state.discard();
    }

    /// Records that the publish failed: current and later writers get an error.
    pub fn fail(&self, errno: Errno) {
        let _no_changes = self.changes.write().unwrap_or_else(PoisonError::into_inner);
        self.lock().state.fail(errno);
    }

    /// Why its publish failed, if it did.
    pub fn failed(&self) -> Option<Errno> {
        self.lock().state.failed()
    }

    pub fn has_name(&self) -> bool {
        self.lock().has_name
    }

    /// To be called under the lock of the inode table.
    pub fn lose_name(&self) {
        self.lock().has_name = false;
    }

    pub fn may_upload(&self) -> bool {
        self.lock().state.may_upload()
    }

    /// Keeps a running upload for the close; drops it if no upload is allowed any more.
    pub fn set_upload(&self, upload: EagerUpload) {
        self.lock().state.set_upload(upload);
    }

    /// Takes the running upload. No other upload is started afterwards.
    pub fn take_upload(&self) -> Option<EagerUpload> {
        self.lock().state.take_upload()
    }

    /// True while nothing of the file is published, and a close may publish it.
    pub fn is_unpublished(&self) -> bool {
        self.lock().state.is_unpublished()
    }

    /// True while a close may publish it, also to replace an empty key that was published before.
    pub fn may_publish(&self) -> bool {
        self.lock().state.may_publish()
    }

    /// Records a close that published nothing. `killed`: a signal ended the process that closed.
    pub fn closed_by(&self, killed: bool) {
        self.lock().state.close(killed);
    }

    /// Records that a close returns success before the bytes are published.
    pub fn acknowledge(&self) {
        self.lock().state.acknowledge();
    }

    /// True if the last process that closed it was killed, and no close has promised to publish it.
    pub fn was_killed(&self) -> bool {
        self.lock().state.last_close() == Some(LastClose::Killed)
    }

    /// The file, for one more handle with these flags of open(2). Errors: ESTALE once the spool cannot be opened again.
    pub fn add_handle(&self, flags: i32, writes: bool) -> std::io::Result<Arc<File>> {
        let mut inner = self.lock();
        let file = inner.file()?.clone();
        inner.handles.all += 1;
        inner.handles.writers += u64::from(writes);
        inner.mappable |= flags & libc::O_ACCMODE == libc::O_RDWR;
        Ok(file)
    }

    pub fn handles(&self) -> Handles {
        self.lock().handles
    }

    /// False if no mapping can write to the file: the kernel allows that only to descriptors that also read.
    pub fn is_mappable(&self) -> bool {
        self.lock().mappable
    }

    /// True if a mapping may still write to the file while it is open.
    pub fn is_shared(&self) -> bool {
        let inner = self.lock();
        inner.mappable && inner.handles.all > 0
    }

    /// Counts one handle less. Returns the counts of those that are left.
    pub fn remove_handle(&self, writes: bool) -> Handles {
        let mut inner = self.lock();
        inner.handles.all = inner.handles.all.saturating_sub(1);
        inner.handles.writers = inner.handles.writers.saturating_sub(u64::from(writes));
        inner.handles
    }

    /// Releases the file once it is neither open nor waiting to be published. Returns it if another spool may reuse it.
    pub fn end(&self) -> Option<Arc<File>> {
        let mut inner = self.lock();
        let done = inner.handles.all == 0 && !inner.state.is_unpublished();
        let file = if done { inner.file.take() } else { None };
        file.filter(|_| !inner.handed_over)
    }

    /// The attributes that the key is to get.
    pub fn change(&self) -> Change {
        let inner = self.lock();
        let mtime = inner.mtime.map(to_nanoseconds);
        Change { mode: Some(inner.mode & 0o555), mtime, over_empty: false }
    }

    /// What a daemon of this machine needs to link `file`, this spool's or a copy of it.
    pub fn handoff(&self, file: &File, change: Change) -> Result<Handoff> {
        self.lock().handed_over = true;
        let found = file.metadata().map_err(|e| Error::io(self.key(), &e))?;
        Ok(Handoff {
            pid: std::process::id(),
            fd: file.as_raw_fd(),
            device: found.dev(),
            inode: found.ino(),
            len: found.len(),
            checksum: None,
            blocks: None,
            change,
            metadata: Metadata::default(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
