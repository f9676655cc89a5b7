//! HTTP bodies as bounded channels of chunks. Async code moves chunks between sockets and channels; blocking threads at
//! the other end work on files, hashes and commands. A slow end blocks the other one, so memory use is bounded.

use crate::budget::MemoryBudget;
use crate::error::{Error, Result};
use crate::file::BLOCK;
pub use crate::role::{Role, cause};
use crate::timeout::Timeout;
use bytes::{Bytes, BytesMut};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Frame};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// The body of a request or response.
pub type BoxBody = UnsyncBoxBody<Bytes, Error>;

/// Chunks that may wait in a body's channel.
const CHUNKS: usize = 4;
/// The size of a chunk if the memory budget is short.
const SHORT_BLOCK: usize = 4 * 1024;
/// Bytes of a body that are gathered before the message is sent.
const GATHERED: usize = 16 * 1024;

pub fn full(bytes: impl Into<Bytes>) -> BoxBody {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

pub fn empty() -> BoxBody {
    full(Bytes::new())
}

/// Counts the chunks that the transport has taken, so that a slow transfer is not mistaken for a dead one.
#[derive(Clone, Default)]
pub struct Activity(Arc<AtomicU64>);

impl Activity {
    fn mark(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// Awaits `work`; `None` if no chunk was taken for `timeout`.
    pub async fn watch<F: Future>(&self, work: F, mut timeout: Timeout) -> Option<F::Output> {
        let mut seen = self.0.load(Ordering::Relaxed);
        timeout.run_while(work, || std::mem::replace(&mut seen, self.0.load(Ordering::Relaxed)) != seen).await
    }
}

/// The sending end of a body.
#[derive(Clone)]
pub struct ChunkSender {
    chunks: mpsc::Sender<Result<Bytes>>,
    budget: Option<MemoryBudget>,
}

/// The peer has disconnected.
#[derive(Debug)]
pub struct Disconnected;

impl ChunkSender {
    /// Blocks while the channel is full.
    pub fn send(&self, chunk: Bytes) -> std::result::Result<(), Disconnected> {
        self.chunks.blocking_send(Ok(self.counted(chunk))).map_err(|_| Disconnected)
    }

    pub async fn send_async(&self, chunk: Bytes) -> std::result::Result<(), Disconnected> {
        self.chunks.send(Ok(self.counted(chunk))).await.map_err(|_| Disconnected)
    }

    /// The size for the next chunks: small if the memory budget is short.
    pub fn block(&self) -> usize {
        match self.budget.as_ref().is_some_and(MemoryBudget::is_short) {
            true => SHORT_BLOCK,
            false => BLOCK,
        }
    }

    fn counted(&self, chunk: Bytes) -> Bytes {
        match &self.budget {
            Some(budget) => budget.count(chunk),
            None => chunk,
        }
    }

    /// Breaks off the body, so that the receiver notices that it is incomplete.
    pub fn fail(&self, error: Error) {
        // This fails if the receiver is gone.
        let _ = self.chunks.blocking_send(Err(error));
    }
}

/// A body that ends when all its senders are dropped.
pub struct ChannelBody {
    chunks: mpsc::Receiver<Result<Bytes>>,
    activity: Activity,
    /// Chunks that have arrived already.
    gathered: Option<Bytes>,
}

pub fn channel() -> (ChunkSender, ChannelBody) {
    channel_within(None)
}

/// A body whose chunks are counted in `budget`.
pub fn channel_within(budget: Option<MemoryBudget>) -> (ChunkSender, ChannelBody) {
    let (sender, chunks) = mpsc::channel(CHUNKS);
    (ChunkSender { chunks: sender, budget }, ChannelBody { chunks, activity: Activity::default(), gathered: None })
}

impl ChannelBody {
    pub fn activity(&self) -> Activity {
        self.activity.clone()
    }

    /// Waits up to `time` for the first chunks, and returns the body that begins with them. A body that has ended by
    /// then is sent in one piece with the head of the message: the peer wakes once instead of three times.
    pub async fn gather(mut self, time: Duration) -> BoxBody {
        let (mut first, until) = (BytesMut::new(), Instant::now() + time);
        while first.len() < GATHERED {
            match tokio::time::timeout_at(until, self.chunks.recv()).await {
                Ok(Some(Ok(chunk))) => first.extend_from_slice(&chunk),
                Ok(Some(Err(error))) => return Full::new(Bytes::new()).map_err(move |_| error.clone()).boxed_unsync(),
                Ok(None) => return full(first),
                Err(_) => break,
            }
        }
        self.gathered = (!first.is_empty()).then(|| first.freeze());
        self.boxed_unsync()
    }
}

impl Body for ChannelBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>>>> {
        if let Some(chunk) = self.gathered.take() {
            return Poll::Ready(Some(Ok(Frame::data(chunk))));
        }
        let chunk = std::task::ready!(self.chunks.poll_recv(cx));
        self.activity.mark();
        Poll::Ready(chunk.map(|chunk| chunk.map(Frame::data)))
    }
}

/// The receiving end of a body, for a blocking thread.
pub struct ChunkReader(mpsc::Receiver<Result<Bytes>>);

impl ChunkReader {
    /// The next chunk, or `None` at the end of the body. Blocks.
    pub fn next_chunk(&mut self) -> Result<Option<Bytes>> {
        self.0.blocking_recv().transpose()
    }
}

/// Reads `body` on its own async task. Each chunk must arrive within `timeout`; `who` names the peer in errors.
pub fn reader<B>(body: B, timeout: impl Into<Timeout>, role: Role, who: String) -> ChunkReader
where
    B: Body<Data = Bytes, Error = hyper::Error> + Send + Unpin + 'static,
{
    let (sender, receiver) = mpsc::channel(CHUNKS);
    let mut chunks = Chunks::new(body, timeout, role, who);
    tokio::spawn(async move {
        while let Some(chunk) = chunks.next().await.transpose() {
            let failed = chunk.is_err();
            if sender.send(chunk).await.is_err() || failed {
                break;
            }
        }
    });
    ChunkReader(receiver)
}

/// A received body, read in chunks by async code.
pub struct Chunks<B> {
    body: B,
    timeout: Timeout,
    role: Role,
    who: String,
}

impl<B: Body<Data = Bytes, Error = hyper::Error> + Unpin> Chunks<B> {
    /// Each chunk must arrive within `timeout`; `who` names the peer in errors.
    pub fn new(body: B, timeout: impl Into<Timeout>, role: Role, who: String) -> Self {
        Self { body, timeout: timeout.into(), role, who }
    }

    /// True if it is certain that no chunk follows.
    pub fn is_end(&self) -> bool {
        self.body.is_end_stream()
    }

    /// The error of a malformed body.
    pub fn malformed(&self, why: &str) -> Error {
        self.role.broken(&self.who, &std::io::Error::other(why.to_owned()))
    }

    /// The next chunk, or `None` at the end of the body.
    pub async fn next(&mut self) -> Result<Option<Bytes>> {
        loop {
            let frame = match self.timeout.run_while(self.body.frame(), || false).await {
                Some(None) => return Ok(None),
                Some(Some(Ok(frame))) => frame,
                Some(Some(Err(error))) => return Err(self.role.broken(&self.who, &error)),
                None => return Err(self.role.silent(&self.who, self.timeout.limit())),
            };
            self.timeout.note_alive();
            match frame.into_data() {
                Ok(chunk) if !chunk.is_empty() => return Ok(Some(chunk)),
                _ => {}
            }
        }
    }
}
