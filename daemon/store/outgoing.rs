//! The keys that a resize moves: which they are, their files as they are sent, and as they arrive on another node. A
//! file is moved as it is, with its attributes: a damaged key is still known to be damaged on its new node.

use super::core::Store;
use super::errors::failed;
use super::list::Selection;
use super::publish::{Requester, apply};
use super::read::open_itself;
use nix::errno::Errno;
use s4::attribute::KeyRecord;
use s4::blocks::BLOCKS_ATTRIBUTE;
use s4::error::{Error, ErrorKind, Result};
use s4::hasher::Sums;
use s4::key::Key;
use s4::placement::{NodeId, node_of};
use s4::protocol::{Attribute, Attributes, Change, Entry};
use s4::resize::Sizes;
use s4::stored::{self, key_mode, mtime_of};
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use xattr::FileExt;

/// A file of this node, and the nodes on which its key lies before and after a resize.
pub struct Placed {
    pub key: Key,
    pub len: u64,
    pub before: NodeId,
    pub after: NodeId,
}

/// A key's file that is to be sent to another node.
pub struct Outgoing {
    pub file: File,
    pub len: u64,
    pub attributes: Attributes,
    pub change: Change,
}

impl Store {
    /// Visits every file of this node whose path is a key's. `visit` ends the walk by returning false.
    pub fn placed(&self, sizes: Sizes, visit: &mut dyn FnMut(Placed) -> Result<bool>) -> Result<()> {
        self.list(&Selection::After(""), &mut |entry| {
            let Entry::Key { path, size, .. } = entry else { return Ok(true) };
            let Ok(key) = Key::parse(&path) else { return Ok(true) };
            let (before, after) = (node_of(&key, sizes.before), node_of(&key, sizes.after));
            visit(Placed { key, len: size, before, after })
        })
    }

    /// Opens a file that is to be sent. `None` if it does not exist any more.
    pub fn open_outgoing(&self, key: &Key) -> Result<Option<Outgoing>> {
        let opened = open_itself(&self.path(key)).and_then(|file| {
            let found = file.metadata()?;
            let change =
                Change { mode: Some(key_mode(found.mode())), mtime: Some(mtime_of(&found)), over_empty: false };
            Ok((attributes(&file)?, found.len(), file, change))
        });
        match opened {
            Ok((attributes, len, file, change)) => {
                let attributes =
                    Attributes::try_from(attributes).map_err(|e| Error::new(ErrorKind::Io, format!("{key}: {e}")))?;
                Ok(Some(Outgoing { file, len, attributes, change }))
            }
            Err(e) if stored::is_absent(&e) => self.check_there().map(|()| None),
            Err(e) => Err(self.unreadable(key, &e)),
        }
    }

    /// Deletes a file that is on the disk of another node now. Its directories stay until [`drop_moved_dirs`] takes
    /// them.
    ///
    /// [`drop_moved_dirs`]: Self::drop_moved_dirs
    pub fn remove_moved(&self, key: &Key) -> Result<()> {
        match self.unlink(&self.path(key)) {
            Ok(()) | Err(Errno::ENOENT) => Ok(()),
            Err(errno) => Err(failed(key, errno)),
        }
    }

    /// True if `key` has arrived here before, with these attributes and so many bytes. Errors: another file has its
    /// name.
    pub fn has_arrived(&self, key: &Key, attributes: &Attributes, len: u64) -> Result<bool> {
        let found = match open_itself(&self.path(key)) {
            Ok(file) => file.metadata().and_then(|found| Ok((self::attributes(&file)?, found))),
            Err(e) if stored::is_absent(&e) => return Ok(false),
            Err(e) => Err(e),
        };
        let (own, found) = found.map_err(|e| self.unreadable(key, &e))?;
        let is_equal = found.is_file()
            && len == found.len()
            && Attributes::try_from(own).is_ok_and(|own| own.record() == attributes.record());
        match is_equal {
            true => Ok(true),
            false => Err(Error::new(
                ErrorKind::AlreadyExists,
                format!("{key}: another file of this name lies here; remove one of the two on its node's disk"),
            )),
        }
    }

    /// Gives a file of another node the key's name. `sums` are those of its bytes.
    pub(super) fn publish_moved(
        &self,
        requester: &impl Requester,
        file: &File,
        (attributes, sums): (&Attributes, &Sums),
        key: &Key,
        change: Change,
    ) -> Result<()> {
        self.complete_moved(file, attributes, sums, change).map_err(|e| Error::io(key, &e))?;
        requester.check(key)?;
        self.give_name(requester, file, key, false)
    }

    fn complete_moved(&self, file: &File, attributes: &Attributes, sums: &Sums, change: Change) -> io::Result<()> {
        for Attribute { name, value } in attributes.iter() {
            file.set_xattr(name, value)?;
        }
        // A damaged key has no table that fits, so each read of a part of it is compared with the whole.
        let recorded = attributes.record().and_then(KeyRecord::decode).map(|record| record.checksum);
        if let Some(table) = sums.table.as_ref().filter(|_| recorded == Some(sums.checksum)) {
            stored::set_table(file, table, sums.checksum)?;
        }
        apply(file, change)?;
        if self.fsync {
            file.sync_all()?;
        }
        Ok(())
    }
}

/// The attributes that go with a file.
fn attributes(file: &File) -> io::Result<Vec<Attribute>> {
    let mut attributes = Vec::new();
    for name in file.list_xattr()? {
        let Some(name) = name.to_str().filter(|name| name.starts_with("user.s4.") && *name != BLOCKS_ATTRIBUTE) else {
            continue;
        };
        if let Some(value) = file.get_xattr(name)? {
            attributes.push(Attribute { name: name.to_owned(), value });
        }
    }
    attributes.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(attributes)
}
