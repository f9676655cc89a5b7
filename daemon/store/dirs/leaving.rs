//! Copies that nothing is in any more: they go, and what their homes are to be told of them is noted.

use super::copies::is_empty;
use super::table::SETTLED;
use crate::store::core::Store;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use s4::directory::DirRecord;
use s4::error::Result;
use s4::key::{Dir, MAX_KEY};
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::atomic::Ordering;

impl Store {
    /// At a holder of `dir`: removes the copy if nothing is in it. True if it is still held. Asked by its home.
    pub fn let_go(&self, dir: &Dir) -> Result<bool> {
        self.check_there()?;
        if self.home_of(dir.as_str()) == self.node || self.dirs.lock().entering.contains_key(dir.as_str()) {
            return Ok(true);
        }
        Ok(!self.remove_copies(dir.as_str()))
    }

    /// Removes this node's empty copies of `path` and of what is below. False if something is left.
    fn remove_copies(&self, path: &str) -> bool {
        let dir = self.root.join(path);
        match self.remove_copy(&dir) {
            Err(Errno::ENOENT) => return true,
            Err(Errno::ENOTEMPTY) => {}
            done => return done.is_ok(),
        }
        for entry in std::fs::read_dir(&dir).into_iter().flatten().flatten() {
            let is_dir = entry.file_type().is_ok_and(|kind| kind.is_dir());
            let Some(name) = entry.file_name().to_str().filter(|_| is_dir).map(str::to_owned) else { return false };
            let below = format!("{path}/{name}");
            // One whose home this is exists for everybody.
            if below.len() > MAX_KEY || self.home_of(&below) == self.node || !self.remove_copies(&below) {
                return false;
            }
            self.dirs.lock().left.insert(below);
        }
        self.remove_copy(&dir).is_ok()
    }

    /// Removes the directories above `file` that are empty now, as far as this node can tell. What their homes are to decide is noted;
    /// see [`take_left`](Self::take_left).
    pub(in crate::store) fn prune(&self, file: &Path) {
        let parents = file.ancestors().skip(1).take_while(|dir| *dir != self.root);
        for dir in parents {
            let Some(path) = dir.strip_prefix(&self.root).ok().and_then(Path::to_str) else { return };
            if !self.prune_one(path, false) {
                return;
            }
        }
    }

    /// The same of one directory, also if it was `made` to stay. True if it is gone.
    pub(in crate::store) fn prune_one(&self, path: &str, even_made: bool) -> bool {
        let dir = self.root.join(path);
        let mut table = self.dirs.lock();
        if self.home_of(path) != self.node {
            return match self.remove_copy(&dir) {
                Ok(()) => {
                    table.left.insert(path.to_owned());
                    true
                }
                Err(errno) => errno == Errno::ENOENT,
            };
        }
        if let Err(errno) = self.data.open_at(&dir, OFlag::O_PATH | OFlag::O_DIRECTORY) {
            return errno == Errno::ENOENT;
        }
        let mut record = match DirRecord::read(&dir) {
            Ok(_) if !is_empty(&dir) => return false,
            Ok(record) => record,
            Err(e) => return e.kind() == io::ErrorKind::NotFound,
        };
        if record.made && !even_made {
            return false;
        }
        if record.holders.is_empty() {
            return self.remove_copy(&dir).is_ok();
        }
        if record.made {
            record.made = false;
            if record.write(&dir).is_err() {
                return false;
            }
        }
        table.left.insert(path.to_owned());
        false
    }

    /// Removes what is above `dir`, which is gone, as [`prune`](Self::prune) does.
    pub fn prune_above(&self, dir: &Dir) {
        self.prune(&self.dir_path(dir));
    }

    /// Directories that lost their last entry here since this was last called, at most `most`: their homes are to be told. They are
    /// [untold](Self::take_untold) until [`told`](Self::told).
    pub fn take_left(&self, most: usize) -> Vec<Dir> {
        let mut table = self.dirs.lock();
        let mut taken = Vec::new();
        while taken.len() < most
            && let Some(path) = table.left.pop_first()
        {
            if let Ok(dir) = Dir::try_from(path.clone()) {
                taken.push(dir);
                table.untold.insert(path);
            }
        }
        taken
    }

    /// Its holders are to be asked whether they still hold it.
    pub fn note_left(&self, dir: &Dir) {
        self.dirs.lock().left.insert(dir.as_str().to_owned());
    }

    /// The same, later.
    pub fn note_untold(&self, dir: &Dir) {
        self.dirs.lock().untold.insert(dir.as_str().to_owned());
    }

    /// The home has been told of these.
    pub fn told(&self, dirs: &[Dir]) {
        let mut table = self.dirs.lock();
        dirs.iter().for_each(|dir| _ = table.untold.remove(dir.as_str()));
    }

    /// How many homes are to be told of, but for those that did not answer.
    pub fn left(&self) -> usize {
        self.dirs.lock().left.len()
    }

    /// Has what homes could not be told be told once more.
    pub fn take_untold(&self) {
        let mut table = self.dirs.lock();
        let untold = std::mem::take(&mut table.untold);
        table.left.extend(untold);
    }

    /// True if what homes know of this node may be more than there is.
    pub fn was_killed(&self) -> bool {
        self.dirs.was_killed
    }

    /// At an orderly end: the next start need not ask homes, unless one is still to be told of a directory.
    pub(in crate::store) fn note_settled(&self) -> io::Result<()> {
        let table = self.dirs.lock();
        let is_audited = self.dirs.audited.load(Ordering::Relaxed);
        match is_audited && table.left.is_empty() && table.untold.is_empty() {
            true => File::create(self.root.join(SETTLED)).map(drop),
            false => Ok(()),
        }
    }
}
