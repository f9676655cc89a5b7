//! What is known of this node's directories in memory.

use s4::error::Result;
use s4::key::Dir;
use s4::placement::NodeId;
use s4::stored::KNOWS_DIRS;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

/// Is there while no daemon runs, if the last one ended in order.
pub(super) const SETTLED: &str = ".s4/settled";

/// Tells a home node that this node is about to hold something in a directory, within so long if there is a limit. Blocks.
pub type Enter = dyn Fn(NodeId, &Dir, Option<Duration>) -> Result<()> + Send + Sync;
/// Refuses a name that another node knows as a directory, where this node, its home, does not know all. Blocks.
pub type RefuseDir = dyn Fn(&Dir) -> Result<()> + Send + Sync;

/// What a store asks of other nodes.
pub struct Others {
    pub enter: Box<Enter>,
    pub refuse_dir: Box<RefuseDir>,
}

pub struct Dirs {
    table: Mutex<Table>,
    pub(super) others: OnceLock<Others>,
    /// The last daemon here was killed, or could not tell homes all.
    pub(super) was_killed: bool,
    /// Every home has asked since whether this node holds what it has recorded.
    pub(super) audited: AtomicBool,
    /// This node knows all directories whose home it is.
    pub(super) knows_all: AtomicBool,
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

    pub(super) fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Guards the records of directories on the disk, and what follows, by the directory's path.
#[derive(Default)]
pub(super) struct Table {
    /// Who is asking holders whether they still hold it, by a number, and the nodes that have entered since: their answers say nothing.
    pub(super) asking: HashMap<String, BTreeMap<u64, BTreeSet<NodeId>>>,
    pub(super) asked: u64,
    /// This node is about to make a copy. Whoever wants to, too, waits for the lock.
    pub(super) entering: HashMap<String, Arc<Mutex<()>>>,
    /// Directories that lost their last entry here: their homes are still to decide.
    pub(super) left: BTreeSet<String>,
    /// The same where the home did not answer.
    pub(super) untold: BTreeSet<String>,
    /// Outputs are sent to these: whoever receives them is recorded, and may not have its copy yet. With how many are at it.
    pub(super) sending: HashMap<String, Sending>,
}

impl Table {
    /// What these nodes have answered so far about `dir` may be older than their copies.
    pub(super) fn void_answers(&mut self, dir: &Dir, nodes: &[NodeId]) {
        for entered in self.asking.get_mut(dir.as_str()).into_iter().flat_map(BTreeMap::values_mut) {
            entered.extend(nodes);
        }
    }
}

#[derive(Default)]
pub(super) struct Sending {
    pub(super) count: usize,
    /// Its holders were asked meanwhile, and are to be asked again.
    pub(super) asked: bool,
}
