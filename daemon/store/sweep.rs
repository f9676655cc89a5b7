//! At start: end what a killed predecessor left running, and remove what it left behind.

use super::Store;
use crate::jobs::process;
use s4::error::{Error, Result};

impl Store {
    /// Unnamed files are gone with their process; what is left are commands, their directories, and unfinished jobs.
    pub(super) fn sweep(&self) -> Result<()> {
        let tasks = self.tasks_dir();
        let killed = process::kill_tree(&tasks);
        if killed > 0 {
            tracing::info!("ended {killed} processes of unfinished tasks");
        }
        empty_dir(&tasks).map_err(|e| Error::io(tasks.display(), &e))?;
        let jobs = self.jobs_dir();
        empty_dir(&jobs).map_err(|e| Error::io(jobs.display(), &e))
    }
}

fn empty_dir(dir: &std::path::Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        match entry.file_type()?.is_dir() {
            true => std::fs::remove_dir_all(entry.path())?,
            false => std::fs::remove_file(entry.path())?,
        }
    }
    Ok(())
}
