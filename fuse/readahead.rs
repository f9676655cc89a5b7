//! Reading a remote key piece by piece: ahead of a sequential reader, in parallel and more the longer it goes on; only
//! what is asked for of a random one. All open files share one budget of memory.

use bytes::Bytes;
use s4::body::Pieces;
use s4::checksum::{Checksum, Hasher};
use s4::client::Client;
use s4::error::{Error, Result};
use s4::key::Key;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{OnceCell, OwnedSemaphorePermit, Semaphore};

/// The unit of sequential reading, in bytes.
const BLOCK: u64 = 256 * 1024;
/// Blocks read ahead for one file at most.
const MOST_AHEAD: u64 = 16;
/// Blocks read ahead by all files together.
const BUDGET: usize = 48;
/// Blocks held for one file at most, once they are hashed.
const MOST_HELD: usize = 16;
/// A random read is rounded to this, so that neighbours in the kernel's cache come with it.
const PAGE: u64 = 64 * 1024;
/// The largest key that a node compares as a whole within a deadline, for a random reader.
const MOST_VERIFIED: u64 = 4 << 30;

/// Blocks that all reads under way may hold together; one that needs more waits for others to end.
const IN_HAND: u32 = 48;

/// What all open files share.
#[derive(Clone)]
pub struct Budget {
    ahead: Arc<Semaphore>,
    in_hand: Arc<Semaphore>,
}

impl Budget {
    pub fn new() -> Self {
        Self { ahead: Arc::new(Semaphore::new(BUDGET)), in_hand: Arc::new(Semaphore::new(IN_HAND as usize)) }
    }
}

/// An open remote key.
pub struct RemoteFile {
    client: Client,
    key: Key,
    checksum: Checksum,
    budget: Budget,
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
    verification: Verification,
}

/// How the bytes are compared with the key's checksum.
enum Verification {
    /// Here: the blocks hashed so far, from the first one on.
    Here {
        hashed: u64,
        hasher: Box<Hasher>,
    },
    /// By the node, since the reader has jumped.
    ByNode,
    Failed(Error),
}

struct Block {
    pieces: OnceCell<Arc<Pieces>>,
    /// How many of its bytes the reader has got.
    served: AtomicU64,
    _permit: Option<OwnedSemaphorePermit>,
}

impl Block {
    fn new(permit: Option<OwnedSemaphorePermit>) -> Arc<Self> {
        Arc::new(Self { pieces: OnceCell::new(), served: AtomicU64::new(0), _permit: permit })
    }

    fn is_served(&self) -> bool {
        let served = self.served.load(Ordering::Relaxed);
        self.pieces.get().is_some_and(|pieces| served >= pieces.len() as u64)
    }
}

impl RemoteFile {
    pub fn new(client: Client, key: Key, checksum: Checksum, budget: &Budget) -> Arc<Self> {
        let verification = Verification::Here { hashed: 0, hasher: Box::default() };
        let state = State { blocks: BTreeMap::new(), ahead: 1, next: 0, verification };
        Arc::new(Self { client, key, checksum, budget: budget.clone(), state: Mutex::new(state) })
    }

