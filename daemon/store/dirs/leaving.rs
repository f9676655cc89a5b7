//! Copies that became empty: they are removed, and noted for a report to their homes.

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
    /// At a holder of `dir`, asked by its home: removes the copy if it is empty. True if it is still held.
    pub fn let_go(&self, dir: &Dir) -> Result<bool> {
        self.check_there()?;
        if self.home_of(dir.as_str()) == self.node {
            return Ok(true);
        }
        if let Some(turn) = self.dirs.lock().entering.get_mut(dir.as_str()) {
            turn.asked = true;
            return Ok(true);
        }
        Ok(!self.remove_copies(dir.as_str()))
    }

    /// Removes this node's empty copies of `path` and of the directories below. False if anything is left.
    fn remove_copies(&self, path: &str) -> bool {
        let dir = self.root.join(path);
        let is_gone = || matches!(self.remove_copy(&dir), Ok(()) | Err(Errno::ENOENT));
        is_gone() || self.remove_below(path) && is_gone()
    }

    /// Removes this node's empty copies of the directories below `path`, and notes them. False if anything is left.
    fn remove_below(&self, path: &str) -> bool {
        for entry in std::fs::read_dir(self.root.join(path)).into_iter().flatten().flatten() {
            let is_dir = entry.file_type().is_ok_and(|kind| kind.is_dir());
            let Some(name) = entry.file_name().to_str().filter(|_| is_dir).map(str::to_owned) else { return false };
            let below = format!("{path}/{name}");
            // This node is its home, so it stays for all nodes.
            let stays = below.len() > MAX_KEY || self.home_of(&below) == self.node;
            // A delete that finds it gone must find it noted, too.
            if stays || !self.remove_below(&below) || !self.prune_one(&below, false) {
                return false;
            }
        }
        true
    }

    /// Removes the directories above `file` that are empty now, as far as this node knows. Those about which their
    /// homes must decide are noted; see [`take_left`](Self::take_left).
    pub(in crate::store) fn prune(&self, file: &Path) {
        let parents = file.ancestors().skip(1).take_while(|dir| *dir != self.root);
        for dir in parents {
            let Some(path) = dir.strip_prefix(&self.root).ok().and_then(Path::to_str) else { return };
            if !self.prune_one(path, false) {
                return;
            }
        }
    }

    /// The same for directories that were made in vain: nobody waits for their homes.
    pub(in crate::store) fn prune_unused(&self, file: &Path) {
        self.prune(file);
        if self.left() > 0 {
            self.settle_soon();
        }
    }

    /// Has the homes decide about directories that are to be reported. Does not block.
    pub(super) fn settle_soon(&self) {
        if let Some(others) = self.dirs.others.get() {
            (others.settle)();
        }
    }

    /// Removes one directory if it is empty; one that mkdir made only with `even_made`. True if it does not exist any
    /// more. During a resize, nothing is removed.
    pub(in crate::store) fn prune_one(&self, path: &str, even_made: bool) -> bool {
        if self.resize.is_some() {
            return false;
        }
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
            Ok(record) => record,
            Err(e) => return e.kind() == io::ErrorKind::NotFound,
        };
        if record.made && even_made {
            // Also if others must leave it first: it goes with the last.
            record.made = false;
            if record.write(&dir).is_err() {
                return false;
            }
        }
        if record.made || !is_empty(&dir) {
            return false;
        }
        if record.holders.is_empty() {
            return self.remove_copy(&dir).is_ok();
        }
        table.left.insert(path.to_owned());
        false
    }

    /// Removes empty directories above `dir`, which was removed, as [`prune`](Self::prune) does.
    pub fn prune_above(&self, dir: &Dir) {
        self.prune(&self.dir_path(dir));
    }

    /// At most `most` directories that lost their last entry here, to be reported to their homes. Until
    /// [`note_reported`](Self::note_reported) is called, they count as unreported, and [`take_unreported`](Self::take_unreported) repeats them.
    pub fn take_left(&self, most: usize) -> Vec<Dir> {
        let mut table = self.dirs.lock();
        let mut taken = Vec::new();
        while taken.len() < most
            && let Some(path) = table.left.pop_first()
        {
            if let Ok(dir) = Dir::try_from(path.clone()) {
                taken.push(dir);
                table.unreported.insert(path);
            }
        }
        taken
    }

    /// Notes that the holders of `dir` must be asked whether they still hold it.
    pub fn note_left(&self, dir: &Dir) {
        self.dirs.lock().left.insert(dir.as_str().to_owned());
    }

    /// Notes the same for later, since its home did not answer.
    pub fn note_unreported(&self, dir: &Dir) {
        self.dirs.lock().unreported.insert(dir.as_str().to_owned());
    }

    /// These were reported to their home.
    pub fn note_reported(&self, dirs: &[Dir]) {
        let mut table = self.dirs.lock();
        dirs.iter().for_each(|dir| _ = table.unreported.remove(dir.as_str()));
    }

    /// Number of directories to be reported, without those whose home did not answer.
    pub fn left(&self) -> usize {
        self.dirs.lock().left.len()
    }

    /// Notes unreported directories for another report.
    pub fn take_unreported(&self) {
        let mut table = self.dirs.lock();
        let unreported = std::mem::take(&mut table.unreported);
        table.left.extend(unreported);
    }

    /// True if homes may have recorded this node for directories that it does not hold, after a kill.
    pub fn was_killed(&self) -> bool {
        self.dirs.was_killed.load(Ordering::Relaxed)
    }

    /// At an orderly end: records that all is reported, so that the next start need not ask homes.
    pub(in crate::store) fn note_settled(&self) -> io::Result<()> {
        let table = self.dirs.lock();
        let is_audited = self.dirs.audited.load(Ordering::Relaxed);
        match is_audited && table.left.is_empty() && table.unreported.is_empty() {
            true => File::create(self.root.join(SETTLED)).map(drop),
            false => Ok(()),
        }
    }
}
