//! Reads a remote key. A sequential reader gets the key as one stream, with a readahead of one block. A reader that
//! seeks gets each range by a request of its own. No byte is returned before it was compared with the checksum that was
//! recorded when the key was published. All open files share one memory budget.

use bytes::Bytes;
use lru::LruCache;
use s4::blocks::LEAF;
use s4::checksum::Checksum;
use s4::client::{Client, TRIES, blocking};
use s4::error::{Error, ErrorKind, Result};
use s4::key::Key;
use s4::wire::parts::Parts;
use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SetOnce};

/// The longest block, in bytes: as long as the longest read request of the kernel, so that one block answers it.
const BLOCK: u64 = 1024 * 1024;
/// Blocks read ahead by all files together.
const BUDGET: usize = 24;
/// Blocks that all running reads together may wait for. A read that needs more waits for other reads to end.
const IN_FLIGHT: u32 = 40;
/// How far from the end of the last read, in bytes, a sequential read may begin.
const NEAR: u64 = 2 * BLOCK;
/// Leaves in the cache of random reads, for all files together.
const CACHED: NonZeroUsize = NonZeroUsize::new(16).expect("not zero");
/// A stream is closed after this time without a read. A later read opens another one at the same offset.
const IDLE: Duration = Duration::from_secs(2);

/// The key of a leaf, and the offset of the leaf.
type Leaf = (Key, Checksum, u64);

/// The memory that all open files share.
#[derive(Clone)]
pub struct ReadBudget {
    ahead: Arc<Semaphore>,
    in_flight: Arc<Semaphore>,
    /// Guards the leaves of random reads.
    leaves: Arc<Mutex<LruCache<Leaf, Bytes>>>,
}

impl ReadBudget {
    pub fn new() -> Self {
        Self {
            ahead: Arc::new(Semaphore::new(BUDGET)),
            in_flight: Arc::new(Semaphore::new(IN_FLIGHT as usize)),
            leaves: Arc::new(Mutex::new(LruCache::new(CACHED))),
        }
    }
}

/// An open remote key. Dropping it closes its stream.
pub struct RemoteFile(Arc<File>);

struct File {
    client: Client,
    key: Key,
    checksum: Checksum,
    budget: ReadBudget,
    state: Mutex<State>,
    /// Wakes the thread of the stream when a block is wanted, or the stream is to end.
    wanted: Condvar,
}

/// Guards the position of the reader, and the blocks ahead of it.
struct State {
    /// Blocks that were received or are requested, by offset. From `received` on there is no gap between them.
    blocks: BTreeMap<u64, Arc<Block>>,
    /// Where the last sequential read ended.
    next: u64,
    mode: Mode,
}

enum Mode {
    /// Sequential from the start. All bytes before `received` were received.
    Stream {
        received: u64,
        /// A task receives the stream.
        running: bool,
    },
    /// The reader has seeked.
    Random,
    Closed,
}

/// Blocks with their offsets, in order.
type PlacedBlocks = Vec<(u64, Arc<Block>)>;

/// The result of a block.
enum Arrived {
    Bytes(Bytes),
    Failed(Error),
    /// The stream ended before this block. A reader that needs it reads it as a range.
    Never,
}

struct Block {
    len: u64,
    arrived: SetOnce<Arrived>,
    /// How many of its bytes were returned.
    served: AtomicU64,
    permit: Option<OwnedSemaphorePermit>,
}

impl Block {
    fn new(len: u64, permit: Option<OwnedSemaphorePermit>) -> Arc<Self> {
        Arc::new(Self { len, arrived: SetOnce::new(), served: AtomicU64::new(0), permit })
    }

    fn set(&self, arrived: Arrived) {
        // Only the first result counts.
        let _ = self.arrived.set(arrived);
    }
}

