//! Deleting a directory tree in the data directory, whatever a command has left in it.
//!
//! A nested directory is moved to the top of the tree before it is emptied. So there is no recursion, and no limit on
//! depth, path length or open descriptors. Links are not followed. File systems mounted in the tree are unmounted;
//! where that is not permitted, they are left alone.
//!
//! A deletion that takes long is continued in the background: the tree is moved to `.s4/trash` and deleted by a thread,
//! also after a restart. No task, request or start waits for it.

use super::data_dir::{DataDir, open_within};
use crate::mounts;
use nix::dir::{Dir, Type};
use nix::errno::Errno;
use nix::fcntl::{OFlag, RenameFlags, renameat2};
use nix::sys::stat::{Mode, fchmod, fstat};
use nix::unistd::{UnlinkatFlags, unlinkat};
use s4::time::now_milliseconds;
use std::ffi::{CStr, CString};
use std::fs::Permissions;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Names held in memory at a time.
const BATCH: usize = 1024;
/// Limit of batches of one directory, in case a process keeps filling it.
const BATCHES: usize = 1 << 20;
/// Limit of rounds of unmounting, in case a process keeps mounting.
const ROUNDS: usize = 100;

/// How long a caller waits for a deletion.
const WAIT: Duration = Duration::from_secs(1);

const DIRECTORY: OFlag = OFlag::O_RDONLY.union(OFlag::O_DIRECTORY);

impl DataDir {
    /// Deletes all entries of the directory `path`. Blocks for [`WAIT`] at most. Errors: not found; timed out; an entry
    /// cannot be deleted.
    pub fn empty(&self, path: &Path) -> io::Result<()> {
        self.empty_until(path, Some(Instant::now() + WAIT))
    }

    fn empty_until(&self, path: &Path, until: Option<Instant>) -> io::Result<()> {
        self.unmounting(path, || {
            let (parent, name) = self.open_parent(path)?;
            empty(&mut Dir::from_fd(open_to_empty(parent.as_fd(), name)?)?, until)
        })
    }

    /// Deletes `path` and everything in it. Blocks for [`WAIT`] at most: after that, the rest is moved to the trash and
    /// deleted later. Errors: not found; an entry cannot be deleted.
    pub fn remove_tree(self: &Arc<Self>, path: &Path) -> io::Result<()> {
        let until = Some(Instant::now() + WAIT);
        let removed = self.unmounting(path, || {
            let (parent, name) = self.open_parent(path)?;
            match open_to_empty(parent.as_fd(), name) {
                Err(Errno::ENOTDIR | Errno::ELOOP) => unlinkat(&parent, name, UnlinkatFlags::NoRemoveDir),
                dir => {
                    empty(&mut Dir::from_fd(dir?)?, until)?;
                    unlinkat(&parent, name, UnlinkatFlags::RemoveDir)
                }
            }
        });
        match removed {
            Err(error) if error.kind() == io::ErrorKind::TimedOut => self.discard(path),
            removed => removed,
        }
    }

    fn discard(self: &Arc<Self>, path: &Path) -> io::Result<()> {
        let name = {
            let mut state = self.trash.lock();
            state.1 += 1;
            format!("{}-{}", now_milliseconds(), state.1)
        };
        let (parent, from) = self.open_parent(path)?;
        let to = self.open_at(&self.trash.dir, OFlag::O_PATH | OFlag::O_DIRECTORY)?;
        renameat2(&parent, from, &to, name.as_str(), RenameFlags::RENAME_NOREPLACE)?;
        self.empty_trash();
        Ok(())
    }

    /// Starts a thread that empties the trash, unless it is empty or a thread is running.
    pub(super) fn empty_trash(self: &Arc<Self>) {
        let mut state = self.trash.lock();
        let has_any = std::fs::read_dir(&self.trash.dir).is_ok_and(|mut entries| entries.next().is_some());
        if state.0 || !has_any {
            return;
        }
        let data = self.clone();
        let work = move || {
            let emptied = data.empty_until(&data.trash.dir, None);
            data.trash.lock().0 = false;
            match emptied {
                // More may have been moved here meanwhile.
                Ok(()) => data.empty_trash(),
                Err(error) => tracing::warn!("cannot empty {}: {error}", data.trash.dir.display()),
            }
        };
        state.0 = std::thread::Builder::new().name("s4-trash".to_owned()).spawn(work).is_ok();
    }

    /// Calls `work`, and repeats it after unmounting whenever a mount stopped it.
    fn unmounting(&self, path: &Path, mut work: impl FnMut() -> nix::Result<()>) -> io::Result<()> {
        for _ in 0..ROUNDS {
            match work() {
                Err(Errno::EBUSY | Errno::EXDEV) => mounts::unmount_below(path)?,
                done => return done.map_err(Into::into),
            }
        }
        Err(Errno::EBUSY.into())
    }
}

