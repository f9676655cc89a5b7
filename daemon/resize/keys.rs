//! Moves keys. A window of them is sent to their new nodes in parallel; these write them to their disks; then they are
//! deleted here. While one window is written and deleted, the next is sent.

use super::Resize;
use crate::store::{Placed, Store};
use s4::client::{Client, Puts, blocking};
use s4::error::{Error, ErrorKind, Result};
use s4::key::Key;
use s4::placement::NodeId;
use s4::wire::{LARGE, Request};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::{MutexGuard, Semaphore, mpsc};
use tokio::task::{JoinHandle, JoinSet};

/// Limits of a window: keys, and bytes. Small, so that the disks write one window while the next is sent.
const WINDOW: (usize, u64) = (8192, 64 << 20);
/// Nodes to which keys are sent at the same time.
const AT_ONCE: usize = 8;
/// Keys that the walk is ahead.
const AHEAD: usize = 1024;

/// The nodes whose keys of a window are on their disks and deleted here, or why not.
type Ended = Vec<(NodeId, Result<()>)>;

/// Keys of a window that go to one node.
struct Group {
    node: NodeId,
    keys: Vec<(Key, u64)>,
}

impl Resize {
    pub(super) async fn move_keys(&self, _moving: &MutexGuard<'_, ()>, stop: &Arc<AtomicBool>) -> Result<()> {
        self.count_all().await?;
        let (sender, mut walked) = mpsc::channel(AHEAD);
        let (store, sizes, node) = (self.store.clone(), self.lists.sizes(), self.node);
        let walk = tokio::task::spawn_blocking(move || {
            // What lay on a wrong node before the resize is no key, and is not made one.
            let is_moved = |placed: &Placed| placed.before == node && placed.after != node;
            store.placed(sizes, &mut |placed| Ok(!is_moved(&placed) || sender.blocking_send(placed).is_ok()))
        });
        let mut failed: BTreeMap<NodeId, Error> = BTreeMap::new();
        let mut ending: Option<JoinHandle<Ended>> = None;
        loop {
            let window = next_window(&mut walked, &failed).await;
            let is_last = window.is_empty() || stop.load(Ordering::Relaxed);
            let sent = if is_last { Vec::new() } else { self.send(window).await };
            for (node, ended) in end_of(ending.take()).await {
                ended.unwrap_or_else(|error| _ = failed.entry(node).or_insert(error));
            }
            let mut arrived = Vec::new();
            for (group, sent) in sent {
                match sent {
                    Ok(()) => arrived.push(group),
                    Err(error) => _ = failed.entry(group.node).or_insert(error),
                }
            }
            if is_last {
                break;
            }
            ending = Some(tokio::spawn(end_groups(self.client.clone(), self.store.clone(), arrived)));
        }
        drop(walked);
        let walk = walk.await.map_err(|e| Error::new(ErrorKind::Io, e.to_string()))?;
        if stop.load(Ordering::Relaxed) {
            return Err(Error::new(ErrorKind::Cancelled, "the client of the resize is gone"));
        }
        failed.into_values().next().map_or(walk, Err)
    }

