//! A local file that gets its name only when it is complete. Until then it has no name, if the file system supports
//! that, so that a killed copy leaves nothing.

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::unistd::linkat;
use s4::error::{Error, ErrorKind, Result, reason};
use std::fs::{File, OpenOptions, Permissions};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use tempfile::{NamedTempFile, TempPath};

/// The prefix of temporary names.
const PREFIX: &str = ".s4.";
const MODE: u32 = 0o666;

pub enum Draft {
    Unnamed(File),
    Named(NamedTempFile),
}

impl Draft {
    /// Creates a file in the file system of `path`, and the missing directories of `path`.
    pub fn beside(path: &Path) -> Result<Self> {
        let dir = dir_of(path);
        let failed = |e: std::io::Error| Error::new(ErrorKind::Io, format!("{}: {}", path.display(), reason(&e)));
        std::fs::create_dir_all(dir).map_err(failed)?;
        let unnamed = OpenOptions::new().write(true).mode(MODE).custom_flags(libc::O_TMPFILE).open(dir);
        if let Ok(file) = unnamed {
            return Ok(Self::Unnamed(file));
        }
        let named = tempfile::Builder::new().prefix(PREFIX).permissions(Permissions::from_mode(MODE)).tempfile_in(dir);
        named.map(Self::Named).map_err(failed)
    }

    pub fn file(&self) -> &File {
        match self {
            Self::Unnamed(file) => file,
            Self::Named(file) => file.as_file(),
        }
    }

    /// Gives the file the name `path`. Replaces an existing file.
    pub fn keep(self, path: &Path) -> Result<()> {
        let kept = match self {
            Self::Named(file) => file.persist(path).map(drop).map_err(|e| e.error),
            Self::Unnamed(file) => match link(&file, path) {
                Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => replace(&file, path),
                linked => linked,
            },
        };
        kept.map_err(|e| match e.kind() {
            std::io::ErrorKind::IsADirectory => is_a_directory(path),
            _ => Error::io(path.display(), &e),
        })
    }

    /// Gives the file the name `path`. False if another file has that name; then nothing changes.
    pub fn keep_new(self, path: &Path) -> Result<bool> {
        let kept = match self {
            Self::Named(file) => file.persist_noclobber(path).map(drop).map_err(|e| e.error),
            Self::Unnamed(file) => link(&file, path),
        };
        match kept {
            Ok(()) => Ok(true),
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists && path.is_dir() => Err(is_a_directory(path)),
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => Ok(false),
            Err(e) => Err(Error::io(path.display(), &e)),
        }
    }
}

impl Write for Draft {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.file().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn is_a_directory(path: &Path) -> Error {
    Error::new(ErrorKind::Io, format!("{}: is a directory here, and cannot be a file too", path.display()))
}

fn dir_of(path: &Path) -> &Path {
    match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    }
}

fn link(file: &File, path: &Path) -> std::io::Result<()> {
    let own = format!("/proc/self/fd/{}", file.as_raw_fd());
    linkat(AT_FDCWD, own.as_str(), AT_FDCWD, path, AtFlags::AT_SYMLINK_FOLLOW).map_err(Errno::into)
}

/// link(2) never replaces a file, rename(2) does.
fn replace(file: &File, path: &Path) -> std::io::Result<()> {
    let made = tempfile::Builder::new().prefix(PREFIX).make_in(dir_of(path), |name| link(file, name))?;
    let name: TempPath = made.into_temp_path();
    name.persist(path).map_err(|e| e.error)
}
