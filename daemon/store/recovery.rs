//! Recovery, at the start. After a kill: what the predecessor left running is ended, and its directories are removed. After a power cut:
//! what was made since the disk was last known to have everything is read once, and what is not whole is removed.
//!
//! The names of new files reach a disk before their bytes. A kill of the daemon alone does no harm, since the kernel still has the
//! bytes. So the file `.s4/synced` tells in which mount of which boot the daemon ran, and since when what it made may not have been
//! written. Whoever finds another boot or mount there looks at the keys that changed since; and whoever finds that the disk refused a
//! write, since the kernel may have forgotten the bytes then.

use super::Store;
use super::read::open_itself;
use crate::jobs::process;
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use nix::libc;
use s4::error::reason;
use s4::file::{read_small, replace, write_durably};
use s4::hasher;
use s4::stored;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};
use walkdir::WalkDir;

/// Clocks of files are coarse, and may be set back a little: what is so much older than the last sync is looked at too.
const SLACK: i64 = 10_000_000_000;
/// The same where only the end of the last sync is known, which may have taken long.
const LONG_SLACK: i64 = 3_600_000_000_000;
/// Bytes of `.s4/synced` that are read.
const LONGEST: usize = 4096;
/// Keys that are read at once.
const READERS: usize = 8;
/// Keys that are told one by one in the log.
const TOLD: u64 = 100;

/// What is known of the disk.
#[derive(Default)]
pub(super) struct Synced {
    /// A key was made since the last sync began.
    is_dirty: AtomicBool,
    /// Keys that were not whole at the start.
    lost: AtomicU64,
    /// The disk refused a write since the start.
    has_failed: AtomicBool,
    /// Guards the file, and a sync: what the file tells, once it was read or written.
    record: Mutex<Option<Record>>,
}

impl Synced {
    fn record(&self) -> MutexGuard<'_, Option<Record>> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What `.s4/synced` tells.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Record {
    place: Place,
    /// Nanoseconds since 1970: what was made before is on the disk.
    since: i64,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// A daemon is at it, or was killed.
    Open,
    /// Nothing was made since, and nobody is at it.
    Clean,
    /// The disk refused a write since.
    Failed,
}

impl State {
    const ALL: [(Self, &str); 3] = [(Self::Open, "open"), (Self::Clean, "clean"), (Self::Failed, "failed")];
}

/// Where files last as long as the kernel does.
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

/// What was found among the keys that may not have reached the disk.
#[derive(Default)]
struct Check {
    keys: AtomicU64,
    bytes: AtomicU64,
    lost: AtomicU64,
}

