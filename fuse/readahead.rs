//! Reading a remote key piece by piece. A reader that begins at the start and goes on gets the key as one stream, received a
//! block ahead of it; one that has jumped gets what it asks for. All of it is compared with the sums that were recorded when the key
//! was published, before a byte is given out. All open files share one budget of memory.

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

/// The longest block, in bytes. A block is what one request of the kernel asks for, so that its answer is one piece.
const BLOCK: u64 = 1024 * 1024;
/// Blocks read ahead by all files together.
const BUDGET: usize = 24;
/// Blocks that all reads under way may ask for together; one that needs more waits for others to end.
const IN_HAND: u32 = 40;
/// How far from the last read, in bytes, one may be that still goes on with it.
const NEAR: u64 = 2 * BLOCK;
/// Leaves that were read at random and are kept for the next reads, of all files together.
const KEPT: NonZeroUsize = NonZeroUsize::new(16).expect("not zero");
/// A stream that nobody reads from for so long is given up; a later read begins another where it ended.
const IDLE: Duration = Duration::from_secs(2);

/// A part of a key, and where it begins.
type Leaf = (Key, Checksum, u64);

/// What all open files share.
#[derive(Clone)]
pub struct Budget {
    ahead: Arc<Semaphore>,
    in_hand: Arc<Semaphore>,
    /// Leaves that were read at random, by key and where they begin.
    kept: Arc<Mutex<LruCache<Leaf, Bytes>>>,
}

impl Budget {
    pub fn new() -> Self {
        Self {
            ahead: Arc::new(Semaphore::new(BUDGET)),
            in_hand: Arc::new(Semaphore::new(IN_HAND as usize)),
            kept: Arc::new(Mutex::new(LruCache::new(KEPT))),
        }
    }
}

/// An open remote key. Dropped, its stream ends.
pub struct RemoteFile(Arc<File>);

struct File {
    client: Client,
    key: Key,
    checksum: Checksum,
    budget: Budget,
    state: Mutex<State>,
    /// Wakes the stream's thread when a block is wanted, or none any more.
    wanted: Condvar,
}

/// Guards where the reader is, and what came ahead of it.
struct State {
    /// Blocks that are here or wanted, by where they begin. From `received` on there is no gap between them.
    blocks: BTreeMap<u64, Arc<Block>>,
    /// Where the last sequential read ended.
    next: u64,
    course: Course,
}

enum Course {
    /// From the start on: the bytes before `received` have come.
    Stream {
        received: u64,
        /// A thread receives.
        runs: bool,
    },
    /// The reader has jumped.
    Random,
    Closed,
}

/// Blocks with where they begin, in order.
type Placed = Vec<(u64, Arc<Block>)>;

/// What became of a block.
enum Arrived {
    Bytes(Bytes),
    Failed(Error),
    /// The stream ended before it: what is still wanted of it is asked for apart.
    Not,
}

struct Block {
    len: u64,
    arrived: SetOnce<Arrived>,
    /// How many of its bytes the reader has got.
    served: AtomicU64,
    permit: Option<OwnedSemaphorePermit>,
}

impl Block {
    fn new(len: u64, permit: Option<OwnedSemaphorePermit>) -> Arc<Self> {
        Arc::new(Self { len, arrived: SetOnce::new(), served: AtomicU64::new(0), permit })
    }

    fn set(&self, arrived: Arrived) {
        // Once set, it stays.
        let _ = self.arrived.set(arrived);
    }
}

impl RemoteFile {
    pub fn new(client: Client, key: Key, checksum: Checksum, budget: &Budget) -> Self {
        let course = Course::Stream { received: 0, runs: false };
        let state = Mutex::new(State { blocks: BTreeMap::new(), next: 0, course });
        let wanted = Condvar::new();
        Self(Arc::new(File { client, key, checksum, budget: budget.clone(), state, wanted }))
    }

