//! The form in which a key is stored on a node's disk: a plain file with checksum and length in an extended attribute.
//! Used by the daemon, and by clients on the same machine.

use crate::attribute::{KEY_ATTRIBUTE, KeyRecord, METADATA_ATTRIBUTE};
use crate::blocks::{BLOCKS_ATTRIBUTE, LEAF, Table};
use crate::checksum::{Checksum, hash};
use crate::directory::{DIR_MODE, DirRecord};
use crate::protocol::{KeyStat, Metadata, Stat};
use std::cell::Cell;
use std::ffi::{CStr, CString};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::SystemTime;

/// [`KEY_ATTRIBUTE`] for the kernel.
const KEY_NAME: &CStr = c"user.s4.key";
/// The attribute with which version 0.1 recorded checksum and length, as text.
const TEXT_NAME: &CStr = c"user.s4.checksum";

/// This file in a data directory says that the node knows all directories whose home it is. Without it, a name that is
/// absent on the node may still be a directory.
pub const KNOWS_DIRS: &str = ".s4/knows-dirs";

/// Longer than any valid record: a longer attribute is not s4's.
const ROOM: usize = 64;

/// The checksum recorded with an open file; `None` if it is no key.
pub fn recorded(file: &File) -> io::Result<Option<Checksum>> {
    Ok(record(file)?.map(|record| record.checksum))
}

/// The checksum recorded with the file at `path`; `None` if it is no key.
pub fn recorded_at(path: &Path) -> io::Result<Option<Checksum>> {
    Ok(record_at(path)?.map(|record| record.checksum))
}

/// The record of an open file; `None` if it is no key.
pub fn record(file: &File) -> io::Result<Option<KeyRecord>> {
    // SAFETY: the descriptor is open, the name ends in a NUL, and the buffer has the length that is passed.
    parse(|name, buffer| unsafe {
        libc::fgetxattr(file.as_raw_fd(), name.as_ptr(), buffer.as_mut_ptr().cast(), buffer.len())
    })
}

/// The record of the file at `path`; `None` if it is no key.
pub fn record_at(path: &Path) -> io::Result<Option<KeyRecord>> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: path and name end in a NUL, and the buffer has the length that is passed.
    parse(|name, buffer| unsafe {
        libc::lgetxattr(path.as_ptr(), name.as_ptr(), buffer.as_mut_ptr().cast(), buffer.len())
    })
}

/// The recorded checksums of the parts of a key with `checksum`; `None` if there is no matching table, as for a key of
/// one leaf.
pub fn table(file: &File, checksum: Checksum) -> io::Result<Option<Table>> {
    use xattr::FileExt;
    if checksum.len <= LEAF {
        return Ok(None);
    }
    let found = file.get_xattr(BLOCKS_ATTRIBUTE)?;
    Ok(found.and_then(|bytes| Table::decode(&bytes, checksum)))
}

/// Records the checksums of the parts of a file that becomes a key with `checksum`. If the file system has no room for
/// them beside other attributes, fewer are recorded, of larger parts. If it has no room for any, readers verify the
/// whole key before they read a part.
pub fn set_table(file: &File, table: &Table, checksum: Checksum) -> io::Result<()> {
    use xattr::FileExt;
    let mut smaller;
    let mut table = table;
    loop {
        match file.set_xattr(BLOCKS_ATTRIBUTE, &table.encode(checksum)) {
            Err(e) if !matches!(e.raw_os_error(), Some(libc::ENOSPC | libc::E2BIG)) => return Err(e),
            Err(_) => match table.halved() {
                Some(halved) => smaller = halved,
                None => return Ok(()),
            },
            Ok(()) => return Ok(()),
        }
        table = &smaller;
    }
}

/// Stores the metadata of a file that becomes a key. Its [record](KeyRecord) must say that it has some.
pub fn set_metadata(file: &File, metadata: &Metadata) -> io::Result<()> {
    use xattr::FileExt;
    let json = metadata.encode();
    let sum = hash(json.as_bytes()) as u32;
    file.set_xattr(METADATA_ATTRIBUTE, format!("{sum:08x} {json}").as_bytes())
}

