//! Kinds of error, and what each means at every boundary: exit status, HTTP status, errno, wire code.

use crate::bounds;
use serde::{Deserialize, Deserializer, Serialize};
use std::fmt;

pub type Result<T> = std::result::Result<T, Error>;

/// What went wrong, as far as a caller can act on it. The kind travels over the wire as its snake_case name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// The command line asks for something that cannot be meant.
    Usage,
    /// A bucket, key, pattern or path breaks a rule of naming.
    BadName,
    /// The cluster file, or the daemon's own place in it, is wrong.
    Config,
    NotFound,
    AlreadyExists,
    /// A directory that is to go still holds something.
    NotEmpty,
    /// Bytes do not match their recorded checksum or length.
    Checksum,
    /// The node is below its free-space reserve, or its disk is full.
    NoSpace,
    /// No connection, or one that broke.
    Unreachable,
    /// The peer made no progress within the deadline.
    Deadline,
    /// The peer was started with another node list.
    ClusterMismatch,
    /// The key belongs to another node.
    WrongNode,
    /// The shared secret or an own header is missing, or a browser sent the request.
    Forbidden,
    /// The request is not one that the daemon serves.
    BadRequest,
    MethodNotAllowed,
    /// The request's body is larger than the route allows.
    TooLarge,
    /// The caller's body stalled.
    RequestTimeout,
    /// A user's command failed.
    Command,
    Cancelled,
    /// The daemon is going down.
    ShuttingDown,
    /// The daemon serves as many as it can.
    Busy,
    /// Whoever read our output is gone; nobody needs a message.
    OutputClosed,
    Io,
}

/// How a program ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitStatus {
    Done,
    Failed,
    Usage,
    /// The status of a command that `s4 eval` ran.
    Command(u8),
    /// The death by this signal that was asked for, so that a calling script ends too.
    Signal(i32),
}

impl ExitStatus {
    pub fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Command(code) => code,
            // As a shell has it, should the signal not end the program.
            Self::Signal(signal) => 128_u8.wrapping_add(signal as u8),
        }
    }
}

impl ErrorKind {
    pub fn exit_status(self) -> ExitStatus {
        match self {
            Self::Usage | Self::BadName => ExitStatus::Usage,
            Self::Config
            | Self::NotFound
            | Self::AlreadyExists
            | Self::NotEmpty
            | Self::Checksum
            | Self::NoSpace
            | Self::Unreachable
            | Self::Deadline
            | Self::ClusterMismatch
            | Self::WrongNode
            | Self::Forbidden
            | Self::BadRequest
            | Self::MethodNotAllowed
            | Self::TooLarge
            | Self::RequestTimeout
            | Self::Command
            | Self::Cancelled
            | Self::ShuttingDown
            | Self::Busy
            | Self::OutputClosed
            | Self::Io => ExitStatus::Failed,
        }
    }

    /// What a system call on the mount gives.
    pub fn errno(self) -> i32 {
        match self {
            Self::Usage | Self::BadName => libc::EINVAL,
            Self::NotFound => libc::ENOENT,
            Self::AlreadyExists => libc::EEXIST,
            Self::NotEmpty => libc::ENOTEMPTY,
            Self::NoSpace => libc::ENOSPC,
            Self::Forbidden => libc::EACCES,
            Self::Cancelled => libc::ECANCELED,
            Self::Config
            | Self::Checksum
            | Self::Unreachable
            | Self::Deadline
            | Self::ClusterMismatch
            | Self::WrongNode
            | Self::BadRequest
            | Self::MethodNotAllowed
            | Self::TooLarge
            | Self::RequestTimeout
            | Self::Command
            | Self::ShuttingDown
            | Self::Busy
            | Self::OutputClosed
            | Self::Io => libc::EIO,
        }
    }

    pub fn http_status(self) -> u16 {
        match self {
            Self::Usage | Self::BadName | Self::BadRequest => 400,
            Self::Forbidden => 403,
            Self::NotFound => 404,
            Self::MethodNotAllowed => 405,
            Self::RequestTimeout => 408,
            Self::AlreadyExists | Self::NotEmpty => 409,
            Self::ClusterMismatch => 412,
            Self::TooLarge => 413,
            Self::WrongNode => 421,
            Self::Command => 422,
            Self::Cancelled => 410,
            Self::Config | Self::Checksum | Self::OutputClosed | Self::Io => 500,
            Self::Unreachable => 502,
            Self::ShuttingDown | Self::Busy => 503,
            Self::Deadline => 504,
            Self::NoSpace => 507,
        }
    }
}

/// One line that names the key or node. It crosses the wire as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Error {
    #[serde(deserialize_with = "kind_of_peer")]
    kind: ErrorKind,
    /// The node that met it, as a message names it: `node 1 (10.0.0.1:8080)`.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "bounds::optional_line")]
    node: Option<String>,
    /// The key that was asked for, `bucket/dir/name`. The message names it where that helps.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "bounds::optional_line")]
    key: Option<String>,
    #[serde(deserialize_with = "bounds::line")]
    message: String,
    /// The daemon's own node list, with [`ErrorKind::ClusterMismatch`] only.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "bounds::lines")]
    nodes: Option<Vec<String>>,
    /// A connection broke off before an answer was whole.
    #[serde(skip)]
    broken_off: bool,
}

