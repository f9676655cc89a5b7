//! Deleting keys, and directories that become empty.

use super::core::Store;
use super::errors::failed;
use super::list::{Selection, is_name};
use super::watches::Leaving;
use nix::errno::Errno;
use nix::unistd::{UnlinkatFlags, unlinkat};
use s4::attribute::Mark;
use s4::checksum::Checksum;
use s4::error::{Error, Result};
use s4::key::{Key, MAX_KEY, Prefix};
use s4::protocol::{Entry, MAX_BUCKETS};
use s4::skew::Load;
use s4::stored::{is_absent, record_at, recorded_at};
use std::fs::File;
use std::io;
use std::path::Path;
use std::thread;
use std::time::Duration;

/// The interval between two signs of life during a sync.
const TICK: Duration = Duration::from_millis(100);

impl Store {
    /// Deletes a key; with `only`, just if it has this checksum. Directories that become empty are removed, unless
    /// `keep_dirs`.
    pub fn remove(&self, key: &Key, keep_dirs: bool, only: Option<Checksum>) -> Result<()> {
        self.misplaced(key)?;
        let path = self.path(key);
        let absent = |why: &str| self.absent(format_args!("{key}: no such key{why}"));
        self.check_there()?;
        // Prevents that another key of this name is made between the check and the deletion.
        let naming = only.map(|_| self.naming.lock(&path));
        if let Some(only) = only {
            match recorded_at(&path) {
                Ok(Some(found)) if found == only => {}
                Err(e) if !is_absent(&e) => return Err(self.unreadable(key, &e)),
                _ => return Err(absent(" with these bytes")),
            }
        }
        let unlinked = self.unlink(&path);
        drop(naming);
        match unlinked {
            Ok(()) => {}
            Err(Errno::EISDIR) => return Err(absent(", it is a directory (rm -r deletes those)")),
            Err(Errno::ENOENT | Errno::ENOTDIR) => return Err(absent("")),
            Err(errno) => return Err(failed(key, errno)),
        }
        if !keep_dirs {
            self.prune(&path);
        }
        self.sync_above(&path).map_err(|e| Error::io(key, &e))
    }

