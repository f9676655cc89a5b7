//! A file of a job to which lines are appended. It is open only while lines are written, so that jobs that do not run
//! hold no descriptors.

use s4::file::{open_regular, open_to_read};
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Result, Write};
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A file of lines. Each line is appended in one write.
pub struct Lines {
    path: PathBuf,
    /// Guards the file.
    appended: Mutex<Appended>,
}

#[derive(Default)]
struct Appended {
    file: Option<File>,
    /// A full disk has cut the last line. The next write must begin with a newline.
    torn: bool,
}

impl Lines {
    /// Refuses a path that is not a file.
    pub fn new(path: PathBuf) -> Result<Self> {
        match open_to_read(&path) {
            Err(e) if e.kind() != ErrorKind::NotFound => Err(e),
            _ => Ok(Self { path, appended: Mutex::default() }),
        }
    }

    /// Appends lines that end with a newline, in one write.
    pub fn append(&self, lines: &[u8]) -> Result<()> {
        self.write(|file, begin| file.write_all(&[begin, lines].concat()))
    }

    /// Appends all lines of `from`, without lines of others in between.
    pub fn append_all(&self, from: &mut dyn Read) -> Result<()> {
        self.write(|file, begin| file.write_all(begin).and_then(|()| std::io::copy(from, file).map(drop)))
    }

    /// Calls `write` with the file and the bytes that it must write first.
    fn write(&self, write: impl FnOnce(&mut File, &[u8]) -> Result<()>) -> Result<()> {
        let mut appended = self.lock();
        let mut file = match appended.file.take() {
            Some(file) => file,
            None => open_regular(&self.path, OpenOptions::new().create(true).append(true))?,
        };
        let written = write(&mut file, if appended.torn { b"\n" } else { b"" });
        *appended = Appended { file: Some(file), torn: written.is_err() };
        written
    }

    /// Closes the file; another append opens it again. With `sync`, syncs the lines to the disk before.
    pub fn close(&self, sync: bool) -> Result<()> {
        match self.lock().file.take() {
            Some(file) if sync => file.sync_data(),
            _ => Ok(()),
        }
    }

    /// Removes the file; another line would make it anew.
    pub fn remove(&self) -> Result<()> {
        let mut appended = self.lock();
        *appended = Appended::default();
        match std::fs::remove_file(&self.path) {
            Err(e) if e.kind() != ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        }
    }

    /// The file, to be read; `None` if nothing was ever appended.
    pub fn read(&self) -> Result<Option<File>> {
        match open_to_read(&self.path) {
            Ok(file) => Ok(Some(file)),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Appended> {
        self.appended.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_line_does_not_damage_the_next() {
        let dir = tempfile::tempdir().unwrap();
        let lines = Lines::new(dir.path().join("lines")).unwrap();
        lines.append(b"1 10\n").unwrap();
        lines.lock().file.as_mut().unwrap().write_all(b"17").unwrap();
        lines.lock().torn = true;
        lines.append(b"2 20\n").unwrap();
        lines.close(false).unwrap();
        lines.append(b"4 40\n").unwrap();
        assert_eq!(std::fs::read(dir.path().join("lines")).unwrap(), b"1 10\n17\n2 20\n4 40\n");
    }
}
