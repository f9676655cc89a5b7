//! The data directory as a descriptor. Whatever is opened or deleted from here is reached without following a link and
//! without crossing a mount, so that nothing outside the directory is touched, whatever a command has left in it.

use super::trash::Trash;
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::unistd::syncfs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

/// Attempts at a path that others rename meanwhile.
const ATTEMPTS: usize = 100;

pub struct DataDir {
    dir: OwnedFd,
    path: PathBuf,
    pub(super) trash: Trash,
}

impl DataDir {
    /// Errors: also a kernel without openat2 (before Linux 5.6).
    pub fn open(path: PathBuf) -> io::Result<Self> {
        let dir = OwnedFd::from(std::fs::File::open(&path)?);
        match open_within(&dir, Path::new("."), OFlag::O_PATH) {
            Err(Errno::ENOSYS) => Err(io::Error::other("the kernel has no openat2, which came with Linux 5.6")),
            Err(errno) => Err(errno.into()),
            Ok(_) => Ok(Self { dir, trash: Trash::new(&path), path }),
        }
    }

    /// Has its file system write all that it has in memory. Errors: also a write that failed at any time since this was opened, once; who
    /// opens the directory for each sync is not told of those that another sync has reported. Blocks.
    pub fn sync(&self) -> io::Result<()> {
        Ok(syncfs(&self.dir)?)
    }

    /// Opens what is at `path`, in the data directory. Errors: EXDEV, if a file system is mounted on the way; ELOOP, if a
    /// part of the path is a link.
    pub fn open_at(&self, path: &Path, flags: OFlag) -> nix::Result<OwnedFd> {
        let below = path.strip_prefix(&self.path).map_err(|_| Errno::EXDEV)?;
        open_within(&self.dir, if below.as_os_str().is_empty() { Path::new(".") } else { below }, flags)
    }

    /// The directory that holds `path`, and the last part of it.
    pub fn open_parent<'p>(&self, path: &'p Path) -> nix::Result<(OwnedFd, &'p Path)> {
        let (parent, name) = path.parent().zip(path.file_name()).ok_or(Errno::EINVAL)?;
        Ok((self.open_at(parent, OFlag::O_PATH | OFlag::O_DIRECTORY)?, Path::new(name)))
    }
}

/// Opens `path` below the directory `at`, itself and not what a link leads to, and in the same mount.
pub fn open_within<P: ?Sized + nix::NixPath>(at: impl AsFd, path: &P, flags: OFlag) -> nix::Result<OwnedFd> {
    open_resolved(at, path, flags, ResolveFlag::RESOLVE_NO_SYMLINKS)
}

/// The same, but follows links that stay below `at`.
pub fn open_linked<P: ?Sized + nix::NixPath>(at: impl AsFd, path: &P, flags: OFlag) -> nix::Result<OwnedFd> {
    open_resolved(at, path, flags, ResolveFlag::RESOLVE_NO_MAGICLINKS)
}

fn open_resolved<P: ?Sized + nix::NixPath>(
    at: impl AsFd,
    path: &P,
    flags: OFlag,
    links: ResolveFlag,
) -> nix::Result<OwnedFd> {
    let resolve = ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_XDEV | links;
    let how = OpenHow::new().flags(flags | OFlag::O_CLOEXEC).resolve(resolve);
    // The kernel says EAGAIN where a rename on the way left it in doubt.
    let mut attempts = (0..ATTEMPTS).map(|_| openat2(at.as_fd(), path, how));
    attempts.find(|opened| !matches!(opened, Err(Errno::EAGAIN | Errno::EINTR))).unwrap_or(Err(Errno::EAGAIN))
}
