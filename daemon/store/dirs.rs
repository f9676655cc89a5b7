//! Directories on this node: those whose home it is, about which it alone decides, and its own copies of others.
//!
//! A directory has a home node as a key has. Invariants, which ARCHITECTURE.md explains:
//! - a node that has a copy of a directory is among the holders that the home has recorded;
//! - the home has a copy of each of its directories, so that its file system refuses a key and a directory of one name.
//!
//! So a node tells the home before it makes a copy, and removes its copy before it tells the home that it has left.

use super::Store;
use super::list::is_name;
use super::publish::below_a_key;
use super::remove::{failed, failed_io};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::{Mode, mkdirat};
use nix::unistd::{UnlinkatFlags, unlinkat};
use s4::directory::DirRecord;
use s4::error::{Error, ErrorKind, Result};
use s4::file::replace;
use s4::key::{Dir, Key, MAX_KEY};
use s4::placement::{NodeId, node_of_basename};
use s4::protocol::Change;
use s4::stored::KNOWS_DIRS;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
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

pub(super) struct Dirs {
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

/// A directory about which holders are being asked. Dropped, what they answered is forgotten.
pub struct Asking<'s> {
    store: &'s Store,
    dir: Dir,
    number: u64,
    pub holders: BTreeSet<NodeId>,
}

/// While this lives, the nodes that a directory's outputs are sent to stay recorded.
pub struct Receivers {
    store: Arc<Store>,
    dir: Dir,
    receivers: Vec<NodeId>,
}

/// What came of asking.
pub enum Settled {
    /// The directory is gone.
    Gone,
    /// It stays.
    Stays,
    /// Whoever let it go has entered again meanwhile, and may have let it go since: it is to be asked again.
    Unsure,
}

impl Store {
    /// To be called once, before any key is made: how other nodes are asked.
    pub fn set_others(&self, others: Others) {
        let _ = self.dirs.others.set(others);
    }

    /// Refuses a name for a new key that is a directory on another node, where this one does not know all directories.
    pub(super) fn refuse_dir(&self, key: &Key) -> Result<()> {
        match self.dirs.others.get().filter(|_| !self.knows_all_dirs()) {
            Some(others) => (others.refuse_dir)(&Dir::try_from(key.as_str().to_owned())?),
            None => Ok(()),
        }
    }

    fn home_of(&self, path: &str) -> NodeId {
        node_of_basename(path.rsplit_once('/').map_or(path, |(_, name)| name), self.nodes)
    }

