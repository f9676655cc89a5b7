//! The directories in which commands run. They are empty at the start and removed after the end.
//!
//! Where control groups end all processes of a command, its directory is emptied and reused. Creating and removing a
//! directory for each task would slow down every later task on ext4; `store::spread` explains the reason.

use super::process;
use crate::store::{DataDir, spread};
use s4::error::{Error, Result};
use s4::file::make_dir;
use s4::time::now_milliseconds;
use std::collections::VecDeque;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// Limit of directories that are kept. They are reused in turn.
const MAX_IDLE: usize = 64;

/// The pool of empty directories.
pub struct TaskDirs {
    data: Arc<DataDir>,
    idle: PathBuf,
    /// False if a process may outlive its command: it could see the files of the next one.
    reuses: bool,
    state: Mutex<State>,
}

/// Guards the idle directories, their number together with those in use, and the number for the next name.
#[derive(Default)]
struct State {
    free: VecDeque<PathBuf>,
    made: usize,
    named: u64,
}

/// A task's directory. Dropping it removes its contents.
pub struct TaskDir {
    path: PathBuf,
    made: Made,
    dirs: Arc<TaskDirs>,
}

/// The properties of a directory that a command may change, besides its contents. The length is one of them: on ext4, a
/// directory that once had many entries stays long and slow.
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
    /// `idle` is the directory for idle directories. It is created, and emptied of what an earlier daemon left.
    pub fn open(data: Arc<DataDir>, idle: PathBuf, reuses: bool) -> Result<Arc<Self>> {
        let failed = |e: std::io::Error| Error::io(idle.display(), &e);
        match data.remove_tree(&idle) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                tracing::warn!("cannot empty {}: {e}", idle.display())
            }
            _ => {}
        }
        make_dir(&idle).map_err(failed)?;
        spread(&idle);
        // New names that directories which could not be removed do not have.
        let state = State { named: now_milliseconds().unsigned_abs(), ..State::default() };
        Ok(Arc::new(Self { data, idle, reuses, state: Mutex::new(state) }))
    }

    /// Creates the empty directory `path`.
    pub fn create(self: &Arc<Self>, path: PathBuf) -> Result<TaskDir> {
        let failed = |e: std::io::Error| Error::io(path.display(), &e);
        if let Some(parent) = path.parent() {
            make_dir(parent).map_err(failed)?;
        }
        std::fs::rename(self.take().map_err(failed)?, &path).inspect_err(|_| self.forget()).map_err(failed)?;
        let made = Made::of(&path).map_err(failed)?;
        Ok(TaskDir { path, made, dirs: self.clone() })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The directory that has been idle for the longest time, once the pool is full; until then a new one.
    fn take(&self) -> std::io::Result<PathBuf> {
        let mut state = self.lock();
        if state.made >= MAX_IDLE
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

    /// Puts the empty directory at `path` back. False if it is not kept.
    fn keep(&self, path: &Path) -> bool {
        let mut state = self.lock();
        if !self.reuses || state.free.len() >= MAX_IDLE {
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

    /// Counts one directory less.
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
        // A process that the command has left creates files during the removal.
        process::kill_tree(&self.path);
        if let Err(error) = data.remove_tree(&self.path) {
            tracing::warn!("cannot remove {}: {error}", self.path.display());
        }
    }
}
