//! Start and orderly end of a store. The start checks and locks the data directory, and recovers what earlier runs
//! left.

use super::core::{Options, Store};
use super::data_dir::DataDir;
use super::dirs::table::Dirs;
use super::ending::Ending;
use super::health::DiskHealth;
use super::identity;
use super::naming::{Naming, Refused};
use super::open_files::OpenFileCache;
use super::space;
use super::spread::spread;
use super::synced::Synced;
use super::watches::Watches;
use s4::error::{Error, ErrorKind, Result, reason};
use s4::file::lock;
use s4::protocol::JobId;
use s4::stored::{self, FoundDir};
use std::fs::{File, OpenOptions, Permissions};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

/// How long to wait for the lock. A child of a killed daemon holds it between fork and execve.
const LOCKED: Duration = Duration::from_secs(1);

impl Store {
    /// Opens and locks the data directory, ends and removes what a killed daemon left, and removes keys that a power
    /// cut damaged.
    ///
    /// Errors: the directory does not exist; its file system has no extended attributes or unnamed temporary files; it
    /// is in use; it belongs to another node or lies in another data directory; `xargs` would split its path.
    pub fn open(options: Options) -> Result<Self> {
        let shown = options.dir.display().to_string();
        let refuse = |why: String| Error::new(ErrorKind::Config, format!("data directory {shown}: {why}"));
        let failed = |e: std::io::Error| refuse(reason(&e));
        identity::refuse_absent(&options.dir).map_err(refuse)?;
        let root = options.dir.canonicalize().map_err(failed)?;
        identity::check_path(&root).map_err(refuse)?;
        identity::refuse_inner(&root).map_err(refuse)?;
        close_to_others(&root);
        close_to_others(&root.join(".s4"));
        let lock = take_lock(&root.join(".s4/lock")).map_err(|e| refuse(reason(&e)))?;
        for dir in ["tasks", "jobs", "provenance", "files", "drafts", "trash", "marking", "uploads"] {
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
        let data = Arc::new(DataDir::open(root.clone()).map_err(failed)?);
        let store = Self {
            dirs: Dirs::new(&root, options.resize.is_some()),
            synced: Synced::new(&root, data.clone()),
            data,
            root,
            found,
            reserve,
            fsync: options.fsync,
            node: options.node,
            nodes: options.nodes,
            resize: options.resize,
            token,
            open_files: OpenFileCache::default(),
            naming: Naming::default(),
            refused: Refused::default(),
            watches: Watches::default(),
            drafts: OnceLock::new(),
            health: DiskHealth::default(),
            ending: Ending::default(),
            _lock: lock,
        };
        stored::probe(&store.root).map_err(refuse)?;
        store.ensure_identity().map_err(refuse)?;
        store.end_previous_run();
        store.end_marking().map_err(failed)?;
        store.recover().map_err(failed)?;
        store.remove_broken_uploads();
        store.expire_uploads();
        Ok(store)
    }

    /// The orderly end. The next start has nothing to recover, unless a key was made just now and is not synced yet.
    pub fn end(self) -> std::io::Result<()> {
        let settled = self.note_settled();
        self.synced.end().and(settled)
    }
}

/// Denies other users of this machine access to the keys, and to records of commands and their environment.
fn close_to_others(dir: &Path) {
    let closed = dir.metadata().and_then(|found| match found.mode() & 0o077 {
        0 => Ok(()),
        _ => std::fs::set_permissions(dir, Permissions::from_mode(found.mode() & 0o700)),
    });
    if let Err(error) = closed {
        tracing::warn!("{} is open to other users of this machine: {}", dir.display(), reason(&error));
    }
}

/// Locks the data directory for this process, and writes the process id into the lock file.
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
