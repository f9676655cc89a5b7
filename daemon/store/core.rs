//! The struct [`Store`], and what all of its operations share. The operations are `impl Store` in the other files; this
//! one uses none of them.

use super::data_dir::DataDir;
use super::dirs::table::Dirs;
use super::ending::Ending;
use super::health::DiskHealth;
use super::naming::{Naming, Refused};
use super::open_files::OpenFileCache;
use super::synced::Synced;
use super::watches::Watches;
use s4::error::{Error, ErrorKind, Result};
use s4::key::Key;
use s4::pool::Pool;
use s4::resize::Sizes;
use s4::stored::{self, FoundDir};
use std::fmt::Display;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

/// What is wrong with a disk that refused a write since the start.
const REFUSED_WRITE: &str = "the disk refused a write since the start: the next start reads the keys that were made last, and takes away those \
                             that are not whole";

/// Options of a store.
pub struct Options {
    pub dir: PathBuf,
    /// Free bytes below which writes are refused; `None` for the default.
    pub reserve: Option<u64>,
    /// Sync each key to the disk before it is published.
    pub fsync: bool,
    /// This node's number, and the number of nodes. Both decide the placement of keys.
    pub node: usize,
    pub nodes: usize,
    /// During a resize.
    pub resize: Option<Sizes>,
}

/// The store of one node. Holds the data directory's lock until dropped.
pub struct Store {
    pub(super) root: PathBuf,
    pub(super) data: Arc<DataDir>,
    /// The identity of the data directory at the start, to notice when it is replaced or unmounted.
    pub(super) found: FoundDir,
    pub(super) reserve: u64,
    pub(super) fsync: bool,
    pub(super) node: usize,
    pub(super) nodes: usize,
    pub(super) resize: Option<Sizes>,
    /// Random, and also in the file `.s4/token`, by which a process of this machine recognises the directory of this
    /// daemon.
    pub(super) token: String,
    pub(super) open_files: OpenFileCache,
    pub(super) dirs: Dirs,
    pub(super) naming: Naming,
    pub(super) refused: Refused,
    pub(super) watches: Watches,
    /// Unnamed files for small keys, created ahead of use. Empty until the first small key.
    pub(super) drafts: OnceLock<Pool<File>>,
    pub(super) synced: Synced,
    pub(super) health: DiskHealth,
    /// Uploads in parts that are being completed or aborted.
    pub(super) ending: Ending,
    pub(super) _lock: File,
}

impl Store {
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The data directory as a descriptor, to open and delete what is in it.
    pub fn data_dir(&self) -> &Arc<DataDir> {
        &self.data
    }

    /// True if a key is synced to the disk before it is published.
    pub fn syncs(&self) -> bool {
        self.fsync
    }

    pub fn token(&self) -> &str {
        &self.token
    }

    /// The file of `key`.
    pub fn path(&self, key: &Key) -> PathBuf {
        self.root.join(key.as_str())
    }

    /// The directory for the directories of tasks.
    pub fn tasks_dir(&self) -> PathBuf {
        self.root.join(".s4/tasks")
    }

    /// The directory for empty task directories that are reused.
    pub fn idle_dirs(&self) -> PathBuf {
        self.root.join(".s4/idle")
    }

    /// The directory for files sent with jobs.
    pub fn files_dir(&self) -> PathBuf {
        self.root.join(".s4/files")
    }

    /// The directory for journals: what the outputs of jobs were made from.
    pub fn provenance_dir(&self) -> PathBuf {
        self.root.join(".s4/provenance")
    }

    /// The directory for records, plans and logs of jobs.
    pub fn jobs_dir(&self) -> PathBuf {
        self.root.join(".s4/jobs")
    }

    /// An unnamed temporary file in the store, open to read and write.
    pub fn unnamed_file(&self) -> io::Result<File> {
        stored::draft(&self.root)
    }

    /// Like [`unnamed_file`](Self::unnamed_file), but takes a file that was created ahead if there is one.
    pub(super) fn unnamed_file_ahead(&self) -> io::Result<File> {
        let ahead = self.drafts.get_or_init(|| {
            let root = self.root.clone();
            Pool::new("drafts", move || stored::draft(&root).ok())
        });
        ahead.take().map_or_else(|| self.unnamed_file(), Ok)
    }

    /// Checks that the data directory is still at its path; otherwise nothing is known of its keys. Must be called
    /// before a key is reported absent, or a listing complete.
    pub fn check_there(&self) -> Result<()> {
        match self.found.is_there() {
            true => Ok(()),
            false => Err(Error::new(
                ErrorKind::Io,
                format!(
                    "data directory {}: it is gone, moved or not mounted; bring it back, then restart the daemon",
                    self.root.display()
                ),
            )),
        }
    }

    /// The error that `what` does not exist, or that the whole data directory is gone.
    pub(super) fn absent(&self, what: impl Display) -> Error {
        self.check_there().err().unwrap_or_else(|| Error::new(ErrorKind::NotFound, format!("{what}")))
    }

    /// Refuses a key that lives on another node.
    pub(super) fn misplaced(&self, key: &Key) -> Result<()> {
        match s4::placement::node_of(key, self.nodes) {
            node if node == self.node => Ok(()),
            node => Err(Error::new(ErrorKind::WrongNode, format!("{key}: belongs on node {node}"))),
        }
    }

    /// The error of a key that could not be read. Read errors of the disk are counted and logged.
    pub fn unreadable(&self, what: impl Display, error: &io::Error) -> Error {
        self.health.unreadable(what, error)
    }

    /// What is wrong with the disk, if anything is. Blocks for about a second at most.
    pub fn trouble(&self) -> Option<String> {
        if let Err(error) = self.check_there() {
            return Some(error.to_string());
        }
        let refused_write = || self.synced.has_refused_writes().then(|| REFUSED_WRITE.to_owned());
        self.health.trouble(&self.root).or_else(refused_write).or_else(|| self.health.failed_reads())
    }
}
