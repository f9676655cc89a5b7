//! Making directories: a node enters a directory at its home before it makes a copy, and the home makes its own
//! directories.

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

/// Attempts to make a directory that others keep removing.
const ATTEMPTS: usize = 100;

impl Store {
    /// Sets the requests to other nodes. Must be called once, before any key is made.
    pub fn set_others(&self, others: Others) {
        let _ = self.dirs.others.set(others);
    }

    /// Refuses a name for a new key if it is a directory on another node. Asks others only if this node does not know
    /// all directories.
    pub(in crate::store) fn refuse_dir(&self, key: &Key) -> Result<()> {
        match self.dirs.others.get().filter(|_| !self.knows_all_dirs()) {
            Some(others) => (others.refuse_dir)(&Dir::try_from(key.as_str().to_owned())?),
            None => Ok(()),
        }
    }

    /// Makes copies of `dir` and of all directories above it, after reporting to their homes. Blocks, for `limit` at
    /// most for each of them.
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
            // Copies that were made above it are not needed then.
            held.inspect_err(|_| self.prune_unused(&self.dir_path(&part)))?;
        }
        Ok(())
    }

    /// Makes copies of the directories above `key`, if they are not here.
    pub fn hold_for(&self, key: &Key) -> Result<()> {
        let path = self.path(key);
        match path.parent().is_some_and(Path::is_dir) {
            true => Ok(()),
            false => self.hold_parent_of(key, None).inspect_err(|_| self.prune_unused(&path)),
        }
    }

    /// Makes copies of the directories above `key`. The requester waits for `timeout`, of which a part is left for its
    /// response.
    pub(in crate::store) fn hold_parent_of(&self, key: &Key, timeout: Option<Duration>) -> Result<()> {
        self.hold_dir(&Dir::try_from(key.parent().to_owned())?, timeout.map(|timeout| timeout * 4 / 5))
    }

    /// Makes a copy of a directory whose parent is here. It may be removed again at once.
    fn hold_one(&self, dir: &Dir, limit: Option<Duration>) -> Result<()> {
        let home = self.home_of(dir.as_str());
        if home == self.node {
            let _table = self.dirs.lock();
            return self.make_copy(dir);
        }
        let lock = self.enter_turn(dir);
        let _entering = Entering { store: self, dir };
        let _turn = lock.lock().unwrap_or_else(PoisonError::into_inner);
        if self.has_copy(&self.dir_path(dir)) {
            return Ok(());
        }
        let Some(others) = self.dirs.others.get() else {
            return Err(Error::new(ErrorKind::ShuttingDown, format!("{dir}: the daemon has not started yet")));
        };
        // A home that did not answer may have recorded this node, so it is asked later.
        (others.enter)(home, dir, limit)
            .inspect_err(|_| _ = self.dirs.lock().unreported.insert(dir.as_str().to_owned()))?;
        self.make_copy(dir)?;
        if !self.has_copy(&self.dir_path(dir)) {
            // It or its parent was removed. A caller that still needs it enters again.
            self.note_unreported(dir);
        }
        Ok(())
    }

    /// Makes this node answer that it holds `dir`, until [`leave_turn`](Self::leave_turn).
    pub(super) fn enter_turn(&self, dir: &Dir) -> Arc<Mutex<()>> {
        let mut table = self.dirs.lock();
        let turn = table.entering.entry(dir.as_str().to_owned()).or_default();
        turn.count += 1;
        turn.lock.clone()
    }

    pub(super) fn leave_turn(&self, dir: &Dir) {
        {
            let mut table = self.dirs.lock();
            let Some(turn) = table.entering.get_mut(dir.as_str()) else { return };
            turn.count -= 1;
            if turn.count > 0 || !table.entering.remove(dir.as_str()).is_some_and(|turn| turn.asked) {
                return;
            }
            // The home was told that this node holds it, and asks nobody again by itself.
            table.left.insert(dir.as_str().to_owned());
        }
        self.settle_soon();
    }

    /// At the home of `dir`: makes it if it does not exist, and records `holder`, which is about to hold something in
    /// it.
    pub fn enter(&self, dir: &Dir, holder: NodeId) -> Result<()> {
        self.enter_all(dir, &[holder])
    }

    /// Like [`enter`](Self::enter), for several holders.
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
            self.synced.note_changed();
            return self.sync_dir(dir).map_err(|e| failed_io(dir, &e));
        }
        Err(removed_again(dir))
    }

    /// At the home of `dir`: makes it, to stay even when it is empty (mkdir). Errors: the name is taken.
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
            self.synced.note_changed();
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

    /// At the home of `dir`: forgets that mkdir made it, so that it goes with its last entry.
    pub fn forget_made(&self, dir: &Dir) -> Result<()> {
        self.at_home(dir)?;
        let _table = self.dirs.lock();
        if !self.has_copy(&self.dir_path(dir)) {
            return Err(self.absent(format_args!("{dir}: no such directory")));
        }
        self.update(dir, |record| std::mem::take(&mut record.made))
    }

    /// True if this node has a copy of `dir`, which then is a directory even if its home does not know it.
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

/// Guard: until it is dropped, this node answers that it holds the directory, of which it is about to make a copy.
struct Entering<'s> {
    store: &'s Store,
    dir: &'s Dir,
}

impl Drop for Entering<'_> {
    fn drop(&mut self) {
        self.store.leave_turn(self.dir);
    }
}

fn removed_again(dir: &Dir) -> Error {
    Error::new(ErrorKind::Io, format!("{dir}: it is removed again and again"))
}
