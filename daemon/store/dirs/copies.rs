//! This node's copies of directories and their records, on its disk.

use crate::store::core::Store;
use crate::store::errors::{failed, failed_io};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::{Mode, mkdirat};
use nix::unistd::{UnlinkatFlags, unlinkat};
use s4::directory::DirRecord;
use s4::error::{Error, ErrorKind, Result};
use s4::key::Dir;
use s4::placement::{NodeId, node_of_basename};
use s4::stored::is_absent;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

impl Store {
    /// The home node of the directory at `path`.
    pub(super) fn home_of(&self, path: &str) -> NodeId {
        node_of_basename(path.rsplit_once('/').map_or(path, |(_, name)| name), self.nodes)
    }

    /// Makes a copy of `dir`, if its parent is here.
    pub(super) fn make_copy(&self, dir: &Dir) -> Result<()> {
        match self.make_dir_at(&self.dir_path(dir)) {
            // Without its parent, the caller begins again.
            Ok(()) | Err(Errno::EEXIST | Errno::ENOENT) => self.sync_dir(dir).map_err(|e| failed_io(dir, &e)),
            Err(errno) => Err(failed(dir, errno)),
        }
    }

    /// True if there is a directory at `path`, and no part of `path` is a link.
    pub(super) fn has_copy(&self, path: &Path) -> bool {
        self.data.open_at(path, OFlag::O_PATH | OFlag::O_DIRECTORY).is_ok()
    }

    /// Removes an empty directory. Follows no links.
    pub(super) fn remove_copy(&self, path: &Path) -> nix::Result<()> {
        let (parent, name) = self.data.open_parent(path)?;
        unlinkat(&parent, name, UnlinkatFlags::RemoveDir)?;
        self.synced.note_changed();
        Ok(())
    }

    pub(super) fn make_dir_at(&self, path: &Path) -> nix::Result<()> {
        let (parent, name) = self.data.open_parent(path)?;
        mkdirat(&parent, name, Mode::S_IRWXU | Mode::S_IRWXG | Mode::S_IRWXO)
    }

    /// True if this node is the home of the directory at `path`, and mkdir made it.
    pub fn is_made(&self, path: &str) -> Result<bool> {
        if path.is_empty() || self.home_of(path) != self.node {
            return Ok(false);
        }
        match DirRecord::read(&self.root.join(path)) {
            Ok(record) => Ok(record.made),
            Err(e) if is_absent(&e) => Ok(false),
            Err(e) => Err(self.unreadable(path, &e)),
        }
    }

    /// Refuses a directory whose home is another node.
    pub(super) fn at_home(&self, dir: &Dir) -> Result<()> {
        match self.home_of(dir.as_str()) {
            home if home == self.node => Ok(()),
            home => Err(Error::new(ErrorKind::WrongNode, format!("{dir}: its home is node {home}"))),
        }
    }

    /// Changes the record of `dir`; it is written if `change` returns true. The table must be locked.
    pub(super) fn update(&self, dir: &Dir, change: impl FnOnce(&mut DirRecord) -> bool) -> Result<()> {
        let path = self.dir_path(dir);
        let updated = DirRecord::read(&path).and_then(|mut record| match change(&mut record) {
            true => record.write(&path),
            false => Ok(()),
        });
        updated.map_err(|e| self.unreadable(dir, &e))
    }

    /// With `--fsync`: syncs a directory with its record, and its parent with its name.
    pub(super) fn sync_dir(&self, dir: &Dir) -> io::Result<()> {
        if !self.fsync {
            return Ok(());
        }
        let path = self.dir_path(dir);
        for dir in path.ancestors().take(2) {
            match File::open(dir) {
                Ok(dir) => dir.sync_all()?,
                // Removed meanwhile.
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    pub(super) fn dir_path(&self, dir: &Dir) -> PathBuf {
        self.root.join(dir.as_str())
    }
}

/// True if the directory is empty, or cannot be read.
pub(super) fn is_empty(dir: &Path) -> bool {
    std::fs::read_dir(dir).map_or(true, |mut entries| entries.next().is_none())
}
