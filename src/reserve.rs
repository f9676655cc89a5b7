//! Space for a file that grows, taken ahead of its end. ext4 notes for each block written behind what it has allocated
//! that it will need one; where the block is there already, a write takes a third less time. Other file systems are
//! left alone.

use nix::fcntl::{FallocateFlags, fallocate};
use nix::sys::statfs::{EXT4_SUPER_MAGIC, Statfs, fstatfs};
use std::fs::{File, FileTimes, Metadata};
use std::io;

/// Bytes from which on a file may be expected to go on, and the fewest to take at once.
const LEAST: u64 = 16 << 20;
/// The most to take at once, in bytes; below it as many as the file has.
const MOST: u64 = 256 << 20;
/// Never more than this part of what is free, of which a tenth of the disk does not count: that is more than a node
/// keeps free by itself.
const PART_OF_FREE: u64 = 64;
const PART_LEFT: u64 = 10;

/// What was taken for one file.
#[derive(Debug, Default)]
pub struct Reserve {
    /// Where it ends, in bytes from the file's start; 0 if nothing was taken.
    until: u64,
    /// More is due once the file is as long as this, in bytes.
    next: u64,
    /// No more is to be taken.
    over: bool,
}

impl Reserve {
    /// Takes more for `file`, which has come to `len` bytes, if that is due. The file keeps its length. Blocks.
    pub fn look(&mut self, file: &File, len: u64) {
        if self.is_due(len) {
            // One that cannot have more is written as it would be without.
            self.over = self.take(file, len).is_none();
        }
    }

    /// Takes no more, and frees what the file has not used behind its end. Its time of the last change stays. Nothing
    /// may write to it meanwhile. Blocks.
    pub fn end(&mut self, file: &File) {
        self.over = true;
        if self.until > 0
            && let Err(error) = Self::give_back(file)
        {
            // The file is as good as without.
            tracing::warn!("space that a key does not need is not given back: {error}");
        }
    }

    fn is_due(&self, len: u64) -> bool {
        !self.over && len >= self.next.max(LEAST)
    }

    fn take(&mut self, file: &File, len: u64) -> Option<()> {
        let found = fstatfs(file).ok()?;
        let more = len.min(MOST).min(to_spare(&found)? / PART_OF_FREE);
        if more < LEAST {
            return None;
        }
        self.next = len + more / 2;
        let (begin, until) = (self.until.max(len), len + more);
        if until <= begin {
            return Some(());
        }
        // Also where it gets only a part.
        self.until = until;
        let before = file.metadata().ok()?;
        let taken = i64::try_from(until - begin).ok()?;
        fallocate(file, FallocateFlags::FALLOC_FL_KEEP_SIZE, i64::try_from(begin).ok()?, taken).ok()?;
        // One that grew meanwhile has the time of that.
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

/// Bytes that may be spared on the file system; `None` on one of another kind.
fn to_spare(found: &Statfs) -> Option<u64> {
    let free = found.blocks_available().saturating_sub(found.blocks() / PART_LEFT);
    let is_ext4 = found.filesystem_type() == EXT4_SUPER_MAGIC;
    is_ext4.then_some(free.saturating_mul(u64::try_from(found.block_size()).ok()?))
}

/// Gives `file` the time of its last change again: to take space and to give it back count as changes too.
fn keep_time(file: &File, before: &Metadata) -> io::Result<()> {
    file.set_times(FileTimes::new().set_modified(before.modified()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Seek, SeekFrom, Write};
    use std::os::unix::fs::MetadataExt;
    use std::time::{Duration, SystemTime};

    /// What the file system may need for itself, in bytes.
    const NOTES: u64 = 64 << 10;

    /// A file of `len` bytes; `None`, having said so, where no space is taken ahead.
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
    fn what_was_taken_is_given_back_and_nothing_else_changes() {
        let len = LEAST + 5;
        let Some(file) = file_of(len) else { return };
        let modified = SystemTime::UNIX_EPOCH + Duration::new(1_000_000_000, 5);
        file.set_times(FileTimes::new().set_modified(modified)).unwrap();
        let is_as_before = || {
            let found = file.metadata().unwrap();
            assert_eq!((found.len(), found.modified().unwrap()), (len, modified));
        };
        let mut reserve = Reserve::default();
        reserve.look(&file, len);
        assert_takes(&file, 2 * len, "as much as it has");
        is_as_before();
        reserve.look(&file, len);
        assert_takes(&file, 2 * len, "there is enough");
        reserve.end(&file);
        assert_takes(&file, len, "it is given back");
        is_as_before();
        reserve.look(&file, 2 * len);
        assert_takes(&file, len, "it is over");
    }

    #[test]
    fn a_file_that_goes_on_gets_more_in_time() {
        let Some(mut file) = file_of(LEAST) else { return };
        let mut reserve = Reserve::default();
        reserve.look(&file, LEAST);
        file.write_all(&vec![1; LEAST as usize / 2]).unwrap();
        reserve.look(&file, LEAST * 3 / 2 - 1);
        assert_takes(&file, 2 * LEAST, "half of it is still there");
        reserve.look(&file, LEAST * 3 / 2);
        assert_takes(&file, 3 * LEAST, "half of it is used up");
    }

    #[test]
    fn who_appends_goes_on_where_it_was() {
        let Some(mut file) = file_of(LEAST) else { return };
        let mut reserve = Reserve::default();
        file.seek(SeekFrom::Start(5)).unwrap();
        reserve.look(&file, LEAST);
        // It reaches into what was taken.
        file.set_len(LEAST + 4096).unwrap();
        reserve.end(&file);
        assert_eq!(file.stream_position().unwrap(), 5);
    }

    #[test]
    fn a_small_file_gets_none() {
        let Some(file) = file_of(LEAST - 1) else { return };
        Reserve::default().look(&file, LEAST - 1);
        assert_takes(&file, LEAST - 1, "none");
    }
}
