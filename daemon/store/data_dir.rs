//! The data directory as a descriptor. Paths are resolved below it without following links and without crossing mounts.
//! So nothing outside the directory is opened or deleted, whatever a command has left in it.

use super::trash::Trash;
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::unistd::syncfs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

/// Attempts to resolve a path while others rename its parts.
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

    /// Writes all dirty data of its file system to the disk (syncfs). Errors: also a write that failed at any time
    /// since the directory was opened. The kernel reports that once per open file, so the descriptor must stay open
    /// between syncs. Blocks.
    pub fn sync(&self) -> io::Result<()> {
        Ok(syncfs(&self.dir)?)
    }

    /// Opens `path`, which is in the data directory. Errors: EXDEV if the path crosses a mount; ELOOP if a part of it
    /// is a link.
    pub fn open_at(&self, path: &Path, flags: OFlag) -> nix::Result<OwnedFd> {
        let below = path.strip_prefix(&self.path).map_err(|_| Errno::EXDEV)?;
        open_within(&self.dir, if below.as_os_str().is_empty() { Path::new(".") } else { below }, flags)
    }

    /// Opens the parent directory of `path`; also returns the last part of `path`.
    pub fn open_parent<'p>(&self, path: &'p Path) -> nix::Result<(OwnedFd, &'p Path)> {
        let (parent, name) = path.parent().zip(path.file_name()).ok_or(Errno::EINVAL)?;
        Ok((self.open_at(parent, OFlag::O_PATH | OFlag::O_DIRECTORY)?, Path::new(name)))
    }
}

/// Opens `path` below the directory `at`, within the same mount and without following links.
pub fn open_within<P: ?Sized + nix::NixPath>(at: impl AsFd, path: &P, flags: OFlag) -> nix::Result<OwnedFd> {
    open_resolved(at, path, flags, ResolveFlag::RESOLVE_NO_SYMLINKS)
}

/// Like [`open_within`], but follows links that stay below `at`.
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
    // The kernel returns EAGAIN if a rename may have changed the path meanwhile.
    let mut attempts = (0..ATTEMPTS).map(|_| openat2(at.as_fd(), path, how));
    attempts.find(|opened| !matches!(opened, Err(Errno::EAGAIN | Errno::EINTR))).unwrap_or(Err(Errno::EAGAIN))
}
