//! Directories on this node: those whose home it is, about which it alone decides, and its own copies of others.
//!
//! A directory has a home node as a key has. Invariants, which ARCHITECTURE.md explains:
//! - a node that has a copy of a directory is among the holders that the home has recorded;
//! - the home has a copy of each of its directories, so that its file system refuses a key and a directory of one name.
//!
//! So a node tells the home before it makes a copy, and removes its copy before it tells the home that it has left. Here is what makes
//! directories; [`asking`], [`leaving`], [`sending`] and [`walk`] have the rest.

mod asking;
mod leaving;
mod sending;
mod walk;

pub use asking::{Asking, Settled};
pub use sending::Receiving;

use super::Store;
use super::publish::below_a_key;
use super::remove::{failed, failed_io};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::{Mode, mkdirat};
use nix::unistd::{UnlinkatFlags, unlinkat};
use s4::directory::DirRecord;
use s4::error::{Error, ErrorKind, Result};
use s4::key::{Dir, Key};
use s4::placement::{NodeId, node_of_basename};
use s4::protocol::Change;
use s4::stored::KNOWS_DIRS;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

/// Is there while no daemon runs, if the last one ended in order.
const SETTLED: &str = ".s4/settled";

/// Attempts at a directory that others remove meanwhile.
const ATTEMPTS: usize = 100;

/// Tells a home node that this node is about to hold something in a directory, within so long if there is a limit. Blocks.
pub type Enter = dyn Fn(NodeId, &Dir, Option<Duration>) -> Result<()> + Send + Sync;
/// Refuses a name that another node knows as a directory, where this node, its home, does not know all. Blocks.
pub type RefuseDir = dyn Fn(&Dir) -> Result<()> + Send + Sync;

/// What a store asks of other nodes.
pub struct Others {
    pub enter: Box<Enter>,
    pub refuse_dir: Box<RefuseDir>,
}

pub(in crate::store) struct Dirs {
    table: Mutex<Table>,
    others: OnceLock<Others>,
    /// The last daemon here was killed, or could not tell homes all.
    was_killed: bool,
    /// Every home has asked since whether this node holds what it has recorded.
    audited: AtomicBool,
    /// This node knows all directories whose home it is.
    knows_all: AtomicBool,
}

impl Dirs {
    /// Of the data directory `root`.
    pub fn new(root: &Path) -> Self {
        let was_killed = std::fs::remove_file(root.join(SETTLED)).is_err();
        let knows_all = AtomicBool::new(root.join(KNOWS_DIRS).exists());
        Self {
            table: Mutex::default(),
            others: OnceLock::new(),
            was_killed,
            audited: AtomicBool::new(!was_killed),
            knows_all,
        }
    }
}

/// Guards the records of directories on the disk, and what follows, by the directory's path.
#[derive(Default)]
struct Table {
    /// Who is asking holders whether they still hold it, by a number, and the nodes that have entered since: their answers say nothing.
    asking: HashMap<String, BTreeMap<u64, BTreeSet<NodeId>>>,
    asked: u64,
    /// This node is about to make a copy. Whoever wants to, too, waits for the lock.
    entering: HashMap<String, Arc<Mutex<()>>>,
    /// Directories that lost their last entry here: their homes are still to decide.
    left: BTreeSet<String>,
    /// The same where the home did not answer.
    untold: BTreeSet<String>,
    /// Outputs are sent to these: whoever receives them is recorded, and may not have its copy yet. With how many are at it.
    sending: HashMap<String, Sending>,
}

impl Table {
    /// What these nodes have answered so far about `dir` may be older than their copies.
    fn void_answers(&mut self, dir: &Dir, nodes: &[NodeId]) {
        for entered in self.asking.get_mut(dir.as_str()).into_iter().flat_map(BTreeMap::values_mut) {
            entered.extend(nodes);
        }
    }
}

