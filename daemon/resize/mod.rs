//! A resize of the cluster, as this node does its part. ARCHITECTURE.md has the protocol.
//!
//! From its beginning to its end the daemon works by both node lists, and serves nothing else. [`state`] keeps that on
//! the disk, so that a restart goes on with it; [`keys`] and [`dirs`] move what the list after it places elsewhere. A
//! client drives the nodes: it begins the resize on all of them, makes them move, and ends it.

mod dirs;
mod keys;
mod state;

pub use state::{State, list_of, read};

use crate::store::Store;
use s4::client::{Client, blocking};
use s4::cluster::Cluster;
use s4::error::{Error, ErrorKind, Result, reason};
use s4::file::write_durably;
use s4::placement::NodeId;
use s4::protocol::{Moved, UploadInfo};
use s4::resize::Lists;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use tokio::sync::{Mutex, MutexGuard};

/// A resize that is under way.
pub struct Resize {
    pub lists: Lists,
    node: NodeId,
    /// A client of the cluster after the resize.
    client: Client,
    store: Arc<Store>,
    /// Locked while this node moves its keys.
    moving: Mutex<()>,
    /// All of this node's keys and directories are moved.
    is_moved: AtomicBool,
    counts: Counts,
}

/// The numbers of a [`Moved`] while they change.
#[derive(Default)]
struct Counts {
    keys: AtomicU64,
    bytes: AtomicU64,
    all_keys: AtomicU64,
    all_bytes: AtomicU64,
}

impl Resize {
    /// Goes on with the resize in `state`.
    pub fn new(state: State, node: NodeId, client: Client, store: Arc<Store>) -> Self {
        Self {
            lists: state.lists,
            node,
            client,
            store,
            moving: Mutex::default(),
            is_moved: AtomicBool::new(state.is_moved),
            counts: Counts::default(),
        }
    }

    /// The error of everything that is refused until the end.
    pub fn refusal(&self) -> Error {
        let Moved { keys, all_keys, .. } = self.progress();
        let sizes = self.lists.sizes();
        let moved = match (self.is_moved.load(Ordering::Relaxed), all_keys) {
            (true, _) => "its keys are moved".to_owned(),
            (false, 0) => "moving has not begun".to_owned(),
            (false, _) => format!("{keys} of its {all_keys} keys to be moved are moved"),
        };
        let message = format!(
            "the cluster is being resized from {} to {} nodes, {moved}; if 's4 cluster resize' was interrupted, run it again",
            sizes.before, sizes.after
        );
        Error::new(ErrorKind::Busy, message)
    }

    /// The right to move. Errors: it is taken.
    pub fn begin_moving(&self) -> Result<MutexGuard<'_, ()>> {
        self.moving.try_lock().map_err(|_| Error::new(ErrorKind::Busy, "this node moves its keys already"))
    }

    /// Moves what belongs elsewhere, until `stop` is set. `moving` is the right to do so.
    pub async fn move_all(&self, moving: &MutexGuard<'_, ()>, stop: &Arc<AtomicBool>) -> Result<()> {
        self.is_moved.store(false, Ordering::Relaxed);
        self.move_keys(moving, stop).await?;
        self.move_dirs().await?;
        let (store, state) = (self.store.clone(), State { lists: self.lists.clone(), is_moved: true });
        blocking(move || state.write(store.root())).await?;
        self.is_moved.store(true, Ordering::Relaxed);
        Ok(())
    }

    pub fn progress(&self) -> Moved {
        let Counts { keys, bytes, all_keys, all_bytes } = &self.counts;
        let [keys, bytes, all_keys, all_bytes] =
            [keys, bytes, all_keys, all_bytes].map(|count| count.load(Ordering::Relaxed));
        Moved { keys, bytes, all_keys, all_bytes }
    }

    /// Ends the resize on the disk: from its next start on, this node is one of the list after. `conf` is the cluster
    /// file, which gets that list. Blocks. Errors: keys are not moved yet.
    pub fn end(&self, conf: &Path) -> Result<()> {
        if !self.is_moved.load(Ordering::Relaxed) {
            return Err(Error::new(ErrorKind::Busy, "the keys of this node are not moved yet"));
        }
        if !self.lists.leaves(self.node) {
            self.store.sync().map_err(|e| Error::io(self.store.root().display(), &e))?;
            self.store.note_all_dirs()?;
            self.store.note_identity(self.lists.after().len())?;
            write_list(conf, self.lists.after())?;
        }
        State::remove(self.store.root())
    }
}

/// Records that the resize has begun, if it can; the daemon must restart. Blocks.
pub fn begin(store: &Store, node: NodeId, lists: Lists, conf: &Path) -> Result<()> {
    check_begin(store, node, &lists, Some(conf))?;
    State { lists, is_moved: false }.write(store.root())
}

/// Checks what could not be moved, or not be ended. Blocks.
pub fn check_begin(store: &Store, node: NodeId, lists: &Lists, conf: Option<&Path>) -> Result<()> {
    if let Some(UploadInfo { key, id, .. }) = store.upload_that_moves(lists.sizes())? {
        let message = format!("{key}: its upload {id} has not ended, and parts are not moved; complete or abort it");
        return Err(Error::new(ErrorKind::Busy, message));
    }
    conf.map_or(Ok(()), |conf| check_conf(node, lists, conf))
}

/// Errors: the cluster file has another list than the one after the resize, and cannot be replaced.
fn check_conf(node: NodeId, lists: &Lists, conf: &Path) -> Result<()> {
    if lists.leaves(node) || has_list(conf, lists.after()) {
        return Ok(());
    }
    let path = real_path(conf);
    let beside = path.parent().unwrap_or(Path::new("/"));
    tempfile_in(beside).map_err(|e| {
        let message = format!(
            "{}: the daemon cannot give this cluster file the new list: {}; put the new list there, then resize",
            conf.display(),
            reason(&e)
        );
        Error::new(ErrorKind::Config, message)
    })
}

fn has_list(conf: &Path, list: &Cluster) -> bool {
    Cluster::load(Some(conf)).is_ok_and(|found| found.lines() == list.lines())
}

fn write_list(conf: &Path, list: &Cluster) -> Result<()> {
    if has_list(conf, list) {
        return Ok(());
    }
    let path = real_path(conf);
    let text: String = list.lines().iter().map(|line| format!("{line}\n")).collect();
    let mode = std::fs::metadata(&path).map(|found| found.permissions());
    write_durably(&path, text.as_bytes())
        .and_then(|()| mode.and_then(|mode| std::fs::set_permissions(&path, mode)))
        .map_err(|e| Error::io(path.display(), &e))
}

/// The file itself, if `conf` is a link to it.
fn real_path(conf: &Path) -> PathBuf {
    conf.canonicalize().unwrap_or_else(|_| conf.to_owned())
}

/// Tries to make a file in `dir`.
fn tempfile_in(dir: &Path) -> std::io::Result<()> {
    let path = dir.join(format!(".s4-resize-{}", std::process::id()));
    std::fs::File::create_new(&path)?;
    std::fs::remove_file(path)
}
