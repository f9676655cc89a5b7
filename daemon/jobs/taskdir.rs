//! The directories that commands run in: empty at their start, gone after their end.
//!
//! Where control groups end all that a command leaves behind, its directory is kept, empty, for the next one: a directory
//! made and removed for each task would make every later task slower on ext4, for the reason that `store::spread` tells.

use super::process;
use crate::store::{DataDir, spread};
use s4::error::{Error, Result};
use s4::time::now_milliseconds;
use std::collections::VecDeque;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// Directories kept at most. They are used in turn.
const KEPT: usize = 64;

/// Where directories wait for their next task.
pub struct TaskDirs {
    data: Arc<DataDir>,
    idle: PathBuf,
    /// False where a process may outlive its command, and would see the next one's files.
    reuses: bool,
    state: Mutex<State>,
}

/// Guards the directories that wait, how many there are with those in use, and how many names were given.
#[derive(Default)]
struct State {
    free: VecDeque<PathBuf>,
    made: usize,
    named: u64,
}

/// A task's directory. Dropped, all in it is removed.
pub struct TaskDir {
    path: PathBuf,
    made: Made,
    dirs: Arc<TaskDirs>,
}

/// What a command may change of its directory besides what is in it. The length is among them, since a directory that once
/// held many files stays long on ext4, and slow.
#[derive(PartialEq)]
struct Made {
    mode: u32,
    owner: (u32, u32),
    len: u64,
}

impl Made {
    fn of(path: &Path) -> std::io::Result<Self> {
        let found = std::fs::symlink_metadata(path)?;
        Ok(Self { mode: found.mode(), owner: (found.uid(), found.gid()), len: found.len() })
    }
}

impl TaskDirs {
    /// Directories wait in `idle`, which is made, and emptied of what an earlier daemon left.
    pub fn open(data: Arc<DataDir>, idle: PathBuf, reuses: bool) -> Result<Arc<Self>> {
        let failed = |e: std::io::Error| Error::io(idle.display(), &e);
        match data.remove_tree(&idle) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                tracing::warn!("cannot empty {}: {e}", idle.display())
            }
            _ => {}
        }
        make(&idle).map_err(failed)?;
        spread(&idle);
        // Names that nothing has which could not be removed.
        let state = State { named: now_milliseconds().unsigned_abs(), ..State::default() };
        Ok(Arc::new(Self { data, idle, reuses, state: Mutex::new(state) }))
    }

    /// Makes the empty directory `path`.
    pub fn create(self: &Arc<Self>, path: PathBuf) -> Result<TaskDir> {
        let failed = |e: std::io::Error| Error::io(path.display(), &e);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(failed)?;
        }
        std::fs::rename(self.take().map_err(failed)?, &path).inspect_err(|_| self.forget()).map_err(failed)?;
        let made = Made::of(&path).map_err(failed)?;
        Ok(TaskDir { path, made, dirs: self.clone() })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The directory that has waited longest, once there are as many as are kept; else a new one.
    fn take(&self) -> std::io::Result<PathBuf> {
        let mut state = self.lock();
        if state.made >= KEPT
            && let Some(free) = state.free.pop_front()
        {
            return Ok(free);
        }
        state.made += 1;
        let dir = self.place(&mut state);
        drop(state);
        std::fs::create_dir(&dir).inspect_err(|_| self.forget())?;
        Ok(dir)
    }

    fn place(&self, state: &mut State) -> PathBuf {
        state.named += 1;
        self.idle.join(state.named.to_string())
    }

    /// Takes back the empty directory at `path`. False if it is not kept.
    fn keep(&self, path: &Path) -> bool {
        let mut state = self.lock();
        if !self.reuses || state.free.len() >= KEPT {
            return false;
        }
        let idle = self.place(&mut state);
        drop(state);
        let kept = std::fs::rename(path, &idle).is_ok();
        if kept {
            self.lock().free.push_back(idle);
        }
        kept
    }

    /// One that was made is no more.
    fn forget(&self) {
        self.lock().made -= 1;
    }
}

impl TaskDir {
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn is_as_made(&self) -> bool {
        Made::of(&self.path).is_ok_and(|found| found == self.made)
    }
}

impl Drop for TaskDir {
    fn drop(&mut self) {
        let data = &self.dirs.data;
        if data.empty(&self.path).is_ok() && self.is_as_made() && self.dirs.keep(&self.path) {
            return;
        }
        self.dirs.forget();
        if data.remove_tree(&self.path).is_ok() {
            return;
        }
        // A process that the command left behind makes files while they are removed.
        process::kill_tree(&self.path);
        if let Err(error) = data.remove_tree(&self.path) {
            tracing::warn!("cannot remove {}: {error}", self.path.display());
        }
    }
}

fn make(dir: &Path) -> std::io::Result<()> {
    match std::fs::create_dir(dir) {
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists && dir.is_dir() => Ok(()),
        made => made,
    }
}
