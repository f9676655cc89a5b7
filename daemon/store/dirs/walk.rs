//! Walks over all directories of a node, for homes that have lost their disk, and after a kill.

use crate::store::core::Store;
use crate::store::list::is_name;
use s4::directory::DirRecord;
use s4::error::{Error, Result};
use s4::file::replace;
use s4::key::{Dir, MAX_KEY};
use s4::placement::NodeId;
use s4::stored::KNOWS_DIRS;
use std::io;
use std::sync::atomic::Ordering;

impl Store {
    /// Visits every directory of which this node has a copy that is not empty, and whose home is another node.
    pub fn held_elsewhere(&self, visit: &mut dyn FnMut(Dir, NodeId)) -> Result<()> {
        self.walk_dirs("", &mut |path, is_empty| {
            let home = self.home_of(path);
            if !is_empty
                && home != self.node
                && let Ok(dir) = Dir::try_from(path.to_owned())
            {
                visit(dir, home);
            }
            true
        })?;
        Ok(())
    }

    /// Visits every directory whose home is `home` and of which this node has a copy that is not empty. `visit` is also
    /// called with `None` from time to time, and ends the walk by returning false.
    pub fn held_dirs(&self, home: NodeId, visit: &mut dyn FnMut(Option<&str>) -> bool) -> Result<()> {
        self.walk_dirs("", &mut |path, is_empty| {
            visit(Some(path).filter(|path| !is_empty && self.home_of(path) == home))
        })?;
        self.check_there()
    }

    /// After a kill: removes empty copies. Returns the directories of which this node is the home, that are empty here,
    /// that mkdir did not make, and that `holder` may hold; without a `holder`, all of them.
    pub fn doubtful_dirs(&self, holder: Option<NodeId>) -> Result<Vec<Dir>> {
        let mut doubtful = Vec::new();
        self.walk_dirs("", &mut |path, is_empty| {
            if !is_empty {
                return true;
            }
            if self.home_of(path) != self.node {
                self.prune_one(path, false);
                return true;
            }
            let record = DirRecord::read(&self.root.join(path)).unwrap_or_default();
            if !record.made && holder.is_none_or(|holder| record.holders.contains(&holder)) {
                doubtful.extend(Dir::try_from(path.to_owned()));
            }
            true
        })?;
        Ok(doubtful)
    }

    /// Visits every directory below `path`, children before parents. `visit` also gets whether it is empty.
    pub(super) fn walk_dirs(&self, path: &str, visit: &mut dyn FnMut(&str, bool) -> bool) -> Result<bool> {
        let dir = self.root.join(path);
        let failed = |e: io::Error| self.unreadable(dir.display(), &e);
        let entries = match std::fs::read_dir(&dir) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(true),
            entries => entries.map_err(failed)?,
        };
        let (mut below, mut is_empty) = (Vec::new(), true);
        for entry in entries {
            let entry = entry.map_err(failed)?;
            is_empty = false;
            let name = entry.file_name().into_string().ok().filter(|name| is_name(name, path.is_empty()));
            let is_dir = entry.file_type().is_ok_and(|kind| kind.is_dir());
            below.extend(name.filter(|_| is_dir));
        }
        for name in below {
            let child = if path.is_empty() { name } else { format!("{path}/{name}") };
            if child.len() <= MAX_KEY && !self.walk_dirs(&child, visit)? {
                return Ok(false);
            }
        }
        Ok(path.is_empty() || visit(path, is_empty))
    }

    /// False if this node may not know all directories of which it is the home, because its disk or its last writes
    /// were lost.
    pub fn knows_all_dirs(&self) -> bool {
        self.dirs.knows_all.load(Ordering::Relaxed)
    }

    /// After a kill: notes that every home has asked this node which of its directories it still holds.
    pub fn note_audited(&self) {
        self.dirs.audited.store(true, Ordering::Relaxed);
    }

    /// After a power cut: notes that directories which other nodes hold may be missing here, and that this node may
    /// hold some that their homes have dropped.
    pub(in crate::store) fn doubt_dirs(&self) -> io::Result<()> {
        // The file that tells of an orderly end may be back as well.
        self.dirs.was_killed.store(true, Ordering::Relaxed);
        self.dirs.audited.store(false, Ordering::Relaxed);
        // During a resize the nodes tell each other of all directories.
        let is_resizing = self.resize.is_some();
        self.dirs.knows_all.store(is_resizing, Ordering::Relaxed);
        match std::fs::remove_file(self.root.join(KNOWS_DIRS)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        }
    }

    /// This node knows all directories of which it is the home, from now on.
    pub fn know_all_dirs(&self) {
        self.dirs.knows_all.store(true, Ordering::Relaxed);
    }

    /// Records that this node knows all directories of which it is the home, and that the others know of those that it
    /// holds. Without this record, the next start asks and tells them again.
    pub fn note_all_dirs(&self) -> Result<()> {
        let path = self.root.join(KNOWS_DIRS);
        replace(&path, b"", self.fsync).map_err(|e| Error::io(path.display(), &e))?;
        self.know_all_dirs();
        Ok(())
    }
}
