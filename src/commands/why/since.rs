//! Whether an input of a task has changed since.

use s4::checksum::Checksum;
use s4::error::{ErrorKind, Result};
use s4::protocol::Provenance;

/// The state of an input, compared with what the task has read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Since {
    Same,
    /// Another key has this name now.
    Changed,
    Gone,
    /// Its node does not answer.
    Unknown(String),
}

impl Since {
    /// Compares the checksum that was `read` with the current state.
    pub fn of(read: Checksum, now: &Result<Provenance>) -> Self {
        match now {
            Ok(now) if now.checksum == read => Self::Same,
            Ok(_) => Self::Changed,
            Err(error) if error.kind() == ErrorKind::NotFound => Self::Gone,
            Err(error) => Self::Unknown(error.to_string()),
        }
    }
}