    /// Counts what is to be moved.
    async fn count_all(&self) -> Result<()> {
        let (store, sizes, node) = (self.store.clone(), self.lists.sizes(), self.node);
        let (keys, bytes) = blocking(move || {
            let mut all = (0, 0);
            store.placed(sizes, &mut |placed| {
                if placed.before == node && placed.after != node {
                    all = (all.0 + 1, all.1 + placed.len);
                }
                Ok(true)
            })?;
            Ok::<_, Error>(all)
        })
        .await?;
        let counts = &self.counts;
        for (count, value) in
            [(&counts.keys, 0), (&counts.bytes, 0), (&counts.all_keys, keys), (&counts.all_bytes, bytes)]
        {
            count.store(value, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Sends the keys of a window to their nodes.
    async fn send(&self, window: Vec<Group>) -> Vec<(Group, Result<()>)> {
        let turns = Arc::new(Semaphore::new(AT_ONCE));
        let mut sending = JoinSet::new();
        for group in window {
            let (client, store, turns) = (self.client.clone(), self.store.clone(), turns.clone());
            sending.spawn(async move {
                let _turn = turns.acquire().await;
                send_group(&client, &store, group).await
            });
        }
        let mut sent = Vec::new();
        while let Some(group) = sending.join_next().await {
            let (group, result) = group.unwrap_or_else(|e| std::panic::resume_unwind(e.into_panic()));
            if result.is_ok() {
                let bytes: u64 = group.keys.iter().map(|(_, len)| len).sum();
                self.counts.keys.fetch_add(group.keys.len() as u64, Ordering::Relaxed);
                self.counts.bytes.fetch_add(bytes, Ordering::Relaxed);
            }
            sent.push((group, result));
        }
        sent
    }
}

/// The next keys, without those of nodes that have failed.
async fn next_window(walked: &mut mpsc::Receiver<Placed>, failed: &BTreeMap<NodeId, Error>) -> Vec<Group> {
    let mut groups: BTreeMap<NodeId, Vec<(Key, u64)>> = BTreeMap::new();
    let (mut keys, mut bytes) = (0, 0);
    while keys < WINDOW.0 && bytes < WINDOW.1 {
        let Some(placed) = walked.recv().await else { break };
        if !failed.contains_key(&placed.after) {
            keys += 1;
            bytes += placed.len;
            groups.entry(placed.after).or_default().push((placed.key, placed.len));
        }
    }
    groups.into_iter().map(|(node, keys)| Group { node, keys }).collect()
}

async fn end_of(ending: Option<JoinHandle<Ended>>) -> Ended {
    match ending {
        Some(ending) => ending.await.unwrap_or_else(|e| std::panic::resume_unwind(e.into_panic())),
        None => Vec::new(),
    }
}

/// Waits until the keys are on the disks of their new nodes, and deletes them here.
async fn end_groups(client: Client, store: Arc<Store>, groups: Vec<Group>) -> Ended {
    let mut ending = JoinSet::new();
    for group in groups {
        let (client, store) = (client.clone(), store.clone());
        ending.spawn(async move {
            let node = group.node;
            let removed = match client.sync_moved(node).await {
                Ok(()) => blocking(move || group.keys.iter().try_for_each(|(key, _)| store.remove_moved(key))).await,
                Err(error) => Err(error),
            };
            (node, removed)
        });
    }
    ending.join_all().await
}

/// Sends the large keys over connections of their own, and the others over one.
async fn send_group(client: &Client, store: &Arc<Store>, group: Group) -> (Group, Result<()>) {
    let small: Vec<Key> = group.keys.iter().filter(|(_, len)| *len < LARGE).map(|(key, _)| key.clone()).collect();
    if !small.is_empty() {
        let sending = store.clone();
        let (sent, answers) = client.put_many(group.node, None, move |puts| put_all(puts, &sending, &small)).await;
        let refused = answers.errors.into_first().map_or(Ok(()), Err);
        if let Err(error) = sent.and_then(|read| read).and(refused) {
            return (group, Err(error));
        }
    }
    for (key, _) in group.keys.iter().filter(|(_, len)| *len >= LARGE) {
        if let Err(error) = send_large(client, store, key).await {
            return (group, Err(error));
        }
    }
    (group, Ok(()))
}

/// The inner error is that of a file which cannot be read.
fn put_all(puts: &mut Puts, store: &Store, keys: &[Key]) -> Result<Result<()>> {
    for key in keys {
        if puts.has_failed() {
            break;
        }
        let outgoing = match store.open_outgoing(key) {
            Ok(Some(outgoing)) => outgoing,
            Ok(None) => continue,
            Err(error) => return Ok(Err(error)),
        };
        let request = Request::Move { key: key.clone(), len: outgoing.len, attributes: outgoing.attributes };
        if let Err(error) = puts.put_as(request, outgoing.change, outgoing.file, outgoing.len, key.as_str())? {
            return Ok(Err(error));
        }
    }
    Ok(Ok(()))
}

async fn send_large(client: &Client, store: &Arc<Store>, key: &Key) -> Result<()> {
    let (opening, asked) = (store.clone(), key.clone());
    match blocking(move || opening.open_outgoing(&asked)).await? {
        Some(outgoing) => {
            let request = Request::Move { key: key.clone(), len: outgoing.len, attributes: outgoing.attributes };
            client.send_as(request, outgoing.change, outgoing.file, key.as_str()).await
        }
        None => Ok(()),
    }
}
