//! At start: end what a killed predecessor left running, and remove what it left behind.

use super::Store;
use crate::jobs::process;

impl Store {
    /// Unnamed files are gone with their process; what is left are commands and their directories.
    pub(super) fn sweep(&self) {
        let tasks = self.tasks_dir();
        let killed = process::kill_tree(&tasks) + process::kill_tree(&self.idle_dirs());
        if killed > 0 {
            tracing::info!("ended {killed} processes of unfinished tasks");
        }
        // What cannot be removed takes space, and does no other harm.
        if let Err(error) = self.data.remove_tree(&tasks) {
            tracing::warn!("cannot remove {}: {error}", tasks.display());
        }
        match std::fs::create_dir(&tasks) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                tracing::warn!("cannot make {}: {error}", tasks.display());
            }
            _ => {}
        }
        self.data.empty_trash();
    }
}
