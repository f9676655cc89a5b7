//! Unnamed files for spools. A thread creates them ahead of their use, and a file whose bytes went to their node is
//! used again: before ext4 creates a file, it looks at each inode of a block group that was freed in the last minute.

use s4::file::is_alone;
use s4::stock::Stock;
use s4::stored::{draft, unnamed_file};
use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

/// Files kept for each directory.
const MOST: usize = 32;

/// The longest file that is kept, in bytes: truncating a longer one takes time.
const LONGEST: u64 = 256 * 1024;

/// Unnamed files.
pub struct SpoolFiles {
    /// Those of each directory in which they are created.
    dirs: HashMap<PathBuf, Files>,
    /// The directory of those whose key belongs to no node of this machine.
    spool_dir: PathBuf,
}

#[derive(Default)]
struct Files {
    /// Guards those that were used, the oldest first.
    used: Arc<Mutex<VecDeque<Arc<File>>>>,
    /// Empty ones, from the first use on.
    ready: OnceLock<Stock<Arc<File>>>,
    /// It is a data directory, which has directories for unnamed files.
    is_data: bool,
}

impl SpoolFiles {
    /// For the data directories `data`, and for `spool_dir`, which may be one of them.
    pub fn new<'d>(data: impl Iterator<Item = &'d Path>, spool_dir: PathBuf) -> Self {
        let mut dirs = HashMap::from([(spool_dir.clone(), Files::default())]);
        dirs.extend(data.map(|dir| (dir.to_owned(), Files { is_data: true, ..Files::default() })));
        Self { dirs, spool_dir }
    }

    /// An empty file in the data directory `dir`, else in the spool directory, and where it is. Nothing else has it
    /// open.
    pub fn take(&self, dir: Option<&Path>) -> io::Result<(Arc<File>, PathBuf)> {
        let taken = |dir: &Path| self.take_in(dir).map(|file| (file, dir.to_owned()));
        taken(dir.unwrap_or(&self.spool_dir)).or_else(|_| taken(&self.spool_dir))
    }

    fn take_in(&self, dir: &Path) -> io::Result<Arc<File>> {
        let files = self.dirs.get(dir).ok_or(io::ErrorKind::NotFound)?;
        let make = if files.is_data { draft } else { unnamed_file };
        let ready = files.ready.get_or_init(|| {
            let (used, dir) = (files.used.clone(), dir.to_owned());
            Stock::new("spool files", move || emptied(&used).or_else(|| make(&dir).ok().map(Arc::new)))
        });
        ready.take().map_or_else(|| make(dir).map(Arc::new), Ok)
    }

    /// Keeps a file of `dir` that is closed, unless it is a key. The kernel may still have it open for a moment.
    pub fn keep(&self, dir: &Path, file: Arc<File>) {
        let Some(files) = self.dirs.get(dir) else { return };
        if file.metadata().is_ok_and(|found| found.nlink() == 0 && found.len() <= LONGEST) {
            let mut used = lock(&files.used);
            used.push_back(file);
            if used.len() > MOST {
                used.pop_front();
            }
        }
    }
}

/// A used file, emptied.
fn emptied(used: &Mutex<VecDeque<Arc<File>>>) -> Option<Arc<File>> {
    // The kernel has most likely closed the oldest one.
    let file = lock(used).pop_front()?;
    match is_alone(&file) {
        Ok(true) => empty(&file).is_ok().then_some(file),
        Ok(false) | Err(_) => {
            lock(used).push_back(file);
            None
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn empty(file: &File) -> io::Result<()> {
    file.set_len(0)?;
    // ext4 writes a truncated file to the disk at its next close. Let that be this close, while the file is empty.
    File::open(format!("/proc/self/fd/{}", file.as_raw_fd())).map(drop)
}
