//! Reading a key: its open file, and its record.

use super::core::Store;
use super::watches::Watch;
use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, openat2};
use s4::attribute::KeyRecord;
use s4::checksum::Checksum;
use s4::error::{Error, ErrorKind, Result};
use s4::key::Key;
use s4::pattern::Pattern;
use s4::protocol::{KeyHead, KeyStat, Made, Metadata, Stat};
use s4::stored;
use std::fs::{File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A key open for reading.
#[derive(Debug)]
pub struct Opened {
    pub file: File,
    /// As recorded at its publish. Readers compare the bytes with it.
    pub checksum: Checksum,
    has_metadata: bool,
}

impl Opened {
    /// True if the key has metadata, which then must be read from the disk.
    pub fn has_metadata(&self) -> bool {
        self.has_metadata
    }
}

impl Store {
    /// What `path` (`bucket`, `bucket/dir` or `bucket/dir/name`) is on this node.
    pub fn stat(&self, path: &str) -> Result<Stat> {
        let found = stored::stat(&self.root, path).map_err(|e| self.unreadable(format!("s4://{path}"), &e))?;
        if found == Stat::Absent {
            self.check_there()?;
        }
        Ok(found)
    }

    /// The time at which a key was made, and its checksum. If the key does not exist yet, the put of this number cannot
    /// make it any more.
    pub fn made(&self, key: &Key, put: Option<u64>) -> Result<Made> {
        {
            // Waits for a put that is about to give its file the name.
            let _naming = self.naming.lock(&self.path(key));
            put.inspect(|put| self.refused.add(*put));
        }
        let opened = self.open_key(key)?;
        let found = opened.file.metadata().map_err(|e| Error::io(key, &e))?;
        let changed = UNIX_EPOCH + Duration::new(found.ctime().max(0) as u64, found.ctime_nsec().max(0) as u32);
        let age = SystemTime::now().duration_since(changed).unwrap_or_default();
        let mtime = found.mtime().saturating_mul(1_000_000_000).saturating_add(found.mtime_nsec());
        Ok(Made { checksum: opened.checksum, mtime, age_ms: age.as_millis() as u64 })
    }

    /// Watches the keys of a merge name in `indir`.
    pub fn watch(&self, indir: &Pattern, merge_name: &str) -> Watch<'_> {
        self.watches.watch(indir, merge_name)
    }

    /// Errors: no such key; a file whose length differs from the recorded one.
    pub fn open_key(&self, key: &Key) -> Result<Opened> {
        self.misplaced(key)?;
        let file = match open_itself(&self.path(key)) {
            Ok(file) => file,
            Err(e) if stored::is_absent(&e) => return Err(self.absent(format_args!("{key}: no such key"))),
            Err(e) => return Err(self.unreadable(key, &e)),
        };
        self.opened(file, key)
    }

    /// The attributes and metadata of a key.
    pub fn head(&self, key: &Key) -> Result<KeyHead> {
        let opened = self.open_key(key)?;
        let found = opened.file.metadata().map_err(|e| self.unreadable(key, &e))?;
        let (mtime, mode) = (stored::mtime_of(&found), stored::key_mode(found.mode()));
        let metadata = self.metadata(key, &opened)?;
        Ok(KeyHead { stat: KeyStat { checksum: opened.checksum, mtime, mode }, metadata })
    }

    /// The metadata of an open key.
    pub fn metadata(&self, key: &Key, opened: &Opened) -> Result<Metadata> {
        if !opened.has_metadata {
            return Ok(Metadata::default());
        }
        let stored = stored::metadata(&opened.file).map_err(|e| self.unreadable(key, &e))?;
        stored.ok_or_else(|| {
            let message = format!("{key}: checksum error: its metadata is damaged; delete the key and make it again");
            Error::new(ErrorKind::Checksum, message)
        })
    }

    /// Opens a key without waiting for the disk, and reads it if it has at most `small` bytes. `None` if that needs the
    /// disk, or fails; [`open_key`](Self::open_key) then reports the error.
    pub fn read_at_once(&self, key: &Key, small: u64) -> Option<(Opened, Option<Vec<u8>>)> {
        self.misplaced(key).ok()?;
        let opened = self.opened(open_at_once(&self.path(key))?, key).ok()?;
        let bytes = match opened.checksum.len <= small {
            true => Some(read_at_once(&opened.file, opened.checksum.len as usize)?),
            false => None,
        };
        Some((opened, bytes))
    }

    fn opened(&self, file: File, key: &Key) -> Result<Opened> {
        let found = file.metadata().map_err(|e| self.unreadable(key, &e))?;
        if found.is_dir() {
            let message = format!("{key}: no such key, it is a directory ('s4 ls {key}/' lists it, cp -r copies it)");
            return Err(Error::new(ErrorKind::NotFound, message));
        }
        let recorded = stored::record(&file).map_err(|e| self.unreadable(key, &e))?;
        let KeyRecord { checksum, has_metadata, .. } = recorded.ok_or_else(|| not_ours(key))?;
        match checksum.len == found.len() {
            true => Ok(Opened { file, checksum, has_metadata }),
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

fn not_ours(key: &Key) -> Error {
    let message = format!("{key}: checksum error: no checksum is recorded, this file was not put by s4");
    Error::new(ErrorKind::Checksum, message)
}

/// Opens a file. Never follows a symbolic link in the last part of the path, and never waits for the other end of a
/// pipe.
pub(super) fn open_itself(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().read(true).custom_flags(nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK).open(path)
}

/// Like [`open_itself`], but only if the path is in the kernel's caches. The extended attributes are in the inode, so
/// they usually are cached too.
fn open_at_once(path: &Path) -> Option<File> {
    let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC | OFlag::O_NOATIME;
    let cached = ResolveFlag::from_bits_retain(nix::libc::RESOLVE_CACHED);
    openat2(AT_FDCWD, path, OpenHow::new().flags(flags).resolve(cached)).ok().map(File::from)
}

/// The first `len` bytes of a file if they are in the page cache.
fn read_at_once(file: &File, len: usize) -> Option<Vec<u8>> {
    let mut bytes: Vec<u8> = Vec::with_capacity(len);
    if len > 0 {
        let part = nix::libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: len };
        // SAFETY: the descriptor is open, and the buffer has room for `len` bytes.
        let read = unsafe { nix::libc::preadv2(file.as_raw_fd(), &part, 1, 0, nix::libc::RWF_NOWAIT) };
        if usize::try_from(read) != Ok(len) {
            return None;
        }
        // SAFETY: the kernel has just written so many bytes.
        unsafe { bytes.set_len(len) };
    }
    Some(bytes)
}