    /// Makes copies of `dir` and of all above it here. Their homes know before. Blocks, for each of them as long as `limit` at most.
    pub(super) fn hold_dir(&self, dir: &Dir, limit: Option<Duration>) -> Result<()> {
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
    pub(super) fn hold_parent_of(&self, key: &Key, waits: Option<Duration>) -> Result<()> {
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
        if self.dir_path(dir).is_dir() {
            return Ok(());
        }
        let Some(others) = self.dirs.others.get() else {
            return Err(Error::new(ErrorKind::ShuttingDown, format!("{dir}: the daemon has not started yet")));
        };
        // A home that has not answered may have recorded it.
        (others.enter)(home, dir, limit)
            .inspect_err(|_| _ = self.lock_dirs().untold.insert(dir.as_str().to_owned()))?;
        self.make_copy(dir)
    }

    /// To be called where the home of `dir` has recorded this node as a holder, and sends outputs in it: makes the copy. Until what is
    /// returned is dropped, this node says that it holds `dir`. `is_sending` is asked once that is so: a home that has given up may have
    /// forgotten this node.
    pub fn begin_receiving(self: &Arc<Self>, dir: Dir, is_sending: impl FnOnce() -> Result<()>) -> Result<Receiving> {
        let receiving = Receiving { turn: self.enter_turn(&dir), store: self.clone(), dir };
        is_sending()?;
        if let Some((parent, _)) = receiving.dir.as_str().rsplit_once('/') {
            self.hold_dir(&Dir::try_from(parent.to_owned())?, None)?;
        }
        self.make_copy(&receiving.dir)?;
        Ok(receiving)
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

    fn make_dir_at(&self, path: &Path) -> nix::Result<()> {
        let (parent, name) = self.data.open_parent(path)?;
        mkdirat(&parent, name, Mode::S_IRWXU | Mode::S_IRWXG | Mode::S_IRWXO)
    }

    /// At the home of `dir`: makes it if it is not there, and records `holder`, which is about to hold something in it.
    pub fn enter(&self, dir: &Dir, holder: NodeId) -> Result<()> {
        self.enter_all(dir, &[holder])
    }

    /// At the home of `dir`: records the nodes that outputs in it are about to be sent to.
    pub fn begin_sending(self: &Arc<Self>, dir: Dir, receivers: &[NodeId]) -> Result<Receivers> {
        self.lock_dirs().sending.entry(dir.as_str().to_owned()).or_default().count += 1;
        let sending = Receivers { store: self.clone(), dir, receivers: receivers.to_vec() };
        self.enter_all(&sending.dir, receivers)?;
        Ok(sending)
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
                Err(Errno::EEXIST) if path.is_dir() => {}
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
        if !self.dir_path(dir).is_dir() {
            return Err(self.absent(format_args!("{dir}: no such directory")));
        }
        self.update(dir, |record| {
            record.change(change);
            true
        })
    }

    /// At the home of `dir`: begins to ask the holders whether they still hold it. `None` if it is not there.
    pub fn begin_asking(&self, dir: &Dir) -> Result<Option<Asking<'_>>> {
        self.at_home(dir)?;
        let mut table = self.lock_dirs();
        let path = self.dir_path(dir);
        if !path.is_dir() {
            return self.check_there().map(|()| None);
        }
        let mut holders = DirRecord::read(&path).map_err(|e| self.unreadable(dir, &e))?.holders;
        // Of a damaged record.
        holders.retain(|&holder| holder < self.nodes);
        if !is_empty(&path) {
            // It stays anyway.
            holders.clear();
        }
        table.asked += 1;
        let number = table.asked;
        table.asking.entry(dir.as_str().to_owned()).or_default().insert(number, BTreeSet::new());
        Ok(Some(Asking { store: self, dir: dir.clone(), number, holders }))
    }

    /// True if this node has a copy of `dir`, which then is a directory, whatever its home says or does not.
    pub fn holds_dir(&self, dir: &Dir) -> Result<bool> {
        self.check_there()?;
        Ok(self.dir_path(dir).is_dir())
    }

    /// At a holder of `dir`: removes the copy if nothing is in it. True if it is still held. Asked by its home.
    pub fn let_go(&self, dir: &Dir) -> Result<bool> {
        self.check_there()?;
        if self.home_of(dir.as_str()) == self.node || self.lock_dirs().entering.contains_key(dir.as_str()) {
            return Ok(true);
        }
        Ok(!self.remove_copies(dir.as_str()))
    }

    /// Removes this node's empty copies of `path` and of what is below. False if something is left.
    fn remove_copies(&self, path: &str) -> bool {
        let dir = self.root.join(path);
        match std::fs::remove_dir(&dir) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return true,
            Err(e) if e.kind() == io::ErrorKind::DirectoryNotEmpty => {}
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
            self.lock_dirs().left.insert(below);
        }
        std::fs::remove_dir(&dir).is_ok()
    }

    /// Removes the directories above `file` that are empty now, as far as this node can tell. What their homes are to decide is noted;
    /// see [`take_left`](Self::take_left).
    pub(super) fn prune(&self, file: &Path) {
        let parents = file.ancestors().skip(1).take_while(|dir| *dir != self.root);
        for dir in parents {
            let Some(path) = dir.strip_prefix(&self.root).ok().and_then(Path::to_str) else { return };
            if !self.prune_one(path, false) {
                return;
            }
        }
    }

