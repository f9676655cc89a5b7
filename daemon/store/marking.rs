//! Marks keys that were made by a map on another cluster.

use super::core::Store;
use super::publish::path_of;
use super::read::open_itself;
use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::unistd::linkat;
use s4::attribute::{KeyRecord, Mark};
use s4::checksum::{Checksum, hash};
use s4::error::{Error, ErrorKind, Result};
use s4::key::Key;
use s4::stored::{record, set_record};
use std::fs::{File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;

/// The directory for second names of keys that are made writable.
const MARKING: &str = ".s4/marking";

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
            // An earlier version may have left it writable.
            Some(found) if found == mark => make_read_only(&opened.file).map_err(|e| Error::io(key, &e)),
            Some(_) => refuse("a map of this cluster has made it"),
            None => {
                let record = KeyRecord { mark: Some(mark), ..found };
                self.write_record(key, &opened.file, &record).map_err(|e| Error::io(key, &e))
            }
        }
    }

    /// Only root can set attributes of a file that its owner may not write to. For another user it is made writable for
    /// a moment. Meanwhile it has a second name, by which the next start finds it if this process is killed.
    fn write_record(&self, key: &Key, file: &File, record: &KeyRecord) -> io::Result<()> {
        match set_record(file, record) {
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {}
            written => return written,
        }
        let second = self.root.join(MARKING).join(format!("{:016x}", hash(key.as_str().as_bytes())));
        // If an earlier attempt has failed, it is there already.
        let _ = std::fs::remove_file(&second);
        linkat(AT_FDCWD, path_of(file).as_str(), AT_FDCWD, &second, AtFlags::AT_SYMLINK_FOLLOW)?;
        let mode = file.metadata()?.permissions().mode();
        file.set_permissions(Permissions::from_mode(mode | 0o200))?;
        let written = set_record(file, record);
        make_read_only(file)?;
        std::fs::remove_file(&second).and(written)
    }

    /// Makes the keys read-only that a killed daemon has left writable.
    pub(super) fn end_marking(&self) -> io::Result<()> {
        for entry in std::fs::read_dir(self.root.join(MARKING))? {
            let path = entry?.path();
            make_read_only(&open_itself(&path)?)?;
            std::fs::remove_file(&path)?;
        }
        Ok(())
    }
}

/// Removes the write permissions, which no key has.
pub(super) fn make_read_only(file: &File) -> io::Result<()> {
    let mode = file.metadata()?.permissions().mode();
    match mode & 0o222 {
        0 => Ok(()),
        _ => file.set_permissions(Permissions::from_mode(mode & !0o222)),
    }
}
