//! Uploads a large file to its node while a program still writes it, so that the publishing close has little left to
//! send.
//!
//! Where the kernel writes the file itself, the mount does not see the writes. It assumes that all bytes except the
//! last ones are final. At the close the file is read again and hashed, and the node compares its bytes with this
//! checksum. If they differ, the close sends the whole file again. The caller chooses the files, and keeps the handle
//! of the upload until the close.

use s4::checksum::Checksum;
use s4::client::{Client, Upload, blocking};
use s4::error::{Error, ErrorKind, Result};
use s4::hasher;
use s4::key::Key;
use s4::protocol::Change;
use s4::wire::PutEnd;
use std::fs::File;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

/// Uploads that run at once. Each takes a thread here and one at its node.
const MAX_UPLOADS: usize = 8;
/// The last bytes of a file, which are sent only at its close: even a program that writes sequentially may change them.
const UNSTABLE_TAIL: u64 = 1 << 20;
/// Bytes sent between two checks for an order.
const STEP: u64 = 8 << 20;
/// How often an upload that has caught up checks whether the file has grown.
const POLL: Duration = Duration::from_millis(10);
/// The pause between two keepalives while the program writes nothing. A node cancels a silent upload after 30 seconds.
const KEEPALIVE: Duration = Duration::from_secs(5);

/// What the close sends to the thread of the upload.
enum Order {
    /// The file is closed, and this is its final length.
    Close(u64),
    Publish(PutEnd),
}

/// A running upload. Dropping it cancels the upload, which leaves nothing at the node.
pub struct EagerUpload {
    /// Has the id of this put, by which the node can be asked for its outcome.
    client: Client,
    key: Key,
    orders: Sender<Order>,
    ended: oneshot::Receiver<Result<Option<Sent>>>,
}

/// The outcome of an upload whose bytes have all reached the node.
struct Sent {
    checksum: Checksum,
    /// When the node was asked to publish them.
    asked: Instant,
    answer: Result<()>,
}

impl EagerUpload {
    /// Publishes `file`, of `len` bytes. `None` if it must be sent again: the connection broke, or the file does not
    /// hold the bytes that were sent. Errors: the file is not published, or the outcome is unknown.
    pub async fn publish(self, file: Arc<File>, len: u64, change: Change) -> Result<Option<Checksum>> {
        let (client, key) = (self.client.clone(), self.key.clone());
        match self.send_rest(file, len, change).await? {
            Some(Sent { checksum, asked, answer }) => {
                let put = answer.map(|()| checksum);
                client.put_outcome(&key, change, asked, put, async { Ok(checksum) }).await.map(Some)
            }
            None => Ok(None),
        }
    }

    async fn send_rest(mut self, file: Arc<File>, len: u64, change: Change) -> Result<Option<Sent>> {
        if self.orders.send(Order::Close(len)).is_err() {
            // The upload has ended early.
            return self.ended.await.unwrap_or(Ok(None));
        }
        tokio::select! {
            // The upload may end before the file is hashed.
            ended = &mut self.ended => return ended.unwrap_or(Ok(None)),
            hashed = blocking(move || hasher::of_file(&file)) => if let Ok(checksum) = hashed {
                let _ = self.orders.send(Order::Publish(PutEnd { checksum, change }));
            },
        }
        drop(self.orders);
        self.ended.await.unwrap_or(Ok(None))
    }
}

/// Starts uploads. Clones share the bound on them.
#[derive(Clone)]
pub struct EagerUploads {
    client: Client,
    permits: Arc<Semaphore>,
}

impl EagerUploads {
    pub fn new(client: Client) -> Self {
        Self { client, permits: Arc::new(Semaphore::new(MAX_UPLOADS)) }
    }

    /// The right to start an upload; `None` if too many are running.
    pub fn permit(&self) -> Option<OwnedSemaphorePermit> {
        self.permits.clone().try_acquire_owned().ok()
    }

    /// Starts to upload `file` as `key`. `None` if the node refuses: the close will report why.
    pub async fn start(&self, key: Key, file: Arc<File>, permit: OwnedSemaphorePermit) -> Option<EagerUpload> {
        let client = self.client.putting();
        let upload = client.upload(&key, None).await.ok()?;
        let ((orders, ordered), (report, ended)) = (mpsc::channel(), oneshot::channel());
        let handle = EagerUpload { client: client.clone(), key: key.clone(), orders, ended };
        tokio::task::spawn_blocking(move || {
            let sent = send(&file, upload, &ordered, &client, &key);
            // The receiver is gone if the upload was dropped.
            let _ = report.send(sent);
            drop(permit);
        });
        Some(handle)
    }
}

/// Sends `file` as `key`. `None` if it must be sent again. Blocks. Errors: the node was silent before it had the whole
/// file.
fn send(file: &File, mut upload: Upload, orders: &Receiver<Order>, client: &Client, key: &Key) -> Result<Option<Sent>> {
    let node = client.cluster().node_of(key);
    let mut closed = None;
    let sent = client.noting(node, send_bytes(file, &mut upload, orders, &mut closed));
    // The close may have arrived while this thread waited for the node.
    let is_closed = closed.is_some() || orders.try_recv().is_ok();
    match sent {
        Ok(Some(ending)) => {
            let asked = Instant::now();
            match client.noting(node, upload.end(ending)) {
                // The bytes at the node differ from those in the file.
                Err(error) if error.kind() == ErrorKind::BadRequest => Ok(None),
                answer => Ok(Some(Sent { checksum: ending.checksum, asked, answer })),
            }
        }
        Ok(None) => Ok(None),
        // The close has already waited for a whole deadline.
        Err(error) if error.kind() == ErrorKind::Deadline && is_closed => Err(error),
        Err(error) => {
            tracing::debug!("{error}");
            Ok(None)
        }
    }
}

/// Sends `file` as it grows, and its rest after the close. `None` if the upload was dropped, or the file got shorter
/// than what was sent. The close sets `whole` to the length of the file.
fn send_bytes(
    file: &File,
    upload: &mut Upload,
    orders: &Receiver<Order>,
    whole: &mut Option<u64>,
) -> Result<Option<PutEnd>> {
    let (mut sent, mut ending) = (0, None);
    let mut last = Instant::now();
    loop {
        let until = whole.map_or_else(|| stable_len(file), Ok)?;
        if sent < until {
            let n = STEP.min(until - sent);
            upload.send_file(file, sent, n)?;
            (sent, last) = (sent + n, Instant::now());
        } else if last.elapsed() >= KEEPALIVE {
            upload.send_alive()?;
            last = Instant::now();
        }
        match ending {
            Some(ending) if *whole == Some(sent) => return Ok(Some(ending)),
            _ if whole.is_some_and(|len| len < sent) => return Ok(None),
            _ => {}
        }
        match orders.recv_timeout(if sent < until { Duration::ZERO } else { POLL }) {
            Ok(Order::Close(len)) => *whole = Some(len),
            Ok(Order::Publish(end)) => ending = Some(end),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) if ending.is_some() => {}
            Err(RecvTimeoutError::Disconnected) => return Ok(None),
        }
    }
}

/// How many bytes from the start of a file are assumed to stay as they are.
fn stable_len(file: &File) -> Result<u64> {
    let found = file.metadata().map_err(|e| Error::io("the spool", &e))?;
    Ok(found.len().saturating_sub(UNSTABLE_TAIL))
}
