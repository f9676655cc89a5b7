//! Operations for mounts: renames, changes of attributes, and linking of files that were handed over by descriptor.

use super::core::Store;
use super::errors::failed;
use super::publish::{Requester, apply, path_of};
use nix::errno::Errno;
use nix::fcntl::{RenameFlags, renameat2};
use nix::libc;
use nix::unistd::geteuid;
use s4::blocks::Table;
use s4::checksum::Checksum;
use s4::error::{Error, ErrorKind, Result};
use s4::hasher::Sums;
use s4::key::Key;
use s4::protocol::{Change, Handoff};
use std::fs::{File, OpenOptions};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

impl Store {
    /// Renames a key of this node to another name on this node, atomically, for `requester`. Refuses a name that is
    /// taken.
    pub fn rename(&self, requester: &impl Requester, from: &Key, to: &Key) -> Result<()> {
        self.misplaced(from)?;
        self.misplaced(to)?;
        requester.check(to)?;
        self.refuse_dir(to)?;
        let target = self.path(to);
        // If it fails, directories that were made for it are removed.
        self.rename_to(requester, from, to, &target).inspect_err(|_| self.prune(&target))
    }

    fn rename_to(&self, requester: &impl Requester, from: &Key, to: &Key, target: &Path) -> Result<()> {
        let source = self.path(from);
        // A delete may remove the target's directory before the rename; then both are repeated.
        for _ in 0..100 {
            if !source.symlink_metadata().is_ok_and(|found| found.is_file()) {
                return Err(self.absent(format_args!("{from}: no such key")));
            }
            self.hold_parent_of(to, requester.timeout())?;
            let _naming = self.naming.lock(target);
            match self.give_other_name(&source, target) {
                Err(Errno::ENOENT) => {}
                Ok(()) => {
                    self.synced.note_changed();
                    let synced = self.sync_above(target).and_then(|()| self.sync_above(&source));
                    return synced.map_err(|e| Error::io(to, &e));
                }
                Err(errno) => return Err(failed(to, errno)),
            }
        }
        Err(Error::new(ErrorKind::Io, format!("{to}: its directory is deleted again and again")))
    }

    fn give_other_name(&self, source: &Path, target: &Path) -> nix::Result<()> {
        let _leaving = self.leaving(source);
        let ((source, from), (target, to)) = (self.data.open_parent(source)?, self.data.open_parent(target)?);
        renameat2(&source, from, &target, to, RenameFlags::RENAME_NOREPLACE)
    }

    /// Changes a key's attributes. Write bits stay off, and the owner's read bit stays on.
    pub fn change(&self, key: &Key, change: Change) -> Result<()> {
        let opened = self.open_key(key)?;
        apply(&opened.file, change).map_err(|e| Error::io(key, &e))
    }

    /// Links a file that another process of this machine has open as a key, for `requester`. Errors: it is not the
    /// announced file.
    pub fn adopt(&self, requester: &impl Requester, key: &Key, handoff: &Handoff) -> Result<Checksum> {
        let refuse = |why: &str| Error::new(ErrorKind::BadRequest, format!("{key}: the file to be linked {why}"));
        // Files that this daemon has open itself must not be linked.
        if Path::new(&format!("/proc/self/task/{}", handoff.pid)).exists() {
            return Err(refuse("is this daemon's own"));
        }
        let path = format!("/proc/{}/fd/{}", handoff.pid, handoff.fd);
        // O_PATH does not open the file: opening a device may have effects, and a pipe may block.
        let there = OpenOptions::new().read(true).custom_flags(libc::O_PATH).open(path);
        let there = there.map_err(|_| refuse("cannot be opened here"))?;
        let found = there.metadata().map_err(|e| Error::io(key, &e))?;
        if (found.dev(), found.ino(), found.len()) != (handoff.device, handoff.inode, handoff.len) {
            return Err(refuse("is another one"));
        }
        if !found.is_file() || found.nlink() != 0 || found.dev() != self.found.device() {
            return Err(refuse("is not an unnamed file of the data directory's file system"));
        }
        // Only this user and root can create files in the data directory.
        if found.uid() != geteuid().as_raw() && found.uid() != 0 {
            return Err(refuse("is another user's"));
        }
        if handoff.checksum.is_some_and(|checksum| checksum.len != handoff.len) {
            return Err(refuse("has another length than its checksum"));
        }
        let file = File::open(path_of(&there)).map_err(|_| refuse("cannot be opened here"))?;
        let sums = handoff.checksum.map(|checksum| Sums {
            checksum,
            table: handoff.blocks.as_deref().and_then(|table| Table::decode(table, checksum)),
        });
        self.publish_file_for(requester, &file, key, (sums, handoff.metadata.clone()), handoff.change)
    }
}
