//! What makes directories: a node enters one at its home before it makes a copy, and the home makes those whose home it is.

use super::table::Others;
use crate::store::core::Store;
use crate::store::errors::{below_a_key, failed, failed_io};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use s4::error::{Error, ErrorKind, Result};
use s4::key::{Dir, Key};
use s4::placement::NodeId;
use s4::protocol::Change;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Attempts at a directory that others remove meanwhile.
const ATTEMPTS: usize = 100;

impl Store {
    /// To be called once, before any key is made: how other nodes are asked.
    pub fn set_others(&self, others: Others) {
        let _ = self.dirs.others.set(others);
    }

    /// Refuses a name for a new key that is a directory on another node, where this one does not know all directories.
    pub(in crate::store) fn refuse_dir(&self, key: &Key) -> Result<()> {
        match self.dirs.others.get().filter(|_| !self.knows_all_dirs()) {
            Some(others) => (others.refuse_dir)(&Dir::try_from(key.as_str().to_owned())?),
            None => Ok(()),
        }
    }

    /// Makes copies of `dir` and of all above it here. Their homes know before. Blocks, for each of them as long as `limit` at most.
    pub(in crate::store) fn hold_dir(&self, dir: &Dir, limit: Option<Duration>) -> Result<()> {
        let path = dir.as_str();
        let ends = path.match_indices('/').map(|(end, _)| end).chain([path.len()]);
        for end in ends {
            let part = Dir::try_from(path[..end].to_owned())?;
            let held = match self.data.open_at(&self.dir_path(&part), OFlag::O_PATH | OFlag::O_DIRECTORY) {
                Ok(_) => Ok(()),
                Err(Errno::ENOENT) => self.hold_one(&part, limit),
                Err(Errno::ENOTDIR) => Err(below_a_key(dir)),
                Err(errno) => Err(failed(dir, errno)),
            };
            // What was made above it is not needed.
            held.inspect_err(|_| self.prune(&self.dir_path(&part)))?;
        }
        Ok(())
    }

    /// Makes copies of the directories that `key` is to lie in, if they are not here.
    pub fn hold_for(&self, key: &Key) -> Result<()> {
        let path = self.path(key);
        match path.parent().is_some_and(Path::is_dir) {
            true => Ok(()),
            false => self.hold_parent_of(key, None).inspect_err(|_| self.prune(&path)),
        }
    }

    /// The same of what `key` lies in.
    pub(in crate::store) fn hold_parent_of(&self, key: &Key, waits: Option<Duration>) -> Result<()> {
        self.hold_dir(&Dir::try_from(key.parent().to_owned())?, waits.map(|waits| waits * 4 / 5))
    }

    /// The same of a directory whose parent is here. It may be gone again at once.
    fn hold_one(&self, dir: &Dir, limit: Option<Duration>) -> Result<()> {
        let home = self.home_of(dir.as_str());
        if home == self.node {
            let _table = self.dirs.lock();
            return self.make_copy(dir);
        }
        let entering = Entering { turn: self.enter_turn(dir), store: self, dir };
        let _turn = entering.turn.lock().unwrap_or_else(PoisonError::into_inner);
        if self.has_copy(&self.dir_path(dir)) {
            return Ok(());
        }
        let Some(others) = self.dirs.others.get() else {
            return Err(Error::new(ErrorKind::ShuttingDown, format!("{dir}: the daemon has not started yet")));
        };
        // A home that has not answered may have recorded it.
        (others.enter)(home, dir, limit)
            .inspect_err(|_| _ = self.dirs.lock().untold.insert(dir.as_str().to_owned()))?;
        self.make_copy(dir)?;
        if !self.has_copy(&self.dir_path(dir)) {
            // Its parent has gone, or it has itself: whoever still needs it enters again.
            self.note_untold(dir);
        }
        Ok(())
    }

    /// Has this node say that it holds `dir`, until [`leave_turn`](Self::leave_turn).
    pub(super) fn enter_turn(&self, dir: &Dir) -> Arc<Mutex<()>> {
        self.dirs.lock().entering.entry(dir.as_str().to_owned()).or_default().clone()
    }

