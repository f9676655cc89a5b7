//! Why a request to S3 failed, as far as a caller can act on it.

use s4::error::{Error, ErrorKind};
use std::fmt;

/// Limit of characters of a server's own words.
const MAX_WORDS: usize = 300;

/// A failed request.
#[derive(Debug, Clone)]
pub struct Failure {
    pub reason: Reason,
    /// What the server or the connection said. No credential is in it.
    text: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    NotFound,
    /// A condition of the request does not hold.
    Precondition,
    /// The server is busy, and fewer requests help.
    Busy,
    /// The connection broke, the answer was cut, or the server failed: another attempt may succeed.
    Broken,
    /// Credentials that were good once.
    Expired,
    Forbidden,
    /// The bytes are not those that the server promised.
    Checksum,
    /// The bucket is in another region.
    Region,
    Other,
}

impl Failure {
    pub fn new(reason: Reason, text: impl Into<String>) -> Self {
        let text: String = text.into();
        let plain: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MAX_WORDS).collect();
        Self { reason, text: plain }
    }

    /// The failure that an answer with an error status is. `code` and `message` are those of its body, if it has one.
    pub fn of_answer(status: u16, code: &str, message: &str) -> Self {
        let reason = match (status, code) {
            (_, "SlowDown" | "ServiceUnavailable" | "Throttling" | "ThrottlingException" | "TooManyRequests")
            | (429 | 503, _) => Reason::Busy,
            (_, "ExpiredToken" | "ExpiredTokenException" | "TokenRefreshRequired") => Reason::Expired,
            (_, "RequestTimeout" | "RequestTimeTooSkewed" | "InternalError" | "IncompleteBody" | "BadDigest")
            | (500 | 502 | 504 | 408, _) => Reason::Broken,
            (_, "PermanentRedirect" | "AuthorizationHeaderMalformed" | "IllegalLocationConstraintException")
            | (301 | 307, _) => Reason::Region,
            (_, "ConditionalRequestConflict") | (412, _) => Reason::Precondition,
            (404, _) => Reason::NotFound,
            (401 | 403, _) => Reason::Forbidden,
            _ => Reason::Other,
        };
        let words = match (code, message) {
            ("", _) => format!("HTTP status {status}"),
            (code, "") => format!("{code} (HTTP status {status})"),
            (code, message) => format!("{code}: {message} (HTTP status {status})"),
        };
        Self::new(reason, words)
    }

    pub fn is_transient(&self) -> bool {
        match self.reason {
            Reason::Busy | Reason::Broken | Reason::Expired | Reason::Checksum | Reason::Region => true,
            Reason::NotFound | Reason::Precondition | Reason::Forbidden | Reason::Other => false,
        }
    }

    /// As an error about `subject`.
    pub fn about(&self, subject: impl fmt::Display) -> Error {
        let kind = match self.reason {
            Reason::NotFound => ErrorKind::NotFound,
            Reason::Precondition => ErrorKind::AlreadyExists,
            Reason::Busy => ErrorKind::Busy,
            Reason::Broken => ErrorKind::Unreachable,
            Reason::Expired | Reason::Forbidden => ErrorKind::Forbidden,
            Reason::Checksum => ErrorKind::Checksum,
            Reason::Region | Reason::Other => ErrorKind::BadRequest,
        };
        Error::new(kind, format!("{subject}: {self}"))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}
