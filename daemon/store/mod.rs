//! A node's keys on its disk: publish, read, list, delete, sweep. Knows no HTTP. Everything here blocks.

mod data_dir;
mod held;
mod leases;
mod list;
mod publish;
mod read;
mod remove;
mod sealed;
mod sorter;
mod space;
mod spread;
mod sweep;
mod tree;
mod wipe;

pub use data_dir::{DataDir, open_linked, open_within};
pub use held::Range;
pub use list::Selection;
pub use publish::{Asker, Draft};
pub use read::Opened;
pub use sorter::Sorter;
pub use spread::spread;

use s4::attribute::KEY_ATTRIBUTE;
use s4::error::{Error, ErrorKind, Result, reason};
use s4::file::lock;
use s4::key::Key;
use s4::protocol::JobId;
use s4::stock::Stock;
use s4::stored;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

/// Marks a directory that was made by itself, and not with a key: it stays when its last key goes.
const MADE_ATTRIBUTE: &str = "user.s4.made";

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
    /// The device of the root: what can be linked into the store.
    device: u64,
    reserve: u64,
    fsync: bool,
    node: usize,
    nodes: usize,
    /// Random; in the file `.s4/token` too, so that a process of this machine can tell whose directory it is.
    token: String,
    held: held::HeldFiles,
    leases: leases::Leases,
    /// Files for small keys, once there was any.
    drafts: OnceLock<Stock<File>>,
    _lock: File,
}

impl Store {
    /// Opens or makes the data directory, takes its lock and sweeps what a killed predecessor left.
    ///
    /// Errors: the directory cannot hold extended attributes or unnamed temporary files, is in use, belongs to another
    /// node, or has a path that map-from-n could not print for `xargs`.
    pub fn open(options: Options) -> Result<Self> {
        let shown = options.dir.display().to_string();
        let refuse = |why: String| Error::new(ErrorKind::Config, format!("data directory {shown}: {why}"));
        let failed = |e: std::io::Error| refuse(reason(&e));
        std::fs::create_dir_all(options.dir.join(".s4")).map_err(failed)?;
        let root = options.dir.canonicalize().map_err(failed)?;
        if root.to_str().is_none_or(|path| path.contains(|c: char| c.is_whitespace() || matches!(c, '\'' | '"' | '\\')))
        {
            return Err(refuse(
                "its path has whitespace, a quote or a backslash, which 'xargs' in a map-from-n would split".into(),
            ));
        }
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
        let device = root.metadata().map_err(failed)?.dev();
        let token = JobId::new().to_string();
        s4::file::replace(&root.join(".s4/token"), token.as_bytes(), false).map_err(failed)?;
        let store = Self {
            data: Arc::new(DataDir::open(root.clone()).map_err(failed)?),
            leases: leases::Leases::new(&root),
            root,
            device,
            reserve,
            fsync: options.fsync,
            node: options.node,
            nodes: options.nodes,
            token,
            held: held::HeldFiles::default(),
            drafts: OnceLock::new(),
            _lock: lock,
        };
        store.probe().map_err(|e| refuse(e.to_string()))?;
        store.claim().map_err(|e| refuse(e.to_string()))?;
        store.sweep();
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
        Self::tasks_in(&self.root)
    }

    /// The same of the data directory `root`.
    pub fn tasks_in(root: &Path) -> PathBuf {
        root.join(".s4/tasks")
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

    /// Tries what every publish needs, so that a file system without it is refused at start.
    fn probe(&self) -> std::result::Result<(), String> {
        let file = self
            .unnamed_file()
            .map_err(|e| format!("its file system cannot make unnamed temporary files (O_TMPFILE): {}", reason(&e)))?;
        use xattr::FileExt;
        file.set_xattr(KEY_ATTRIBUTE, b"probe")
            .map_err(|e| format!("its file system cannot hold extended attributes: {}", reason(&e)))
    }

    /// Marks the directory as this node's, or finds that it is another's.
    fn claim(&self) -> std::result::Result<(), String> {
        let path = self.root.join(".s4/node");
        let ours = format!("node {} of {}\n", self.node, self.nodes);
        match std::fs::read_to_string(&path) {
            Ok(theirs) if theirs == ours => return Ok(()),
            Ok(theirs) if !self.is_empty() => {
                let (theirs, ours) = (theirs.trim(), ours.trim());
                return Err(format!(
                    "it holds keys of {theirs}, and this is {ours}; copy them out first, or start with an empty directory"
                ));
            }
            Ok(_) => {}
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => return Err(reason(&e)),
        }
        std::fs::write(&path, ours).map_err(|e| reason(&e))
    }

    /// True if there is no bucket.
    fn is_empty(&self) -> bool {
        let entries = std::fs::read_dir(&self.root).into_iter().flatten().flatten();
        entries.map(|entry| entry.file_name()).all(|name| name == ".s4")
    }

    /// Refuses a key that lives on another node.
    fn misplaced(&self, key: &Key) -> Result<()> {
        match s4::placement::node_of(key, self.nodes) {
            node if node == self.node => Ok(()),
            node => Err(Error::new(ErrorKind::WrongNode, format!("{key}: belongs on node {node}"))),
        }
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
