//! Recovery, at the start. After a kill, processes of the previous run are ended and their directories are removed.
//! After a power cut, the keys made since the last sync are read once, and those that are not whole are removed;
//! [`synced`] knows when that was.

use super::core::Store;
use super::marking::make_read_only;
use super::read::open_itself;
use super::synced;
use crate::jobs::process;
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use s4::{hasher, stored};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;
use walkdir::WalkDir;

/// Threads that read keys.
const READERS: usize = 8;
/// Removed keys that are logged one by one.
const LOGGED: u64 = 100;

/// Counts of the keys that were read, and of those that were removed.
#[derive(Default)]
struct Check {
    keys: AtomicU64,
    bytes: AtomicU64,
    lost: AtomicU64,
}

impl Store {
    /// Ends the commands of a killed previous run, and removes their directories. Its unnamed files were freed with its
    /// process.
    pub(super) fn end_previous_run(&self) {
        let tasks = self.tasks_dir();
        let killed = process::kill_tree(&tasks) + process::kill_tree(&self.idle_dirs());
        if killed > 0 {
            tracing::info!("ended {killed} processes of unfinished tasks");
        }
        // A directory that cannot be removed only takes space.
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

    /// Number of keys that a power cut had damaged, and that were removed at the start.
    pub fn lost_keys(&self) -> u64 {
        self.synced.lost()
    }

    /// Removes keys that a power cut damaged, if there was one. Blocks until the keys made last are read.
    pub(super) fn recover(&self) -> io::Result<()> {
        let Some(since) = self.synced.begin()? else { return Ok(()) };
        self.doubt_dirs()?;
        self.check_since(since)?;
        self.synced.sync_now()
    }

    /// Syncs the disk, if keys were made or deleted. Blocks.
    pub fn sync(&self) -> io::Result<()> {
        self.synced.sync()
    }

    /// Reads every key that changed at `since` (nanoseconds since 1970) or later, and removes those that are not whole.
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
                // The readers live until the sender is dropped, so this cannot fail.
                let _ = sender.send(file);
            });
            drop(sender);
            drop(readers);
            dirs
        })?;
        // In reverse, so that directories come before their parents.
        dirs.iter().rev().for_each(|dir| self.prune(&dir.join("any")));
        let [keys, bytes, lost] = [&check.keys, &check.bytes, &check.lost].map(|count| count.load(Ordering::Relaxed));
        tracing::info!("{keys} keys of {} MiB are read in {:.1} s", bytes >> 20, began.elapsed().as_secs_f64());
        if lost > 0 {
            tracing::warn!("{lost} keys that were not whole are taken away; a job's are made again with --resume");
        }
        self.synced.note_lost(lost);
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
                    if check.lost.fetch_add(1, Ordering::Relaxed) < LOGGED {
                        tracing::warn!("s4://{name}: not whole, taken away");
                    }
                }
                Err(error) => tracing::warn!("s4://{name}: left alone: {error}"),
            }
        }
    }
}

/// The length of a key; `None` if its bytes differ from its record. Errors: it is no key, or cannot be read.
fn is_whole(path: &Path) -> io::Result<Option<u64>> {
    let file = open_itself(path)?;
    // The page cache may still have bytes that the disk refused.
    posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED)?;
    let recorded = stored::recorded(&file)?.ok_or_else(|| io::Error::other("no checksum is recorded"))?;
    if file.metadata()?.len() != recorded.len {
        return Ok(None);
    }
    make_read_only(&file)?;
    Ok((hasher::of_file(&file)? == recorded).then_some(recorded.len))
}

/// Calls `take` with every file whose name or attributes changed at `since` or later, and returns the directories that
/// changed. Files in a directory that did not change are skipped: a new name in it would have changed it.
fn changed_since(root: &Path, since: i64, take: &mut dyn FnMut(PathBuf)) -> io::Result<Vec<PathBuf>> {
    let changed = |found: &std::fs::Metadata| synced::changed_at(found) >= since;
    let mut dirs = Vec::new();
    // For each directory above the entry, whether it changed.
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
