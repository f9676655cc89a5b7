//! Why a file does not go over a connection.

use crate::error::Error;
use nix::errno::Errno;

/// Why a file was not sent.
#[derive(Debug)]
pub enum SendError {
    /// It could not be read.
    File(std::io::Error),
    Other(Error),
}

impl From<Error> for SendError {
    fn from(error: Error) -> Self {
        Self::Other(error)
    }
}

/// True of errors that a socket gives, and no file.
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