impl RemoteFile {
    pub fn new(client: Client, key: Key, checksum: Checksum, budget: &ReadBudget) -> Self {
        let mode = Mode::Stream { received: 0, running: false };
        let state = Mutex::new(State { blocks: BTreeMap::new(), next: 0, mode });
        let wanted = Condvar::new();
        Self(Arc::new(File { client, key, checksum, budget: budget.clone(), state, wanted }))
    }

    /// `size` bytes from `offset`; fewer only at the end of the key.
    pub async fn read(&self, offset: u64, size: u64) -> Result<Bytes> {
        let file = &self.0;
        let end = (offset + size).min(file.checksum.len);
        if offset >= end {
            return Ok(Bytes::new());
        }
        let blocks = size.div_ceil(BLOCK) as u32 + 1;
        let _in_flight = file.budget.in_flight.acquire_many(blocks.min(IN_FLIGHT)).await;
        let taken = match file.want(offset, end)? {
            Some(blocks) => file.take(blocks, offset, end).await?,
            None => None,
        };
        match taken {
            Some(bytes) => Ok(bytes),
            None => file.read_random(offset, end).await,
        }
    }
}

impl Drop for RemoteFile {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.leave(Mode::Closed);
        self.0.wanted.notify_all();
    }
}

impl File {
    /// The blocks of a sequential read; `None` for any other read. Makes the stream receive them, and the readahead.
    fn want(self: &Arc<Self>, offset: u64, end: u64) -> Result<Option<PlacedBlocks>> {
        let mut guard = self.lock();
        let state = &mut *guard;
        let received = match &state.mode {
            Mode::Random | Mode::Closed => return Ok(None),
            Mode::Stream { received, .. } => *received,
        };
        // The kernel's readahead sends several requests at once, which may come a little out of order.
        let near = offset <= state.next + NEAR && offset + NEAR >= state.next;
        if !near {
            state.leave(Mode::Random);
            self.wanted.notify_all();
            return Ok(None);
        }
        // No readahead at the first read, since there may be no second one. The buffer of the socket holds the bytes
        // after the block anyway.
        let ahead = if state.next > 0 { (end - offset).min(BLOCK) } else { 0 };
        state.next = state.next.max(end);
        // Skipped blocks are dropped after a while. A later read of them reads a range.
        if offset < received && !state.has(offset, end.min(received)) {
            return Ok(None);
        }
        let mut planned =
            state.blocks.last_key_value().map_or(received, |(start, block)| (start + block.len).max(received));
        while planned < end {
            let len = (end - planned).min(BLOCK);
            state.blocks.insert(planned, Block::new(len, None));
            planned += len;
        }
        // The next request of the kernel has the size of the last one.
        let len = ahead.min(self.checksum.len - planned);
        if len > 0
            && planned < end + ahead
            && let Ok(permit) = self.budget.ahead.clone().try_acquire_owned()
        {
            state.blocks.insert(planned, Block::new(len, Some(permit)));
        }
        let blocks = state.overlapping(offset, end).map(|(start, block)| (start, block.clone())).collect();
        if let Mode::Stream { running, .. } = &mut state.mode
            && state.blocks.contains_key(&received)
        {
            match std::mem::replace(running, true) {
                true => self.wanted.notify_all(),
                false => drop(tokio::spawn(self.clone().receive())),
            }
        }
        Ok(Some(blocks))
    }

    /// Waits for the blocks of a read, and returns its bytes; `None` if the stream has ended before them.
    async fn take(&self, blocks: PlacedBlocks, offset: u64, end: u64) -> Result<Option<Bytes>> {
        let mut parts = Vec::with_capacity(blocks.len());
        for (start, block) in blocks {
            let bytes = match block.arrived.wait().await {
                Arrived::Bytes(bytes) => bytes,
                Arrived::Failed(error) => return Err(error.clone()),
                Arrived::Never => return Ok(None),
            };
            let part = bytes.slice(offset.saturating_sub(start) as usize..(end - start).min(block.len) as usize);
            block.served.fetch_add(part.len() as u64, Ordering::Relaxed);
            parts.push(part);
        }
        if self.lock().drop_served() {
            self.wanted.notify_all();
        }
        Ok(Some(if parts.len() == 1 { parts.remove(0) } else { parts.concat().into() }))
    }

