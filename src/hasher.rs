//! Checksums of bytes that come in pieces, and of files; also with the sums of a key's parts, for whoever publishes it.

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

/// Bytes of a file that are hashed at a time: whole leaves.
const HASHED_AT_ONCE: usize = LEAF as usize;
/// Files of so many bytes are worth a second thread.
const LARGE: u64 = 64 << 20;

/// What is recorded of a key's bytes when it is published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sums {
    pub checksum: Checksum,
    /// Of its parts; `None` of a key of one leaf.
    pub table: Option<Table>,
}

/// A checksum under way.
pub struct Hasher {
    state: XxHash3_64,
    len: u64,
    /// The sums of the parts too, for who publishes.
    leaves: Option<Leaves>,
}

impl Hasher {
    pub fn new() -> Self {
        Self { state: XxHash3_64::new(), len: 0, leaves: None }
    }

    /// One that also sums the parts.
    pub fn of_parts() -> Self {
        Self { leaves: Some(Leaves::default()), ..Self::new() }
    }

    pub fn update(&mut self, bytes: &[u8]) {
        // The first leaf has the sum of the whole so far, so that a key of one leaf is hashed once.
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

    /// A whole leaf, where one begins, that has `sum`.
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

    /// What is to be recorded.
    pub fn sums(&mut self) -> Sums {
        let (checksum, leaves) = self.leaves();
        Sums { checksum, table: (leaves.len() > 1).then(|| Table::of(leaves)) }
    }

    /// The same, with the sum of each leaf.
    pub fn leaves(&mut self) -> (Checksum, Vec<u32>) {
        let checksum = self.finish();
        match self.leaves.take() {
            Some(leaves) if checksum.len >= LEAF => (checksum, leaves.finish()),
            _ => (checksum, vec![checksum.xxh3 as u32]),
        }
    }

    /// Bytes so far.
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

/// XXH3-128, which names a file by its bytes. Shown as 32 hexadecimal digits.
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

/// The checksum of a file's first bytes, read as far as is asked for. Right behind who writes or reads them, they are still
/// in the processor's cache.
pub struct FileHasher {
    hasher: Hasher,
    block: Block,
}

impl FileHasher {
    pub fn new() -> Self {
        Self { hasher: Hasher::new(), block: Block::new(HASHED_AT_ONCE) }
    }

    /// One that also sums the parts.
    pub fn of_parts() -> Self {
        Self { hasher: Hasher::of_parts(), ..Self::new() }
    }

    /// Goes on until the first `len` bytes are hashed. Blocks. Errors: the file is shorter.
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

/// The checksum of a whole file, from its start, whatever its descriptor's position. Blocks; memory is one block, or two of a
/// large file.
pub fn of_file(file: &File) -> std::io::Result<Checksum> {
    hash_file(file, Hasher::new()).map(|hasher| hasher.finish())
}

/// The same, with the sums of the parts.
pub fn sums_of_file(file: &File) -> std::io::Result<Sums> {
    hash_file(file, Hasher::of_parts()).map(|mut hasher| hasher.sums())
}

/// The same, with the sum of each leaf.
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

/// The same, by one thread; `None` once `stop` says so, which is asked after each block.
pub fn of_file_unless(file: &File, stop: impl Fn() -> bool) -> std::io::Result<Option<Checksum>> {
    let hashed = rest_of_file(file, Hasher::new(), file.metadata()?.len(), stop)?;
    Ok(hashed.map(|hasher| hasher.finish()))
}

/// Goes on behind what `hasher` has of a file that had `len` bytes.
fn rest_of_file(file: &File, mut hasher: Hasher, len: u64, stop: impl Fn() -> bool) -> std::io::Result<Option<Hasher>> {
    // One byte more than there is, so that the first read mostly finds the end too.
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

/// What threads that read a file by turns have done.
struct Turns {
    hasher: Hasher,
    over: bool,
    failed: Option<std::io::Error>,
}

/// Dropped by a panic, it tells the other thread not to wait for this one.
struct Turning<'a>(&'a Mutex<Turns>, &'a Condvar);

impl Drop for Turning<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).over = true;
            self.1.notify_all();
        }
    }
}

/// Hashes the first `len` bytes of a file, or all if it has become shorter. Two threads copy blocks out of the page cache, which
/// takes most of the time, and hash them in the order of the file with `hasher`, which is new. Blocks.
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
            // That of a part needs no turn.
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
        // Without a second thread to be had, this one reads all.
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
    fn two_threads_find_what_one_finds_also_of_a_file_that_becomes_longer_or_shorter() {
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
    fn two_threads_tell_that_a_file_cannot_be_read() {
        let dir = File::open(std::env::temp_dir()).expect("a directory");
        let failed = read_by_turns(&dir, LARGE, Hasher::new()).err().expect("no bytes in it");
        assert_eq!(failed.kind(), std::io::ErrorKind::IsADirectory);
    }
}
