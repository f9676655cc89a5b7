//! Unnamed files for spools. Creating a file is slow on ext4, which first checks each inode of a block group that was
//! freed in the last minute. Therefore a thread creates files in advance, and a file whose bytes were sent to their
//! node is reused.

use s4::file::is_alone;
use s4::pool::Pool;
use s4::stored::{draft, unnamed_file};
use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

/// Used files that are kept for each directory.
const MAX_KEPT: usize = 32;

/// The longest file that is kept, in bytes: truncating a longer one takes time.
const MAX_KEPT_LEN: u64 = 256 * 1024;

/// Unnamed files.
pub struct SpoolFiles {
    /// The files of each directory in which they are created.
    dirs: HashMap<PathBuf, Files>,
    /// The directory for keys that belong to no node of this machine.
    spool_dir: PathBuf,
}

#[derive(Default)]
struct Files {
    /// Guards the used files, the oldest first.
    used: Arc<Mutex<VecDeque<Arc<File>>>>,
    /// Empty files, created in advance from the first use on.
    ready: OnceLock<Pool<Arc<File>>>,
    /// True for a data directory, which has subdirectories for unnamed files.
    is_data: bool,
}

impl SpoolFiles {
    /// For the data directories `data`, and for `spool_dir`, which may be one of them.
    pub fn new<'d>(data: impl Iterator<Item = &'d Path>, spool_dir: PathBuf) -> Self {
        let mut dirs = HashMap::from([(spool_dir.clone(), Files::default())]);
        dirs.extend(data.map(|dir| (dir.to_owned(), Files { is_data: true, ..Files::default() })));
        Self { dirs, spool_dir }
    }

    /// An empty file, and its directory: the data directory `dir` if possible, else the spool directory. Nobody else
    /// has the file open.
    pub fn take(&self, dir: Option<&Path>) -> io::Result<(Arc<File>, PathBuf)> {
        let taken = |dir: &Path| self.take_in(dir).map(|file| (file, dir.to_owned()));
        taken(dir.unwrap_or(&self.spool_dir)).or_else(|_| taken(&self.spool_dir))
    }

    fn take_in(&self, dir: &Path) -> io::Result<Arc<File>> {
        let files = self.dirs.get(dir).ok_or(io::ErrorKind::NotFound)?;
        let make = if files.is_data { draft } else { unnamed_file };
        let ready = files.ready.get_or_init(|| {
            let (used, dir) = (files.used.clone(), dir.to_owned());
            Pool::new("spool files", move || emptied(&used).or_else(|| make(&dir).ok().map(Arc::new)))
        });
        ready.take().map_or_else(|| make(dir).map(Arc::new), Ok)
    }

    /// Keeps a closed file of `dir` for reuse, unless it has become a key. The kernel may still have it open for a
    /// moment.
    pub fn keep(&self, dir: &Path, file: Arc<File>) {
        let Some(files) = self.dirs.get(dir) else { return };
        if file.metadata().is_ok_and(|found| found.nlink() == 0 && found.len() <= MAX_KEPT_LEN) {
            let mut used = lock(&files.used);
            used.push_back(file);
            if used.len() > MAX_KEPT {
                used.pop_front();
            }
        }
    }
}

/// A used file, truncated to no bytes.
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
