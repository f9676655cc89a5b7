//! The two sides of a transfer, and what each calls an error of the other.

use crate::error::{Error, ErrorKind};
use std::time::Duration;

/// Which errors a broken or silent body gives, by the side that reads it.
#[derive(Clone, Copy)]
pub enum Side {
    Client,
    Server,
}

impl Side {
    /// The transfer with `who` ended before its end.
    pub fn broken(self, who: &str, error: &(dyn std::error::Error + 'static)) -> Error {
        let kind = match self {
            Self::Client => ErrorKind::Unreachable,
            Self::Server => ErrorKind::BadRequest,
        };
        Error::new(kind, format!("{who}: the transfer broke off: {}", root_cause(error)))
    }

    /// Nothing came from `who`, or it took nothing, for as long as is waited.
    pub fn silent(self, who: &str, deadline: Duration) -> Error {
        let kind = match self {
            Self::Client => ErrorKind::Deadline,
            Self::Server => ErrorKind::RequestTimeout,
        };
        Error::new(kind, format!("{who}: silent for {} s in a transfer", deadline.as_secs_f64()))
    }
}

/// The innermost cause of an error, as text.
pub fn root_cause(error: &(dyn std::error::Error + 'static)) -> String {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    match cause.downcast_ref::<std::io::Error>() {
        Some(io) => crate::error::reason(io),
        None => cause.to_string(),
    }
}
