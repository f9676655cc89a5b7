//! What is known to be on the disk, and the file `.s4/synced`, which records it for the next start.
//!
//! The names of new files reach a disk before their bytes. A kill of the daemon loses nothing, since the kernel still
//! has the bytes. A power cut may. So the file records the boot and the mount in which the daemon ran, and the time of
//! the last sync. If the next start finds another boot or mount, the keys that changed since that time are read. The
//! same if the disk refused a write: the kernel may have dropped the bytes.

use super::data_dir::DataDir;
use nix::libc;
use s4::error::reason;
use s4::file::{read_small, replace, write_durably};
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

/// Margin before the last sync, in nanoseconds: timestamps of files are coarse, and clocks may be set back a little.
const SLACK: i64 = 10_000_000_000;
/// The margin where only the end of the last sync is known; the sync may have taken long.
const LONG_SLACK: i64 = 3_600_000_000_000;
/// Bytes of `.s4/synced` that are read.
const LONGEST: usize = 4096;

/// The knowledge about what is on the disk.
pub(super) struct Synced {
    /// The data directory.
    root: PathBuf,
    /// `.s4/synced` in it.
    path: PathBuf,
    data: Arc<DataDir>,
    /// A key was made or deleted since the last sync began.
    is_dirty: AtomicBool,
    /// Keys that were not whole at the start.
    lost: AtomicU64,
    /// The disk refused a write since the start.
    has_failed: AtomicBool,
    /// The content of the file; `None` before it was read or written. Locked during a sync and a write of the file.
    record: Mutex<Option<Record>>,
    /// Held during a sync: one that finds nothing new has waited for the one before.
    turn: Mutex<()>,
}

/// The content of `.s4/synced`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Record {
    place: Place,
    /// Nanoseconds since 1970. Keys made before are on the disk.
    since: i64,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// A daemon runs, or was killed.
    Open,
    /// The daemon has ended, and nothing was made since.
    Clean,
    /// The disk has refused a write since.
    Failed,
}

impl State {
    const ALL: [(Self, &str); 3] = [(Self::Open, "open"), (Self::Clean, "clean"), (Self::Failed, "failed")];
}

/// A mount of a boot: bytes in the page cache survive a kill of the daemon only within it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    boot: String,
    mount: u64,
}

impl Place {
    fn of(root: &Path) -> io::Result<Self> {
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned();
        Ok(Self { boot, mount: mount_id(root)? })
    }
}

impl Record {
    fn parse(text: &str) -> Option<Self> {
        let mut fields = text.strip_suffix('\n')?.split(' ');
        let (boot, mount) = (fields.next()?.to_owned(), fields.next()?.parse().ok()?);
        let (since, name) = (fields.next()?.parse().ok()?, fields.next()?);
        let (state, _) = State::ALL.into_iter().find(|(_, known)| *known == name)?;
        fields.next().is_none().then_some(Self { place: Place { boot, mount }, since, state })
    }

    fn line(&self) -> String {
        let Self { place: Place { boot, mount }, since, state } = self;
        let name =
            State::ALL.into_iter().find_map(|(known, name)| (known == *state).then_some(name)).unwrap_or_default();
        format!("{boot} {mount} {since} {name}\n")
    }
}

impl Synced {
    /// Of the data directory `root`.
    pub fn new(root: &Path, data: Arc<DataDir>) -> Self {
        Self {
            root: root.to_owned(),
            path: root.join(".s4/synced"),
            data,
            is_dirty: AtomicBool::new(false),
            lost: AtomicU64::new(0),
            has_failed: AtomicBool::new(false),
            record: Mutex::new(None),
            turn: Mutex::default(),
        }
    }