/// The metadata of a key whose record says that it has some. `None`: what is stored is missing or damaged.
pub fn metadata(file: &File) -> io::Result<Option<Metadata>> {
    use xattr::FileExt;
    let stored = file.get_xattr(METADATA_ATTRIBUTE)?;
    let parsed = stored.as_deref().and_then(|stored| {
        let (sum, json) = stored.split_at_checked(9)?;
        let is_whole = *sum == *format!("{:08x} ", hash(json) as u32).as_bytes();
        Metadata::decode(json).ok().filter(|_| is_whole)
    });
    Ok(parsed)
}

/// Records checksum, length and mark of a file that becomes a key.
pub fn set_record(file: &File, record: &KeyRecord) -> io::Result<()> {
    use xattr::FileExt;
    file.set_xattr(KEY_ATTRIBUTE, &record.encode())
}

fn parse(read: impl Fn(&CStr, &mut [u8; ROOM]) -> isize) -> io::Result<Option<KeyRecord>> {
    let mut buffer = [0; ROOM];
    if let Some(len) = attribute(KEY_NAME, &mut buffer, &read)? {
        return Ok(KeyRecord::decode(&buffer[..len]));
    }
    let len = attribute(TEXT_NAME, &mut buffer, &read)?;
    let text = len.and_then(|len| std::str::from_utf8(&buffer[..len]).ok());
    Ok(text.and_then(|text| text.parse::<Checksum>().ok()).map(KeyRecord::from))
}

/// Reads an attribute with one system call. A library would ask for the length first, with a second call for each key
/// of a listing.
fn attribute(
    name: &CStr,
    buffer: &mut [u8; ROOM],
    read: &impl Fn(&CStr, &mut [u8; ROOM]) -> isize,
) -> io::Result<Option<usize>> {
    usize::try_from(read(name, buffer)).map(Some).or_else(|_| {
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            Some(libc::ENODATA | libc::ERANGE) => Ok(None),
            _ => Err(error),
        }
    })
}

/// Looks up `path` (`bucket`, `bucket/dir` or `bucket/dir/name`) in the data directory `root`.
pub fn stat(root: &Path, path: &str) -> io::Result<Stat> {
    let file = root.join(path);
    let found = match std::fs::symlink_metadata(&file) {
        Ok(found) => found,
        Err(e) if is_absent(&e) => return Ok(Stat::Absent),
        Err(e) => return Err(e),
    };
    let (mtime, mode) = (mtime_of(&found), key_mode(found.mode()));
    if found.is_dir() {
        return match DirRecord::read(&file) {
            Ok(record) => {
                Ok(Stat::Dir { mtime: record.mtime.unwrap_or(mtime), mode: record.mode.map_or(DIR_MODE, u32::from) })
            }
            Err(e) if is_absent(&e) => Ok(Stat::Absent),
            Err(e) => Err(e),
        };
    }
    match recorded_at(&file) {
        Ok(Some(checksum)) => Ok(Stat::Key(KeyStat { checksum, mtime, mode })),
        Ok(None) => Ok(Stat::Absent),
        // Deleted between the two system calls.
        Err(e) if is_absent(&e) => Ok(Stat::Absent),
        Err(e) => Err(e),
    }
}

/// The bit in a file's mode that says: the owner can read the file, but not the key. The daemon must be able to read
/// every key.
const HIDDEN_READ: u32 = 0o1000;

/// The file's mode for a key with `mode`.
pub fn file_mode(mode: u32) -> u32 {
    let shown = mode & 0o555;
    if shown & 0o400 == 0 { shown | 0o400 | HIDDEN_READ } else { shown }
}

