//! Computes checksums of files and of bytes in pieces; for a publish, also the checksums of the key's parts.

use crate::aligned::Block;
use crate::blocks::{LEAF, Leaves, Table, leaf_sum};
use crate::checksum::Checksum;
use crate::file::read_full;
use std::fmt;
use std::fs::File;
use std::hash::Hasher as _;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use twox_hash::{XxHash3_64, XxHash3_128};

/// Bytes of a file that are hashed at a time: a whole leaf.
const HASHED_AT_ONCE: usize = LEAF as usize;
/// Length in bytes from which a file is hashed by two threads.
const LARGE: u64 = 64 << 20;

/// The checksums of a key that are recorded at its publish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sums {
    pub checksum: Checksum,
    /// Checksums of the parts; `None` for a key of one leaf.
    pub table: Option<Table>,
}

/// Computes a checksum from bytes in pieces.
pub struct Hasher {
    state: XxHash3_64,
    len: u64,
    /// The checksums of the parts, if they are wanted.
    leaves: Option<Leaves>,
}

impl Hasher {
    pub fn new() -> Self {
        Self { state: XxHash3_64::new(), len: 0, leaves: None }
    }

    /// A hasher that also computes the checksums of the parts.
    pub fn of_parts() -> Self {
        Self { leaves: Some(Leaves::default()), ..Self::new() }
    }

    pub fn update(&mut self, bytes: &[u8]) {
        // The checksum of the first leaf is taken from the hash of the whole, so that a key of one leaf is hashed once.
        let of_first = LEAF.saturating_sub(self.len).min(bytes.len() as u64) as usize;
        let (first, rest) = bytes.split_at(if self.leaves.is_some() { of_first } else { bytes.len() });
        self.update_whole(first);
        let so_far = self.finish_if(!first.is_empty() && self.len == LEAF);
        self.update_whole(rest);
        if let Some(leaves) = &mut self.leaves {
            so_far.into_iter().for_each(|sum| leaves.push(sum));
            leaves.update(rest);
        }
    }

    fn finish_if(&self, is_wanted: bool) -> Option<u32> {
        is_wanted.then(|| self.finish().xxh3 as u32)
    }

    /// Appends a whole leaf that has the checksum `sum`. Must be called between leaves.
    fn update_leaf(&mut self, leaf: &[u8], sum: u32) {
        self.update_whole(leaf);
        if let Some(leaves) = &mut self.leaves {
            leaves.push(sum);
        }
    }

    fn update_whole(&mut self, bytes: &[u8]) {
        self.state.write(bytes);
        self.len += bytes.len() as u64;
    }

    /// The checksums to record.
    pub fn sums(&mut self) -> Sums {
        let (checksum, leaves) = self.leaves();
        Sums { checksum, table: (leaves.len() > 1).then(|| Table::of(leaves)) }
    }

    /// The checksum, and the checksum of each leaf.
    pub fn leaves(&mut self) -> (Checksum, Vec<u32>) {
        let checksum = self.finish();
        match self.leaves.take() {
            Some(leaves) if checksum.len >= LEAF => (checksum, leaves.finish()),
            _ => (checksum, vec![checksum.xxh3 as u32]),
        }
    }

    /// The number of bytes so far.
    pub fn len(&self) -> u64 {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub fn finish(&self) -> Checksum {
        Checksum { xxh3: self.state.finish(), len: self.len }
    }
}

impl Default for Hasher {
    fn default() -> Self {
        Self::new()
    }
}

/// XXH3-128 of a file, by which the file is stored. Shown as 32 hexadecimal digits.
pub struct Digest(XxHash3_128);

impl Digest {
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.write(bytes);
    }
}

impl Default for Digest {
    fn default() -> Self {
        Self(XxHash3_128::new())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0.finish_128())
    }
}

/// Computes the checksum of a file while it is written, step by step. Bytes that are hashed just after they were
/// written are still in the CPU's cache.
pub struct FileHasher {
    hasher: Hasher,
    block: Block,
}

