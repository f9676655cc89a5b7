//! Directories over the cluster: the decisions of home nodes, and the messages between nodes.
//!
//! [`store::dirs`](crate::store) keeps the invariants on one node; this module asks the other nodes. Everything here
//! blocks, and each wait for another node has a deadline.

mod start;

use crate::store::{Asking, Others, Settled, Store};
use s4::client::Client;
use s4::error::{Error, ErrorKind, Result};
use s4::key::Dir;
use s4::placement::NodeId;
use s4::protocol::{Change, Stat};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::task::JoinSet;

/// Directories that are reported to a home in one request: few enough that it settles them within the timeout.
const LEFT_AT_ONCE: usize = 50;
/// Attempts to settle a directory that other nodes enter and leave meanwhile.
const ATTEMPTS: usize = 10;
/// Directories that are settled together after a delete.
const BATCH: usize = 1000;
/// The timeout for a node that is asked about directories that were left. The client that has deleted something waits.
const SETTLING: Duration = Duration::from_secs(2);

pub struct Names {
    store: Arc<Store>,
    client: Client,
    node: NodeId,
    runtime: Handle,
    /// After this node has lost its disk or its last writes: the nodes that may hold directories whose home it is and
    /// that it does not know, and whether each has answered the last request.
    unasked: Mutex<BTreeMap<NodeId, bool>>,
    audits: Mutex<Audits>,
}

/// Guards the nodes that were killed and must be asked what they hold, and whether a thread does that.
#[derive(Default)]
struct Audits {
    waiting: BTreeSet<NodeId>,
    running: bool,
}

impl Names {
    /// Must be called in a runtime.
    pub fn new(store: Arc<Store>, client: Client, node: NodeId) -> Arc<Self> {
        let runtime = Handle::current();
        let unasked = match store.knows_all_dirs() {
            true => BTreeMap::new(),
            false => client.cluster().ids().filter(|&other| other != node).map(|other| (other, true)).collect(),
        };
        let (unasked, audits) = (Mutex::new(unasked), Mutex::default());
        let names = Arc::new(Self { store, client, node, runtime, unasked, audits });
        // The store owns these closures, so they must not own the store.
        let (telling, asking) = ((names.client.clone(), names.runtime.clone()), Arc::downgrade(&names));
        let settling = asking.clone();
        names.store.set_others(Others {
            enter: Box::new(move |home, dir, limit| {
                let (client, runtime) = &telling;
                let client =
                    limit.map_or_else(|| client.clone(), |limit| client.with_deadline(client.deadline().min(limit)));
                let dir = dir.clone();
                wait(runtime, async move { client.enter_dir(home, node, &dir).await })?
            }),
            refuse_dir: Box::new(move |dir| match asking.upgrade() {
                Some(names) if names.is_dir_elsewhere(dir) => {
                    Err(Error::new(ErrorKind::AlreadyExists, format!("{dir}: a directory of this name exists")))
                }
                _ => Ok(()),
            }),
            settle: Box::new(move || {
                if let Some(names) = settling.upgrade() {
                    names.runtime.clone().spawn_blocking(move || names.settle(&mut || {}));
                }
            }),
        });
        names
    }

    /// The kind of `path`, if its home is this node.
    pub fn look_up(&self, path: &Dir) -> Result<Stat> {
        let found = self.store.stat(path.as_str())?;
        if found != Stat::Absent || self.home_of(path) != self.node {
            return Ok(found);
        }
        match self.is_dir_elsewhere(path) {
            true => self.store.stat(path.as_str()),
            false => Ok(Stat::Absent),
        }
    }