    /// The same of one directory, also if it was `made` to stay. True if it is gone.
    pub(super) fn prune_one(&self, path: &str, even_made: bool) -> bool {
        let dir = self.root.join(path);
        let mut table = self.lock_dirs();
        if self.home_of(path) != self.node {
            return match std::fs::remove_dir(&dir) {
                Ok(()) => {
                    table.left.insert(path.to_owned());
                    true
                }
                Err(e) => e.kind() == io::ErrorKind::NotFound,
            };
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
            return std::fs::remove_dir(&dir).is_ok();
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

    /// Every directory whose home is `home` and of which this node has a copy with something in it. `visit` also gets `None`, again and
    /// again, and ends the walk by false.
    pub fn held_dirs(&self, home: NodeId, visit: &mut dyn FnMut(Option<&str>) -> bool) -> Result<()> {
        self.walk_dirs("", &mut |path, is_empty| {
            visit(Some(path).filter(|path| !is_empty && self.home_of(path) == home))
        })?;
        self.check_there()
    }

    /// Notes what a killed predecessor may have left: empty copies are removed. Returns the directories whose home this is, in which
    /// nothing is here, and which have `holder` among their holders, or any if there is none.
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

    /// Visits every directory below `path`, those within it first, and whether it is empty.
    fn walk_dirs(&self, path: &str, visit: &mut dyn FnMut(&str, bool) -> bool) -> Result<bool> {
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

    /// False if this node may not know of all directories whose home it is: it has lost its disk, or what was written last.
    pub fn knows_all_dirs(&self) -> bool {
        self.dirs.knows_all.load(Ordering::Relaxed)
    }

    /// Every home has asked whether this node, which was killed, still holds what it has recorded.
    pub fn note_audited(&self) {
        self.dirs.audited.store(true, Ordering::Relaxed);
    }

    /// After a power cut: directories that other nodes hold may be lost here.
    pub(super) fn forget_dirs(&self) -> io::Result<()> {
        self.dirs.knows_all.store(false, Ordering::Relaxed);
        match std::fs::remove_file(self.root.join(KNOWS_DIRS)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        }
    }

    /// From now on it does.
    pub fn note_all_dirs(&self) -> Result<()> {
        let path = self.root.join(KNOWS_DIRS);
        replace(&path, b"", self.fsync).map_err(|e| Error::io(path.display(), &e))?;
        self.dirs.knows_all.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Directories that lost their last entry here since this was last called, at most `most`: their homes are to be told. They are
    /// [untold](Self::take_untold) until [`told`](Self::told).
    pub fn take_left(&self, most: usize) -> Vec<Dir> {
        let mut table = self.lock_dirs();
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
        self.lock_dirs().left.insert(dir.as_str().to_owned());
    }

    /// The same, later.
    pub fn note_untold(&self, dir: &Dir) {
        self.lock_dirs().untold.insert(dir.as_str().to_owned());
    }

    /// The home has been told of these.
    pub fn told(&self, dirs: &[Dir]) {
        let mut table = self.lock_dirs();
        dirs.iter().for_each(|dir| _ = table.untold.remove(dir.as_str()));
    }

    /// How many homes are to be told of, but for those that did not answer.
    pub fn left(&self) -> usize {
        self.lock_dirs().left.len()
    }

    /// Has what homes could not be told be told once more.
    pub fn take_untold(&self) {
        let mut table = self.lock_dirs();
        let untold = std::mem::take(&mut table.untold);
        table.left.extend(untold);
    }

    /// True if what homes know of this node may be more than there is.
    pub fn was_killed(&self) -> bool {
        self.dirs.was_killed
    }

    /// At an orderly end: the next start need not ask homes, unless one is still to be told of a directory.
    pub(super) fn note_settled(&self) -> io::Result<()> {
        let table = self.lock_dirs();
        let is_audited = self.dirs.audited.load(Ordering::Relaxed);
        match is_audited && table.left.is_empty() && table.untold.is_empty() {
            true => File::create(self.root.join(SETTLED)).map(drop),
            false => Ok(()),
        }
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

impl Asking<'_> {
    /// Forgets the holders that have let it go, and removes the directory if nobody holds it any more, even if it was `made` to stay.
    pub fn end(self, let_go: &[NodeId], even_made: bool) -> Result<Settled> {
        let mut table = self.store.lock_dirs();
        if let Some(sending) = table.sending.get_mut(self.dir.as_str()) {
            sending.asked = true;
            return Ok(Settled::Stays);
        }
        let asking = table.asking.get(self.dir.as_str()).and_then(|asking| asking.get(&self.number));
        let entered = |node: &NodeId| asking.is_some_and(|entered| entered.contains(node));
        if let_go.iter().any(entered) {
            return Ok(Settled::Unsure);
        }
        let path = self.store.dir_path(&self.dir);
        if !path.is_dir() {
            return Ok(Settled::Gone);
        }
        let mut rest = DirRecord::default();
        self.store.update(&self.dir, |record| {
            let before = record.holders.len();
            let_go.iter().for_each(|node| _ = record.holders.remove(node));
            rest = record.clone();
            record.holders.len() != before
        })?;
        if !rest.holders.is_empty() || (rest.made && !even_made) {
            return Ok(Settled::Stays);
        }
        let removed = self
            .store
            .data
            .open_parent(&path)
            .and_then(|(parent, name)| unlinkat(&parent, name, UnlinkatFlags::RemoveDir));
        match removed {
            Ok(()) | Err(Errno::ENOENT) => Ok(Settled::Gone),
            Err(Errno::ENOTEMPTY) => Ok(Settled::Stays),
            Err(errno) => Err(failed(&self.dir, errno)),
        }
    }
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        let mut table = self.store.lock_dirs();
        if let Some(asking) = table.asking.get_mut(self.dir.as_str()) {
            asking.remove(&self.number);
            if asking.is_empty() {
                table.asking.remove(self.dir.as_str());
            }
        }
    }
}

impl Receivers {
    /// Not all was sent: some may hold nothing.
    pub fn note_failed(&self) {
        if let Some(sending) = self.store.lock_dirs().sending.get_mut(self.dir.as_str()) {
            sending.asked = true;
        }
    }
}

impl Drop for Receivers {
    fn drop(&mut self) {
        let mut table = self.store.lock_dirs();
        // What one has answered meanwhile may be older than its copy.
        table.void_answers(&self.dir, &self.receivers);
        let Some(sending) = table.sending.get_mut(self.dir.as_str()) else { return };
        sending.count -= 1;
        if sending.count == 0 && table.sending.remove(self.dir.as_str()).is_some_and(|sending| sending.asked) {
            table.left.insert(self.dir.as_str().to_owned());
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

/// The same while a task's outputs come. A copy in which there is nothing at the end goes.
pub struct Receiving {
    store: Arc<Store>,
    dir: Dir,
    turn: Arc<Mutex<()>>,
}

impl Receiving {
    pub fn dir(&self) -> &Dir {
        &self.dir
    }
}

impl Drop for Receiving {
    fn drop(&mut self) {
        self.store.leave_turn(&self.dir, &self.turn);
        self.store.prune(&self.store.dir_path(&self.dir).join("any"));
    }
}

/// True also of a directory that cannot be looked into.
fn is_empty(dir: &Path) -> bool {
    std::fs::read_dir(dir).map_or(true, |mut entries| entries.next().is_none())
}

fn removed_again(dir: &Dir) -> Error {
    Error::new(ErrorKind::Io, format!("{dir}: it is removed again and again"))
}