    pub(super) fn leave_turn(&self, dir: &Dir, turn: &Arc<Mutex<()>>) {
        let mut table = self.dirs.lock();
        // The table's and this one.
        if Arc::strong_count(turn) == 2 {
            table.entering.remove(dir.as_str());
        }
    }

    /// At the home of `dir`: makes it if it is not there, and records `holder`, which is about to hold something in it.
    pub fn enter(&self, dir: &Dir, holder: NodeId) -> Result<()> {
        self.enter_all(dir, &[holder])
    }

    /// The same as [`enter`](Self::enter) of several holders.
    pub(super) fn enter_all(&self, dir: &Dir, holders: &[NodeId]) -> Result<()> {
        self.at_home(dir)?;
        let path = self.dir_path(dir);
        for _ in 0..ATTEMPTS {
            self.hold_parent(dir)?;
            let mut table = self.dirs.lock();
            match self.make_dir_at(&path) {
                Ok(()) => {}
                Err(Errno::EEXIST) if self.has_copy(&path) => {}
                Err(Errno::ENOENT) => continue,
                Err(Errno::EEXIST | Errno::ENOTDIR) => return Err(below_a_key(dir)),
                Err(errno) => return Err(failed(dir, errno)),
            }
            let others: Vec<NodeId> = holders.iter().copied().filter(|&holder| holder != self.node).collect();
            table.void_answers(dir, &others);
            if !others.is_empty() {
                self.update(dir, |record| {
                    let before = record.holders.len();
                    record.holders.extend(&others);
                    record.holders.len() != before
                })?;
            }
            drop(table);
            self.synced.note_made();
            return self.sync_dir(dir).map_err(|e| failed_io(dir, &e));
        }
        Err(removed_again(dir))
    }

    /// At the home of `dir`: makes it to stay when it is empty. Errors: something of its name is there.
    pub fn make_dir(&self, dir: &Dir, change: Change) -> Result<()> {
        self.at_home(dir)?;
        let path = self.dir_path(dir);
        let taken = |what: &str| Error::new(ErrorKind::AlreadyExists, format!("{dir}: a {what} of this name exists"));
        for _ in 0..ATTEMPTS {
            self.hold_parent(dir)?;
            let table = self.dirs.lock();
            match self.make_dir_at(&path) {
                Ok(()) => {}
                Err(Errno::EEXIST) => return Err(taken(if path.is_dir() { "directory" } else { "key" })),
                Err(Errno::ENOENT) => continue,
                Err(Errno::ENOTDIR) => return Err(below_a_key(dir)),
                Err(errno) => return Err(failed(dir, errno)),
            }
            self.update(dir, |record| {
                record.made = true;
                record.change(change);
                true
            })?;
            drop(table);
            self.synced.note_made();
            return self.sync_dir(dir).map_err(|e| failed_io(dir, &e));
        }
        Err(removed_again(dir))
    }

    /// At the home of `dir`: changes its attributes.
    pub fn change_dir(&self, dir: &Dir, change: Change) -> Result<()> {
        self.at_home(dir)?;
        let _table = self.dirs.lock();
        if !self.has_copy(&self.dir_path(dir)) {
            return Err(self.absent(format_args!("{dir}: no such directory")));
        }
        self.update(dir, |record| {
            record.change(change);
            true
        })
    }

    /// True if this node has a copy of `dir`, which then is a directory, whatever its home says or does not.
    pub fn holds_dir(&self, dir: &Dir) -> Result<bool> {
        self.check_there()?;
        Ok(self.has_copy(&self.dir_path(dir)))
    }

    fn hold_parent(&self, dir: &Dir) -> Result<()> {
        match dir.as_str().rsplit_once('/') {
            Some((parent, _)) => self.hold_dir(&Dir::try_from(parent.to_owned())?, None),
            None => self.check_there(),
        }
    }
}

/// This node is about to make a copy of a directory: until this is dropped, it says that it holds the directory.
struct Entering<'s> {
    store: &'s Store,
    dir: &'s Dir,
    turn: Arc<Mutex<()>>,
}

impl Drop for Entering<'_> {
    fn drop(&mut self) {
        self.store.leave_turn(self.dir, &self.turn);
    }
}

fn removed_again(dir: &Dir) -> Error {
    Error::new(ErrorKind::Io, format!("{dir}: it is removed again and again"))
}
