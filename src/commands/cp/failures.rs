//! What failed of many keys.

use crate::commands::console::say;
use s4::error::{Error, ErrorKind, ExitStatus, Result};

/// True if the node does not answer any more.
pub fn is_of_lost_node(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Deadline | ErrorKind::Unreachable)
}

/// Errors of many keys: each told at once on stderr, and the first kept for the exit status.
#[derive(Default)]
pub struct Failures(Option<Error>);

impl Failures {
    pub fn add(&mut self, error: Error) {
        match &mut self.0 {
            None => self.0 = Some(error),
            Some(_) => say(error),
        }
    }

    /// True once a node is lost: without it the copy cannot become whole, so it ends now and not when all else is copied.
    pub fn is_lost(&self) -> bool {
        self.0.as_ref().is_some_and(is_of_lost_node)
    }

    pub fn result(self) -> Result<ExitStatus> {
        match self.0 {
            None => Ok(ExitStatus::Done),
            Some(first) => Err(first),
        }
    }
}