    /// `size` bytes from `offset`, fewer only at the key's end.
    pub async fn read(&self, offset: u64, size: u64) -> Result<Bytes> {
        let file = &self.0;
        let end = (offset + size).min(file.checksum.len);
        if offset >= end {
            return Ok(Bytes::new());
        }
        let blocks = size.div_ceil(BLOCK) as u32 + 1;
        let _in_hand = file.budget.in_hand.acquire_many(blocks.min(IN_HAND)).await;
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
        state.leave(Course::Closed);
        self.0.wanted.notify_all();
    }
}

impl File {
    /// The blocks of a read that goes on with the stream, which are on their way then with those ahead of them; `None` for
    /// one that does not.
    fn want(self: &Arc<Self>, offset: u64, end: u64) -> Result<Option<Placed>> {
        let mut guard = self.lock();
        let state = &mut *guard;
        let received = match &state.course {
            Course::Random | Course::Closed => return Ok(None),
            Course::Stream { received, .. } => *received,
        };
        // The kernel's own readahead sends several requests at once, which may come a little out of order.
        let near = offset <= state.next + NEAR && offset + NEAR >= state.next;
        if !near {
            state.leave(Course::Random);
            self.wanted.notify_all();
            return Ok(None);
        }
        // Of a first read it is not known whether another follows. The socket's own buffer holds what comes after the block.
        let ahead = if state.next > 0 { (end - offset).min(BLOCK) } else { 0 };
        state.next = state.next.max(end);
        // What was passed unread is let go after a while, and asked for apart should it be read after all.
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
        // The kernel goes on with requests of the size of its last one.
        let len = ahead.min(self.checksum.len - planned);
        if len > 0
            && planned < end + ahead
            && let Ok(permit) = self.budget.ahead.clone().try_acquire_owned()
        {
            state.blocks.insert(planned, Block::new(len, Some(permit)));
        }
        let blocks = state.overlapping(offset, end).map(|(start, block)| (start, block.clone())).collect();
        if let Course::Stream { runs, .. } = &mut state.course
            && state.blocks.contains_key(&received)
        {
            match std::mem::replace(runs, true) {
                true => self.wanted.notify_all(),
                false => drop(tokio::spawn(self.clone().receive())),
            }
        }
        Ok(Some(blocks))
    }

    /// The bytes of a read from its blocks, as they come; `None` if the stream has ended before them.
    async fn take(&self, blocks: Placed, offset: u64, end: u64) -> Result<Option<Bytes>> {
        let mut parts = Vec::with_capacity(blocks.len());
        for (start, block) in blocks {
            let bytes = match block.arrived.wait().await {
                Arrived::Bytes(bytes) => bytes,
                Arrived::Failed(error) => return Err(error.clone()),
                Arrived::Not => return Ok(None),
            };
            let part = bytes.slice(offset.saturating_sub(start) as usize..(end - start).min(block.len) as usize);
            block.served.fetch_add(part.len() as u64, Ordering::Relaxed);
            parts.push(part);
        }
        if self.lock().let_go() {
            self.wanted.notify_all();
        }
        Ok(Some(if parts.len() == 1 { parts.remove(0) } else { parts.concat().into() }))
    }

    /// Receives what is wanted until nothing is, or the transfer fails: then those who wait get the error, and a later read
    /// tries again.
    async fn receive(self: Arc<Self>) {
        // Also should the work panic, nobody is left waiting.
        let unless_done = Unfinished(&self);
        let received = self.client.noting(self.client.cluster().node_of(&self.key), self.receive_on().await);
        std::mem::forget(unless_done);
        match received {
            Ok(()) => {}
            // Only a part is damaged: each read asks for its own.
            Err(error) if error.kind() == ErrorKind::Checksum => self.lock().leave(Course::Random),
            Err(error) => self.lock().fail(&error),
        }
    }

