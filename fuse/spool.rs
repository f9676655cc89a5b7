//! A file that is being written: an unnamed local file until its publishing close.

use crate::ahead::Ahead;
use crate::proc::since_boot;
use nix::errno::Errno;
use nix::libc;
use s4::checksum;
use s4::error::{Error, Result};
use s4::key::Key;
use s4::protocol::{Adoption, Change, KeyStat};
use s4::reserve::Reserve;
use s4::time::{from_nanoseconds, to_nanoseconds};
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};
use std::time::{Duration, SystemTime};

pub struct Spool {
    /// Where the file was made.
    pub dir: PathBuf,
    state: Mutex<State>,
    /// Held while its bytes are changed. What that is refused with, once they are being published.
    refusal: RwLock<Option<Errno>>,
    /// The space that the file has ahead of its end.
    reserve: Mutex<Reserve>,
    /// Tells that nobody writes to it any more.
    pub settled: tokio::sync::Notify,
    /// Held while the file is published, so that a second close waits for the first one's outcome.
    pub publishing: tokio::sync::Mutex<()>,
}

/// Guards what changes besides the bytes.
struct State {
    /// `None` once it is closed for good: the kernel may know of the spool for long, and the file may be another's by then.
    file: Option<Arc<File>>,
    key: Key,
    /// When it was made: the file may be older.
    born: SystemTime,
    /// The same, by a clock that nobody sets.
    made: Duration,
    mode: u32,
    /// As set by the user; without it, the time of the last write counts.
    mtime: Option<SystemTime>,
    published: Option<Published>,
    /// Unlinked, or its publish failed: never to be published.
    discarded: bool,
    /// Why its publish failed.
    failed: Option<Errno>,
    /// The last close was that of a killed process.
    killed: bool,
    /// A close was told that all went well, though what was written is still to be published.
    owed: bool,
    /// Open handles, and those of them that may write.
    handles: u64,
    writers: u64,
    /// One was opened so that the file may be written to in memory.
    mappable: bool,
    /// It is gone, or a key of its name is there now.
    nameless: bool,
    /// Sends what is written before the close.
    ahead: Option<Ahead>,
    /// A daemon may still link the file.
    offered: bool,
    /// What was written may be another now, so that nothing is sent before the close.
    stay: bool,
}

/// What was published of a file. Of an empty one, more may follow.
struct Published {
    /// Length and time of the last write at that time.
    snapshot: (u64, SystemTime),
    stat: KeyStat,
}

impl State {
    fn is_whole(&self) -> bool {
        self.published.as_ref().is_some_and(|published| published.stat.checksum.len > 0)
    }

    fn stay(&mut self) {
        self.stay = true;
        self.ahead = None;
    }

    fn file(&self) -> std::io::Result<&Arc<File>> {
        self.file.as_ref().ok_or_else(|| std::io::Error::from_raw_os_error(libc::ESTALE))
    }
}

impl Spool {
    /// Of an unnamed file, made in `dir`, that is to become `key`.
    pub fn new(file: Arc<File>, dir: PathBuf, key: Key, mode: u32) -> Self {
        let state = State {
            file: Some(file),
            key,
            born: SystemTime::now(),
            made: since_boot(),
            mode,
            mtime: None,
            published: None,
            discarded: false,
            failed: None,
            killed: false,
            owed: false,
            handles: 0,
            writers: 0,
            mappable: false,
            nameless: false,
            offered: false,
            ahead: None,
            stay: false,
        };
        Self {
            dir,
            state: Mutex::new(state),
            refusal: RwLock::default(),
            reserve: Mutex::default(),
            settled: tokio::sync::Notify::default(),
            publishing: tokio::sync::Mutex::default(),
        }
    }

    /// Of an unnamed file by which the empty key may be written once more.
    pub fn over_empty(file: Arc<File>, dir: PathBuf, key: Key, stat: KeyStat) -> Self {
        let spool = Self::new(file, dir, key, stat.mode);
        let mut state = spool.lock();
        state.published = Some(Published { snapshot: (0, state.born), stat });
        drop(state);
        spool
    }

    /// Errors: ESTALE once it is closed for good.
    pub fn file(&self) -> std::io::Result<Arc<File>> {
        self.lock().file().cloned()
    }

    /// How long ago it was made.
    pub fn age(&self) -> Duration {
        since_boot().saturating_sub(self.lock().made)
    }

    pub fn key(&self) -> Key {
        self.lock().key.clone()
    }

