//! A pipe through which splice(2) moves bytes from a socket to a file inside the kernel.

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, SpliceFFlags, fcntl, splice};
use nix::unistd::pipe2;
use std::fs::File;
use std::os::fd::OwnedFd;

/// The requested capacity of a pipe, in bytes: the maximum for users without privileges.
pub(super) const PIPE: usize = 1 << 20;

/// A pipe for splice(2).
pub struct Pipe {
    read: OwnedFd,
    pub(super) write: OwnedFd,
}

impl Pipe {
    pub fn new() -> std::io::Result<Self> {
        let (read, write) = pipe2(OFlag::O_CLOEXEC)?;
        // If the limit of the user is reached, the pipe keeps its default capacity.
        let _ = fcntl(&write, FcntlArg::F_SETPIPE_SZ(PIPE as i32));
        Ok(Self { read, write })
    }

    /// Appends the `len` bytes that are in the pipe to `file`.
    pub(super) fn empty_into(&self, file: &File, len: usize) -> std::io::Result<()> {
        let mut left = len;
        while left > 0 {
            match splice(&self.read, None, file, None, left, SpliceFFlags::empty()) {
                Ok(0) => return Err(std::io::ErrorKind::WriteZero.into()),
                Ok(n) => left -= n,
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }
}