    /// True if this node has lost its disk, and another node has a copy of this directory whose home this node is. The
    /// directory is recorded then. Directories that exist only on nodes that do not answer stay unknown.
    fn is_dir_elsewhere(&self, path: &Dir) -> bool {
        if self.store.knows_all_dirs() {
            return false;
        }
        let unasked: Vec<NodeId> =
            self.unasked().iter().filter(|(_, answers)| **answers).map(|(&node, _)| node).collect();
        let (client, dir) = (self.with_timeout(SETTLING), path.clone());
        let heard = wait(&self.runtime, async move {
            let asked: JoinSet<_> = unasked
                .into_iter()
                .map(|node| {
                    let (client, dir) = (client.clone(), dir.clone());
                    async move { (node, client.holds_dir(node, &dir).await) }
                })
                .collect();
            asked.join_all().await
        });
        let mut holder = None;
        for (node, answer) in heard.unwrap_or_default() {
            match answer {
                Ok(true) => holder = Some(node),
                Ok(false) => {}
                Err(_) => _ = self.unasked().entry(node).and_modify(|answers| *answers = false),
            }
        }
        // Its last key may be deleted meanwhile.
        holder.is_some_and(|holder| self.store.enter(path, holder).map(|()| self.store.note_left(path)).is_ok())
    }

    pub fn make_dir(&self, dir: &Dir, change: Change) -> Result<()> {
        match self.look_up(dir)? {
            Stat::Dir { .. } => {
                Err(Error::new(ErrorKind::AlreadyExists, format!("{dir}: a directory of this name exists")))
            }
            Stat::Key(_) | Stat::Absent => self.store.make_dir(dir, change),
        }
    }

    /// Removes an empty directory whose home this node is. Errors: it does not exist; a node holds something in it, or
    /// does not answer.
    pub fn remove_dir(&self, dir: &Dir) -> Result<()> {
        // The requester waits for its own deadline, so this must end earlier.
        let timeout = self.client.deadline() * 4 / 5;
        self.ask_unasked(dir)?;
        for _ in 0..ATTEMPTS {
            let Some(asking) = self.store.begin_asking(dir)? else {
                return Err(Error::new(ErrorKind::NotFound, format!("{dir}: no such directory")));
            };
            let (let_go, failed) = self.ask(&asking, dir, timeout);
            match asking.end(&let_go, true)? {
                Settled::Gone => return Ok(()),
                Settled::Stays if failed.is_some() => return failed.map_or(Ok(()), Err),
                Settled::Stays => break,
                Settled::Unsure => {}
            }
        }
        Err(Error::new(ErrorKind::NotEmpty, format!("{dir}: not empty")))
    }

    /// Removes a directory whose home this node is once it is empty: now, or with its last entry. Errors: it is not there.
    pub fn release_dir(&self, dir: &Dir) -> Result<()> {
        self.store.forget_made(dir)?;
        // Nobody else asks if its last entry is gone already.
        self.settle_own(vec![dir.clone()], &mut || {});
        // Those above it.
        self.settle(&mut || {});
        Ok(())
    }

    /// Asks the nodes that were not asked yet whether they hold `dir`. Errors: one does not answer.
    fn ask_unasked(&self, dir: &Dir) -> Result<()> {
        let unasked: Vec<NodeId> = self.unasked().keys().copied().collect();
        for node in unasked {
            let (client, asked) = (self.with_timeout(SETTLING), dir.clone());
            if wait(&self.runtime, async move { client.holds_dir(node, &asked).await })?? {
                self.store.enter(dir, node)?;
            }
        }
        Ok(())
    }

    /// After a delete: reports the directories that this node no longer holds to their homes, which decide about them.
    /// `tick` is called repeatedly.
    pub fn settle(&self, tick: &mut dyn FnMut()) {
        let mut silent = BTreeSet::new();
        loop {
            let left = self.store.take_left(BATCH);
            if left.is_empty() {
                return;
            }
            let mut homes: BTreeMap<NodeId, Vec<Dir>> = BTreeMap::new();
            left.into_iter().for_each(|dir| homes.entry(self.home_of(&dir)).or_default().push(dir));
            self.settle_own(homes.remove(&self.node).unwrap_or_default(), tick);
            homes.retain(|home, _| !silent.contains(home));
            for (home, dirs) in homes {
                for dirs in dirs.chunks(LEFT_AT_ONCE) {
                    tick();
                    let (client, left) = (self.with_timeout(SETTLING), dirs.to_vec());
                    let reported = wait(&self.runtime, async move { client.left_dirs(home, &left).await });
                    match reported.and_then(|reported| reported) {
                        Ok(()) => self.store.note_reported(dirs),
                        Err(error) => {
                            // The other directories of this home are reported later, too.
                            tracing::debug!("{error}");
                            silent.insert(home);
                            break;
                        }
                    }
                }
            }
        }
    }