    /// `size` bytes from `offset`, fewer only at the key's end.
    pub async fn read(self: &Arc<Self>, offset: u64, size: u64) -> Result<Bytes> {
        let end = (offset + size).min(self.checksum.len);
        if offset >= end {
            return Ok(Bytes::new());
        }
        // Of the read's own bytes and of the blocks that it takes them from.
        let blocks = 2 * (size.div_ceil(BLOCK) as u32 + 1);
        let _in_hand = self.budget.in_hand.acquire_many(blocks.min(IN_HAND)).await;
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
            if let Verification::Here { .. } = state.verification {
                state.verification = Verification::ByNode;
            }
        }
        near
    }

    async fn read_ahead(self: &Arc<Self>, offset: u64, end: u64) -> Result<Bytes> {
        let (first, last) = (offset / BLOCK, (end - 1) / BLOCK);
        let mut whole = Vec::with_capacity((end - offset) as usize);
        for number in first..=last {
            let (block, pieces) = self.block(number).await?;
            let start = number * BLOCK;
            let to = ((end - start) as usize).min(pieces.len());
            let from = (offset.saturating_sub(start) as usize).min(to);
            pieces.copy_to(from..to, &mut whole);
            block.served.fetch_add((to - from) as u64, Ordering::Relaxed);
            self.lock().let_go();
        }
        Ok(whole.into())
    }

    /// A block, and those ahead of it set on their way. The last one comes only after all have been compared.
    async fn block(self: &Arc<Self>, number: u64) -> Result<(Arc<Block>, Arc<Pieces>)> {
        let (block, ahead) = self.plan(number);
        for (number, block) in ahead {
            let file = self.clone();
            tokio::spawn(async move { file.fetch(number, &block).await.map(drop) });
        }
        let pieces = self.fetch(number, &block).await?;
        if number == self.last_block() {
            while let Some(missing) = self.unhashed() {
                let (block, _) = self.plan(missing);
                self.fetch(missing, &block).await?;
            }
        }
        match &self.lock().verification {
            Verification::Failed(error) => Err(error.clone()),
            Verification::Here { .. } | Verification::ByNode => Ok((block, pieces)),
        }
    }

    fn last_block(&self) -> u64 {
        (self.checksum.len - 1) / BLOCK
    }

    /// The next block to be hashed, if the comparison is made here.
    fn unhashed(&self) -> Option<u64> {
        match self.lock().verification {
            Verification::Here { hashed, .. } if hashed <= self.last_block() => Some(hashed),
            _ => None,
        }
    }

    fn plan(&self, number: u64) -> (Arc<Block>, Vec<(u64, Arc<Block>)>) {
        let mut state = self.lock();
        let last = self.last_block();
        let block = match state.blocks.get(&number) {
            Some(block) => block.clone(),
            None => {
                let block = Block::new(None);
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
            let Ok(permit) = self.budget.ahead.clone().try_acquire_owned() else {
                break;
            };
            let block = Block::new(Some(permit));
            state.blocks.insert(number, block.clone());
            ahead.push((number, block));
        }
        if !ahead.is_empty() {
            state.ahead = (state.ahead + 1).min(MOST_AHEAD);
        }
        (block, ahead)
    }

    async fn fetch(&self, number: u64, block: &Block) -> Result<Arc<Pieces>> {
        let by_node = matches!(self.lock().verification, Verification::ByNode);
        let fetch = async || self.range(number * BLOCK, BLOCK as usize, by_node).await.map(Arc::new);
        let pieces = block.pieces.get_or_try_init(fetch).await?.clone();
        self.hash_arrived();
        Ok(pieces)
    }

    /// Hashes, in their order, the blocks that are here, and compares once the last one is.
    fn hash_arrived(&self) {
        let mut state = self.lock();
        let State { blocks, verification, .. } = &mut *state;
        let Verification::Here { hashed, hasher } = verification else {
            return;
        };
        while *hashed <= self.last_block()
            && let Some(pieces) = blocks.get(hashed).and_then(|block| block.pieces.get())
        {
            pieces.iter().for_each(|piece| hasher.update(piece));
            *hashed += 1;
            if *hashed > self.last_block() {
                let node = self.client.cluster().name(self.client.cluster().node_of(&self.key)).to_string();
                if let Err(error) = self.checksum.verify(hasher.finish(), format!("{node}: {}", self.key)) {
                    *verification = Verification::Failed(error);
                }
                break;
            }
        }
        state.let_go();
    }

    async fn read_random(&self, offset: u64, end: u64) -> Result<Bytes> {
        let start = offset / PAGE * PAGE;
        let len = end.next_multiple_of(PAGE) - start;
        let bytes = self.range(start, len as usize, true).await?.into_bytes();
        let from = (offset - start) as usize;
        let to = ((end - start) as usize).min(bytes.len());
        Ok(bytes.slice(from.min(to)..to))
    }

    async fn range(&self, offset: u64, len: usize, verify: bool) -> Result<Pieces> {
        let verify = verify && self.checksum.len <= MOST_VERIFIED;
        self.client.get_range(&self.key, self.checksum, offset, len, verify).await
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Lets go of the blocks that the reader has got whole and that are hashed, and of old ones that it left out.
    fn let_go(&mut self) {
        let hashed = match self.verification {
            Verification::Here { hashed, .. } => hashed,
            Verification::ByNode | Verification::Failed(_) => u64::MAX,
        };
        self.blocks.retain(|&number, block| number >= hashed || !block.is_served());
        // A reader that leaves blocks out would have them wait for their turn for ever.
        let stuck = self.blocks.len() > MOST_HELD + MOST_AHEAD as usize;
        if stuck && let Verification::Here { .. } = self.verification {
            self.verification = Verification::ByNode;
            self.blocks.clear();
            return;
        }
        while self.blocks.len() > MOST_HELD && self.blocks.first_key_value().is_some_and(|(&number, _)| number < hashed)
        {
            self.blocks.pop_first();
        }
    }
}

/// A small key, whole and verified.
pub async fn read_small(client: &Client, key: &Key, checksum: Checksum) -> Result<Bytes> {
    let bytes = client.open_range(key, checksum, checksum.len as usize).await?.into_bytes();
    let mut hasher = Hasher::new();
    hasher.update(&bytes);
    let name = client.cluster().name(client.cluster().node_of(key)).to_string();
    checksum.verify(hasher.finish(), format!("{name}: {key}")).map(|()| bytes)
}
