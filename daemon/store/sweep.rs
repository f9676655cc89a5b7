//! At start: end what a killed predecessor left running, and remove what it left behind.

use super::Store;
use crate::jobs::command::remove_tree;
use crate::jobs::process;

impl Store {
    /// Unnamed files are gone with their process; what is left are commands and their directories.
    pub(super) fn sweep(&self) {
        let tasks = self.tasks_dir();
        let killed = process::kill_tree(&tasks);
        if killed > 0 {
            tracing::info!("ended {killed} processes of unfinished tasks");
        }
        // What cannot be removed takes space, and does no other harm.
        if let Err(error) = empty_dir(&tasks) {
            tracing::warn!("cannot empty {}: {error}", tasks.display());
        }
    }
}

fn empty_dir(dir: &std::path::Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        match entry.file_type()?.is_dir() {
            true => remove_tree(&entry.path())?,
            false => std::fs::remove_file(entry.path())?,
        }
    }
    Ok(())
}
