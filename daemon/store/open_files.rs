//! The open file cache: keys that are read piece by piece stay open, so that a reader goes on after a delete. Each has the sums of its
//! leaves.

use lru::LruCache;
use s4::blocks::Table;
use s4::checksum::Checksum;
use s4::key::Key;
use std::collections::HashMap;
use std::fs::File;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Keys that are open at once.
const MOST: NonZeroUsize = NonZeroUsize::new(1024).expect("not zero");
/// A key that nobody reads for this long is closed.
const IDLE: Duration = Duration::from_secs(600);

/// A key that is held open, for as long as somebody has it and a while longer.
pub struct HeldFile {
    pub file: File,
    pub(super) checksum: Checksum,
    /// As recorded; `None` if the key has one leaf, or was made where there was no room for a table.
    pub(super) table: Option<Table>,
    /// Sums of leaves of blocks that were found to be as recorded, by the first leaf of the block.
    pub(super) proven: Mutex<HashMap<usize, Vec<u32>>>,
}

/// Open files, and when each was last read.
type Held = LruCache<(Key, Checksum), (Arc<HeldFile>, Instant)>;

/// Guards the table; the files themselves are shared.
pub(super) struct OpenFileCache(Mutex<Held>);

impl Default for OpenFileCache {
    fn default() -> Self {
        Self(Mutex::new(LruCache::new(MOST)))
    }
}

impl OpenFileCache {
    fn lock(&self) -> MutexGuard<'_, Held> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn get(&self, name: &(Key, Checksum)) -> Option<Arc<HeldFile>> {
        let mut table = self.lock();
        let (held, used) = table.get_mut(name)?;
        *used = Instant::now();
        Some(held.clone())
    }

    pub fn put(&self, name: (Key, Checksum), held: Arc<HeldFile>) {
        self.lock().put(name, (held, Instant::now()));
    }

    /// Closes keys that nobody reads any more, so that the space of deleted ones is free. Blocks: freeing it takes a while.
    pub fn close_idle(&self) {
        let mut idle = Vec::new();
        let mut table = self.lock();
        while table.peek_lru().is_some_and(|(_, (_, used))| used.elapsed() > IDLE)
            && let Some((name, (held, _))) = table.pop_lru()
        {
            // A stream may take longer.
            match Arc::strong_count(&held) {
                1 => idle.push(held),
                _ => drop(table.put(name, (held, Instant::now()))),
            }
        }
        drop(table);
    }
}