    /// Receives on where a connection breaks off: the daemon may just restart.
    async fn receive_on(self: &Arc<Self>) -> Result<()> {
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

    /// How many bytes of the stream have come.
    fn received(&self) -> u64 {
        match &self.lock().course {
            Course::Stream { received, .. } => *received,
            Course::Random | Course::Closed => 0,
        }
    }

    async fn receive_all(self: &Arc<Self>) -> Result<()> {
        // The first block in an exchange of its own: many readers want no more than a file's head.
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

    /// Where the next block to receive begins and how long it is, once it is wanted; `None` once the stream is to end.
    /// Blocks.
    fn next_wanted(&self) -> Option<(u64, u64)> {
        let mut state = self.lock();
        let mut waited = false;
        loop {
            let State { blocks, course, .. } = &mut *state;
            let Course::Stream { received, runs, .. } = course else {
                return None;
            };
            if let Some(block) = blocks.get(received) {
                return Some((*received, block.len));
            }
            if waited || *received == self.checksum.len {
                *runs = false;
                if waited {
                    // What was read ahead for nothing is asked for apart, should it be read after all.
                    blocks.retain(|_, block| block.permit.is_none());
                }
                return None;
            }
            let (rest, timeout) = self.wanted.wait_timeout(state, IDLE).unwrap_or_else(PoisonError::into_inner);
            (state, waited) = (rest, timeout.timed_out());
        }
    }

    /// Hands out the next block.
    fn arrived(&self, bytes: Bytes) {
        let mut guard = self.lock();
        let state = &mut *guard;
        let Course::Stream { received, .. } = &mut state.course else {
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
        let bytes = match self.kept(start).filter(|leaf| end <= start + leaf.len() as u64) {
            Some(leaf) => leaf,
            None => {
                let bytes = self.range(start, end.next_multiple_of(LEAF).min(self.checksum.len) - start).await?;
                let mut kept = self.budget.kept.lock().unwrap_or_else(PoisonError::into_inner);
                // The last one, which a reader that goes on wants next.
                let last = (bytes.len() as u64).saturating_sub(1) / LEAF * LEAF;
                kept.put((self.key.clone(), self.checksum, start + last), bytes.slice(last as usize..));
                bytes
            }
        };
        Ok(bytes.slice((offset - start) as usize..(end - start) as usize))
    }

    fn kept(&self, start: u64) -> Option<Bytes> {
        let mut kept = self.budget.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.get(&(self.key.clone(), self.checksum, start)).cloned()
    }

    async fn range(&self, offset: u64, len: u64) -> Result<Bytes> {
        self.client.get_range(&self.key, self.checksum, offset, len as usize).await
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The blocks that hold some of the bytes from `offset` to `end`.
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

    /// Leaves the stream. Whoever waits for its blocks asks for them apart.
    fn leave(&mut self, course: Course) {
        self.course = course;
        for (_, block) in std::mem::take(&mut self.blocks) {
            block.set(Arrived::Not);
        }
    }

    /// Gives the error to all who wait. The stream may begin again where it was.
    fn fail(&mut self, error: &Error) {
        if let Course::Stream { runs, .. } = &mut self.course {
            *runs = false;
        }
        for (_, block) in std::mem::take(&mut self.blocks) {
            block.set(Arrived::Failed(error.clone()));
        }
    }

    /// Lets go of the blocks that the reader has got whole. One that leaves blocks out is no sequential reader: true if that
    /// has ended the stream.
    fn let_go(&mut self) -> bool {
        let next = self.next;
        let is_left_out = |start: u64, block: &Block| {
            start + block.len + NEAR < next
                && block.served.load(Ordering::Relaxed) == 0
                && block.arrived.get().is_some()
        };
        if self.blocks.iter().any(|(&start, block)| is_left_out(start, block)) {
            self.leave(Course::Random);
            return true;
        }
        self.blocks.retain(|&start, block| match block.arrived.get() {
            Some(Arrived::Bytes(_)) => start + NEAR >= next && block.served.load(Ordering::Relaxed) < block.len,
            _ => true,
        });
        false
    }
}

/// Dropped, it tells those who wait for a stream that none of it comes.
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