    /// Receives the wanted blocks until none is wanted, or the transfer fails: then the waiting reads get the error,
    /// and a later read tries again.
    async fn receive(self: Arc<Self>) {
        // After a panic, no read must wait for ever.
        let unless_done = Unfinished(&self);
        let received = self.client.noting(self.client.cluster().node_of(&self.key), self.receive_again().await);
        std::mem::forget(unless_done);
        match received {
            Ok(()) => {}
            // A part of the key is damaged: each read gets its own range.
            Err(error) if error.kind() == ErrorKind::Checksum => self.lock().leave(Mode::Random),
            Err(error) => self.lock().fail(&error),
        }
    }

    /// Receives, and resumes after the connection breaks: the daemon may be restarting.
    async fn receive_again(self: &Arc<Self>) -> Result<()> {
        let mut tries = TRIES;
        loop {
            let before = self.received();
            match self.receive_all().await {
                Err(error) if error.is_of_broken_connection() && tries > 1 => {
                    tries = if self.received() > before { TRIES } else { tries - 1 };
                }
                ended => return ended,
            }
        }
    }

    /// How many bytes of the stream were received.
    fn received(&self) -> u64 {
        match &self.lock().mode {
            Mode::Stream { received, .. } => *received,
            Mode::Random | Mode::Closed => 0,
        }
    }

    async fn receive_all(self: &Arc<Self>) -> Result<()> {
        // The first block is a request of its own: many readers want the head of a file only.
        let mut ready = Bytes::new();
        if let Some((0, len)) = self.next_wanted() {
            let whole = len.next_multiple_of(LEAF).min(self.checksum.len);
            ready = self.range(0, whole).await?;
            self.arrived(ready.split_to(len as usize));
        }
        let file = self.clone();
        let Some((start, _)) = blocking(move || file.next_wanted()).await else {
            return Ok(());
        };
        let stream = self.client.get_rest(&self.key, self.checksum, start, ready).await?;
        let file = self.clone();
        blocking(move || file.receive_from(stream)).await
    }

    fn receive_from(&self, mut stream: Parts) -> Result<()> {
        while let Some((_, len)) = self.next_wanted() {
            let bytes = stream.next_block(len as usize)?;
            self.arrived(bytes);
        }
        Ok(())
    }

    /// Waits until the next block is requested, and returns its offset and length; `None` if the stream is to end.
    /// Blocks.
    fn next_wanted(&self) -> Option<(u64, u64)> {
        let mut state = self.lock();
        let mut waited = false;
        loop {
            let State { blocks, mode, .. } = &mut *state;
            let Mode::Stream { received, running, .. } = mode else {
                return None;
            };
            if let Some(block) = blocks.get(received) {
                return Some((*received, block.len));
            }
            if waited || *received == self.checksum.len {
                *running = false;
                if waited {
                    // Unused readahead is dropped. A later read of it reads a range.
                    blocks.retain(|_, block| block.permit.is_none());
                }
                return None;
            }
            let (rest, timeout) = self.wanted.wait_timeout(state, IDLE).unwrap_or_else(PoisonError::into_inner);
            (state, waited) = (rest, timeout.timed_out());
        }
    }

    /// Stores the bytes of the next block.
    fn arrived(&self, bytes: Bytes) {
        let mut guard = self.lock();
        let state = &mut *guard;
        let Mode::Stream { received, .. } = &mut state.mode else {
            return;
        };
        let start = *received;
        *received += bytes.len() as u64;
        if let Some(block) = state.blocks.get(&start) {
            block.set(Arrived::Bytes(bytes));
        }
    }