/// The key's mode for a file with mode `file`.
pub fn key_mode(file: u32) -> u32 {
    let shown = if file & HIDDEN_READ == 0 { 0o555 } else { 0o155 };
    file & shown
}

/// The identity of a data directory. If the directory is moved, removed or unmounted, its path has another directory or
/// none. Then its keys are not absent, but unknown.
#[derive(Debug, Clone)]
pub struct FoundDir {
    path: PathBuf,
    identity: (u64, u64, Option<SystemTime>),
}

impl FoundDir {
    pub fn find(path: PathBuf) -> io::Result<Self> {
        let identity = identity(&path)?;
        Ok(Self { path, identity })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The device that contained it.
    pub fn device(&self) -> u64 {
        self.identity.0
    }

    /// True if the path still leads to it. One system call. Must be called before a key is reported absent.
    pub fn is_there(&self) -> bool {
        identity(&self.path).is_ok_and(|found| found == self.identity)
    }
}

/// Device, inode and creation time: inode numbers are reused soon.
fn identity(path: &Path) -> io::Result<(u64, u64, Option<SystemTime>)> {
    let found = std::fs::metadata(path)?;
    Ok((found.dev(), found.ino(), found.created().ok()))
}

/// True for errors of a path that does not exist.
pub fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// The mtime in nanoseconds since 1970, clamped to the range of the type.
pub fn mtime_of(found: &fs::Metadata) -> i64 {
    found.mtime().saturating_mul(1_000_000_000).saturating_add(found.mtime_nsec())
}

/// Decides when the writer of a key checks the free space.
#[derive(Debug, Default)]
pub struct SpaceChecks(Cell<u64>);

impl SpaceChecks {
    /// Bytes between two checks.
    const INTERVAL: u64 = 16 << 20;

    /// True if a check is due after `written` bytes.
    pub fn is_due(&self, written: u64) -> bool {
        let is_due = written - self.0.get() >= Self::INTERVAL;
        if is_due {
            self.0.set(written);
        }
        is_due
    }
}

/// Directories in a data directory for unnamed files, used in turn. ext4 puts each into another block group; with
/// recently deleted files spread over groups, creating a file skips fewer of them.
pub const DRAFT_DIRS: usize = 16;

/// A directory for unnamed files in the data directory `root`. `number` counts the files.
pub fn draft_dir(root: &Path, number: usize) -> PathBuf {
    root.join(".s4/drafts").join((number % DRAFT_DIRS).to_string())
}

/// An unnamed file that will become a key. `dir` is a data directory, or any other if it has no directories for unnamed
/// files.
pub fn draft(dir: &Path) -> io::Result<File> {
    static MADE: AtomicUsize = AtomicUsize::new(0);
    unnamed_file(&draft_dir(dir, MADE.fetch_add(1, Ordering::Relaxed))).or_else(|_| unnamed_file(dir))
}

/// Tries the features that every publish needs, so that a file system without them is refused at the start.
pub fn probe(root: &Path) -> std::result::Result<(), String> {
    let file = draft(root).map_err(|e| {
        format!("its file system cannot make unnamed temporary files (O_TMPFILE): {}", crate::error::reason(&e))
    })?;
    xattr::FileExt::set_xattr(&file, KEY_ATTRIBUTE, b"probe")
        .map_err(|e| format!("its file system cannot hold extended attributes: {}", crate::error::reason(&e)))
}

/// An unnamed temporary file in `dir`, open for reading and writing. It can be linked to a name in the same file
/// system.
pub fn unnamed_file(dir: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).custom_flags(libc::O_TMPFILE).mode(0o600).open(dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mode_is_shown_as_it_was_given_and_readable_on_disk() {
        for mode in 0..0o10000 {
            assert_eq!(key_mode(file_mode(mode)), mode & 0o555, "{mode:o}");
            assert_eq!(file_mode(mode) & 0o6600, 0o400, "{mode:o}");
        }
        assert_eq!(file_mode(0o644), 0o444, "the usual ones are as they are");
    }
}
