//! Names over the cluster: what the home node of a directory decides, and what nodes tell homes.
//!
//! [`store::dirs`](crate::store) keeps the invariants on one node; this asks the others. Everything here blocks, and waits for other
//! nodes no longer than a deadline.

use crate::store::{Asking, Settled, Store};
use s4::client::{Client, blocking};
use s4::error::{Error, ErrorKind, Result};
use s4::key::Dir;
use s4::placement::NodeId;
use s4::protocol::{Change, DIRS_AT_ONCE, Stat};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::runtime::Handle;

/// How long a node is waited for before it is asked again for what it holds.
const RETRY: Duration = Duration::from_millis(500);
/// How often a directory is settled that is entered and left meanwhile.
const ATTEMPTS: usize = 10;
/// Directories that are settled at a time after a delete.
const BATCH: usize = 1000;
/// How long a node is waited for about directories that were left: whoever has deleted something waits for it.
const SETTLING: Duration = Duration::from_secs(2);

pub struct Names {
    store: Arc<Store>,
    client: Client,
    node: NodeId,
    runtime: Handle,
    /// Nodes that may hold directories whose home this node is, and of which it does not know: it lost its disk, or what it wrote last.
    unheard: Mutex<BTreeSet<NodeId>>,
    /// One walk over all directories at a time.
    auditing: Mutex<()>,
}

impl Names {
    /// Must be called in a runtime.
    pub fn new(store: Arc<Store>, client: Client, node: NodeId) -> Arc<Self> {
        let runtime = Handle::current();
        let (telling, on) = (client.clone(), runtime.clone());
        store.set_enter(Box::new(move |home, dir, limit| {
            let client =
                limit.map_or_else(|| telling.clone(), |limit| telling.with_deadline(telling.deadline().min(limit)));
            on.block_on(client.enter_dir(home, node, dir))
        }));
        let unheard = match store.knows_all_dirs() {
            true => BTreeSet::new(),
            false => client.cluster().ids().filter(|&other| other != node).collect(),
        };
        Arc::new(Self { store, client, node, runtime, unheard: Mutex::new(unheard), auditing: Mutex::default() })
    }

    /// What `path` is, if its home is this node.
    pub fn look_up(&self, path: &Dir) -> Result<Stat> {
        let found = self.store.stat(path.as_str())?;
        if found != Stat::Absent || self.home_of(path) != self.node {
            return Ok(found);
        }
        // Empty but after a disk was lost.
        let unheard: Vec<NodeId> = self.lock().iter().copied().collect();
        for node in unheard {
            if self.runtime.block_on(self.client.holds_dir(node, path))? {
                self.store.enter(path, node)?;
                return self.store.stat(path.as_str());
            }
        }
        Ok(Stat::Absent)
    }

    pub fn make_dir(&self, dir: &Dir, change: Change) -> Result<()> {
        match self.look_up(dir)? {
            Stat::Dir { .. } => {
                Err(Error::new(ErrorKind::AlreadyExists, format!("{dir}: a directory of this name exists")))
            }
            Stat::Key(_) | Stat::Absent => self.store.make_dir(dir, change),
        }
    }

    /// Removes an empty directory whose home this node is. Errors: it is not there; a node holds something in it, or does not answer.
    pub fn remove_dir(&self, dir: &Dir) -> Result<()> {
        // Whoever waits for the answer has the client's own deadline.
        let patience = self.client.deadline() * 4 / 5;
        for _ in 0..ATTEMPTS {
            let Some(asking) = self.store.begin_asking(dir)? else {
                return Err(Error::new(ErrorKind::NotFound, format!("{dir}: no such directory")));
            };
            let (let_go, failed) = self.ask(&asking, dir, patience);
            match asking.end(&let_go, true)? {
                Settled::Gone => return Ok(()),
                Settled::Stays if failed.is_some() => return failed.map_or(Ok(()), Err),
                Settled::Stays => break,
                Settled::Unsure => {}
            }
        }
        Err(Error::new(ErrorKind::NotEmpty, format!("{dir}: not empty")))
    }

    /// After a delete: has the homes of directories that this node does not hold any more decide about them.
    pub fn settle(&self) {
        let mut failed = Vec::new();
        loop {
            let left = self.store.take_left(BATCH);
            if left.is_empty() {
                break;
            }
            let mut homes: BTreeMap<NodeId, Vec<Dir>> = BTreeMap::new();
            left.into_iter().for_each(|dir| homes.entry(self.home_of(&dir)).or_default().push(dir));
            self.settle_own(homes.remove(&self.node).unwrap_or_default());
            for (home, dirs) in homes {
                for dirs in dirs.chunks(DIRS_AT_ONCE) {
                    if let Err(error) = self.runtime.block_on(self.patient(SETTLING).left_dirs(home, dirs)) {
                        tracing::debug!("{error}");
                        failed.extend_from_slice(dirs);
                    }
                }
            }
        }
        self.store.keep_untold(failed);
    }