    async fn read_random(&self, offset: u64, end: u64) -> Result<Bytes> {
        let start = offset / LEAF * LEAF;
        let bytes = match self.cached(start).filter(|leaf| end <= start + leaf.len() as u64) {
            Some(leaf) => leaf,
            None => {
                let bytes = self.range(start, end.next_multiple_of(LEAF).min(self.checksum.len) - start).await?;
                let mut leaves = self.budget.leaves.lock().unwrap_or_else(PoisonError::into_inner);
                // Only the last leaf is cached: a reader that continues needs it next.
                let last = (bytes.len() as u64).saturating_sub(1) / LEAF * LEAF;
                leaves.put((self.key.clone(), self.checksum, start + last), bytes.slice(last as usize..));
                bytes
            }
        };
        Ok(bytes.slice((offset - start) as usize..(end - start) as usize))
    }

    fn cached(&self, start: u64) -> Option<Bytes> {
        let mut leaves = self.budget.leaves.lock().unwrap_or_else(PoisonError::into_inner);
        leaves.get(&(self.key.clone(), self.checksum, start)).cloned()
    }

    async fn range(&self, offset: u64, len: u64) -> Result<Bytes> {
        self.client.get_range(&self.key, self.checksum, offset, len as usize).await
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The blocks that hold bytes from `offset` to `end`.
    fn overlapping(&self, offset: u64, end: u64) -> impl Iterator<Item = (u64, &Arc<Block>)> {
        let blocks = self.blocks.range(..end).map(|(start, block)| (*start, block));
        blocks.filter(move |(start, block)| start + block.len > offset)
    }

    /// True if every byte from `offset` to `end` is in a block.
    fn has(&self, offset: u64, end: u64) -> bool {
        self.overlapping(offset, end).fold(offset, |at, (start, block)| match start <= at {
            true => start + block.len,
            false => at,
        }) >= end
    }

    /// Leaves the stream for `mode`. Reads that wait for its blocks read ranges instead.
    fn leave(&mut self, mode: Mode) {
        self.mode = mode;
        for (_, block) in std::mem::take(&mut self.blocks) {
            block.set(Arrived::Never);
        }
    }

    /// Gives the error to all waiting reads. A later read may resume the stream.
    fn fail(&mut self, error: &Error) {
        if let Mode::Stream { running, .. } = &mut self.mode {
            *running = false;
        }
        for (_, block) in std::mem::take(&mut self.blocks) {
            block.set(Arrived::Failed(error.clone()));
        }
    }

    /// Drops the blocks that were completely returned. A reader that skips blocks is not sequential: then the stream
    /// ends, and this returns true.
    fn drop_served(&mut self) -> bool {
        let next = self.next;
        let is_skipped = |start: u64, block: &Block| {
            start + block.len + NEAR < next
                && block.served.load(Ordering::Relaxed) == 0
                && block.arrived.get().is_some()
        };
        if self.blocks.iter().any(|(&start, block)| is_skipped(start, block)) {
            self.leave(Mode::Random);
            return true;
        }
        self.blocks.retain(|&start, block| match block.arrived.get() {
            Some(Arrived::Bytes(_)) => start + NEAR >= next && block.served.load(Ordering::Relaxed) < block.len,
            _ => true,
        });
        false
    }
}

/// When it is dropped, all reads that wait for the stream get an error.
struct Unfinished<'a>(&'a File);

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        self.0
            .lock()
            .fail(&Error::new(ErrorKind::Io, format!("{}: the transfer ended by a fault of s4's own", self.0.key)));
    }
}

/// A small key, whole and verified.
pub async fn read_small(client: &Client, key: &Key, checksum: Checksum) -> Result<Bytes> {
    let bytes = client.open_range(key, checksum, checksum.len as usize).await?;
    let name = client.cluster().name(client.cluster().node_of(key)).to_string();
    checksum.verify(Checksum::of(&bytes), format!("{name}: {key}")).map(|()| bytes)
}
