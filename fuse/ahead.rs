//! Large files for other nodes are sent while they are still written, so that the publishing close need not send them whole.
//!
//! Nobody tells what a program writes where the kernel writes the file itself, so it is a guess that all but the file's end
//! stays as it is. At the close the file is read once more and hashed; the node compares, and where the guess was wrong, all
//! is sent again.

use crate::spool::Spool;
use s4::checksum::{self, Checksum};
use s4::client::{Client, Upload, blocking};
use s4::error::{Error, ErrorKind, Result};
use s4::key::Key;
use s4::protocol::Change;
use s4::wire::PutEnd;
use std::fs::File;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

/// Files that are sent so at once; each takes a thread here and one at its node.
const MOST: usize = 8;
/// Bytes at the file's end that may still be changed by who writes it from its start to its end.
const UNSETTLED: u64 = 1 << 20;
/// Bytes sent between two looks at what is to be done.
const STEP: u64 = 8 << 20;
/// Between two looks at whether a file that is being sent has grown.
const LOOK: Duration = Duration::from_millis(10);
/// Between two signs of life of a writer that writes nothing; a node gives up after 30 seconds.
const BEAT: Duration = Duration::from_secs(5);

/// What the close tells who sends.
enum Order {
    /// The file has this length now, and keeps it.
    Close(u64),
    Publish(PutEnd),
}

/// A file that is being sent. Dropped, it is broken off and leaves nothing.
pub struct Ahead {
    /// Its put.
    client: Client,
    key: Key,
    orders: Sender<Order>,
    ended: oneshot::Receiver<Result<Option<Sent>>>,
}

/// All was sent, and this was the answer, awaited since then.
struct Sent {
    checksum: Checksum,
    asked: Instant,
    answer: Result<()>,
}

impl Ahead {
    /// Publishes `file`, of `len` bytes. `None` if it is to be sent again: the transfer broke off, or what was sent is not what
    /// is in the file. Errors: it is not published, or not known to be.
    pub async fn publish(self, file: Arc<File>, len: u64, change: Change) -> Result<Option<Checksum>> {
        let (client, key) = (self.client.clone(), self.key.clone());
        match self.send_rest(file, len, change).await? {
            Some(Sent { checksum, asked, answer }) => {
                let put = answer.map(|()| checksum);
                client.settled(&key, change, asked, put, async { Ok(checksum) }).await.map(Some)
            }
            None => Ok(None),
        }
    }

    async fn send_rest(mut self, file: Arc<File>, len: u64, change: Change) -> Result<Option<Sent>> {
        if self.orders.send(Order::Close(len)).is_err() {
            // Who sends has given up.
            return self.ended.await.unwrap_or(Ok(None));
        }
        tokio::select! {
            // Who sends may give up before the file is hashed.
            ended = &mut self.ended => return ended.unwrap_or(Ok(None)),
            hashed = blocking(move || checksum::of_file(&file)) => if let Ok(checksum) = hashed {
                let _ = self.orders.send(Order::Publish(PutEnd { checksum, change }));
            },
        }
        drop(self.orders);
        self.ended.await.unwrap_or(Ok(None))
    }
}

/// Sends files ahead. Clones share its bounds.
#[derive(Clone)]
pub struct Sending {
    client: Client,
    most: Arc<Semaphore>,
}

impl Sending {
    pub fn new(client: Client) -> Self {
        Self { client, most: Arc::new(Semaphore::new(MOST)) }
    }

    /// Begins to send a file, which goes on by itself. False if there are too many at once.
    pub fn begin(&self, spool: Arc<Spool>) -> bool {
        let permit = self.most.clone().try_acquire_owned();
        permit.map(|permit| tokio::spawn(self.clone().send(spool, permit))).is_ok()
    }

    async fn send(self, spool: Arc<Spool>, permit: OwnedSemaphorePermit) {
        let Ok(file) = spool.file() else { return };
        // What is wrong with the key or its node, the close will tell.
        let key = spool.key();
        let client = self.client.putting();
        let Ok(upload) = client.upload(&key, None).await else { return };
        let ((orders, ordered), (tell, ended)) = (mpsc::channel(), oneshot::channel());
        spool.set_ahead(Ahead { client: client.clone(), key: key.clone(), orders, ended });
        let growing = Arc::downgrade(&spool);
        drop(spool);
        tokio::task::spawn_blocking(move || {
            let sent = send(&file, &growing, upload, &ordered, &client, &key);
            // A spool that is gone wants no answer.
            let _ = tell.send(sent);
            drop(permit);
        });
    }
}

/// Sends `file` as `key`. `None` if it is to be sent again. Blocks. Errors: the node was silent before it had all.
fn send(
    file: &File,
    growing: &Weak<Spool>,
    mut upload: Upload,
    orders: &Receiver<Order>,
    client: &Client,
    key: &Key,
) -> Result<Option<Sent>> {
    let node = client.cluster().node_of(key);
    let mut closed = None;
    let sent = client.noting(node, send_bytes(file, growing, &mut upload, orders, &mut closed));
    // The close may have come in the last wait for the node.
    let is_closed = closed.is_some() || orders.try_recv().is_ok();
    match sent {
        Ok(Some(ending)) => {
            let asked = Instant::now();
            match client.noting(node, upload.end(ending)) {
                // Other bytes have come than are in the file.
                Err(error) if error.kind() == ErrorKind::BadRequest => Ok(None),
                answer => Ok(Some(Sent { checksum: ending.checksum, asked, answer })),
            }
        }
        Ok(None) => Ok(None),
        // To send it again would take as long once more.
        Err(error) if error.kind() == ErrorKind::Deadline && is_closed => Err(error),
        Err(error) => {
            tracing::debug!("{error}");
            Ok(None)
        }
    }
}

/// Sends `file` as it grows, to its end at the close. `None` if nobody wants it any more, or what was sent is not in it.
/// `whole` becomes its length then.
fn send_bytes(
    file: &File,
    growing: &Weak<Spool>,
    upload: &mut Upload,
    orders: &Receiver<Order>,
    whole: &mut Option<u64>,
) -> Result<Option<PutEnd>> {
    let (mut sent, mut ending) = (0, None);
    let mut last = Instant::now();
    loop {
        if whole.is_none() {
            growing.upgrade().inspect(|spool| spool.make_room());
        }
        let until = whole.map_or_else(|| settled(file), Ok)?;
        if sent < until {
            let n = STEP.min(until - sent);
            upload.send_file(file, sent, n)?;
            (sent, last) = (sent + n, Instant::now());
        } else if last.elapsed() >= BEAT {
            upload.send_alive()?;
            last = Instant::now();
        }
        match ending {
            Some(ending) if *whole == Some(sent) => return Ok(Some(ending)),
            _ if whole.is_some_and(|len| len < sent) => return Ok(None),
            _ => {}
        }
        match orders.recv_timeout(if sent < until { Duration::ZERO } else { LOOK }) {
            Ok(Order::Close(len)) => *whole = Some(len),
            Ok(Order::Publish(told)) => ending = Some(told),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) if ending.is_some() => {}
            Err(RecvTimeoutError::Disconnected) => return Ok(None),
        }
    }
}

/// Bytes of a file that are not expected to change any more.
fn settled(file: &File) -> Result<u64> {
    let found = file.metadata().map_err(|e| Error::io("the spool", &e))?;
    Ok(found.len().saturating_sub(UNSETTLED))
}
