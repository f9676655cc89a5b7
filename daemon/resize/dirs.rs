//! Tells the new homes of directories what this node holds and has recorded of them.

use super::Resize;
use s4::client::{Client, blocking};
use s4::error::{Error, ErrorKind, Result};
use s4::placement::NodeId;
use s4::protocol::MovedDir;
use std::collections::{BTreeMap, BTreeSet};
use tokio::sync::mpsc;

/// Directories that are sent in one request: with names of the greatest length they fit into its body.
const BATCH: usize = 500;
/// Directories that wait to be sent, of all homes together.
const WAITING: usize = 20_000;
/// Directories that the walk is ahead.
const AHEAD: usize = 1024;

impl Resize {
    pub(super) async fn move_dirs(&self) -> Result<()> {
        let (sender, mut walked) = mpsc::channel(AHEAD);
        let (store, sizes) = (self.store.clone(), self.lists.sizes());
        let walk = tokio::task::spawn_blocking(move || {
            let gone = |_| Error::new(ErrorKind::Cancelled, "a home has failed");
            store.moved_dirs(sizes, &mut |home, dir| sender.blocking_send((home, dir)).map_err(gone))
        });
        let (mut batches, mut homes, mut waiting) = (BTreeMap::new(), BTreeSet::new(), 0);
        while let Some((home, dir)) = walked.recv().await {
            homes.insert(home);
            let batch: &mut Vec<MovedDir> = batches.entry(home).or_default();
            batch.push(dir);
            waiting += 1;
            if batch.len() == BATCH {
                waiting -= BATCH;
                self.client.move_dirs(home, &std::mem::take(batch)).await?;
            }
            if waiting >= WAITING {
                waiting = 0;
                send_all(&self.client, std::mem::take(&mut batches)).await?;
            }
        }
        walk.await.map_err(|e| Error::new(ErrorKind::Io, e.to_string()))??;
        send_all(&self.client, batches).await?;
        for home in homes {
            self.client.sync_moved(home).await?;
        }
        let store = self.store.clone();
        blocking(move || store.drop_moved_dirs(sizes)).await
    }
}

async fn send_all(client: &Client, batches: BTreeMap<NodeId, Vec<MovedDir>>) -> Result<()> {
    for (home, batch) in batches {
        if !batch.is_empty() {
            client.move_dirs(home, &batch).await?;
        }
    }
    Ok(())
}