impl FileHasher {
    pub fn new() -> Self {
        Self { hasher: Hasher::new(), block: Block::new(HASHED_AT_ONCE) }
    }

    /// A hasher that also computes the checksums of the parts.
    pub fn of_parts() -> Self {
        Self { hasher: Hasher::of_parts(), ..Self::new() }
    }

    /// Hashes the file up to `len` bytes. Blocks. Errors: the file is shorter.
    pub fn read_to(&mut self, file: &File, len: u64) -> std::io::Result<()> {
        while self.hasher.len < len {
            let most = HASHED_AT_ONCE.min((len - self.hasher.len) as usize);
            file.read_exact_at(&mut self.block[..most], self.hasher.len)?;
            self.hasher.update(&self.block[..most]);
        }
        Ok(())
    }

    pub fn finish(&self) -> Checksum {
        self.hasher.finish()
    }

    pub fn sums(&mut self) -> Sums {
        self.hasher.sums()
    }
}

impl Default for FileHasher {
    fn default() -> Self {
        Self::new()
    }
}

/// The checksum of a whole file, whatever the position of the descriptor. Blocks. Uses memory for one read, or two if
/// the file is large.
pub fn of_file(file: &File) -> std::io::Result<Checksum> {
    hash_file(file, Hasher::new()).map(|hasher| hasher.finish())
}

/// Like [`of_file`], with the checksums of the parts.
pub fn sums_of_file(file: &File) -> std::io::Result<Sums> {
    hash_file(file, Hasher::of_parts()).map(|mut hasher| hasher.sums())
}

/// Like [`of_file`], with the checksum of each leaf.
pub fn leaves_of_file(file: &File) -> std::io::Result<(Checksum, Vec<u32>)> {
    hash_file(file, Hasher::of_parts()).map(|mut hasher| hasher.leaves())
}

fn hash_file(file: &File, hasher: Hasher) -> std::io::Result<Hasher> {
    let len = file.metadata()?.len();
    let hasher = match len < LARGE || std::thread::available_parallelism().is_ok_and(|n| n.get() == 1) {
        true => hasher,
        false => read_by_turns(file, len, hasher)?,
    };
    let found = rest_of_file(file, hasher, len, || false)?;
    found.ok_or_else(|| std::io::ErrorKind::Interrupted.into())
}

/// Like [`of_file`], on one thread. `stop` is called after each read; if it returns true, the result is `None`.
pub fn of_file_unless(file: &File, stop: impl Fn() -> bool) -> std::io::Result<Option<Checksum>> {
    let hashed = rest_of_file(file, Hasher::new(), file.metadata()?.len(), stop)?;
    Ok(hashed.map(|hasher| hasher.finish()))
}

/// Hashes the rest of a file, after the bytes that `hasher` has. `len` is the length of the file.
fn rest_of_file(file: &File, mut hasher: Hasher, len: u64, stop: impl Fn() -> bool) -> std::io::Result<Option<Hasher>> {
    // One byte more than the rest, so that the first read usually finds the end too.
    let left = usize::try_from(len.saturating_sub(hasher.len)).unwrap_or(HASHED_AT_ONCE);
    let mut block = Block::new(left.saturating_add(1).clamp(4096, HASHED_AT_ONCE));
    loop {
        let n = read_full(file, &mut block, hasher.len)?;
        hasher.update(&block[..n]);
        if stop() {
            return Ok(None);
        }
        if n < block.len() {
            return Ok(Some(hasher));
        }
    }
}

/// State of the threads that read a file in turns.
struct Turns {
    hasher: Hasher,
    over: bool,
    failed: Option<std::io::Error>,
}

/// Guard: if this thread panics, the other does not wait for it.
struct Turning<'a>(&'a Mutex<Turns>, &'a Condvar);