/// Deletes all entries of `top`. Errors: ETIMEDOUT after `until`.
fn empty(top: &mut Dir, until: Option<Instant>) -> nix::Result<()> {
    let mut number = 0;
    each_entry(top, until, |top, name, is_dir| match remove(top, name, is_dir) {
        Err(Errno::ENOTEMPTY) => {
            let mut dir = Dir::from_fd(open_to_empty(top, name)?)?;
            each_entry(&mut dir, until, |dir, below, is_dir| match remove(dir, below, is_dir) {
                Err(Errno::ENOTEMPTY) => bring_up(dir, below, top, &mut number),
                removed => removed,
            })?;
            unlinkat(top, name, UnlinkatFlags::RemoveDir)
        }
        removed => removed,
    })
}

/// Calls `delete` with every entry of `dir` until there is none. Errors: the last failure, once every deletion fails.
fn each_entry(
    dir: &mut Dir,
    until: Option<Instant>,
    mut delete: impl FnMut(BorrowedFd, &CStr, bool) -> nix::Result<()>,
) -> nix::Result<()> {
    for _ in 0..BATCHES {
        let names = some_names(dir)?;
        let count = names.len();
        let failures = names.into_iter().filter_map(|(name, is_dir)| delete(dir.as_fd(), &name, is_dir).err());
        let failures: Vec<Errno> = failures.filter(|errno| *errno != Errno::ENOENT).collect();
        match failures.last() {
            Some(errno) if failures.len() == count => return Err(*errno),
            _ if count == 0 => return Ok(()),
            _ if until.is_some_and(|until| Instant::now() >= until) => return Err(Errno::ETIMEDOUT),
            _ => {}
        }
    }
    Err(Errno::ENOTEMPTY)
}

/// Up to [`BATCH`] names in `dir`, and whether each is a directory.
fn some_names(dir: &mut Dir) -> nix::Result<Vec<(CString, bool)>> {
    let entries = dir
        .iter()
        .filter(|entry| !entry.as_ref().is_ok_and(|entry| matches!(entry.file_name().to_bytes(), b"." | b"..")));
    let named = |entry: nix::dir::Entry| {
        (entry.file_name().to_owned(), matches!(entry.file_type(), Some(Type::Directory) | None))
    };
    entries.take(BATCH).map(|entry| entry.map(named)).collect()
}

/// Removes a file or an empty directory.
fn remove(at: BorrowedFd, name: &CStr, is_dir: bool) -> nix::Result<()> {
    let removed = match is_dir {
        true => unlinkat(at, name, UnlinkatFlags::RemoveDir),
        false => unlinkat(at, name, UnlinkatFlags::NoRemoveDir),
    };
    match removed {
        Err(Errno::ENOTDIR) => unlinkat(at, name, UnlinkatFlags::NoRemoveDir),
        Err(Errno::EISDIR | Errno::EEXIST) => Err(Errno::ENOTEMPTY),
        removed => removed,
    }
}

/// Moves the directory `name` of `dir` into `top`, under an unused name.
fn bring_up(dir: BorrowedFd, name: &CStr, top: BorrowedFd, number: &mut u64) -> nix::Result<()> {
    let mut is_open = false;
    loop {
        *number += 1;
        match renameat2(dir, name, top, number.to_string().as_str(), RenameFlags::RENAME_NOREPLACE) {
            Err(Errno::EEXIST) => {}
            // Moving a directory needs write permission for it.
            Err(Errno::EACCES) if !is_open => {
                open_to_empty(dir, name)?;
                is_open = true;
            }
            done => return done,
        }
    }
}

