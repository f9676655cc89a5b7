//! The open file cache. A key that is read in parts stays open, so that its reader can continue after a delete. Each
//! entry has the checksums of the key's leaves.

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
const MAX_OPEN_FILES: NonZeroUsize = NonZeroUsize::new(1024).expect("not zero");
/// A key that was not read for this long is closed.
const IDLE: Duration = Duration::from_secs(600);

/// An open key.
pub struct OpenKey {
    pub file: File,
    pub(super) checksum: Checksum,
    /// The recorded checksums of leaves or blocks; `None` if the key has only one leaf, or if there was no room for a
    /// table when it was made.
    pub(super) table: Option<Table>,
    /// Checksums of the leaves of verified blocks, by the first leaf of the block.
    pub(super) verified: Mutex<HashMap<usize, Vec<u32>>>,
}

/// Open files, and when each was last read.
type Entries = LruCache<(Key, Checksum), (Arc<OpenKey>, Instant)>;

/// Guards the table; the files themselves are shared.
pub(super) struct OpenFileCache(Mutex<Entries>);

impl Default for OpenFileCache {
    fn default() -> Self {
        Self(Mutex::new(LruCache::new(MAX_OPEN_FILES)))
    }
}

impl OpenFileCache {
    fn lock(&self) -> MutexGuard<'_, Entries> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn get(&self, name: &(Key, Checksum)) -> Option<Arc<OpenKey>> {
        let mut table = self.lock();
        let (cached, used) = table.get_mut(name)?;
        *used = Instant::now();
        Some(cached.clone())
    }

    pub fn put(&self, name: (Key, Checksum), cached: Arc<OpenKey>) {
        self.lock().put(name, (cached, Instant::now()));
    }

    /// Closes keys that nobody reads any more, which frees the space of deleted keys. Blocks while the file system
    /// frees it.
    pub fn close_idle(&self) {
        let mut idle = Vec::new();
        let mut table = self.lock();
        while table.peek_lru().is_some_and(|(_, (_, used))| used.elapsed() > IDLE)
            && let Some((name, (cached, _))) = table.pop_lru()
        {
            // A reader still uses it.
            match Arc::strong_count(&cached) {
                1 => idle.push(cached),
                _ => drop(table.put(name, (cached, Instant::now()))),
            }
        }
        drop(table);
    }
}