#[derive(Default)]
struct Sending {
    count: usize,
    /// Its holders were asked meanwhile, and are to be asked again.
    asked: bool,
}

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

    fn home_of(&self, path: &str) -> NodeId {
        node_of_basename(path.rsplit_once('/').map_or(path, |(_, name)| name), self.nodes)
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
            let _table = self.lock_dirs();
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
            .inspect_err(|_| _ = self.lock_dirs().untold.insert(dir.as_str().to_owned()))?;
        self.make_copy(dir)?;
        if !self.has_copy(&self.dir_path(dir)) {
            // Its parent has gone, or it has itself: whoever still needs it enters again.
            self.note_untold(dir);
        }
        Ok(())
    }

    /// Has this node say that it holds `dir`, until [`leave_turn`](Self::leave_turn).
    fn enter_turn(&self, dir: &Dir) -> Arc<Mutex<()>> {
        self.lock_dirs().entering.entry(dir.as_str().to_owned()).or_default().clone()
    }

    fn leave_turn(&self, dir: &Dir, turn: &Arc<Mutex<()>>) {
        let mut table = self.lock_dirs();
        // The table's and this one.
        if Arc::strong_count(turn) == 2 {
            table.entering.remove(dir.as_str());
        }
    }

    fn make_copy(&self, dir: &Dir) -> Result<()> {
        match self.make_dir_at(&self.dir_path(dir)) {
            // Its parent has gone: whoever needs it begins again.
            Ok(()) | Err(Errno::EEXIST | Errno::ENOENT) => self.sync_dir(dir).map_err(|e| failed_io(dir, &e)),
            Err(errno) => Err(failed(dir, errno)),
        }
    }

    /// True if there is a directory at `path`, to which no link leads.
    fn has_copy(&self, path: &Path) -> bool {
        self.data.open_at(path, OFlag::O_PATH | OFlag::O_DIRECTORY).is_ok()
    }

    /// Removes an empty directory, to which no link leads.
    fn remove_copy(&self, path: &Path) -> nix::Result<()> {
        let (parent, name) = self.data.open_parent(path)?;
        unlinkat(&parent, name, UnlinkatFlags::RemoveDir)
    }

    fn make_dir_at(&self, path: &Path) -> nix::Result<()> {
        let (parent, name) = self.data.open_parent(path)?;
        mkdirat(&parent, name, Mode::S_IRWXU | Mode::S_IRWXG | Mode::S_IRWXO)
    }

    /// At the home of `dir`: makes it if it is not there, and records `holder`, which is about to hold something in it.
    pub fn enter(&self, dir: &Dir, holder: NodeId) -> Result<()> {
        self.enter_all(dir, &[holder])
    }

    /// The same as [`enter`](Self::enter) of several holders.
    fn enter_all(&self, dir: &Dir, holders: &[NodeId]) -> Result<()> {
        self.at_home(dir)?;
        let path = self.dir_path(dir);
        for _ in 0..ATTEMPTS {
            self.hold_parent(dir)?;
            let mut table = self.lock_dirs();
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
            self.note_made();
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
            let table = self.lock_dirs();
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
            self.note_made();
            return self.sync_dir(dir).map_err(|e| failed_io(dir, &e));
        }
        Err(removed_again(dir))
    }

    /// At the home of `dir`: changes its attributes.
    pub fn change_dir(&self, dir: &Dir, change: Change) -> Result<()> {
        self.at_home(dir)?;
        let _table = self.lock_dirs();
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

    /// Refuses a directory whose home is another node.
    fn at_home(&self, dir: &Dir) -> Result<()> {
        match self.home_of(dir.as_str()) {
            home if home == self.node => Ok(()),
            home => Err(Error::new(ErrorKind::WrongNode, format!("{dir}: its home is node {home}"))),
        }
    }

    fn hold_parent(&self, dir: &Dir) -> Result<()> {
        match dir.as_str().rsplit_once('/') {
            Some((parent, _)) => self.hold_dir(&Dir::try_from(parent.to_owned())?, None),
            None => self.check_there(),
        }
    }

    /// Changes a record, if `change` says that it did. The table must be locked.
    fn update(&self, dir: &Dir, change: impl FnOnce(&mut DirRecord) -> bool) -> Result<()> {
        let path = self.dir_path(dir);
        let updated = DirRecord::read(&path).and_then(|mut record| match change(&mut record) {
            true => record.write(&path),
            false => Ok(()),
        });
        updated.map_err(|e| self.unreadable(dir, &e))
    }

    /// With `--fsync`: has the disk have a directory, its record, and its name.
    fn sync_dir(&self, dir: &Dir) -> io::Result<()> {
        if !self.fsync {
            return Ok(());
        }
        let path = self.dir_path(dir);
        for dir in path.ancestors().take(2) {
            match File::open(dir) {
                Ok(dir) => dir.sync_all()?,
                // Gone again.
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    fn dir_path(&self, dir: &Dir) -> PathBuf {
        self.root.join(dir.as_str())
    }

    fn lock_dirs(&self) -> MutexGuard<'_, Table> {
        self.dirs.table.lock().unwrap_or_else(PoisonError::into_inner)
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

/// True also of a directory that cannot be looked into.
fn is_empty(dir: &Path) -> bool {
    std::fs::read_dir(dir).map_or(true, |mut entries| entries.next().is_none())
}

fn removed_again(dir: &Dir) -> Error {
    Error::new(ErrorKind::Io, format!("{dir}: it is removed again and again"))
}
