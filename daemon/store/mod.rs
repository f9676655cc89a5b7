//! A node's keys on its disk: publish, read, list, delete, recover. Knows no HTTP. Everything here blocks.

mod claim;
mod data_dir;
mod dirs;
mod health;
mod list;
mod open_files;
mod publish;
mod read;
mod recovery;
mod remove;
mod sorter;
mod space;
mod spread;
mod trash;
mod tree;
mod wipe;

pub use claim::make;
pub use data_dir::{DataDir, open_linked, open_within};
pub use dirs::{Asking, Others, Receiving, Settled};
pub use list::Selection;
pub use publish::{Asker, Draft};
pub use read::Opened;
pub use sorter::Sorter;
pub use spread::spread;

use s4::error::{Error, ErrorKind, Result, reason};
use s4::file::lock;
use s4::key::Key;
use s4::protocol::JobId;
use s4::stock::Stock;
use s4::stored::{self, FoundDir};
use std::fs::{File, OpenOptions, Permissions};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

/// How long another may have the lock before that is an error: a predecessor that was killed may just have begun a command,
/// which holds it until it executes.
const LOCKED: Duration = Duration::from_secs(1);

/// What a store is told at its start.
pub struct Options {
    pub dir: PathBuf,
    /// Free bytes below which nothing is written; `None` for the default.
    pub reserve: Option<u64>,
    /// Sync each key to the disk before it is published.
    pub fsync: bool,
    /// This node's number, and the number of nodes: what the placement of the keys rests on.
    pub node: usize,
    pub nodes: usize,
}

/// The store of one node. Holds the data directory's lock until dropped.
pub struct Store {
    root: PathBuf,
    data: Arc<DataDir>,
    /// The same as it was found at the start.
    found: FoundDir,
    reserve: u64,
    fsync: bool,
    node: usize,
    nodes: usize,
    /// Random; in the file `.s4/token` too, so that a process of this machine can tell whose directory it is.
    token: String,
    open_files: open_files::OpenFileCache,
    dirs: dirs::Dirs,
    naming: publish::Naming,
    refused: publish::Refused,
    /// Files for small keys, once there was any.
    drafts: OnceLock<Stock<File>>,
    synced: recovery::Synced,
    health: health::DiskHealth,
    _lock: File,
}

impl Store {
    /// Opens the data directory, takes its lock, ends and removes what a killed predecessor left, and removes what a power cut damaged.
    ///
    /// Errors: there is none; it cannot hold extended attributes or unnamed temporary files, is in use, belongs to another
    /// node, lies in another, or has a path that map-from-n could not print for `xargs`.
    pub fn open(options: Options) -> Result<Self> {
        let shown = options.dir.display().to_string();
        let refuse = |why: String| Error::new(ErrorKind::Config, format!("data directory {shown}: {why}"));
        let failed = |e: std::io::Error| refuse(reason(&e));
        claim::refuse_absent(&options.dir).map_err(refuse)?;
        let root = options.dir.canonicalize().map_err(failed)?;
        claim::check_path(&root).map_err(refuse)?;
        claim::refuse_inner(&root).map_err(refuse)?;
        close_to_others(&root);
        close_to_others(&root.join(".s4"));
        let lock = take_lock(&root.join(".s4/lock")).map_err(|e| refuse(reason(&e)))?;
        for dir in ["tasks", "jobs", "files", "drafts", "trash"] {
            std::fs::create_dir_all(root.join(".s4").join(dir)).map_err(failed)?;
        }
        spread(&root.join(".s4/drafts"));
        for number in 0..stored::DRAFT_DIRS {
            std::fs::create_dir_all(stored::draft_dir(&root, number)).map_err(failed)?;
        }
        let reserve = match options.reserve {
            Some(reserve) => reserve,
            None => space::default_reserve(&root)?,
        };
        let found = FoundDir::find(root.clone()).map_err(failed)?;
        let token = JobId::new().to_string();
        s4::file::replace(&root.join(".s4/token"), token.as_bytes(), false).map_err(failed)?;
        let store = Self {
            data: Arc::new(DataDir::open(root.clone()).map_err(failed)?),
            dirs: dirs::Dirs::new(&root),
            root,
            found,
            reserve,
            fsync: options.fsync,
            node: options.node,
            nodes: options.nodes,
            token,
            open_files: open_files::OpenFileCache::default(),
            naming: publish::Naming::default(),
            refused: publish::Refused::default(),
            drafts: OnceLock::new(),
            synced: recovery::Synced::default(),
            health: health::DiskHealth::default(),
            _lock: lock,
        };
        claim::probe(&store.root).map_err(refuse)?;
        store.claim().map_err(refuse)?;
        store.end_previous_run();
        store.recover().map_err(failed)?;
        Ok(store)
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    /// For what is opened or deleted in it.
    pub fn data_dir(&self) -> &Arc<DataDir> {
        &self.data
    }

    /// True if what is published is synced to the disk first.
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

    /// Where tasks have their directories.
    pub fn tasks_dir(&self) -> PathBuf {
        self.root.join(".s4/tasks")
    }

    /// Where empty directories wait for their next task.
    pub fn idle_dirs(&self) -> PathBuf {
        self.root.join(".s4/idle")
    }

    /// Where files that travel with jobs are kept.
    pub fn files_dir(&self) -> PathBuf {
        self.root.join(".s4/files")
    }

    /// Where jobs keep their records, plans and logs.
    pub fn jobs_dir(&self) -> PathBuf {
        self.root.join(".s4/jobs")
    }

    /// An unnamed temporary file in the store, open to read and write.
    pub fn unnamed_file(&self) -> std::io::Result<File> {
        stored::draft(&self.root)
    }

    /// The same, made a while ago if there is one.
    fn unnamed_file_ahead(&self) -> std::io::Result<File> {
        let ahead = self.drafts.get_or_init(|| {
            let root = self.root.clone();
            Stock::new("drafts", move || stored::draft(&root).ok())
        });
        ahead.take().map_or_else(|| self.unnamed_file(), Ok)
    }

    /// Errors: the data directory is not where it was, and so nothing is known of its keys. To be asked before a key is called
    /// absent, or a listing whole.
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

    /// What is not there at all, unless the whole data directory is not.
    fn absent(&self, what: impl std::fmt::Display) -> Error {
        self.check_there().err().unwrap_or_else(|| Error::new(ErrorKind::NotFound, format!("{what}")))
    }

    /// Refuses a key that lives on another node.
    fn misplaced(&self, key: &Key) -> Result<()> {
        match s4::placement::node_of(key, self.nodes) {
            node if node == self.node => Ok(()),
            node => Err(Error::new(ErrorKind::WrongNode, format!("{key}: belongs on node {node}"))),
        }
    }
}

/// Keeps other users of this machine out: keys, and what records tell of commands and their environment, are not for them.
fn close_to_others(dir: &Path) {
    let closed = dir.metadata().and_then(|found| match found.mode() & 0o077 {
        0 => Ok(()),
        _ => std::fs::set_permissions(dir, Permissions::from_mode(found.mode() & 0o700)),
    });
    if let Err(error) = closed {
        tracing::warn!("{} is open to other users of this machine: {}", dir.display(), reason(&error));
    }
}

/// Locks the data directory for this process, whose id it writes for whoever looks.
fn take_lock(path: &Path) -> std::io::Result<File> {
    let mut file = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(path)?;
    let began = Instant::now();
    while !lock(&file)? {
        if began.elapsed() > LOCKED {
            return Err(std::io::Error::other("another s4-server uses it"));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    file.set_len(0)?;
    writeln!(file, "{}", std::process::id())?;
    Ok(file)
}
