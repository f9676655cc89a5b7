//! The error of sending a file: either the file or the connection has failed.

use crate::error::Error;
use nix::errno::Errno;

/// Why a file was not sent.
#[derive(Debug)]
pub enum SendError {
    /// The file could not be read.
    File(std::io::Error),
    Other(Error),
}

impl From<Error> for SendError {
    fn from(error: Error) -> Self {
        Self::Other(error)
    }
}

/// True for errors that only a socket returns, and never a file.
pub(super) fn is_of_socket(errno: Errno) -> bool {
    use Errno::*;
    matches!(
        errno,
        EAGAIN
            | EINTR
            | EPIPE
            | ECONNRESET
            | ECONNABORTED
            | ENOTCONN
            | ETIMEDOUT
            | EHOSTUNREACH
            | ENETUNREACH
            | ENETDOWN
    )
}