/// A kind as a peer says it. That nobody reads our output any more, no peer can know.
fn kind_of_peer<'de, D: Deserializer<'de>>(from: D) -> std::result::Result<ErrorKind, D::Error> {
    ErrorKind::deserialize(from).map(|kind| match kind {
        ErrorKind::OutputClosed => ErrorKind::Io,
        kind => kind,
    })
}

impl Error {
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        let mut message = message.into();
        if message.contains('\n') {
            message = message.replace('\n', "\\n");
        }
        Self { kind, node: None, key: None, message, nodes: None, broken_off: false }
    }

    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Usage, message)
    }

    /// A failed system call on `what`: a path, key or address.
    pub fn io(what: impl fmt::Display, error: &std::io::Error) -> Self {
        use std::io::ErrorKind as Io;
        let kind = match error.kind() {
            Io::NotFound => ErrorKind::NotFound,
            Io::AlreadyExists => ErrorKind::AlreadyExists,
            Io::StorageFull | Io::QuotaExceeded => ErrorKind::NoSpace,
            Io::BrokenPipe => ErrorKind::OutputClosed,
            _ => ErrorKind::Io,
        };
        Self::new(kind, format!("{what}: {}", reason(error)))
    }

    /// The same error with `nodes` as the daemon's view of the cluster.
    pub fn with_nodes(mut self, nodes: Vec<String>) -> Self {
        self.nodes = Some(nodes);
        self
    }

    /// The same error, met by `node`. If that only passes on what another has met, it names both.
    pub fn by(mut self, node: impl fmt::Display) -> Self {
        let node = node.to_string();
        match self.node.take() {
            Some(other) if other != node => self.message.insert_str(0, &format!("{other}: ")),
            Some(_) => {}
            None => {
                if let Some(rest) = self.message.strip_prefix(&node).and_then(|rest| rest.strip_prefix(": ")) {
                    self.message = rest.to_owned();
                }
            }
        }
        self.node = Some(node);
        self
    }

    /// The same error as a peer has sent it, which should have named itself.
    pub fn of_peer(self, who: impl fmt::Display) -> Self {
        if self.node.is_some() { self } else { self.by(who) }
    }

    /// The same error of a request for `key`.
    pub fn about(self, key: Option<String>) -> Self {
        Self { key: self.key.or(key), ..self }
    }

    /// What was asked for, if that was a key.
    pub fn key(&self) -> Option<&str> {
        self.key.as_deref()
    }

    /// The same error with more to say.
    pub fn with_more(mut self, more: &str) -> Self {
        self.message = format!("{}; {more}", self.message);
        self
    }

    /// The same error, of a connection that broke off. What changes nothing may be asked again then: its peer may just restart.
    pub fn of_broken_connection(mut self) -> Self {
        self.broken_off = true;
        self
    }

    pub fn is_of_broken_connection(&self) -> bool {
        self.broken_off
    }

    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The node that met it.
    pub fn node(&self) -> Option<&str> {
        self.node.as_deref()
    }

    pub fn nodes(&self) -> Option<&[String]> {
        self.nodes.as_deref()
    }
}

/// The text of a system error, without Rust's `(os error N)`.
pub fn reason(error: &std::io::Error) -> String {
    let text = error.to_string();
    match text.find(" (os error") {
        Some(at) => text[..at].to_owned(),
        None => text,
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.node {
            Some(node) => write!(f, "{node}: {}", self.message),
            None => f.write_str(&self.message),
        }
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_names_the_node_that_met_it_and_once() {
        let error = Error::new(ErrorKind::NotFound, "s4://b/k: no such key");
        let named = error.clone().by("node 1 (a:1)");
        assert_eq!(named.to_string(), "node 1 (a:1): s4://b/k: no such key");
        assert_eq!(named.clone().by("node 1 (a:1)"), named);
        assert_eq!(Error::new(ErrorKind::NotFound, named.to_string()).by("node 1 (a:1)"), named);
        assert_eq!(named.clone().of_peer("node 2 (a:2)"), named, "a peer has named itself");
        assert_eq!(named.by("node 0 (a:0)").to_string(), "node 0 (a:0): node 1 (a:1): s4://b/k: no such key");
        assert_eq!(error.of_peer("node 2 (a:2)").node(), Some("node 2 (a:2)"));
    }

    #[test]
    fn what_crosses_the_wire_is_fields() {
        let error = Error::new(ErrorKind::NoSpace, "full").by("node 1 (a:1)").about(Some("b/k".to_owned()));
        let json = r#"{"kind":"no_space","node":"node 1 (a:1)","key":"b/k","message":"full"}"#;
        assert_eq!(serde_json::to_string(&error).expect("JSON"), json);
        assert_eq!(serde_json::from_str::<Error>(json).expect("an error"), error);
        let hostile = r#"{"kind":"output_closed","node":"n\u001b[2J","message":"a\nb"}"#;
        let read = serde_json::from_str::<Error>(hostile).expect("an error");
        assert_eq!((read.kind(), read.to_string()), (ErrorKind::Io, "n\\u{1b}[2J: a\\nb".to_owned()));
    }
}
