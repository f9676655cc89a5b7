//! What is known of `.s4/trash`, where trees lie that are deleted in the background; `wipe` deletes them.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Trees that are deleted while others go on.
pub(super) struct Trash {
    pub dir: PathBuf,
    /// Guards whether a thread deletes, and how many trees were moved here by this process.
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