    pub fn set_key(&self, key: Key) {
        let mut state = self.lock();
        state.key = key;
        state.stay();
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
    pub fn look(&self) -> std::io::Result<(u64, u64, SystemTime)> {
        let state = self.lock();
        if let Some(published) = state.published.as_ref().filter(|_| state.is_whole() || state.file.is_none()) {
            let len = published.stat.checksum.len;
            return Ok((len, len.div_ceil(512), from_nanoseconds(published.stat.mtime)));
        }
        let found = state.file()?.metadata()?;
        // What it has ahead is nobody's concern.
        let blocks = found.blocks().min(found.len().div_ceil(found.blksize().max(1)) * (found.blksize() / 512));
        Ok((found.len(), blocks, state.mtime.unwrap_or(found.modified()?.max(state.born))))
    }

    pub fn len(&self) -> std::io::Result<u64> {
        self.file()?.metadata().map(|found| found.len())
    }

    /// To be held by who changes the bytes. Refused once they are being published.
    pub fn changing(&self) -> std::io::Result<RwLockReadGuard<'_, Option<Errno>>> {
        let refusal = self.refusal.read().unwrap_or_else(PoisonError::into_inner);
        match *refusal {
            Some(errno) => Err(errno.into()),
            None => Ok(refusal),
        }
    }

    /// How the file looks, from now on if it has bytes: none are taken any more. More may follow an empty key.
    pub fn seal(&self) -> std::io::Result<(u64, SystemTime)> {
        let mut refusal = self.refusal.write().unwrap_or_else(PoisonError::into_inner);
        let snapshot = self.snapshot()?;
        if snapshot.0 > 0 {
            refusal.get_or_insert(Errno::EPERM);
        }
        Ok(snapshot)
    }

    pub fn write(&self, offset: u64, bytes: &[u8]) -> std::io::Result<()> {
        let _changing = self.changing()?;
        let mut state = self.lock();
        state.mtime = None;
        let file = state.file()?.clone();
        drop(state);
        file.write_all_at(bytes, offset)
    }

    pub fn truncate(&self, len: u64) -> std::io::Result<()> {
        // Space that is just being made may lie behind the new end.
        let _reserve = self.reserve();
        let _changing = self.changing()?;
        let mut state = self.lock();
        state.stay();
        state.file()?.set_len(len)
    }

    /// True once its bytes are a key's, to which none can be added.
    pub fn is_whole(&self) -> bool {
        self.lock().is_whole()
    }

    /// The key that was published of it, which may be empty.
    pub fn published(&self) -> Option<KeyStat> {
        self.lock().published.as_ref().map(|published| published.stat.clone())
    }

    /// The key has other attributes now.
    pub fn set_stat(&self, change: Change) {
        if let Some(published) = &mut self.lock().published {
            published.stat.mode = change.mode.unwrap_or(published.stat.mode);
            published.stat.mtime = change.mtime.unwrap_or(published.stat.mtime);
        }
    }

    /// How the file looks now, for [`Spool::set_published`].
    pub fn snapshot(&self) -> std::io::Result<(u64, SystemTime)> {
        let found = self.file()?.metadata()?;
        Ok((found.len(), found.modified()?))
    }

    /// The bytes are a key's now, as the file was at `snapshot`.
    pub fn set_published(&self, snapshot: (u64, SystemTime), stat: KeyStat) {
        let mut state = self.lock();
        state.published = Some(Published { snapshot, stat });
        state.owed = false;
    }

    /// True if the file does not look as it did when it was published.
    pub fn has_changed(&self) -> bool {
        let state = self.lock();
        let then = state.published.as_ref().filter(|_| state.is_whole()).map(|published| published.snapshot);
        drop(state);
        then.is_some_and(|then| self.snapshot().map_or(true, |now| now != then))
    }

    /// True if other bytes are in the file than were published, by one whom the kernel let through. They are in no key. A key of this
    /// machine may be the file itself, which then looks different once the key has another time. Blocks.
    pub fn was_written_late(&self) -> bool {
        let (Some(stat), Ok(file), Ok(now)) = (self.published(), self.file(), self.snapshot()) else { return true };
        if now.0 != stat.checksum.len || checksum::of_file(&file).ok() != Some(stat.checksum) {
            return true;
        }
        if let Some(published) = &mut self.lock().published {
            published.snapshot = now;
        }
        false
    }

    pub fn discard(&self) {
        let mut state = self.lock();
        state.discarded = true;
        state.stay();
    }

    /// It will be no key: whoever wrote to it or does is told.
    pub fn fail(&self, errno: Errno) {
        *self.refusal.write().unwrap_or_else(PoisonError::into_inner) = Some(Errno::EIO);
        self.lock().failed = Some(errno);
        self.discard();
    }

    /// Why its publish failed, if it did.
    pub fn failed(&self) -> Option<Errno> {
        self.lock().failed
    }