impl Store {
    /// Ends the commands that a killed predecessor left running, and removes their directories. Its unnamed files went with its process.
    pub(super) fn end_previous_run(&self) {
        let tasks = self.tasks_dir();
        let killed = process::kill_tree(&tasks) + process::kill_tree(&self.idle_dirs());
        if killed > 0 {
            tracing::info!("ended {killed} processes of unfinished tasks");
        }
        // What cannot be removed takes space, and does no other harm.
        if let Err(error) = self.data.remove_tree(&tasks) {
            tracing::warn!("cannot remove {}: {error}", tasks.display());
        }
        match std::fs::create_dir(&tasks) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                tracing::warn!("cannot make {}: {error}", tasks.display());
            }
            _ => {}
        }
        self.data.empty_trash();
    }

    /// Keys that a power cut had damaged, and that were taken away at the start.
    pub fn lost_keys(&self) -> u64 {
        self.synced.lost.load(Ordering::Relaxed)
    }

    /// True if the disk refused a write since the start: a sync that succeeds later means nothing for that.
    pub(super) fn has_refused_writes(&self) -> bool {
        self.synced.has_failed.load(Ordering::Relaxed)
    }

    /// To be told after a key got its name.
    pub(super) fn note_made(&self) {
        // Mostly it is set already, and then no processor has to wait for another.
        if !self.synced.is_dirty.load(Ordering::Relaxed) {
            self.synced.is_dirty.store(true, Ordering::Release);
        }
    }

    /// Takes away what a power cut damaged, if there was one. Blocks for as long as it takes to read what was made last.
    pub(super) fn recover(&self) -> io::Result<()> {
        let path = self.synced_path();
        let place = Place::of(&self.root)?;
        let named = |e: io::Error| io::Error::new(e.kind(), format!("{}: {}", path.display(), reason(&e)));
        let record = match read_small(&path, LONGEST) {
            Ok(bytes) => Record::parse(&String::from_utf8_lossy(&bytes)),
            // No key was made yet. File systems keep the order in which names are made: a power cut that loses keys may damage this
            // file, and does not take its name away.
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                let first = Record { place, since: now(), state: State::Open };
                replace(&path, first.line().as_bytes(), false).map_err(named)?;
                *self.synced.record() = Some(first);
                return Ok(());
            }
            Err(e) => return Err(named(e)),
        };
        match record {
            Some(record) if record.state == State::Open && record.place == place => {
                // Killed, or ended a moment ago: the kernel has it all still.
                self.note_made();
                *self.synced.record() = Some(record);
                return Ok(());
            }
            Some(record) if record.state == State::Clean => {
                return self
                    .write_record(&mut self.synced.record(), Record { place, since: now(), state: State::Open });
            }
            Some(record) => {
                self.forget_dirs()?;
                self.check_since(record.since.saturating_sub(SLACK))?;
            }
            None => {
                self.forget_dirs()?;
                // It was written after the last sync, which began not long before. An older key was on the disk by then, and what
                // is wrong with it is for its reader to hear.
                let written = changed_at(&std::fs::symlink_metadata(&path)?).min(now());
                tracing::warn!(
                    "{} is damaged: the keys that changed since shortly before it was written are read",
                    path.display()
                );
                self.check_since(written.saturating_sub(LONG_SLACK))?;
            }
        }
        self.sync_now(place)
    }

    /// Sees to it that all keys are on the disk, if there are new ones. Blocks.
    pub fn sync(&self) -> io::Result<()> {
        match self.synced.is_dirty.swap(false, Ordering::Acquire) {
            true => Place::of(&self.root).and_then(|place| self.sync_now(place)).inspect_err(|_| self.note_made()),
            false => Ok(()),
        }
    }

    /// The orderly end, by the last who has the store: the next start has nothing to look at, unless something was made a moment ago.
    pub fn end(self) -> io::Result<()> {
        let settled = self.note_settled();
        let mut known = self.synced.record();
        let last = match &*known {
            // The disk may have refused this too.
            Some(failed) if failed.state == State::Failed => failed.clone(),
            Some(_) if !self.synced.is_dirty.load(Ordering::Acquire) => {
                Record { place: Place::of(&self.root)?, since: now(), state: State::Clean }
            }
            _ => return settled,
        };
        self.write_record(&mut known, last).and(settled)
    }

    fn sync_now(&self, place: Place) -> io::Result<()> {
        let mut known = self.synced.record();
        let since = now();
        let synced = self.data.sync();
        // The kernel reports it once, and does not write the bytes again: that a later sync succeeds means nothing for them.
        let failed = known.as_ref().filter(|record| synced.is_err() || record.state == State::Failed);
        let record = match (failed, &synced) {
            (Some(before), _) => Record { place, since: before.since, state: State::Failed },
            (None, Ok(())) => Record { place, since, state: State::Open },
            // Nothing is known of what was before, and the file still says so.
            (None, Err(_)) => return synced,
        };
        self.write_record(&mut known, record)?;
        synced
    }

    fn write_record(&self, known: &mut Option<Record>, record: Record) -> io::Result<()> {
        let line = record.line();
        self.synced.has_failed.store(record.state == State::Failed, Ordering::Relaxed);
        *known = Some(record);
        write_durably(&self.synced_path(), line.as_bytes())
    }

    fn synced_path(&self) -> PathBuf {
        self.root.join(".s4/synced")
    }

    /// Reads every key that changed at `since` or later, in nanoseconds since 1970, and takes away those that are not whole.
    fn check_since(&self, since: i64) -> io::Result<()> {
        let (began, check) = (Instant::now(), Check::default());
        tracing::info!("the machine or its disk went down, or refused a write: the keys that were made last are read");
        let (sender, receiver) = sync_channel(1024);
        let receiver = Mutex::new(receiver);
        let dirs = std::thread::scope(|scope| {
            let readers = (0..READERS)
                .map(|_| std::thread::Builder::new().spawn_scoped(scope, || self.check_all(&receiver, &check)));
            let readers = readers.collect::<io::Result<Vec<_>>>()?;
            let dirs = changed_since(&self.root, since, &mut |file| {
                // Who receives ends only after this.
                let _ = sender.send(file);
            });
            drop(sender);
            drop(readers);
            dirs
        })?;
        // What is below comes after.
        dirs.iter().rev().for_each(|dir| self.prune(&dir.join("any")));
        let [keys, bytes, lost] = [&check.keys, &check.bytes, &check.lost].map(|count| count.load(Ordering::Relaxed));
        tracing::info!("{keys} keys of {} MiB are read in {:.1} s", bytes >> 20, began.elapsed().as_secs_f64());
        if lost > 0 {
            tracing::warn!("{lost} keys that were not whole are taken away; a job's are made again with --resume");
        }
        self.synced.lost.store(lost, Ordering::Relaxed);
        Ok(())
    }

    fn check_all(&self, files: &Mutex<Receiver<PathBuf>>, check: &Check) {
        loop {
            let next = files.lock().unwrap_or_else(PoisonError::into_inner).recv();
            let Ok(path) = next else { return };
            let name = path.strip_prefix(&self.root).unwrap_or(&path).display();
            match is_whole(&path) {
                Ok(Some(len)) => {
                    check.keys.fetch_add(1, Ordering::Relaxed);
                    check.bytes.fetch_add(len, Ordering::Relaxed);
                }
                Ok(None) => {
                    if let Err(error) = std::fs::remove_file(&path) {
                        tracing::warn!("s4://{name}: not whole, and it cannot be taken away: {error}");
                        continue;
                    }
                    if check.lost.fetch_add(1, Ordering::Relaxed) < TOLD {
                        tracing::warn!("s4://{name}: not whole, taken away");
                    }
                }
                Err(error) => tracing::warn!("s4://{name}: left alone: {error}"),
            }
        }
    }
}

