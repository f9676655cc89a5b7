//! The mount point: what the machine needs for a mount, dead mounts, and remounts.

use crate::adapter;
use crate::options::MountOptions;
use nix::errno::Errno;
use s4::error::{Error, ErrorKind, Result, reason};
use s4::mounts;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What the kernel reads ahead of a sequential reader, in KiB.
const READ_AHEAD: &str = "512";

/// The absolute path of `dir`, which is created if it is absent. A dead mount of a process that was killed is
/// unmounted.
pub fn prepare(dir: &Path) -> Result<PathBuf> {
    if !Path::new("/dev/fuse").exists() {
        return Err(Error::new(
            ErrorKind::Config,
            "/dev/fuse is missing: load the kernel's module with 'modprobe fuse'",
        ));
    }
    if !nix::unistd::geteuid().is_root() && !has_helper() {
        return Err(Error::new(ErrorKind::Config, "fusermount3 is missing: install the package fuse3"));
    }
    let failed = |e: std::io::Error| Error::new(ErrorKind::Config, format!("{}: {}", dir.display(), reason(&e)));
    for _ in 0..16 {
        // The directory is opened: for a dead mount, the kernel may answer stat(2) from its cache.
        match std::fs::read_dir(dir) {
            Err(e) if e.raw_os_error() == Some(Errno::ENOTCONN as i32) => mounts::unmount(dir, true)?,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => std::fs::create_dir_all(dir).map_err(failed)?,
            Err(e) if e.kind() == std::io::ErrorKind::NotADirectory && dir.exists() => {
                return Err(Error::new(ErrorKind::Config, format!("{}: is no directory", dir.display())));
            }
            Err(e) => return Err(failed(e)),
            Ok(_) => break,
        }
    }
    let path = dir.canonicalize().map_err(failed)?;
    match mounts::at(&path).is_some_and(|mounted| mounted.is_cluster) {
        true => Err(Error::new(
            ErrorKind::AlreadyExists,
            format!("{}: an s4 cluster is mounted there already", dir.display()),
        )),
        false => Ok(path),
    }
}

fn has_helper() -> bool {
    let found =
        Command::new("fusermount3").arg("-V").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    found.is_ok()
}

/// Why a mount failed, in one line.
pub fn explain(dir: &Path, error: &std::io::Error) -> Error {
    let hint = match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EACCES) if std::fs::File::open("/dev/fuse").is_err() => "; /dev/fuse is not open to this user",
        Some(Errno::EPERM | Errno::EACCES) => "; run it as root, or install fuse3 for its fusermount3",
        _ => "",
    };
    Error::new(ErrorKind::Config, format!("{}: cannot mount: {}{hint}", dir.display(), reason(error)))
}

/// The number of the file system that is mounted last on `dir`, as `MAJOR:MINOR`.
pub fn device(dir: &Path) -> Option<String> {
    mounts::at(dir).map(|mounted| mounted.device)
}

/// Changes the flags of the mount on `dir`, for `mount -o remount`.
pub fn remount(dir: &Path, options: &MountOptions) -> Result<()> {
    let failed = |why: &str| Error::new(ErrorKind::Config, format!("{}: cannot be remounted: {why}", dir.display()));
    let dir = mounts::resolve(dir).map_err(|e| failed(&reason(&e)))?;
    match mounts::at(&dir) {
        Some(mounted) if mounted.is_cluster => adapter::remount(&dir, options).map_err(|errno| failed(errno.desc())),
        _ => Err(failed("no s4 cluster is mounted there")),
    }
}

/// Unmounts `dir` if the mount is dead, which means that its connection to the kernel is broken. True if it was.
pub fn unmount_dead(dir: &Path) -> Result<bool> {
    match std::fs::read_dir(dir) {
        Err(e) if e.raw_os_error() == Some(Errno::ENOTCONN as i32) => mounts::unmount(dir, true).map(|()| true),
        _ => Ok(false),
    }
}

/// Raises the kernel's readahead. Only root may do so; without it reading is a little slower.
pub fn read_ahead(device: &str) {
    if let Err(error) = std::fs::write(format!("/sys/class/bdi/{device}/read_ahead_kb"), READ_AHEAD) {
        tracing::debug!("the kernel's readahead stays: {error}");
    }
}