    pub fn has_name(&self) -> bool {
        !self.lock().nameless
    }

    /// To be called by who knows the names.
    pub fn lose_name(&self) {
        self.lock().nameless = true;
    }

    /// True if the file may be expected to go on as it began: nobody has cut, allocated, renamed or published it.
    pub fn may_go_ahead(&self) -> bool {
        let state = self.lock();
        !state.stay && state.published.is_none()
    }

    /// Sees to space for what is still to be written, unless another does. Blocks.
    pub fn make_room(&self) {
        let Ok(mut reserve) = self.reserve.try_lock() else { return };
        if self.may_go_ahead()
            && let Ok(file) = self.file()
            && let Ok(found) = file.metadata()
        {
            reserve.look_for_holes(&file, found.len());
        }
    }

    /// Makes no more. Blocks while some is made.
    pub fn stop_room(&self) {
        self.reserve().stop();
    }

    /// Gives back the space that was not needed. Nobody may write to the file meanwhile. Blocks.
    pub fn end_room(&self) {
        if let Ok(file) = self.file() {
            self.reserve().end(&file);
        }
    }

    /// Hands over who sends it, for the close.
    pub fn set_ahead(&self, ahead: Ahead) {
        let mut state = self.lock();
        state.ahead = (!state.stay).then_some(ahead);
    }

    /// Who sends it; nobody begins to any more.
    pub fn take_ahead(&self) -> Option<Ahead> {
        let mut state = self.lock();
        let ahead = state.ahead.take();
        state.stay();
        ahead
    }

    /// True while nothing of the file is published, and a close may do so.
    pub fn is_pending(&self) -> bool {
        let state = self.lock();
        state.published.is_none() && !state.discarded
    }

    /// True while a close may publish what is written: also instead of an empty key that it has published before.
    pub fn is_open_ended(&self) -> bool {
        let state = self.lock();
        !state.is_whole() && !state.discarded
    }

    pub fn set_killed(&self, killed: bool) {
        self.lock().killed = killed;
    }

    pub fn was_killed(&self) -> bool {
        self.lock().killed
    }

    pub fn owe(&self) {
        self.lock().owed = true;
    }

    pub fn is_owed(&self) -> bool {
        self.lock().owed
    }

    /// The file, for one more handle with these flags of open(2). Errors: ESTALE once it is closed for good.
    pub fn opened(&self, flags: i32, writes: bool) -> std::io::Result<Arc<File>> {
        let mut state = self.lock();
        let file = state.file()?.clone();
        state.handles += 1;
        state.writers += u64::from(writes);
        state.mappable |= flags & libc::O_ACCMODE == libc::O_RDWR;
        Ok(file)
    }

    /// How many handles are open, and how many of them may write.
    pub fn handles(&self) -> (u64, u64) {
        let state = self.lock();
        (state.handles, state.writers)
    }

    /// False if nobody can write to the file by a mapping: the kernel allows that only to those who also read it.
    pub fn is_mappable(&self) -> bool {
        self.lock().mappable
    }

    /// True if one who has it open for reading could see what is still stored by a mapping.
    pub fn is_shared(&self) -> bool {
        let state = self.lock();
        state.mappable && state.handles > 0
    }

    /// One handle is closed. Returns how many are left, and how many of them may write.
    pub fn closed(&self, writes: bool) -> (u64, u64) {
        let mut state = self.lock();
        state.handles = state.handles.saturating_sub(1);
        state.writers = state.writers.saturating_sub(u64::from(writes));
        (state.handles, state.writers)
    }

    /// Lets go of the file, once all is done with it. Returns it if it may serve another.
    pub fn end(&self) -> Option<Arc<File>> {
        let mut state = self.lock();
        let done = state.handles == 0 && (state.published.is_some() || state.discarded);
        let file = if done { state.file.take() } else { None };
        file.filter(|_| !state.offered)
    }

    /// The attributes that the key is to have.
    pub fn change(&self) -> Change {
        let state = self.lock();
        let mtime = state.mtime.map(to_nanoseconds);
        Change { mode: Some(state.mode & 0o555), mtime, over_empty: false }
    }

    /// What a daemon of this machine needs to link `file`, this spool's or a copy of it.
    pub fn adoption(&self, file: &File, change: Change) -> Result<Adoption> {
        self.lock().offered = true;
        let found = file.metadata().map_err(|e| Error::io(self.key(), &e))?;
        Ok(Adoption {
            pid: std::process::id(),
            fd: file.as_raw_fd(),
            device: found.dev(),
            inode: found.ino(),
            len: found.len(),
            checksum: None,
            blocks: None,
            change,
        })
    }

    fn reserve(&self) -> MutexGuard<'_, Reserve> {
        self.reserve.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
