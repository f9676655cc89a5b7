//! Errors as users of the mount see them.

use nix::errno::Errno;
use s4::error::{Error, ErrorKind};

pub type Result<T> = std::result::Result<T, Errno>;

/// The errno of an error. Logs the error, because users see only its number; errors that the number explains fully are
/// not logged.
pub fn errno(error: &Error) -> Errno {
    let errno = Errno::from_raw(error.kind().errno());
    let is_ordinary = matches!(
        error.kind(),
        ErrorKind::NotFound | ErrorKind::AlreadyExists | ErrorKind::NotEmpty | ErrorKind::BadName
    );
    if !is_ordinary {
        tracing::warn!("{error}");
    }
    errno
}

pub fn io_errno(error: std::io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}
