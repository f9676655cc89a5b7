//! Reading a remote key piece by piece: ahead of a sequential reader, in parallel and more the longer it goes on; only
//! what is asked for of a random one. All open files share one budget of memory.

use bytes::Bytes;
use s4::checksum::{Checksum, Hasher};
use s4::client::Client;
use s4::error::Result;
use s4::key::Key;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{OnceCell, OwnedSemaphorePermit, Semaphore};

/// The unit of sequential reading, in bytes.
const BLOCK: u64 = 512 * 1024;
/// Blocks read ahead for one file at most.
const MOST_AHEAD: u64 = 8;
/// Blocks read ahead by all files together.
const BUDGET: usize = 64;
/// A random read is rounded to this, so that neighbours in the kernel's cache come with it.
const PAGE: u64 = 64 * 1024;
/// The largest key that a node compares as a whole within a deadline, for a random reader.
const MOST_VERIFIED: u64 = 4 << 30;

/// What all open files share.
pub struct Budget(Arc<Semaphore>);

impl Budget {
    pub fn new() -> Self {
        Self(Arc::new(Semaphore::new(BUDGET)))
    }
}

/// An open remote key.
pub struct RemoteFile {
    client: Client,
    key: Key,
    checksum: Checksum,
    budget: Arc<Semaphore>,
    state: Mutex<State>,
}

/// Guards where the reader is, and what came ahead of it.
struct State {
    /// Blocks that are here or on their way, by number.
    blocks: BTreeMap<u64, Arc<Block>>,
    /// How many blocks to read ahead of the next sequential read.
    ahead: u64,
    /// Where the last sequential read ended.
    next: u64,
    /// The blocks hashed so far, from the first one on; `None` once the reader has jumped.
    verified: Option<(u64, Hasher)>,
}

struct Block {
    bytes: OnceCell<Bytes>,
    _permit: Option<OwnedSemaphorePermit>,
}

impl RemoteFile {
    pub fn new(client: Client, key: Key, checksum: Checksum, budget: &Budget) -> Arc<Self> {
        let state = State { blocks: BTreeMap::new(), ahead: 1, next: 0, verified: Some((0, Hasher::new())) };
        Arc::new(Self { client, key, checksum, budget: budget.0.clone(), state: Mutex::new(state) })
    }

    /// `size` bytes from `offset`, fewer only at the key's end.
    pub async fn read(self: &Arc<Self>, offset: u64, size: u64) -> Result<Bytes> {
        let end = (offset + size).min(self.checksum.len);
        if offset >= end {
            return Ok(Bytes::new());
        }
        match self.is_sequential(offset, end) {
            true => self.read_ahead(offset, end).await,
            false => self.read_random(offset, end).await,
        }
    }

    /// The kernel's own readahead sends several requests at once, which may come a little out of order.
    fn is_sequential(&self, offset: u64, end: u64) -> bool {
        let mut state = self.lock();
        let near = offset <= state.next + 4 * BLOCK && offset + 4 * BLOCK >= state.next;
        if near {
            state.next = state.next.max(end);
        } else {
            state.next = end;
            state.ahead = 1;
            state.blocks.clear();
            state.verified = None;
        }
        near
    }

    async fn read_ahead(self: &Arc<Self>, offset: u64, end: u64) -> Result<Bytes> {
        let (first, last) = (offset / BLOCK, (end - 1) / BLOCK);
        let mut whole = Vec::new();
        for number in first..=last {
            let bytes = self.block(number).await?;
            let start = number * BLOCK;
            let from = offset.saturating_sub(start) as usize;
            let to = ((end - start) as usize).min(bytes.len());
            if first == last {
                self.used(number, end);
                return Ok(bytes.slice(from.min(to)..to));
            }
            whole.extend_from_slice(&bytes[from.min(to)..to]);
        }
        self.used(last, end);
        Ok(whole.into())
    }

