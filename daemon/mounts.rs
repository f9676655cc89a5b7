//! Finds file systems that commands have left mounted in their directories, and unmounts them as far as this process is
//! permitted.

use nix::errno::Errno;
use nix::mount::{MntFlags, umount2};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

const TABLE: &str = "/proc/self/mountinfo";

/// The mount points below a directory. A check takes one system call unless something was mounted or unmounted
/// meanwhile.
pub struct Mounts {
    dir: PathBuf,
    /// Guards the result of the last search, and the kernel's mount table, which reports changes.
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// `None` if /proc has no mount table.
    table: Option<File>,
    found: Vec<PathBuf>,
}

impl Mounts {
    /// Searches below `dir`.
    pub fn new(dir: PathBuf) -> Self {
        let mut state = State { table: File::open(TABLE).ok(), found: Vec::new() };
        state.read(&dir);
        Self { dir, state: Mutex::new(state) }
    }

    /// The first mount point that is `dir` or lies below it.
    pub fn find(&self, dir: &Path) -> Option<PathBuf> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.has_changed() {
            state.read(&self.dir);
        }
        state.found.iter().find(|point| point.starts_with(dir)).cloned()
    }
}

impl State {
    fn has_changed(&self) -> bool {
        let Some(table) = &self.table else {
            return false;
        };
        let mut fds = [PollFd::new(table.as_fd(), PollFlags::POLLPRI)];
        poll(&mut fds, PollTimeout::ZERO).is_ok_and(|changed| changed > 0)
    }

    fn read(&mut self, below: &Path) {
        let mut text = Vec::new();
        if let Some(table) = &mut self.table
            && table.rewind().is_ok()
            && table.read_to_end(&mut text).is_ok()
        {
            self.found = points_below(&text, below);
        }
    }
}

/// Unmounts everything at `dir` and below it. Errors: nothing could be unmounted; the error names the first mount
/// point.
pub fn unmount_below(dir: &Path) -> io::Result<()> {
    let points = points_below(&std::fs::read(TABLE)?, dir);
    let mut failed = None;
    let mut unmounted = 0;
    // In reverse order of mounting, so that no other mount is in or over the one that is unmounted.
    for point in points.iter().rev() {
        match unmount(point) {
            Ok(()) => unmounted += 1,
            Err(error) => failed = Some((point, error)),
        }
    }
    match failed {
        _ if unmounted > 0 => Ok(()),
        Some((point, error)) => {
            let left = format!("a file system is mounted at {} and cannot be unmounted: {error}", point.display());
            Err(io::Error::other(left))
        }
        None => Err(Errno::EBUSY.into()),
    }
}

fn unmount(point: &Path) -> io::Result<()> {
    match umount2(point, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
        // fusermount has the privilege to unmount FUSE mounts of ordinary users.
        Err(Errno::EPERM) => fusermount(point),
        done => done.map_err(Into::into),
    }
}

fn fusermount(point: &Path) -> io::Result<()> {
    let mut failed = Errno::EPERM.into();
    for program in ["fusermount3", "fusermount"] {
        let mut command = Command::new(program);
        command.args(["-u", "-z", "--"]).arg(point).stdin(Stdio::null()).stdout(Stdio::null());
        match command.output() {
            Ok(output) if output.status.success() => return Ok(()),
            Ok(output) => failed = io::Error::other(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => failed = error,
        }
    }
    Err(failed)
}

/// The mount points in a `mountinfo` table that are `dir` or lie below it, in the order of the table.
fn points_below(table: &[u8], dir: &Path) -> Vec<PathBuf> {
    let points = table.split(|&byte| byte == b'\n').filter_map(|line| line.split(|&byte| byte == b' ').nth(4));
    points.map(unescape).filter(|point| point.starts_with(dir)).collect()
}

/// The kernel escapes space, tab, newline and backslash as a backslash and three octal digits.
fn unescape(text: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [first, more @ ..] = rest {
        rest = more;
        match (first, more) {
            (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', more @ ..]) => {
                bytes.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
                rest = more;
            }
            _ => bytes.push(*first),
        }
    }
    OsString::from_vec(bytes).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_are_found_by_whole_names() {
        let table = b"1 0 8:1 / / rw - ext4 /dev/a rw\n2 1 8:1 /x /t/a rw - ext4 /dev/a rw\n\
            3 1 0:9 / /t/a/with\\040space\\134 rw,nosuid shared:1 - fuse x rw\n4 1 0:9 / /t/ab rw - fuse x rw\n";
        let found = points_below(table, Path::new("/t/a"));
        assert_eq!(found, [Path::new("/t/a"), Path::new("/t/a/with space\\")]);
    }
}
