//! Recovery, at the start. After a kill: what the predecessor left running is ended, and its directories are removed. After a power cut:
//! what was made since the disk was last known to have everything, of which [`synced`] knows, is read once, and what is not whole is
//! removed.

use super::core::Store;
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

/// Keys that are read at once.
const READERS: usize = 8;
/// Keys that are told one by one in the log.
const TOLD: u64 = 100;

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
        self.synced.lost()
    }

    /// Takes away what a power cut damaged, if there was one. Blocks for as long as it takes to read what was made last.
    pub(super) fn recover(&self) -> io::Result<()> {
        let Some(since) = self.synced.begin()? else { return Ok(()) };
        self.forget_dirs()?;
        self.check_since(since)?;
        self.synced.sync_now()
    }

    /// Sees to it that all keys are on the disk, if there are new ones. Blocks.
    pub fn sync(&self) -> io::Result<()> {
        self.synced.sync()
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
    let changed = |found: &std::fs::Metadata| synced::changed_at(found) >= since;
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
