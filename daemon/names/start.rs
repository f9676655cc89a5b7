//! What a node does about directories after its start: it learns what it may not know, and tells what other nodes may
//! not know of it.

use super::{Names, SETTLING, wait};
use s4::client::blocking;
use s4::error::{Error, ErrorKind, Result};
use s4::key::Dir;
use s4::placement::NodeId;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use tokio::task::JoinSet;

/// The pause before a node that did not answer is asked again: at first, and at most.
const RETRY: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));
/// Nodes that are asked simultaneously.
const AT_ONCE: usize = 32;
/// Directories that a home is told of in one request, which may have to sync each.
const ENTERED_AT_ONCE: usize = 20;

impl Names {
    /// The work after a start. If this node does not know all directories, ends when every other node has answered. If
    /// this node was killed, ends when every other node has asked it about its copies. If homes may have dropped directories
    /// that this node holds, after a power cut, ends when every home knows of them.
    pub async fn start(self: Arc<Self>) {
        let others: BTreeSet<NodeId> = self.client.cluster().ids().filter(|&other| other != self.node).collect();
        let (mut to_audit, mut to_enter) = (BTreeSet::new(), BTreeSet::new());
        if !self.store.knows_all_dirs() {
            to_enter = others.clone();
        }
        if self.store.was_killed() {
            // It may have entered directories without making its copies, or left some without reporting it.
            to_audit = others;
            let names = self.clone();
            blocking(move || names.audit_all(None)).await;
        }
        let (mut pause, mut has_noted) = (RETRY.0, self.store.knows_all_dirs());
        loop {
            if !to_enter.is_empty() {
                let (names, homes) = (self.clone(), std::mem::take(&mut to_enter));
                let (entered, left) = blocking(move || names.enter_again(homes)).await;
                to_enter = left;
                // This node may have left some in the meantime.
                to_audit.extend(entered);
            }
            for homes in to_audit.iter().copied().collect::<Vec<_>>().chunks(AT_ONCE) {
                let audited = homes.iter().map(|&home| {
                    let (client, node) = (self.with_timeout(SETTLING), self.node);
                    async move { client.audit_dirs(home, node).await.is_ok().then_some(home) }
                });
                let audited = audited.collect::<JoinSet<_>>().join_all().await;
                audited.into_iter().flatten().for_each(|home| _ = to_audit.remove(&home));
            }
            if to_audit.is_empty() {
                self.store.note_audited();
            }
            let unasked: Vec<NodeId> = self.unasked().keys().copied().collect();
            for nodes in unasked.chunks(AT_ONCE) {
                let learning: JoinSet<_> = nodes.iter().map(|&node| self.clone().learn_from(node)).collect();
                learning.join_all().await;
            }
            if self.unasked().is_empty() {
                self.store.know_all_dirs();
                if to_enter.is_empty() && !std::mem::replace(&mut has_noted, true) {
                    self.store.note_all_dirs().unwrap_or_else(|error| tracing::warn!("{error}"));
                }
                if to_audit.is_empty() && to_enter.is_empty() {
                    return;
                }
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(RETRY.1);
        }
    }

    /// Enters every directory that this node holds and whose home is one of `homes` there again. After a power cut, a home
    /// has dropped those of keys whose deletion was lost. Returns the homes where it has entered some, and those that are
    /// to be told once more.
    fn enter_again(&self, homes: BTreeSet<NodeId>) -> (BTreeSet<NodeId>, BTreeSet<NodeId>) {
        let (mut held, mut silent) = (BTreeMap::<NodeId, Vec<Dir>>::new(), BTreeSet::new());
        let walked = self.store.held_elsewhere(&mut |dir, home| {
            if !homes.contains(&home) {
                return;
            }
            let dirs = held.entry(home).or_default();
            dirs.push(dir);
            if dirs.len() >= ENTERED_AT_ONCE {
                self.enter_at(home, &std::mem::take(dirs), &mut silent);
            }
        });
        held.iter().for_each(|(&home, dirs)| self.enter_at(home, dirs, &mut silent));
        let entered = held.into_keys().filter(|home| !silent.contains(home)).collect();
        match walked {
            Ok(()) => (entered, silent),
            Err(error) => {
                tracing::warn!("{error}");
                (entered, homes)
            }
        }
    }

    /// Enters `dirs` at their home, unless it is one of those that did not answer.
    fn enter_at(&self, home: NodeId, dirs: &[Dir], silent: &mut BTreeSet<NodeId>) {
        if silent.contains(&home) || dirs.is_empty() {
            return;
        }
        let (client, node, entered) = (self.with_timeout(SETTLING), self.node, dirs.to_vec());
        match wait(&self.runtime, async move { client.enter_dirs(home, node, entered).await })
            .and_then(|entered| entered)
        {
            Ok(()) => {}
            // A key has got the name of one of them.
            Err(error) if error.kind() == ErrorKind::AlreadyExists => match dirs {
                [dir] => {
                    tracing::warn!("{error}; this node holds keys in {dir}, whose deletion a power cut has undone")
                }
                dirs => dirs.iter().for_each(|dir| self.enter_at(home, std::slice::from_ref(dir), silent)),
            },
            Err(error) => {
                tracing::debug!("{error}");
                silent.insert(home);
            }
        }
    }

    /// Records the directories that `node` holds, and whether it has answered.
    async fn learn_from(self: Arc<Self>, node: NodeId) {
        let learned = self.clone().try_to_learn_from(node).await;
        let mut unasked = self.unasked();
        match learned {
            Ok(()) => _ = unasked.remove(&node),
            Err(error) => {
                tracing::debug!("{error}");
                unasked.insert(node, !is_silence(&error));
            }
        }
    }

    /// Records the directories that `node` holds and whose home this node is. Errors: the node, or the home of a
    /// directory above, does not answer.
    async fn try_to_learn_from(self: Arc<Self>, node: NodeId) -> Result<()> {
        let mut held = self.client.held_dirs(node, self.node).await?;
        let (mut learned, mut failed) = (false, None);
        while let Some(dir) = held.next().await? {
            let (store, name) = (self.store.clone(), dir.clone());
            match blocking(move || store.enter(&name, node)).await {
                Err(error) if error.kind() == ErrorKind::AlreadyExists => tracing::warn!(
                    "{error}; it was a directory before this node lost its disk, and node {node} holds keys in it"
                ),
                Err(error) => failed = Some(error),
                Ok(()) => learned = true,
            }
        }
        if learned {
            // Some may have been left since the answer.
            let names = self.clone();
            blocking(move || names.audit_all(Some(node))).await;
        }
        failed.map_or(Ok(()), Err)
    }

    /// Settles the directories that `node`, which was killed, is recorded to hold. If another thread is auditing, that
    /// thread does it afterwards.
    pub fn audit(&self, node: NodeId) {
        {
            let mut audits = self.audits.lock().unwrap_or_else(PoisonError::into_inner);
            audits.waiting.insert(node);
            if std::mem::replace(&mut audits.running, true) {
                return;
            }
        }
        loop {
            let node = {
                let mut audits = self.audits.lock().unwrap_or_else(PoisonError::into_inner);
                let all = std::mem::take(&mut audits.waiting);
                audits.running = !all.is_empty();
                all
            };
            match node.len() {
                0 => return,
                1 => self.audit_all(node.first().copied()),
                // One walk for all.
                _ => self.audit_all(None),
            }
        }
    }

    /// Settles all directories whose home this node is and which `holder` is recorded to hold; all of them without a
    /// `holder`.
    fn audit_all(&self, holder: Option<NodeId>) {
        match self.store.doubtful_dirs(holder) {
            Ok(dirs) => self.settle_own(dirs, &mut || {}),
            Err(error) => tracing::warn!("{error}"),
        }
        self.settle(&mut || {});
    }
}

/// True if the error is that a node did not answer.
fn is_silence(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Unreachable | ErrorKind::Deadline)
}
