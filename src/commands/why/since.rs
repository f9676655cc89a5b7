//! What has become of a task's input.

use s4::checksum::Checksum;
use s4::error::{ErrorKind, Result};
use s4::protocol::Provenance;

/// What has become of an input since a task read it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Since {
    Same,
    /// Another key has its name.
    Changed,
    Gone,
    /// Its node does not say.
    Unknown(String),
}

impl Since {
    /// Compares what was `read` with what there is now.
    pub fn of(read: Checksum, now: &Result<Provenance>) -> Self {
        match now {
            Ok(now) if now.checksum == read => Self::Same,
            Ok(_) => Self::Changed,
            Err(error) if error.kind() == ErrorKind::NotFound => Self::Gone,
            Err(error) => Self::Unknown(error.to_string()),
        }
    }
}
