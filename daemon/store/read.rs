//! Reading a key: its open file and what is recorded of it.

use super::{CHECKSUM_ATTRIBUTE, Store};
use s4::checksum::Checksum;
use s4::error::{Error, ErrorKind, Result};
use s4::key::Key;
use s4::protocol::{KeyStat, Stat};
use std::fs::{File, Metadata, OpenOptions};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::str::FromStr;
use xattr::FileExt;

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
        let file = self.root.join(path);
        let found = match std::fs::symlink_metadata(&file) {
            Ok(found) => found,
            Err(e) if matches!(e.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => {
                return Ok(Stat::Absent);
            }
            Err(e) => return Err(Error::io(format!("s4://{path}"), &e)),
        };
        let (mtime, mode) = (mtime_of(&found), found.mode() & 0o555);
        if found.is_dir() {
            return Ok(Stat::Dir { mtime });
        }
        Ok(recorded_at(&file).map_or(Stat::Absent, |checksum| Stat::Key(KeyStat { checksum, mtime, mode })))
    }

    /// Errors: no such key; a file whose length differs from the recorded one.
    pub fn open_key(&self, key: &Key) -> Result<Opened> {
        self.misplaced(key)?;
        let absent = || Error::new(ErrorKind::NotFound, format!("{key}: no such key"));
        let flags = nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK;
        let file = match OpenOptions::new().read(true).custom_flags(flags).open(self.path(key)) {
            Ok(file) => file,
            Err(e) if matches!(e.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => {
                return Err(absent());
            }
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

/// The checksum recorded with the file at `path`, if it is a key.
pub fn recorded_at(path: &Path) -> Option<Checksum> {
    let bytes = xattr::get(path, CHECKSUM_ATTRIBUTE).ok()??;
    std::str::from_utf8(&bytes).ok()?.parse().ok()
}

/// Nanoseconds since 1970.
pub fn mtime_of(found: &Metadata) -> i64 {
    found.mtime() * 1_000_000_000 + found.mtime_nsec()
}

fn recorded_checksum(file: &File, key: &Key) -> Result<Checksum> {
    let recorded = file.get_xattr(CHECKSUM_ATTRIBUTE).map_err(|e| Error::io(key, &e))?;
    let text = recorded.and_then(|bytes| String::from_utf8(bytes).ok());
    text.and_then(|text| Checksum::from_str(&text).ok()).ok_or_else(|| {
        Error::new(
            ErrorKind::Checksum,
            format!("{key}: checksum error: no checksum is recorded, this file was not put by s4"),
        )
    })
}
