//! Reading a key: its open file and what is recorded of it.

use super::Store;
use s4::checksum::Checksum;
use s4::error::{Error, ErrorKind, Result};
use s4::key::Key;
use s4::protocol::Stat;
use s4::stored;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// A key open for reading.
#[derive(Debug)]
pub struct Opened {
    pub file: File,
    /// As recorded at its publish; whoever reads the bytes compares.
    pub checksum: Checksum,
}

impl Store {
    /// What `path` (`bucket`, `bucket/dir` or `bucket/dir/name`) is on this node.
    pub fn stat(&self, path: &str) -> Result<Stat> {
        stored::stat(&self.root, path).map_err(|e| Error::io(format!("s4://{path}"), &e))
    }

    /// Errors: no such key; a file whose length differs from the recorded one.
    pub fn open_key(&self, key: &Key) -> Result<Opened> {
        self.misplaced(key)?;
        let absent = || Error::new(ErrorKind::NotFound, format!("{key}: no such key"));
        let file = match open_itself(&self.path(key)) {
            Ok(file) => file,
            Err(e) if stored::is_absent(&e) => return Err(absent()),
            Err(e) => return Err(Error::io(key, &e)),
        };
        let found = file.metadata().map_err(|e| Error::io(key, &e))?;
        if found.is_dir() {
            return Err(Error::new(ErrorKind::NotFound, format!("{key}: no such key, it is a directory")));
        }
        let checksum = recorded_checksum(&file, key)?;
        match checksum.len == found.len() {
            true => Ok(Opened { file, checksum }),
            false => Err(Error::new(
                ErrorKind::Checksum,
                format!(
                    "{key}: checksum error: stored with {} bytes, the file has {}; delete the key and make it again",
                    checksum.len,
                    found.len()
                ),
            )),
        }
    }
}

fn recorded_checksum(file: &File, key: &Key) -> Result<Checksum> {
    let recorded = stored::recorded(file).map_err(|e| Error::io(key, &e))?;
    recorded.ok_or_else(|| {
        Error::new(
            ErrorKind::Checksum,
            format!("{key}: checksum error: no checksum is recorded, this file was not put by s4"),
        )
    })
}

/// Opens a file, and never what a symbolic link of its name leads to, nor waits for the other end of a pipe.
pub(super) fn open_itself(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().read(true).custom_flags(nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK).open(path)
}