    /// Asks who still holds these, whose home this node is, and removes those that nobody does.
    pub fn settle_own(&self, dirs: Vec<Dir>) {
        for dir in dirs {
            let settled = self.settle_one(&dir);
            if let Err(error) = settled {
                tracing::debug!("{error}");
            }
        }
    }

    fn settle_one(&self, dir: &Dir) -> Result<()> {
        for _ in 0..ATTEMPTS {
            let Some(asking) = self.store.begin_asking(dir)? else { return Ok(()) };
            let (let_go, _) = self.ask(&asking, dir, SETTLING);
            match asking.end(&let_go, false)? {
                Settled::Gone => {
                    self.store.prune_above(dir);
                    return Ok(());
                }
                Settled::Stays => return Ok(()),
                Settled::Unsure => {}
            }
        }
        Ok(())
    }

    /// The holders that do not hold it any more, as far as they were asked: the first that does ends it. And why one is not known.
    fn ask(&self, asking: &Asking, dir: &Dir, patience: Duration) -> (Vec<NodeId>, Option<Error>) {
        let mut let_go = Vec::new();
        for &holder in &asking.holders {
            match self.runtime.block_on(self.patient(patience).let_go_dirs(holder, std::slice::from_ref(dir))) {
                Ok(held) if held == [false] => let_go.push(holder),
                Ok(_) => return (let_go, None),
                Err(error) => return (let_go, Some(error)),
            }
        }
        (let_go, None)
    }

    /// For each of `dirs`, true if this node holds something in it. Copies in which nothing is go.
    pub fn let_go(&self, dirs: &[Dir]) -> Result<Vec<bool>> {
        dirs.iter().map(|dir| self.store.let_go(dir)).collect()
    }

    /// Records that `holder` is about to hold something in each of `dirs`, whose home this node is.
    pub fn enter(&self, dirs: &[Dir], holder: NodeId) -> Result<()> {
        dirs.iter().try_for_each(|dir| self.store.enter(dir, holder))
    }

    /// Tells homes once more what they could not be told.
    pub fn settle_untold(&self) {
        self.store.take_untold();
        self.settle();
    }

    /// What is to be done once at the start. Ends when every other node has been heard, if this node does not know all directories.
    pub async fn start(self: Arc<Self>) {
        if self.store.was_killed() {
            // It may have entered what it did not make, or left what it did not tell.
            let names = self.clone();
            blocking(move || names.audit_own(None)).await;
            for home in self.client.cluster().ids().filter(|&other| other != self.node) {
                // One that is down asks by its own next start, if it was killed.
                if let Err(error) = self.client.audit_dirs(home, self.node).await {
                    tracing::debug!("{error}");
                }
            }
        }
        if self.store.knows_all_dirs() {
            return;
        }
        loop {
            let unheard: Vec<NodeId> = self.lock().iter().copied().collect();
            for &node in &unheard {
                match self.clone().learn_from(node).await {
                    Ok(()) => _ = self.lock().remove(&node),
                    Err(error) => tracing::debug!("{error}"),
                }
            }
            if self.lock().is_empty() {
                break;
            }
            tokio::time::sleep(RETRY).await;
        }
        if let Err(error) = self.store.note_all_dirs() {
            tracing::warn!("{error}");
        }
    }

    /// Records what `node` holds of the directories whose home this node is.
    async fn learn_from(self: Arc<Self>, node: NodeId) -> Result<()> {
        let mut held = self.patient(SETTLING).held_dirs(node, self.node).await?;
        while let Some(dir) = held.next().await? {
            let store = self.store.clone();
            match blocking(move || store.enter(&dir, node)).await {
                Err(error) if error.kind() == ErrorKind::AlreadyExists => tracing::warn!(
                    "{error}; it was a directory before this node lost its disk, and node {node} holds keys in it"
                ),
                entered => entered?,
            }
        }
        Ok(())
    }

    /// The same for another node that was killed, of the directories whose home this is.
    pub fn audit(&self, node: NodeId) {
        let _turn = self.auditing.lock().unwrap_or_else(PoisonError::into_inner);
        self.audit_own(Some(node));
    }

    fn audit_own(&self, holder: Option<NodeId>) {
        match self.store.doubtful_dirs(holder) {
            Ok(dirs) => self.settle_own(dirs),
            Err(error) => tracing::warn!("{error}"),
        }
        self.settle();
    }

    fn patient(&self, patience: Duration) -> Client {
        self.client.with_deadline(self.client.deadline().min(patience))
    }

    fn home_of(&self, dir: &Dir) -> NodeId {
        self.client.home_of(dir.as_str())
    }

    fn lock(&self) -> MutexGuard<'_, BTreeSet<NodeId>> {
        self.unheard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
