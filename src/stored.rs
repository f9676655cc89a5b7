//! How a key lies on a node's disk, as its daemon and a mount on the same machine read it: a plain file whose checksum
//! and length are in an extended attribute.

use crate::checksum::Checksum;
use crate::protocol::{KeyStat, Stat};
use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use xattr::FileExt;

/// The extended attribute that holds a key's checksum and length.
pub const CHECKSUM_ATTRIBUTE: &str = "user.s4.checksum";

/// The checksum recorded with an open file; `None` if it is no key.
pub fn recorded(file: &File) -> io::Result<Option<Checksum>> {
    file.get_xattr(CHECKSUM_ATTRIBUTE).map(parse)
}

/// The checksum recorded with the file at `path`; `None` if it is no key.
pub fn recorded_at(path: &Path) -> io::Result<Option<Checksum>> {
    xattr::get(path, CHECKSUM_ATTRIBUTE).map(parse)
}

fn parse(recorded: Option<Vec<u8>>) -> Option<Checksum> {
    std::str::from_utf8(&recorded?).ok()?.parse().ok()
}

/// What `path` (`bucket`, `bucket/dir` or `bucket/dir/name`) is in the data directory `root`.
pub fn stat(root: &Path, path: &str) -> io::Result<Stat> {
    let file = root.join(path);
    let found = match std::fs::symlink_metadata(&file) {
        Ok(found) => found,
        Err(e) if is_absent(&e) => return Ok(Stat::Absent),
        Err(e) => return Err(e),
    };
    let (mtime, mode) = (mtime_of(&found), found.mode() & 0o555);
    if found.is_dir() {
        return Ok(Stat::Dir { mtime });
    }
    match recorded_at(&file) {
        Ok(Some(checksum)) => Ok(Stat::Key(KeyStat { checksum, mtime, mode })),
        Ok(None) => Ok(Stat::Absent),
        // Deleted between the two looks.
        Err(e) if is_absent(&e) => Ok(Stat::Absent),
        Err(e) => Err(e),
    }
}

/// True for the errors of a path that leads nowhere.
pub fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// The time of the last change, in nanoseconds since 1970; the nearest that there is for one too far away.
pub fn mtime_of(found: &Metadata) -> i64 {
    found.mtime().saturating_mul(1_000_000_000).saturating_add(found.mtime_nsec())
}

/// An unnamed temporary file in `dir`, open to read and write, which can be linked to a name of the same file system.
pub fn unnamed_file(dir: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).custom_flags(libc::O_TMPFILE).mode(0o600).open(dir)
}
