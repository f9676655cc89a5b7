//! Reading a key in parts. Each part is compared with the recorded sums.

use super::core::Store;
use super::open_files::OpenKey;
use s4::aligned::Block;
use s4::blocks::{LEAF, leaf_sum};
use s4::error::{Error, ErrorKind, Result};
use s4::file::read_full;
use s4::key::Key;
use s4::wire::{Part, parts};
use s4::{hasher, stored};
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, PoisonError};

impl Store {
    /// The recorded sum of a leaf. Where only sums of blocks are recorded, the block is verified first.
    pub fn leaf_sum(&self, cached: &OpenKey, key: &Key, leaf: usize) -> Result<u32> {
        if cached.checksum.len <= LEAF {
            return Ok(cached.checksum.xxh3 as u32);
        }
        if let Some(sum) = cached.table.as_ref().and_then(|table| table.leaf(leaf)) {
            return Ok(sum);
        }
        let (first, count) = cached.table.as_ref().map_or((0, usize::MAX), |table| table.block_of(leaf));
        // Held during the read, so that other readers of the block wait instead of reading it too.
        let mut verified = cached.verified.lock().unwrap_or_else(PoisonError::into_inner);
        let sums = match verified.entry(first) {
            Entry::Occupied(sums) => sums.into_mut(),
            Entry::Vacant(unverified) => unverified.insert(self.verify(cached, key, first, count)?),
        };
        let sum = sums.get(leaf - first).copied();
        sum.ok_or_else(|| Error::new(ErrorKind::BadRequest, format!("{key}: has no leaf {leaf}")))
    }

    /// Reads a block, or the whole key if it has no table, and compares it with the record. Returns the sums of its
    /// leaves.
    fn verify(&self, cached: &OpenKey, key: &Key, first: usize, count: usize) -> Result<Vec<u32>> {
        let failed = |e: std::io::Error| self.unreadable(key, &e);
        let Some(table) = &cached.table else {
            let (found, sums) = hasher::leaves_of_file(&cached.file).map_err(failed)?;
            return cached.checksum.verify(found, key).map(|()| sums);
        };
        let (mut sums, mut block) = (Vec::new(), Block::new(LEAF as usize));
        for leaf in first..first + count {
            match read_full(&cached.file, &mut block, leaf as u64 * LEAF).map_err(failed)? {
                0 => break,
                n => sums.push(leaf_sum(&block[..n])),
            }
        }
        match table.has_block(first, &sums) {
            true => Ok(sums),
            false => Err(parts::changed(&key.to_string(), first as u64 * LEAF)),
        }
    }

    /// Opens the key of `part`. Errors: the key does not exist, or is another one now.
    pub fn open_part(&self, key: &Key, part: &Part) -> Result<Arc<OpenKey>> {
        let name = (key.clone(), part.checksum);
        if !part.open
            && let Some(cached) = self.open_files.get(&name)
        {
            return Ok(cached);
        }
        let opened = self.open_key(key)?;
        if opened.checksum != part.checksum {
            return Err(Error::new(ErrorKind::NotFound, format!("{key}: is another key now")));
        }
        let table = stored::table(&opened.file, opened.checksum).map_err(|e| self.unreadable(key, &e))?;
        let (file, checksum) = (opened.file, opened.checksum);
        let cached = Arc::new(OpenKey { file, checksum, table, verified: Mutex::default() });
        self.open_files.put(name, cached.clone());
        Ok(cached)
    }

    /// Closes keys that nobody reads any more, which frees the space of deleted keys. Blocks while the file system
    /// frees it.
    pub fn close_idle_files(&self) {
        self.open_files.close_idle();
    }
}