    fn record(&self) -> MutexGuard<'_, Option<Record>> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keys that were not whole at the start.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    pub fn note_lost(&self, keys: u64) {
        self.lost.store(keys, Ordering::Relaxed);
    }

    /// True if the disk refused a write since the start: a sync that succeeds later means nothing for that.
    pub fn has_refused_writes(&self) -> bool {
        self.has_failed.load(Ordering::Relaxed)
    }

    /// Must be called after a key got or lost its name.
    pub fn note_changed(&self) {
        // Usually it is set already. Reading first avoids contention for the cache line.
        if !self.is_dirty.load(Ordering::Relaxed) {
            self.is_dirty.store(true, Ordering::Release);
        }
    }

    /// At the start: reads the record of the last run. Returns a time in nanoseconds since 1970: keys made later may
    /// not be on the disk. After those are checked, [`sync_now`](Self::sync_now) must be called. `None` if all keys are
    /// safe.
    pub fn begin(&self) -> io::Result<Option<i64>> {
        let place = Place::of(&self.root)?;
        let named = |e: io::Error| io::Error::new(e.kind(), format!("{}: {}", self.path.display(), reason(&e)));
        let record = match read_small(&self.path, LONGEST) {
            Ok(bytes) => Record::parse(&String::from_utf8_lossy(&bytes)),
            // No key was made yet. File systems keep the order in which names are made: a power cut that loses keys may
            // damage this file, but does not remove its name.
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                let first = Record { place, since: now(), state: State::Open };
                replace(&self.path, first.line().as_bytes(), false).map_err(named)?;
                *self.record() = Some(first);
                return Ok(None);
            }
            Err(e) => return Err(named(e)),
        };
        match record {
            Some(record) if record.state == State::Open && record.place == place => {
                // Killed, or ended just after a key was made: the kernel still has all bytes.
                self.note_changed();
                *self.record() = Some(record);
                Ok(None)
            }
            Some(record) if record.state == State::Clean => {
                self.write(&mut self.record(), Record { place, since: now(), state: State::Open }).map(|()| None)
            }
            Some(record) => Ok(Some(record.since.saturating_sub(SLACK))),
            None => {
                // The file was written just after the last sync. Keys older than that sync were on the disk then; if
                // one of them is damaged, its reader notices.
                let written = changed_at(&std::fs::symlink_metadata(&self.path)?).min(now());
                tracing::warn!(
                    "{} is damaged: the keys that changed since shortly before it was written are read",
                    self.path.display()
                );
                Ok(Some(written.saturating_sub(LONG_SLACK)))
            }
        }
    }

    /// Syncs the disk, if keys were made or deleted. Blocks.
    pub fn sync(&self) -> io::Result<()> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        match self.is_dirty.swap(false, Ordering::Acquire) {
            true => self.sync_now().inspect_err(|_| self.note_changed()),
            false => Ok(()),
        }
    }

    pub fn sync_now(&self) -> io::Result<()> {
        let place = Place::of(&self.root)?;
        let mut known = self.record();
        let since = now();
        let synced = self.data.sync();
        // The kernel reports a failed write once and does not repeat it, so the success of a later sync means nothing
        // for those bytes.
        let failed = known.as_ref().filter(|record| synced.is_err() || record.state == State::Failed);
        let record = match (failed, &synced) {
            (Some(before), _) => Record { place, since: before.since, state: State::Failed },
            (None, Ok(())) => Record { place, since, state: State::Open },
            // Nothing is known of earlier keys; the file is left as it is.
            (None, Err(_)) => return synced,
        };
        self.write(&mut known, record)?;
        synced
    }

    /// The orderly end: records that the next start has nothing to check, unless a key was made since the last sync.
    pub fn end(&self) -> io::Result<()> {
        let mut known = self.record();
        let last = match &*known {
            // A failure stays recorded.
            Some(failed) if failed.state == State::Failed => failed.clone(),
            Some(_) if !self.is_dirty.load(Ordering::Acquire) => {
                Record { place: Place::of(&self.root)?, since: now(), state: State::Clean }
            }
            _ => return Ok(()),
        };
        self.write(&mut known, last)
    }

    fn write(&self, known: &mut Option<Record>, record: Record) -> io::Result<()> {
        let line = record.line();
        self.has_failed.store(record.state == State::Failed, Ordering::Relaxed);
        *known = Some(record);
        write_durably(&self.path, line.as_bytes())
    }
}

/// When a file got its name or its attributes (ctime), in nanoseconds since 1970. Its creation would be too early: a
/// file for a small key may be created long before it is written.
pub(super) fn changed_at(found: &std::fs::Metadata) -> i64 {
    found.ctime().saturating_mul(1_000_000_000).saturating_add(found.ctime_nsec())
}

fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as i64)
}

/// The id of the mount that holds `path`, unique since the boot.
fn mount_id(path: &Path) -> io::Result<u64> {
    /// STATX_MNT_ID_UNIQUE, since Linux 6.8. On older kernels an id may be reused after an unmount.
    const UNIQUE: u32 = 0x4000;
    let dir = File::open(path)?;
    // SAFETY: all zeros is a valid value of this struct of integers.
    let mut found: libc::statx = unsafe { std::mem::zeroed() };
    let mask = UNIQUE | libc::STATX_MNT_ID;
    // SAFETY: the descriptor is open, the path is empty and ends in a NUL, and the kernel writes one statx.
    let done = unsafe { libc::statx(dir.as_raw_fd(), c"".as_ptr(), libc::AT_EMPTY_PATH, mask, &mut found) };
    match done {
        0 => Ok(found.stx_mnt_id),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_as_written_and_a_torn_one_is_none() {
        let place = Place { boot: "5f0c-1".to_owned(), mount: 7 };
        for (state, _) in State::ALL {
            let record = Record { place: place.clone(), since: 12, state };
            let line = record.line();
            assert_eq!(Record::parse(&line), Some(record));
            for end in 0..line.len() {
                assert_eq!(Record::parse(&line[..end]), None, "{end} bytes of it");
            }
        }
    }
}
