//! Reading a file that others read or write through the same descriptor, and locking one.

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use std::borrow::Borrow;
use std::fs::File;
use std::os::unix::fs::FileExt;

/// Fills `block` from offset `at` on, as far as the file goes; returns how many bytes it got. Blocks.
pub fn read_full(file: &File, block: &mut [u8], at: u64) -> std::io::Result<usize> {
    let mut filled = 0;
    while filled < block.len() {
        match file.read_at(&mut block[filled..], at + filled as u64) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(filled)
}

/// Reads a file from a position of its own, and leaves the descriptor's alone.
pub struct AtPosition<F> {
    file: F,
    position: u64,
}

impl<F: Borrow<File>> AtPosition<F> {
    pub fn new(file: F, position: u64) -> Self {
        Self { file, position }
    }
}

impl<F: Borrow<File>> std::io::Read for AtPosition<F> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let n = self.file.borrow().read_at(buffer, self.position)?;
        self.position += n as u64;
        Ok(n)
    }
}

/// Locks `file` for this process alone, until it or the process ends; false if another process has it. It is a record lock,
/// which children do not inherit, so that one that is just being started does not hold a dead parent's lock.
pub fn lock(file: &File) -> std::io::Result<bool> {
    match fcntl(file, FcntlArg::F_SETLK(&whole_file())) {
        Ok(_) => Ok(true),
        Err(Errno::EAGAIN | Errno::EACCES) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

/// The process that has locked `file`, other than this one.
pub fn lock_holder(file: &File) -> std::io::Result<Option<i32>> {
    let mut asked = whole_file();
    fcntl(file, FcntlArg::F_GETLK(&mut asked))?;
    Ok((i32::from(asked.l_type) != libc::F_UNLCK).then_some(asked.l_pid))
}

fn whole_file() -> libc::flock {
    let (l_type, l_whence) = (libc::F_WRLCK as libc::c_short, libc::SEEK_SET as libc::c_short);
    libc::flock { l_type, l_whence, l_start: 0, l_len: 0, l_pid: 0 }
}
