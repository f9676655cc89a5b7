//! Publishes a spool: how its bytes get to their node. Which close publishes is left to [`closes`](super::closes).

use super::namespace::Namespace;
use super::writers::Writers;
use crate::errno::Result;
use crate::inodes::Ino;
use crate::spool::{Snapshot, Spool};
use bytes::Bytes;
use nix::errno::Errno;
use s4::checksum::Checksum;
use s4::client::{Client, blocking, retry_put};
use s4::error::{Error, ErrorKind, Result as S4Result};
use s4::file::{AtPosition, read_full};
use s4::key::Key;
use s4::protocol::{Change, KeyStat};
use s4::stored::draft;
use s4::time::{from_nanoseconds, to_nanoseconds};
use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::watch;

/// Keys up to this size are published in one request.
pub const SMALL: u64 = 256 * 1024;

pub struct Publisher {
    namespace: Arc<Namespace>,
    writers: Arc<Writers>,
    /// Each publish that runs has a receiver, so that the end of the mount can wait for them.
    running: watch::Sender<()>,
    /// True once a publish has failed, and no close has returned its error.
    lost: AtomicBool,
}

/// One publish of a spool.
struct Publish<'a> {
    ino: Ino,
    spool: &'a Arc<Spool>,
    key: Key,
    /// The attributes of the key.
    change: Change,
    /// No handle was open when it began.
    is_last: bool,
}

impl Publisher {
    pub fn new(namespace: Arc<Namespace>, writers: Arc<Writers>) -> Self {
        Self { namespace, writers, running: watch::Sender::new(()), lost: AtomicBool::default() }
    }

    /// True while a file is being published.
    pub fn is_publishing(&self) -> bool {
        self.running.receiver_count() > 0
    }

    /// Counts as a running publish until it is dropped.
    pub fn begin(&self) -> watch::Receiver<()> {
        self.running.subscribe()
    }

    /// Resolves when no file is being published.
    pub async fn all_published(&self) {
        self.running.closed().await;
    }

    /// True if a publish has failed, and only the log says so.
    pub fn has_lost(&self) -> bool {
        self.lost.load(Ordering::Relaxed)
    }

    /// A publish has failed, and no close returns the error.
    pub fn note_lost(&self) {
        self.lost.store(true, Ordering::Relaxed);
    }

    /// Publishes a file once, or a second time if only an empty key was published. `is_last`: no handle was open. If a
    /// writer has opened the file meanwhile, nothing is done: its close will publish.
    pub async fn publish(&self, ino: Ino, spool: &Arc<Spool>, is_last: bool) -> Result<()> {
        let _running = self.begin();
        let _turn = spool.publishing.lock().await;
        if !spool.may_publish() || (is_last && spool.handles().writers > 0) {
            return Ok(());
        }
        let publish = Publish { ino, spool, key: spool.key(), change: spool.change(), is_last };
        match self.to_node(&publish).await {
            Ok((snapshot, stat)) => {
                let has_bytes = stat.checksum.len > 0;
                spool.set_published(snapshot, stat);
                if has_bytes {
                    self.namespace.inodes.publish_spool(ino, spool);
                }
                self.change_late(&publish).await;
                Ok(())
            }
            Err(error) => {
                tracing::warn!("{}: not published: {error}", publish.key);
                let errno = Errno::from_raw(error.kind().errno());
                spool.fail(errno);
                self.namespace.inodes.free_spool_name(spool);
                Err(errno)
            }
        }
    }

    /// Sets the attributes that the file got during the publish.
    async fn change_late(&self, publish: &Publish<'_>) {
        let now = publish.spool.change();
        if now == publish.change {
            return;
        }
        publish.spool.set_stat(now);
        if let Err(error) = self.namespace.client.change(&publish.key, now).await {
            // The bytes are published, so the close must not fail.
            tracing::warn!("published, but the mode and time that it was given meanwhile are lost: {error}");
        }
    }

