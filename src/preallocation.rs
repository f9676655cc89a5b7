//! Preallocation: blocks for a growing file are allocated beyond its end. ext4 reserves space for each new block at the
//! time of the write (delayed allocation); where the block is already allocated, a write takes a third less time.
//! Nothing is done on other file systems.

use nix::fcntl::{FallocateFlags, fallocate};
use nix::sys::statfs::{EXT4_SUPER_MAGIC, Statfs, fstatfs};
use std::fs::{File, FileTimes, Metadata};
use std::io;

/// The length from which a file is expected to grow further, and the smallest preallocation. In bytes.
const LEAST: u64 = 16 << 20;
/// The largest preallocation, in bytes. Smaller ones are as large as the file.
const MAX_PREALLOCATED: u64 = 256 << 20;
/// At most this part of the free space is preallocated. A tenth of the disk does not count as free: that is more than
/// the default reserve of a node.
const PART_OF_FREE: u64 = 64;
const PART_LEFT: u64 = 10;

/// The blocks preallocated for one file.
#[derive(Debug, Default)]
pub struct Preallocation {
    /// The end of the preallocated blocks, in bytes from the file's start; 0 if there are none.
    until: u64,
    /// The file length at which more is allocated, in bytes.
    next: u64,
    /// Nothing more is allocated.
    over: bool,
}

impl Preallocation {
    /// Allocates more for `file`, which now has `len` bytes, if the rest is small. The file keeps its length. Blocks.
    pub fn grow(&mut self, file: &File, len: u64) {
        if self.is_due(len) {
            // If it fails, writes allocate as usual.
            self.over = self.take(file, len).is_none();
        }
    }

    /// Frees the blocks beyond the file's end, and allocates no more. The file keeps its mtime. Nobody may write to it
    /// at the same time. Blocks.
    pub fn release(&mut self, file: &File) {
        self.over = true;
        if self.until > 0
            && let Err(error) = Self::give_back(file)
        {
            // The content is not affected.
            tracing::warn!("space that a key does not need is not given back: {error}");
        }
    }

    fn is_due(&self, len: u64) -> bool {
        !self.over && len >= self.next.max(LEAST)
    }

    fn take(&mut self, file: &File, len: u64) -> Option<()> {
        let found = fstatfs(file).ok()?;
        let more = len.min(MAX_PREALLOCATED).min(to_spare(&found)? / PART_OF_FREE);
        if more < LEAST {
            return None;
        }
        self.next = len + more / 2;
        let (begin, until) = (self.until.max(len), len + more);
        if until <= begin {
            return Some(());
        }
        // Set before the call, which may fail after it allocated a part.
        self.until = until;
        let before = file.metadata().ok()?;
        let taken = i64::try_from(until - begin).ok()?;
        fallocate(file, FallocateFlags::FALLOC_FL_KEEP_SIZE, i64::try_from(begin).ok()?, taken).ok()?;
        // If the file grew meanwhile, its mtime is that of the write.
        if file.metadata().ok()?.len() == before.len() {
            keep_time(file, &before).ok()?;
        }
        Some(())
    }

    fn give_back(file: &File) -> io::Result<()> {
        let found = file.metadata()?;
        file.set_len(found.len())?;
        keep_time(file, &found)
    }
}

/// Free bytes of the file system beyond [`PART_LEFT`]; `None` if it is not ext4.
fn to_spare(found: &Statfs) -> Option<u64> {
    let free = found.blocks_available().saturating_sub(found.blocks() / PART_LEFT);
    let is_ext4 = found.filesystem_type() == EXT4_SUPER_MAGIC;
    is_ext4.then_some(free.saturating_mul(u64::try_from(found.block_size()).ok()?))
}

/// Restores the mtime of `file`, which allocating and freeing blocks change.
fn keep_time(file: &File, before: &Metadata) -> io::Result<()> {
    file.set_times(FileTimes::new().set_modified(before.modified()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Seek, SeekFrom, Write};
    use std::os::unix::fs::MetadataExt;
    use std::time::{Duration, SystemTime};

    /// Bytes that the file system may need for its own metadata.
    const NOTES: u64 = 64 << 10;

    /// A file of `len` bytes; `None`, after printing a message, if nothing is preallocated here.
    fn file_of(len: u64) -> Option<File> {
        let mut file = tempfile::tempfile().unwrap();
        if to_spare(&fstatfs(&file).unwrap()).is_none_or(|free| free / PART_OF_FREE < 8 * LEAST) {
            eprintln!("skipped: the directory of temporary files is not on ext4, or has too little space");
            return None;
        }
        file.write_all(&vec![1; len as usize]).unwrap();
        Some(file)
    }

    #[track_caller]
    fn assert_takes(file: &File, bytes: u64, why: &str) {
        let taken = file.metadata().unwrap().blocks() * 512;
        assert!(taken.abs_diff(bytes) <= NOTES, "{taken} bytes instead of {bytes}: {why}");
    }

    #[test]
    fn preallocated_blocks_are_freed_and_nothing_else_changes() {
        let len = LEAST + 5;
        let Some(file) = file_of(len) else { return };
        let modified = SystemTime::UNIX_EPOCH + Duration::new(1_000_000_000, 5);
        file.set_times(FileTimes::new().set_modified(modified)).unwrap();
        let is_as_before = || {
            let found = file.metadata().unwrap();
            assert_eq!((found.len(), found.modified().unwrap()), (len, modified));
        };
        let mut space = Preallocation::default();
        space.grow(&file, len);
        assert_takes(&file, 2 * len, "as much as it has");
        is_as_before();
        space.grow(&file, len);
        assert_takes(&file, 2 * len, "there is enough");
        space.release(&file);
        assert_takes(&file, len, "it is freed");
        is_as_before();
        space.grow(&file, 2 * len);
        assert_takes(&file, len, "it is over");
    }

    #[test]
    fn a_growing_file_gets_more_blocks_in_time() {
        let Some(mut file) = file_of(LEAST) else { return };
        let mut space = Preallocation::default();
        space.grow(&file, LEAST);
        file.write_all(&vec![1; LEAST as usize / 2]).unwrap();
        space.grow(&file, LEAST * 3 / 2 - 1);
        assert_takes(&file, 2 * LEAST, "half of it is still there");
        space.grow(&file, LEAST * 3 / 2);
        assert_takes(&file, 3 * LEAST, "half of it is used up");
    }

    #[test]
    fn the_position_of_a_writer_stays() {
        let Some(mut file) = file_of(LEAST) else { return };
        let mut space = Preallocation::default();
        file.seek(SeekFrom::Start(5)).unwrap();
        space.grow(&file, LEAST);
        // The file now ends within the preallocated blocks.
        file.set_len(LEAST + 4096).unwrap();
        space.release(&file);
        assert_eq!(file.stream_position().unwrap(), 5);
    }

    #[test]
    fn a_small_file_gets_none() {
        let Some(file) = file_of(LEAST - 1) else { return };
        Preallocation::default().grow(&file, LEAST - 1);
        assert_takes(&file, LEAST - 1, "none");
    }
}
