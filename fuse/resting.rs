//! Spool files whose key went to its node as bytes, kept to be used again: on ext4, to make an unnamed file means to look at
//! every inode of a block group that was freed in the last minute.

use nix::libc;
use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// Files kept for each directory.
const MOST: usize = 32;

/// The longest file that is kept, in bytes: a longer one takes a while to be emptied.
const LONGEST: u64 = 256 * 1024;

/// Unnamed files that nobody uses, by the directory they were made in.
#[derive(Default)]
pub struct Resting(Mutex<HashMap<PathBuf, VecDeque<Arc<File>>>>);

impl Resting {
    /// Keeps a file that was made in `dir` and is closed, unless it is a key now. The kernel may still have it open for a moment.
    pub fn keep(&self, dir: &Path, file: Arc<File>) {
        if file.metadata().is_ok_and(|found| found.nlink() == 0 && found.len() <= LONGEST) {
            let mut resting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let files = resting.entry(dir.to_owned()).or_default();
            files.push_back(file);
            if files.len() > MOST {
                files.pop_front();
            }
        }
    }

    /// An empty file that was made in `dir`, and that nobody else has open.
    pub fn take(&self, dir: &Path) -> Option<Arc<File>> {
        let mut resting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let files = resting.get_mut(dir)?;
        // Whoever came first has most likely been let go of.
        let file = files.pop_front()?;
        match is_alone(&file) {
            true => empty(&file).is_ok().then_some(file),
            false => {
                files.push_back(file);
                None
            }
        }
    }
}

fn empty(file: &File) -> std::io::Result<()> {
    file.set_len(0)?;
    // ext4 writes a file that was cut to nothing to the disk at its next close, which so is this one.
    File::open(format!("/proc/self/fd/{}", file.as_raw_fd())).map(drop)
}

/// True if `file` is the only way to its bytes: nobody else has it open, nor in memory by a mapping, which outlives the close
/// where the kernel writes the file itself. The kernel grants a write lease to no other; see fcntl(2), `F_SETLEASE`. Who opens
/// it in this moment has us sent a SIGIO, which is ignored.
fn is_alone(file: &File) -> bool {
    // SAFETY: the descriptor is open, and the call takes a number.
    let lease = |kind: i32| unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETLEASE, kind) };
    lease(libc::F_WRLCK) == 0 && lease(libc::F_UNLCK) == 0
}
