//! The open file cache: keys that are read piece by piece stay open, so that a reader goes on after a delete. Each has the sums of its
//! leaves.

use super::Store;
use lru::LruCache;
use s4::aligned::Block;
use s4::blocks::{LEAF, Table, leaf_sum};
use s4::checksum::Checksum;
use s4::error::{Error, ErrorKind, Result};
use s4::file::read_full;
use s4::hasher;
use s4::key::Key;
use s4::stored;
use s4::wire::{Part, parts};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fs::File;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Keys that are open at once.
const MOST: NonZeroUsize = NonZeroUsize::new(1024).expect("not zero");
/// A key that nobody reads for this long is closed.
const IDLE: Duration = Duration::from_secs(600);

/// A key that is held open, for as long as somebody has it and a while longer.
pub struct HeldFile {
    pub file: File,
    checksum: Checksum,
    /// As recorded; `None` if the key has one leaf, or was made where there was no room for a table.
    table: Option<Table>,
    /// Sums of leaves of blocks that were found to be as recorded, by the first leaf of the block.
    proven: Mutex<HashMap<usize, Vec<u32>>>,
}

/// Open files, and when each was last read.
type Held = LruCache<(Key, Checksum), (Arc<HeldFile>, Instant)>;

/// Guards the table; the files themselves are shared.
pub struct OpenFileCache(Mutex<Held>);

impl Default for OpenFileCache {
    fn default() -> Self {
        Self(Mutex::new(LruCache::new(MOST)))
    }
}

impl Store {
    /// The sum of a leaf as it was recorded, or one of a block that is as it was recorded.
    pub fn leaf_sum(&self, held: &HeldFile, key: &Key, leaf: usize) -> Result<u32> {
        if held.checksum.len <= LEAF {
            return Ok(held.checksum.xxh3 as u32);
        }
        if let Some(sum) = held.table.as_ref().and_then(|table| table.leaf(leaf)) {
            return Ok(sum);
        }
        let (first, count) = held.table.as_ref().map_or((0, usize::MAX), |table| table.block_of(leaf));
        // Held, so that others who want it wait instead of reading it too.
        let mut proven = held.proven.lock().unwrap_or_else(PoisonError::into_inner);
        let sums = match proven.entry(first) {
            Entry::Occupied(sums) => sums.into_mut(),
            Entry::Vacant(unproven) => unproven.insert(self.prove(held, key, first, count)?),
        };
        let sum = sums.get(leaf - first).copied();
        sum.ok_or_else(|| Error::new(ErrorKind::BadRequest, format!("{key}: has no leaf {leaf}")))
    }

    /// Reads a block, or a whole key that has no table, and compares it. Returns the sums of its leaves.
    fn prove(&self, held: &HeldFile, key: &Key, first: usize, count: usize) -> Result<Vec<u32>> {
        let failed = |e: std::io::Error| self.unreadable(key, &e);
        let Some(table) = &held.table else {
            let (found, sums) = hasher::leaves_of_file(&held.file).map_err(failed)?;
            return held.checksum.verify(found, key).map(|()| sums);
        };
        let (mut sums, mut block) = (Vec::new(), Block::new(LEAF as usize));
        for leaf in first..first + count {
            match read_full(&held.file, &mut block, leaf as u64 * LEAF).map_err(failed)? {
                0 => break,
                n => sums.push(leaf_sum(&block[..n])),
            }
        }
        match table.has_block(first, &sums) {
            true => Ok(sums),
            false => Err(parts::changed(&key.to_string(), first as u64 * LEAF)),
        }
    }

    /// Closes keys that nobody reads any more, so that the space of deleted ones is free. Blocks: freeing it takes a while.
    pub fn close_idle_files(&self) {
        let mut idle = Vec::new();
        let mut table = self.open_files.lock();
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

    /// The key of which this is a part, open. Errors: the key is gone, or is another one now.
    pub fn hold(&self, key: &Key, part: &Part) -> Result<Arc<HeldFile>> {
        let name = (key.clone(), part.checksum);
        if !part.open
            && let Some((held, used)) = self.open_files.lock().get_mut(&name)
        {
            *used = Instant::now();
            return Ok(held.clone());
        }
        let opened = self.open_key(key)?;
        if opened.checksum != part.checksum {
            return Err(Error::new(ErrorKind::NotFound, format!("{key}: is another key now")));
        }
        let table = stored::table(&opened.file, opened.checksum).map_err(|e| self.unreadable(key, &e))?;
        let (file, checksum) = (opened.file, opened.checksum);
        let held = Arc::new(HeldFile { file, checksum, table, proven: Mutex::default() });
        let mut table = self.open_files.lock();
        table.put(name, (held.clone(), Instant::now()));
        Ok(held)
    }
}

impl OpenFileCache {
    fn lock(&self) -> std::sync::MutexGuard<'_, Held> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
