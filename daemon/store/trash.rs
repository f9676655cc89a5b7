//! State of `.s4/trash`, which holds trees that are deleted in the background; `wipe` deletes them.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The trash directory, and its deletion.
pub(super) struct Trash {
    pub dir: PathBuf,
    /// True while a thread deletes; and the number of trees that this process has moved here, which makes their names
    /// unique.
    state: Mutex<(bool, u64)>,
}

impl Trash {
    /// Of the data directory `root`.
    pub fn new(root: &Path) -> Self {
        Self { dir: root.join(".s4/trash"), state: Mutex::default() }
    }

    pub fn lock(&self) -> MutexGuard<'_, (bool, u64)> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
