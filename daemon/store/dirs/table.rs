//! State of this node's directories in memory.

use s4::error::Result;
use s4::key::Dir;
use s4::placement::NodeId;
use s4::stored::KNOWS_DIRS;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

/// This file exists while no daemon runs, if the last one ended in order.
pub(super) const SETTLED: &str = ".s4/settled";

/// Reports to a home node that this node is about to hold something in a directory. Blocks, for the given time at most.
pub type Enter = dyn Fn(NodeId, &Dir, Option<Duration>) -> Result<()> + Send + Sync;
/// Refuses a name that is a directory on another node. Called where this node is the home and does not know all
/// directories. Blocks.
pub type RefuseDir = dyn Fn(&Dir) -> Result<()> + Send + Sync;

/// Has the homes decide about directories that this node does not hold any more. Does not block.
pub type Settle = dyn Fn() + Send + Sync;

/// Requests of the store to other nodes.
pub struct Others {
    pub enter: Box<Enter>,
    pub refuse_dir: Box<RefuseDir>,
    pub settle: Box<Settle>,
}

/// What the store knows of its directories, apart from the disk.
pub struct Dirs {
    table: Mutex<Table>,
    pub(super) others: OnceLock<Others>,
    /// The last daemon here was killed, or could not report all that it had left.
    pub(super) was_killed: AtomicBool,
    /// Since then, every home has asked this node which of its directories it still holds.
    pub(super) audited: AtomicBool,
    /// This node knows all directories of which it is the home.
    pub(super) knows_all: AtomicBool,
}

impl Dirs {
    /// Of the data directory `root`. During a resize, the nodes tell each other of all directories.
    pub fn new(root: &Path, is_resizing: bool) -> Self {
        let was_killed = std::fs::remove_file(root.join(SETTLED)).is_err();
        let knows_all = AtomicBool::new(is_resizing || root.join(KNOWS_DIRS).exists());
        Self {
            table: Mutex::default(),
            others: OnceLock::new(),
            was_killed: AtomicBool::new(was_killed),
            audited: AtomicBool::new(!was_killed),
            knows_all,
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// State by the path of a directory. Its lock also guards the records of directories on the disk.
#[derive(Default)]
pub(super) struct Table {
    /// Rounds of asking the holders whether they still hold it, by their numbers, and the nodes that have entered since
    /// the round began: their answers are void.
    pub(super) asking: HashMap<String, BTreeMap<u64, BTreeSet<NodeId>>>,
    pub(super) asked: u64,
    /// Directories of which this node is about to make a copy. It answers that it holds them.
    pub(super) entering: HashMap<String, Turn>,
    /// Directories that lost their last entry here, to be reported to their homes, which decide.
    pub(super) left: BTreeSet<String>,
    /// Those whose home did not answer.
    pub(super) unreported: BTreeSet<String>,
    /// Directories that outputs are being sent to. The receivers are recorded as holders, and may not have their copies
    /// yet.
    pub(super) sending: HashMap<String, Sending>,
}

impl Table {
    /// Ignores the answers of these nodes about `dir` in running rounds: they may be older than their copies.
    pub(super) fn void_answers(&mut self, dir: &Dir, nodes: &[NodeId]) {
        for entered in self.asking.get_mut(dir.as_str()).into_iter().flat_map(BTreeMap::values_mut) {
            entered.extend(nodes);
        }
    }
}

#[derive(Default)]
pub(super) struct Turn {
    /// Requests that need the copy. A count of the references to `lock` would not do: each is dropped a moment after its
    /// request has left.
    pub(super) count: usize,
    /// Makes requests that need the copy wait for the one that makes it.
    pub(super) lock: Arc<Mutex<()>>,
    /// The home asked meanwhile, and must ask again.
    pub(super) asked: bool,
}

#[derive(Default)]
pub(super) struct Sending {
    /// Tasks that send to it.
    pub(super) count: usize,
    /// Its holders were asked meanwhile, and must be asked again.
    pub(super) asked: bool,
}
