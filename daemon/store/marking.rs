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
        match record(&opened.file).map_err(|e| self.unreadable(key, &e))?.and_then(|record| record.mark) {
            Some(found) if found == mark => Ok(()),
            Some(_) => refuse("a map of this cluster has made it"),
            None => write(&opened.file, KeyRecord { checksum, mark: Some(mark) }).map_err(|e| Error::io(key, &e)),
        }
    }
}

/// An ordinary user can only set attributes of a file that its owner may write to.
fn write(file: &File, record: KeyRecord) -> io::Result<()> {
    let mode = file.metadata()?.permissions().mode();
    file.set_permissions(Permissions::from_mode(mode | 0o200))?;
    let written = set_record(file, &record);
    file.set_permissions(Permissions::from_mode(mode)).and(written)
}
