//! Outputs that a command left in its task's directory: sealed as keys where they lie, and linked to their names, here or by
//! another node of the same machine.

use super::Store;
use super::publish::{KEY_MODE, allow_attributes, path_of};
use super::read::open_itself;
use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::unistd::{geteuid, linkat};
use s4::attribute::{KeyRecord, Mark};
use s4::checksum::{self, Checksum};
use s4::error::{Error, ErrorKind, Result};
use s4::key::Key;
use s4::protocol::{Change, HandedOver};
use s4::stored;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path};

/// A file that has all of a key but its name.
pub struct Sealed {
    pub inode: u64,
    pub checksum: Checksum,
}

impl Store {
    /// Gives a file that a command left in its directory all that an output has but the name, `key`. `None` if it has other
    /// names or is another user's: it may change then, and only its bytes can become a key.
    pub fn seal(&self, file: &File, key: &Key, mark: Mark) -> Result<Option<Sealed>> {
        let failed = |e: std::io::Error| Error::io(key, &e);
        let own = file.metadata().map_err(failed)?;
        let is_ours =
            own.is_file() && own.nlink() == 1 && own.dev() == self.found.device() && own.uid() == geteuid().as_raw();
        if !is_ours {
            return Ok(None);
        }
        let sums = checksum::sums_of_file(file).map_err(failed)?;
        allow_attributes(file, own.mode()).map_err(failed)?;
        self.complete(file, (&sums, Some(mark)), Change::default()).map_err(failed)?;
        Ok(Some(Sealed { inode: own.ino(), checksum: sums.checksum }))
    }

    /// Publishes an output that another node of this machine has sealed below `tasks`, where its tasks have their
    /// directories. Errors: bad request, if it is not as that node seals it.
    pub fn link_sealed(&self, tasks: &Path, output: &HandedOver, mark: Mark) -> Result<()> {
        let HandedOver { path, inode, key, checksum } = output;
        self.check_new(key)?;
        let refuse = |why: &str| Error::new(ErrorKind::BadRequest, format!("{key}: the file to be linked {why}"));
        let is_plain = Path::new(path).components().all(|part| matches!(part, Component::Normal(_)));
        let path = tasks.join(path);
        if !is_plain || !lies_below(tasks, &path).map_err(|_| refuse("is not there"))? {
            return Err(refuse("is not below the tasks"));
        }
        let file = open_itself(&path).map_err(|_| refuse("cannot be opened"))?;
        let failed = |e: std::io::Error| Error::io(key, &e);
        let found = file.metadata().map_err(failed)?;
        if !found.is_file()
            || found.nlink() != 1
            || found.mode() & 0o7777 != KEY_MODE
            || found.uid() != geteuid().as_raw()
        {
            return Err(refuse("is not as its node seals it"));
        }
        let is_announced = found.ino() == *inode && found.len() == checksum.len;
        let record = KeyRecord { checksum: *checksum, mark: Some(mark) };
        if !is_announced || stored::record(&file).map_err(failed)? != Some(record) {
            return Err(refuse("is another one"));
        }
        if self.fsync {
            file.sync_all().map_err(failed)?;
        }
        self.give_name(&(), &file, key, false)
    }

    /// Finds out whether files of `data`, another node's directory, can be linked here as this process's own.
    pub fn try_link_from(&self, data: &Path) -> std::io::Result<()> {
        if data.metadata()?.uid() != geteuid().as_raw() {
            return Err(std::io::Error::other("it is another user's"));
        }
        let made = stored::draft(data)?;
        // Where it is swept at the next start, should this process be killed now.
        let name = self.tasks_dir().join(format!("link-{}", made.as_raw_fd()));
        linkat(AT_FDCWD, path_of(&made).as_str(), AT_FDCWD, &name, AtFlags::AT_SYMLINK_FOLLOW)?;
        std::fs::remove_file(&name)
    }
}

/// True if a file really lies below `tasks`, where tasks have their directories.
fn lies_below(tasks: &Path, path: &Path) -> std::io::Result<bool> {
    let parent = path.parent().unwrap_or(path);
    // The usual case, told without a look at every part of the path: a task's directory is the daemon's own.
    let is_usual = parent.strip_prefix(tasks).is_ok_and(|parts| parts.components().count() == 2);
    match is_usual && std::fs::symlink_metadata(parent)?.is_dir() {
        true => Ok(true),
        false => Ok(path.canonicalize()?.starts_with(tasks)),
    }
}