    /// With `--fsync`: syncs the first directory above `path` that is still there, so that what was removed below stays
    /// removed after a power cut.
    pub(in crate::store) fn sync_above(&self, path: &Path) -> io::Result<()> {
        if !self.fsync {
            return Ok(());
        }
        for dir in path.ancestors().skip(1).take_while(|dir| dir.starts_with(&self.root)) {
            match File::open(dir) {
                Ok(dir) => return dir.sync_all(),
                // The name of a directory that was removed may be a key's by now.
                Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// Reports to the watches that the file at `path` is about to lose its name.
    pub(super) fn leaving(&self, path: &Path) -> Leaving<'_> {
        let below = path.strip_prefix(&self.root).ok().and_then(Path::to_str);
        self.watches.leaving(below.and_then(|below| Key::checked(below).ok()))
    }

    /// Deletes a file in the data directory. Follows no link out of it.
    pub(super) fn unlink(&self, path: &Path) -> nix::Result<()> {
        let _leaving = self.leaving(path);
        let (dir, name) = self.data.open_parent(path)?;
        unlinkat(&dir, name, UnlinkatFlags::NoRemoveDir)?;
        self.synced.note_changed();
        Ok(())
    }

    /// Deletes every key that begins with `prefix`, and the empty directories. Returns the number of keys and bytes,
    /// and up to [`MAX_BUCKETS`] of the keys' buckets. Calls `progress` with the keys and bytes so far, and stops if
    /// that returns false.
    pub fn remove_prefix(
        &self,
        prefix: &Prefix,
        mut progress: impl FnMut(Load) -> bool,
    ) -> Result<(Load, Vec<String>)> {
        let (mut deleted, mut buckets) = (Load::default(), Vec::new());
        self.list(&Selection::Files(prefix), &mut |entry| {
            let Entry::Key { path, size, .. } = entry else {
                return Ok(true);
            };
            let file = self.root.join(&path);
            match self.unlink(&file) {
                Ok(()) => {
                    deleted += Load::of_key(size);
                    note_bucket(&mut buckets, &path);
                }
                Err(Errno::ENOENT) => {}
                Err(errno) => return Err(failed(format!("s4://{path}"), errno)),
            }
            self.prune(&file);
            Ok(progress(deleted))
        })?;
        self.remove_empty(prefix.split().0, prefix);
        if self.fsync {
            self.sync_slowly(&mut || _ = progress(deleted)).map_err(|e| Error::io(prefix, &e))?;
        }
        Ok((deleted, buckets))
    }

    /// Syncs the disk, and calls `tick` meanwhile, since it may have much to write, unless it hangs.
    fn sync_slowly(&self, tick: &mut dyn FnMut()) -> io::Result<()> {
        thread::scope(|scope| {
            let waiting = thread::current();
            let syncing = thread::Builder::new().spawn_scoped(scope, move || {
                let synced = self.sync();
                waiting.unpark();
                synced
            })?;
            while !syncing.is_finished() {
                if !self.health.hangs(&self.root) {
                    tick();
                }
                thread::park_timeout(TICK);
            }
            syncing.join().unwrap_or_else(|_| Err(io::Error::other("the sync panicked")))
        })
    }

    /// Removes the directory at `path` and those below it, if they are empty and their paths with a `/` begin with
    /// `prefix`. Also removes those that mkdir made. A directory that cannot be removed has got a key meanwhile.
    fn remove_empty(&self, path: &str, prefix: &Prefix) {
        let dir = self.root.join(path);
        for entry in std::fs::read_dir(&dir).into_iter().flatten().flatten() {
            let name = entry.file_name().into_string().ok().filter(|name| is_name(name, path.is_empty()));
            let (Some(name), true) = (name, entry.file_type().is_ok_and(|kind| kind.is_dir())) else {
                continue;
            };
            let child = if path.is_empty() { name } else { format!("{path}/{name}") };
            if child.len() < MAX_KEY && format!("{child}/").starts_with(prefix.as_str()) {
                self.remove_empty(&child, prefix);
            }
        }
        if !path.is_empty() && format!("{path}/").starts_with(prefix.as_str()) && self.prune_one(path, true) {
            self.prune(&dir);
        }
    }

    /// Deletes the outputs of maps that begin with `prefix` and whose mark `is_ours`, but not those in directories
    /// below. Errors: also an output whose mark cannot be read.
    pub fn remove_marked(&self, prefix: &Prefix, is_ours: impl Fn(Mark) -> bool) -> Result<()> {
        self.list(&Selection::names(prefix), &mut |entry| {
            if let Entry::Key { path, .. } = &entry {
                self.remove_if(&self.root.join(path), path, &is_ours)?;
            }
            Ok(true)
        })
    }

    /// Deletes `key` if it is the output of a map whose mark `is_ours`. Does nothing if it does not exist, or has
    /// another mark.
    pub fn remove_output(&self, key: &Key, is_ours: impl FnOnce(Mark) -> bool) -> Result<()> {
        self.remove_if(&self.path(key), key.as_str(), is_ours)
    }

    fn remove_if(&self, file: &Path, name: &str, is_ours: impl FnOnce(Mark) -> bool) -> Result<()> {
        // Prevents that another key of this name is made between the check and the deletion.
        let naming = self.naming.lock(file);
        let record = match record_at(file) {
            Err(e) if is_absent(&e) => None,
            Err(e) => return Err(self.unreadable(format_args!("s4://{name}"), &e)),
            Ok(record) => record,
        };
        if !record.and_then(|record| record.mark).is_some_and(is_ours) {
            return Ok(());
        }
        let unlinked = self.unlink(file);
        drop(naming);
        match unlinked {
            Ok(()) => self.prune(file),
            Err(Errno::ENOENT) => return Ok(()),
            Err(errno) => return Err(failed(format_args!("s4://{name}"), errno)),
        }
        self.sync_above(file).map_err(|e| Error::io(format_args!("s4://{name}"), &e))
    }
}

/// Adds the bucket of the key at `path`, which comes in the order of paths.
fn note_bucket(buckets: &mut Vec<String>, path: &str) {
    let bucket = path.split('/').next().unwrap_or(path);
    if buckets.len() < MAX_BUCKETS && buckets.last().is_none_or(|last| last != bucket) {
        buckets.push(bucket.to_owned());
    }
}
