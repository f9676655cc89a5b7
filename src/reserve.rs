//! Space for a file that grows, taken ahead of its end. ext4 notes for each block written behind what it has allocated that it
//! will need one; where the block is there already, a write takes a sixth less time. Other file systems are left alone.

use nix::fcntl::{FallocateFlags, fallocate};
use nix::sys::statfs::{EXT4_SUPER_MAGIC, fstatfs};
use nix::unistd::{Whence, lseek};
use std::fs::{File, FileTimes, Metadata};
use std::io;

/// Bytes from which on a file may be expected to go on, and the fewest to take at once.
const LEAST: u64 = 16 << 20;
/// The most to take at once, in bytes; below it as many as there are, and of a full disk only a part.
const MOST: u64 = 256 << 20;
const PART_OF_FREE: u64 = 64;

/// What was taken for one file.
#[derive(Debug, Default)]
pub struct Reserve {
    /// Where it ends, in bytes from the file's start; 0 if nothing was taken.
    until: u64,
    /// Bytes from the start without a hole.
    dense: u64,
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

    /// The same for a file whose writer may leave holes, which are to take no space: one that has any gets no more. Moves the
    /// position of `file`.
    pub fn look_for_holes(&mut self, file: &File, len: u64) {
        if self.is_due(len) {
            self.over = lseek(file, self.dense as i64, Whence::SeekHole).is_ok_and(|hole| (hole as u64) < len);
            self.dense = len;
            self.look(file, len);
        }
    }

    /// Takes no more.
    pub fn stop(&mut self) {
        self.over = true;
    }

    /// The same, and gives back what is behind the end of `file`, whose time of the last change stays. Nobody may write to it
    /// meanwhile. Blocks.
    pub fn end(&mut self, file: &File) -> io::Result<()> {
        self.stop();
        let found = file.metadata()?;
        if std::mem::take(&mut self.until) <= found.len() {
            return Ok(());
        }
        file.set_len(found.len())?;
        keep_time(file, &found)
    }

    fn is_due(&self, len: u64) -> bool {
        !self.over && len >= LEAST && self.until < len + len.min(MOST) / 2
    }

    fn take(&mut self, file: &File, len: u64) -> Option<()> {
        let found = fstatfs(file).ok().filter(|found| found.filesystem_type() == EXT4_SUPER_MAGIC)?;
        let free = found.blocks_available() * u64::try_from(found.block_size()).ok()?;
        let more = len.min(MOST).min(free / PART_OF_FREE);
        if more < LEAST {
            return None;
        }
        let (begin, until) = (self.until.max(len), len + more);
        let (before, taken) = (file.metadata().ok()?, until.saturating_sub(begin));
        // Also where it gets only a part.
        self.until = until;
        fallocate(file, FallocateFlags::FALLOC_FL_KEEP_SIZE, begin as i64, taken as i64).ok()?;
        // One that grew meanwhile has the time of that.
        if file.metadata().ok()?.len() == before.len() {
            keep_time(file, &before).ok()?;
        }
        Some(())
    }
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

    /// A file of `len` bytes; `None`, having said so, where no space is taken ahead.
    fn file_of(len: u64) -> Option<File> {
        let mut file = tempfile::tempfile().unwrap();
        if fstatfs(&file).unwrap().filesystem_type() != EXT4_SUPER_MAGIC {
            eprintln!("skipped: the directory of temporary files is not on ext4");
            return None;
        }
        file.write_all(&vec![1; len as usize]).unwrap();
        Some(file)
    }

    /// Bytes that `file` takes on its disk.
    fn taken(file: &File) -> u64 {
        file.metadata().unwrap().blocks() * 512
    }

    #[test]
    fn what_was_taken_is_given_back_and_nothing_else_changes() {
        let len = LEAST + 5;
        let Some(file) = file_of(len) else { return };
        let modified = SystemTime::UNIX_EPOCH + Duration::new(1_000_000_000, 5);
        file.set_times(FileTimes::new().set_modified(modified)).unwrap();
        let mut reserve = Reserve::default();
        reserve.look_for_holes(&file, len);
        assert_eq!(taken(&file), (2 * len).next_multiple_of(4096));
        assert_eq!(file.metadata().unwrap().len(), len);
        reserve.look_for_holes(&file, len);
        assert_eq!(taken(&file), (2 * len).next_multiple_of(4096), "there is enough");
        reserve.end(&file).unwrap();
        assert_eq!(taken(&file), len.next_multiple_of(4096));
        assert_eq!((file.metadata().unwrap().len(), file.metadata().unwrap().modified().unwrap()), (len, modified));
        reserve.look(&file, len);
        assert_eq!(taken(&file), len.next_multiple_of(4096), "it is over");
    }

    #[test]
    fn a_file_with_holes_gets_no_more() {
        let Some(mut file) = file_of(LEAST) else { return };
        let mut reserve = Reserve::default();
        reserve.look_for_holes(&file, LEAST);
        file.seek(SeekFrom::Start(3 * LEAST)).unwrap();
        file.write_all(&[1]).unwrap();
        let before = taken(&file);
        reserve.look_for_holes(&file, 3 * LEAST + 1);
        assert_eq!(taken(&file), before);
    }

    #[test]
    fn a_small_file_gets_none() {
        let Some(file) = file_of(LEAST - 1) else { return };
        let before = taken(&file);
        Reserve::default().look(&file, LEAST - 1);
        assert_eq!(taken(&file), before);
    }
}