    /// Asks the holders of these directories, whose home this node is, and removes those that no node holds.
    pub fn settle_own(&self, dirs: Vec<Dir>, tick: &mut dyn FnMut()) {
        for dir in dirs {
            tick();
            match self.settle_one(&dir) {
                Ok(()) => self.store.note_reported(&[dir]),
                // The holders are asked again later.
                Err(error) => {
                    tracing::debug!("{error}");
                    self.store.note_unreported(&dir);
                }
            }
        }
    }

    /// Errors: a holder does not answer, and no other holder confirms that it holds the directory.
    fn settle_one(&self, dir: &Dir) -> Result<()> {
        for _ in 0..ATTEMPTS {
            let Some(asking) = self.store.begin_asking(dir)? else { return Ok(()) };
            let (let_go, failed) = self.ask(&asking, dir, SETTLING);
            match asking.end(&let_go, false)? {
                Settled::Gone => {
                    self.store.prune_above(dir);
                    return Ok(());
                }
                Settled::Stays => return failed.map_or(Ok(()), Err),
                Settled::Unsure => {}
            }
        }
        Ok(())
    }

    /// Asks the holders one after the other, until one still holds the directory. Returns those that do not, and the
    /// error of one that did not answer.
    fn ask(&self, asking: &Asking, dir: &Dir, timeout: Duration) -> (Vec<NodeId>, Option<Error>) {
        let mut let_go = Vec::new();
        for &holder in &asking.holders {
            let (client, asked) = (self.with_timeout(timeout), vec![dir.clone()]);
            let answer = wait(&self.runtime, async move { client.let_go_dirs(holder, &asked).await });
            match answer.and_then(|answer| answer) {
                Ok(held) if held == [false] => let_go.push(holder),
                Ok(_) => return (let_go, None),
                Err(error) => return (let_go, Some(error)),
            }
        }
        (let_go, None)
    }

    /// For each of `dirs`, true if this node holds something in it. Empty copies are removed.
    pub fn let_go(&self, dirs: &[Dir]) -> Result<Vec<bool>> {
        dirs.iter().map(|dir| self.store.let_go(dir)).collect()
    }

    /// Records that `holder` is about to hold something in each of `dirs`, whose home this node is.
    pub fn enter(&self, dirs: &[Dir], holder: NodeId) -> Result<()> {
        dirs.iter().try_for_each(|dir| self.store.enter(dir, holder))
    }

    /// Reports again what could not be reported to homes.
    pub fn settle_unreported(&self) {
        self.store.take_unreported();
        self.settle(&mut || {});
    }

    fn with_timeout(&self, timeout: Duration) -> Client {
        self.client.with_deadline(self.client.deadline().min(timeout))
    }

    fn home_of(&self, dir: &Dir) -> NodeId {
        self.client.home_of(dir.as_str())
    }

    fn unasked(&self) -> MutexGuard<'_, BTreeMap<NodeId, bool>> {
        self.unasked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs `work` in the runtime, and blocks until its end. Errors: the runtime ends meanwhile.
fn wait<T: Send + 'static>(runtime: &Handle, work: impl Future<Output = T> + Send + 'static) -> Result<T> {
    let (sender, receiver) = std::sync::mpsc::sync_channel(1);
    runtime.spawn(async move {
        // The receiver waits, so this cannot fail.
        let _ = sender.send(work.await);
    });
    receiver.recv().map_err(|_| Error::new(ErrorKind::ShuttingDown, "the daemon is going down"))
}