/// How many bytes a key has; `None` if they are not those that were recorded. Errors: it is no key, or cannot be read.
fn is_whole(path: &Path) -> io::Result<Option<u64>> {
    let file = open_itself(path)?;
    // What the disk refused to take may still be in memory.
    posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED)?;
    let recorded = stored::recorded(&file)?.ok_or_else(|| io::Error::other("no checksum is recorded"))?;
    if file.metadata()?.len() != recorded.len {
        return Ok(None);
    }
    Ok((hasher::of_file(&file)? == recorded).then_some(recorded.len))
}

/// Hands out every file that got its name or its attributes at `since` or later, and returns the directories that did. To look
/// into a directory that did not is not needed: its time is that of the last name in it.
fn changed_since(root: &Path, since: i64, take: &mut dyn FnMut(PathBuf)) -> io::Result<Vec<PathBuf>> {
    let changed = |found: &std::fs::Metadata| changed_at(found) >= since;
    let mut dirs = Vec::new();
    // Whether each directory above the entry changed.
    let mut above = Vec::new();
    let walk = WalkDir::new(root).min_depth(1).same_file_system(true);
    for entry in walk.into_iter().filter_entry(|entry| entry.depth() > 1 || entry.file_name() != ".s4") {
        let entry = match entry {
            Ok(entry) => entry,
            Err(error) => {
                tracing::warn!("not looked at: {error}");
                continue;
            }
        };
        above.truncate(entry.depth() - 1);
        if entry.file_type().is_dir() {
            let is_new = entry.metadata().map_err(io::Error::from).is_ok_and(|found| changed(&found));
            above.push(is_new);
            if is_new {
                dirs.push(entry.into_path());
            }
        } else if entry.file_type().is_file()
            && above.last().is_some_and(|&is_new| is_new)
            && entry.metadata().is_ok_and(|found| changed(&found))
        {
            take(entry.into_path());
        }
    }
    Ok(dirs)
}

/// When a file got its name or its attributes, in nanoseconds since 1970. When it was made would be too early: a file for a small
/// key may be made long before its bytes are there.
fn changed_at(found: &std::fs::Metadata) -> i64 {
    found.ctime().saturating_mul(1_000_000_000).saturating_add(found.ctime_nsec())
}

fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as i64)
}

/// The mount that `path` is in, by a number that no other has or had since the boot.
fn mount_id(path: &Path) -> io::Result<u64> {
    /// Of Linux 6.8 and later. Before, the number may be given again after an unmount.
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