    /// A block, and those ahead of it set on their way.
    async fn block(self: &Arc<Self>, number: u64) -> Result<Bytes> {
        let (block, ahead) = self.plan(number);
        for (number, block) in ahead {
            let file = self.clone();
            tokio::spawn(async move { file.fetch(number, &block).await.map(drop) });
        }
        let bytes = self.fetch(number, &block).await?;
        self.verify(number, &bytes)?;
        Ok(bytes)
    }

    fn plan(&self, number: u64) -> (Arc<Block>, Vec<(u64, Arc<Block>)>) {
        let mut state = self.lock();
        let last = (self.checksum.len - 1) / BLOCK;
        let block = match state.blocks.get(&number) {
            Some(block) => block.clone(),
            None => {
                let block = Arc::new(Block { bytes: OnceCell::new(), _permit: None });
                state.blocks.insert(number, block.clone());
                state.ahead = (state.ahead * 2).min(MOST_AHEAD);
                block
            }
        };
        let mut ahead = Vec::new();
        for number in number + 1..=(number + state.ahead).min(last) {
            if state.blocks.contains_key(&number) {
                continue;
            }
            let Ok(permit) = self.budget.clone().try_acquire_owned() else {
                break;
            };
            let block = Arc::new(Block { bytes: OnceCell::new(), _permit: Some(permit) });
            state.blocks.insert(number, block.clone());
            ahead.push((number, block));
        }
        if !ahead.is_empty() {
            state.ahead = (state.ahead + 1).min(MOST_AHEAD);
        }
        (block, ahead)
    }

    async fn fetch(&self, number: u64, block: &Block) -> Result<Bytes> {
        let fetch = || self.range(number * BLOCK, BLOCK as usize, self.lock().verified.is_none());
        block.bytes.get_or_try_init(fetch).await.cloned()
    }

    /// Hashes the blocks in their order. The last one is not handed on unless the whole matches.
    fn verify(&self, number: u64, bytes: &Bytes) -> Result<()> {
        let mut state = self.lock();
        let Some((next, hasher)) = &mut state.verified else {
            return Ok(());
        };
        if number != *next {
            return Ok(());
        }
        hasher.update(bytes);
        *next += 1;
        let node = self.client.cluster().node_of(&self.key);
        match number == (self.checksum.len - 1) / BLOCK {
            true => {
                self.checksum.verify(hasher.finish(), format!("{}: {}", self.client.cluster().name(node), self.key))
            }
            false => Ok(()),
        }
    }

    /// Lets go of the blocks that the reader has passed.
    fn used(&self, last: u64, end: u64) {
        let mut state = self.lock();
        let whole = end == self.checksum.len || end.is_multiple_of(BLOCK);
        // Requests that came early may still need the block before.
        let keep = if whole { last } else { last.saturating_sub(1) };
        let hashed = state.verified.as_ref().map_or(u64::MAX, |(next, _)| *next);
        state.blocks.retain(|&number, _| number >= keep.min(hashed));
        if whole && end == self.checksum.len {
            state.blocks.clear();
        }
    }

    async fn read_random(&self, offset: u64, end: u64) -> Result<Bytes> {
        let start = offset / PAGE * PAGE;
        let len = end.next_multiple_of(PAGE) - start;
        let bytes = self.range(start, len as usize, true).await?;
        let from = (offset - start) as usize;
        let to = ((end - start) as usize).min(bytes.len());
        Ok(bytes.slice(from.min(to)..to))
    }

    async fn range(&self, offset: u64, len: usize, verify: bool) -> Result<Bytes> {
        let verify = verify && self.checksum.len <= MOST_VERIFIED;
        self.client.get_range(&self.key, self.checksum, offset, len, verify).await
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A small key, whole and verified.
pub async fn read_small(client: &Client, key: &Key, checksum: Checksum) -> Result<Bytes> {
    let bytes = client.open_range(key, checksum, checksum.len as usize).await?;
    let mut hasher = Hasher::new();
    hasher.update(&bytes);
    let name = client.cluster().name(client.cluster().node_of(key)).to_string();
    checksum.verify(hasher.finish(), format!("{name}: {key}")).map(|()| bytes)
}