    async fn to_node(&self, publish: &Publish<'_>) -> S4Result<(Snapshot, KeyStat)> {
        let Publish { spool, key, change: asked, .. } = publish;
        retrying(&self.namespace.client, |client| async move {
            let snapshot = spool.seal().map_err(|e| Error::io(key, &e))?;
            let mtime = to_nanoseconds(spool.mtime(snapshot));
            let change = Change { mtime: Some(mtime), over_empty: spool.stat().is_some(), ..*asked };
            let (snapshot, checksum) = self.send(&client, publish, (snapshot, change)).await?;
            Ok((snapshot, KeyStat { checksum, mtime, mode: asked.mode.unwrap_or(0o444) }))
        })
        .await
    }

    async fn send(
        &self,
        client: &Client,
        publish: &Publish<'_>,
        (snapshot, change): (Snapshot, Change),
    ) -> S4Result<(Snapshot, Checksum)> {
        let Publish { spool, key, .. } = publish;
        let failed = |e: std::io::Error| Error::io(key, &e);
        let file = spool.file().map_err(failed)?;
        if snapshot.len <= SMALL {
            let mut bytes = vec![0; snapshot.len as usize];
            let filled = read_full(&file, &mut bytes, 0).map_err(failed)?;
            bytes.truncate(filled);
            let checksum = client.put_small(key, Bytes::from(bytes), change).await?;
            return Ok((snapshot, checksum));
        }
        if let Some(dir) = self.namespace.local_dir(key) {
            match self.link(client, publish, dir, (snapshot, change)).await {
                // The daemon cannot see our file, and is sent its bytes.
                Err(error) if error.kind() == ErrorKind::BadRequest => {}
                done => return done,
            }
        }
        if let Some(upload) = spool.take_upload()
            && let Some(checksum) = upload.publish(file.clone(), snapshot.len, change).await?
        {
            return Ok((snapshot, checksum));
        }
        let input = AtPosition::new(file, 0);
        let checksum = client.put(key, input, "the spool", change).await?;
        Ok((snapshot, checksum))
    }

    /// Makes the daemon of this machine link the file itself, or a copy if the file may still be written to: the kernel
    /// writes it without asking us.
    async fn link(
        &self,
        client: &Client,
        &Publish { ino, spool, ref key, is_last, .. }: &Publish<'_>,
        dir: &Path,
        (snapshot, change): (Snapshot, Change),
    ) -> S4Result<(Snapshot, Checksum)> {
        let failed = |e: std::io::Error| Error::io(key, &e);
        let file = spool.file().map_err(failed)?;
        let copied = match self.writers.may_change(ino, spool, &file, snapshot.len, is_last).await {
            true => {
                let (original, dir) = (file.clone(), dir.to_owned());
                Some(blocking(move || copy(original, &dir)).await.map_err(failed)?)
            }
            false => None,
        };
        // The daemon reads the whole file before it answers.
        let offered = copied.as_ref().unwrap_or(&file);
        let handoff = spool.handoff(offered, change)?;
        let checksum = client.with_timeout_for(snapshot.len).adopt(key, offered, &handoff).await?;
        // The linked file has the time of the key, unless it was written to after that.
        let linked = change.mtime.filter(|_| copied.is_none()).map(from_nanoseconds);
        Ok((Snapshot { modified: linked.unwrap_or(snapshot.modified), ..snapshot }, checksum))
    }
}

/// Runs `make`, which makes a key, as [`retry_put`] does.
pub async fn retrying<T, F: Future<Output = S4Result<T>>>(
    client: &Client,
    make: impl FnMut(Client) -> F,
) -> S4Result<T> {
    match retry_put(client, make).await {
        // The node found too little of the deadline left, or the connection was closed.
        Err(error) if error.kind() == ErrorKind::Cancelled => Err(Error::new(ErrorKind::Deadline, error.to_string())),
        made => made,
    }
}

fn copy(file: Arc<File>, dir: &Path) -> std::io::Result<File> {
    let mut copy = draft(dir)?;
    std::io::copy(&mut AtPosition::new(file, 0), &mut copy)?;
    Ok(copy)
}
