//! Marks keys that were made by a map on another cluster.

use super::core::Store;
use s4::attribute::{KeyRecord, Mark};
use s4::checksum::Checksum;
use s4::error::{Error, ErrorKind, Result};
use s4::key::Key;
use s4::stored::{record, set_record};
use std::fs::{File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;

impl Store {
    /// Gives `mark` to a key whose content is `checksum`. Errors: the content differs, or another map has made the key.
    pub fn give_mark(&self, key: &Key, checksum: Checksum, mark: Mark) -> Result<()> {
        // Prevents that the name gets another key in between.
        let _naming = self.naming.lock(&self.path(key));
        let opened = self.open_key(key)?;
        let refuse = |why: &str| Err(Error::new(ErrorKind::AlreadyExists, format!("{key}: {why}")));
        if opened.checksum != checksum {
            return refuse("it is another key than the one whose provenance this is");
        }
        let found = record(&opened.file).map_err(|e| self.unreadable(key, &e))?.unwrap_or_else(|| checksum.into());
        match found.mark {
            // A daemon that was killed in `write` may have left it writable.
            Some(found) if found == mark => make_read_only(&opened.file).map_err(|e| Error::io(key, &e)),
            Some(_) => refuse("a map of this cluster has made it"),
            None => write(&opened.file, KeyRecord { mark: Some(mark), ..found }).map_err(|e| Error::io(key, &e)),
        }
    }
}

/// Only root can set attributes of a file that its owner may not write to. For another user it is made writable for a
/// moment.
fn write(file: &File, record: KeyRecord) -> io::Result<()> {
    match set_record(file, &record) {
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {}
        written => return written,
    }
    let mode = file.metadata()?.permissions().mode();
    file.set_permissions(Permissions::from_mode(mode | 0o200))?;
    let written = set_record(file, &record);
    make_read_only(file).and(written)
}

/// Removes the write permissions, which no key has.
pub(super) fn make_read_only(file: &File) -> io::Result<()> {
    let mode = file.metadata()?.permissions().mode();
    match mode & 0o222 {
        0 => Ok(()),
        _ => file.set_permissions(Permissions::from_mode(mode & !0o222)),
    }
}