/// Opens a directory, and gives its owner the permissions that are needed to empty it, which a command may have
/// removed.
fn open_to_empty<P: ?Sized + nix::NixPath>(at: BorrowedFd, name: &P) -> nix::Result<OwnedFd> {
    let dir = match open_within(at, name, DIRECTORY) {
        Err(Errno::EACCES) => {
            let unreadable = open_within(at, name, OFlag::O_PATH | OFlag::O_DIRECTORY)?;
            let itself = format!("/proc/self/fd/{}", unreadable.as_raw_fd());
            std::fs::set_permissions(itself, Permissions::from_mode(0o700)).map_err(|_| Errno::EACCES)?;
            open_within(at, name, DIRECTORY)?
        }
        opened => opened?,
    };
    let mode = fstat(&dir)?.st_mode;
    if mode & 0o700 != 0o700 {
        fchmod(&dir, Mode::from_bits_truncate(mode & 0o777 | 0o700))?;
    }
    Ok(dir)
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::stat::{FchmodatFlags, fchmodat, mkdirat};
    use std::os::unix::fs::symlink;

    /// Where directories are made and deleted quickly.
    fn in_memory() -> tempfile::TempDir {
        tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
    }

    fn data_fd(path: &Path) -> OwnedFd {
        std::fs::File::open(path).unwrap().into()
    }

    /// So many directories, each in the one before, from `top` on.
    fn nest(top: &Path, depth: usize) {
        let mut dir = OwnedFd::from(std::fs::File::open(top).unwrap());
        for _ in 0..depth {
            mkdirat(&dir, "d", Mode::S_IRWXU).unwrap();
            dir = open_within(&dir, "d", DIRECTORY).unwrap();
        }
    }

    #[test]
    fn directories_nested_by_the_ten_thousand_are_deleted_on_a_small_stack() {
        let dir = in_memory();
        let data = DataDir::open(dir.path().to_owned()).unwrap();
        let tree = dir.path().join("tree");
        std::fs::create_dir(&tree).unwrap();
        for depth in [0, 1, 16_000, 100_000] {
            nest(&tree, depth);
            let empty = || data.empty_until(&tree, None).unwrap();
            std::thread::scope(|scope| {
                std::thread::Builder::new().stack_size(128 << 10).spawn_scoped(scope, empty).unwrap();
            });
            assert_eq!(std::fs::read_dir(&tree).unwrap().count(), 0);
        }
    }

    #[test]
    fn a_slow_deletion_continues_in_the_background() {
        let dir = in_memory();
        let data = Arc::new(DataDir::open(dir.path().to_owned()).unwrap());
        std::fs::create_dir_all(dir.path().join(".s4/trash")).unwrap();
        let trees = [dir.path().join("a"), dir.path().join("b")];
        for tree in &trees {
            std::fs::create_dir(tree).unwrap();
            nest(tree, 1000);
        }
        let late = empty(
            &mut Dir::from_fd(open_within(data_fd(dir.path()), "a", DIRECTORY).unwrap()).unwrap(),
            Some(Instant::now()),
        );
        assert_eq!(late, Err(Errno::ETIMEDOUT));
        for tree in &trees {
            data.discard(tree).unwrap();
            assert!(!tree.exists());
        }
        let began = Instant::now();
        while std::fs::read_dir(dir.path().join(".s4/trash")).unwrap().count() > 0 {
            assert!(began.elapsed() < Duration::from_secs(30), "the trash is not emptied");
            std::thread::yield_now();
        }
    }

    #[test]
    fn links_are_deleted_and_not_followed() {
        let (dir, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let data = Arc::new(DataDir::open(dir.path().to_owned()).unwrap());
        std::fs::write(outside.path().join("file"), "kept").unwrap();
        let tree = dir.path().join("tree");
        std::fs::create_dir_all(tree.join("d/e")).unwrap();
        for link in ["link", "d/link", "d/e/link"] {
            symlink(outside.path(), tree.join(link)).unwrap();
        }
        data.empty(&tree).unwrap();
        assert_eq!(std::fs::read_dir(&tree).unwrap().count(), 0);
        std::fs::remove_dir(&tree).unwrap();
        symlink(outside.path(), &tree).unwrap();
        data.empty(&tree).unwrap_err();
        data.empty(&tree.join("x")).unwrap_err();
        data.remove_tree(&tree.join("x")).unwrap_err();
        data.remove_tree(&tree).unwrap();
        assert!(!tree.is_symlink());
        assert_eq!(std::fs::read_to_string(outside.path().join("file")).unwrap(), "kept");
    }

    #[test]
    fn taken_names_and_missing_permissions_do_not_prevent_a_deletion() {
        let dir = tempfile::tempdir().unwrap();
        let data = Arc::new(DataDir::open(dir.path().to_owned()).unwrap());
        let tree = dir.path().join("tree");
        for below in ["1/1/1/1", "1/2/1", "2/1/2", "3", "d/e/f/g"] {
            std::fs::create_dir_all(tree.join(below)).unwrap();
            std::fs::write(tree.join(below).join("4"), "x").unwrap();
        }
        for closed in ["d/e/f/g", "d/e/f", "d/e", "d", "1/1"] {
            let at = OwnedFd::from(std::fs::File::open(&tree).unwrap());
            let _ = fchmodat(&at, closed, Mode::empty(), FchmodatFlags::FollowSymlink);
        }
        for name in 0..2 * BATCH {
            std::fs::write(tree.join("2").join(name.to_string() + "_x"), "").unwrap();
        }
        data.remove_tree(&tree).unwrap();
        assert!(!tree.exists());
        assert_eq!(data.remove_tree(&tree).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
