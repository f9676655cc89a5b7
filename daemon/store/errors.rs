//! Converts system errors at the path of a key to errors for the user. The kind of a system error is decided in
//! `Error::io`, not here.

use nix::errno::Errno;
use s4::error::{Error, ErrorKind};
use std::fmt::Display;

/// The error of a system call at the path of `key`.
pub(super) fn failed(key: impl Display, errno: Errno) -> Error {
    match errno {
        Errno::ELOOP => {
            Error::new(ErrorKind::Io, format!("{key}: a part of its path is a link, which is not followed"))
        }
        Errno::EXDEV => {
            Error::new(ErrorKind::Io, format!("{key}: it is in another file system, mounted in the data directory"))
        }
        errno => Error::io(key, &errno.into()),
    }
}

/// Like [`failed`], for an [`io::Error`](std::io::Error), which need not come from a system call.
pub(super) fn failed_io(key: impl Display, error: &std::io::Error) -> Error {
    match error.raw_os_error() {
        Some(code) => failed(key, Errno::from_raw(code)),
        None => Error::io(key, error),
    }
}

/// The error that a part of the path of `key` is a key.
pub(super) fn below_a_key(key: impl Display) -> Error {
    Error::new(ErrorKind::AlreadyExists, format!("{key}: a part of its path is a key, which cannot hold others"))
}
