//! Deleting keys, and the directories that they leave empty.

use super::{MADE_ATTRIBUTE, Selection, Store};
use nix::errno::Errno;
use nix::unistd::{UnlinkatFlags, unlinkat};
use s4::error::{Error, ErrorKind, Result};
use s4::key::{Key, Prefix};
use s4::protocol::Entry;
use s4::stored::record_at;
use std::fmt::Display;
use std::path::Path;

impl Store {
    /// Deletes a key. Its directories go too if they are empty then, unless `keep_dirs`.
    pub fn remove(&self, key: &Key, keep_dirs: bool) -> Result<()> {
        self.misplaced(key)?;
        let path = self.path(key);
        let absent = |why: &str| self.absent(format_args!("{key}: no such key{why}"));
        self.check_there()?;
        match self.unlink(&path) {
            Ok(()) => {}
            Err(Errno::EISDIR) => return Err(absent(", it is a directory (rm -r deletes those)")),
            Err(Errno::ENOENT | Errno::ENOTDIR) => return Err(absent("")),
            Err(errno) => return Err(failed(key, errno)),
        }
        if !keep_dirs {
            self.prune(&path);
        }
        Ok(())
    }

    /// Deletes a file of the data directory, and none outside it.
    fn unlink(&self, path: &Path) -> nix::Result<()> {
        let (dir, name) = self.data.open_parent(path)?;
        unlinkat(&dir, name, UnlinkatFlags::NoRemoveDir)
    }

    /// Deletes every key that begins with `prefix`, and tells `progress` how many so far. Stops if it returns false.
    pub fn remove_prefix(&self, prefix: &Prefix, mut progress: impl FnMut(u64) -> bool) -> Result<u64> {
        let mut deleted = 0;
        self.list(&Selection::Prefix { prefix, recursive: true, details: false }, &mut |entry| {
            let Entry::Key { path, .. } = entry else {
                return Ok(true);
            };
            let file = self.root.join(&path);
            match self.unlink(&file) {
                Ok(()) => deleted += 1,
                Err(Errno::ENOENT) => {}
                Err(errno) => return Err(failed(format!("s4://{path}"), errno)),
            }
            self.prune(&file);
            Ok(progress(deleted))
        })?;
        Ok(deleted)
    }

    /// Deletes the keys that begin with `prefix` and are marked as one of the `owners`', while `go_on` says so.
    pub fn remove_owned(&self, prefix: &Prefix, owners: &[u64], go_on: &mut dyn FnMut() -> bool) -> Result<()> {
        self.list(&Selection::Prefix { prefix, recursive: true, details: false }, &mut |entry| {
            let file = self.root.join(entry.path());
            let mark = record_at(&file).ok().flatten().and_then(|record| record.mark);
            if mark.is_some_and(|mark| owners.contains(&mark.job)) {
                self.unlink(&file).map_err(|errno| failed(format!("s4://{}", entry.path()), errno))?;
                self.prune(&file);
            }
            Ok(go_on())
        })
    }

    /// Removes the directories above `file` that are empty now. One that is in use, or was made by itself, stays, and so do
    /// those above it.
    pub(super) fn prune(&self, file: &Path) {
        let parents = file.ancestors().skip(1).take_while(|dir| *dir != self.root);
        for dir in parents {
            let made = matches!(xattr::get(dir, MADE_ATTRIBUTE), Ok(Some(_)));
            if made || std::fs::remove_dir(dir).is_err() {
                break;
            }
        }
    }
}

fn failed(key: impl Display, errno: Errno) -> Error {
    match errno {
        Errno::ELOOP => {
            Error::new(ErrorKind::Io, format!("{key}: a part of its path is a link, which is not followed"))
        }
        Errno::EXDEV => {
            Error::new(ErrorKind::Io, format!("{key}: it is in another file system, mounted in the data directory"))
        }
        errno => Error::io(key, &errno.into()),
    }
}