impl Drop for Turning<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).over = true;
            self.1.notify_all();
        }
    }
}

/// Hashes the first `len` bytes of a file, or all of it if it is shorter by now. Two threads copy blocks out of the
/// page cache, which takes most of the time, and hash them in the order of the file. `hasher` must be new. Blocks.
fn read_by_turns(file: &File, len: u64, hasher: Hasher) -> std::io::Result<Hasher> {
    let sums_parts = hasher.leaves.is_some();
    let turns = Mutex::new(Turns { hasher, over: false, failed: None });
    let (next, turned) = (AtomicU64::new(0), Condvar::new());
    let read = || {
        let _turning = Turning(&turns, &turned);
        let mut block = Block::new(HASHED_AT_ONCE);
        loop {
            let at = next.fetch_add(HASHED_AT_ONCE as u64, Ordering::Relaxed);
            let most = usize::try_from(len.saturating_sub(at)).unwrap_or(usize::MAX).min(HASHED_AT_ONCE);
            if most == 0 {
                return;
            }
            let found = read_full(file, &mut block[..most], at);
            // The checksum of a leaf does not depend on the order.
            let sum = matches!(found, Ok(HASHED_AT_ONCE) if sums_parts).then(|| leaf_sum(&block));
            let turns = turns.lock().unwrap_or_else(PoisonError::into_inner);
            let waited = turned.wait_while(turns, |turns| !turns.over && turns.hasher.len < at);
            let mut turns = waited.unwrap_or_else(PoisonError::into_inner);
            if turns.over {
                return;
            }
            match found {
                Ok(n) => {
                    match sum {
                        Some(sum) => turns.hasher.update_leaf(&block, sum),
                        None => turns.hasher.update(&block[..n]),
                    }
                    turns.over = n < most;
                }
                Err(e) => (turns.over, turns.failed) = (true, Some(e)),
            }
            drop(turns);
            turned.notify_all();
        }
    };
    std::thread::scope(|scope| {
        // If no second thread can be started, this one reads everything.
        let _ = std::thread::Builder::new().spawn_scoped(scope, read);
        read();
    });
    let turns = turns.into_inner().unwrap_or_else(PoisonError::into_inner);
    turns.failed.map_or(Ok(turns.hasher), Err)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_threads_compute_the_same_as_one_even_if_the_file_grows_or_shrinks() {
        let file = crate::stored::unnamed_file(&std::env::temp_dir()).expect("an unnamed file");
        let block: Vec<u8> = (0..1_000_003u32).map(|n| (n.wrapping_mul(n) >> 7) as u8).collect();
        for at in (0..LARGE + 5_000_000).step_by(block.len()) {
            file.write_all_at(&block, at).expect("written");
        }
        let alone = of_file_unless(&file, || false).expect("read").expect("never stopped");
        assert_eq!(alone.len, file.metadata().expect("metadata").len());
        assert_eq!(of_file(&file).expect("read"), alone);
        let parts = || Hasher::of_parts();
        let whole = rest_of_file(&file, parts(), alone.len, || false).expect("read").expect("never stopped").sums();
        assert_eq!(whole.checksum, alone);
        assert_eq!(read_by_turns(&file, alone.len + 3 * LARGE, parts()).expect("read").sums(), whole);
        let begun = read_by_turns(&file, LARGE, parts()).expect("read");
        let mut ended = rest_of_file(&file, begun, LARGE, || false).expect("read").expect("never stopped");
        assert_eq!(ended.sums(), whole);
        assert_eq!(sums_of_file(&file).expect("read"), whole);
    }

    #[test]
    fn two_threads_report_that_a_file_cannot_be_read() {
        let dir = File::open(std::env::temp_dir()).expect("a directory");
        let failed = read_by_turns(&dir, LARGE, Hasher::new()).err().expect("no bytes in it");
        assert_eq!(failed.kind(), std::io::ErrorKind::IsADirectory);
    }
}
