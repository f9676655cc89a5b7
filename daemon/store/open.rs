//! The start and the end of a store: its directory is checked and locked, and what earlier runs left is recovered.

use super::claim;
use super::core::{Options, Store};
use super::data_dir::DataDir;
use super::dirs::table::Dirs;
use super::health::DiskHealth;
use super::naming::{Naming, Refused};
use super::open_files::OpenFileCache;
use super::space;
use super::spread::spread;
use super::synced::Synced;
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

/// How long another may have the lock before that is an error: a predecessor that was killed may just have begun a command,
/// which holds it until it executes.
const LOCKED: Duration = Duration::from_secs(1);

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
        let data = Arc::new(DataDir::open(root.clone()).map_err(failed)?);
        let store = Self {
            dirs: Dirs::new(&root),
            synced: Synced::new(&root, data.clone()),
            data,
            root,
            found,
            reserve,
            fsync: options.fsync,
            node: options.node,
            nodes: options.nodes,
            token,
            open_files: OpenFileCache::default(),
            naming: Naming::default(),
            refused: Refused::default(),
            drafts: OnceLock::new(),
            health: DiskHealth::default(),
            _lock: lock,
        };
        claim::probe(&store.root).map_err(refuse)?;
        store.claim().map_err(refuse)?;
        store.end_previous_run();
        store.recover().map_err(failed)?;
        Ok(store)
    }

    /// The orderly end, by the last who has the store: the next start has nothing to look at, unless something was made a moment ago.
    pub fn end(self) -> std::io::Result<()> {
        let settled = self.note_settled();
        self.synced.end().and(settled)
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
