//! Errors: their kinds, and the meaning of each kind at every boundary: exit status, HTTP status, errno, name on the
//! wire.

use crate::bounds;
use serde::de::IntoDeserializer;
use serde::{Deserialize, Deserializer, Serialize};
use std::fmt;

pub type Result<T> = std::result::Result<T, Error>;

/// The kind of an error, as far as a caller can act on it. It is sent over the wire as its snake_case name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// The command line is wrong.
    Usage,
    /// A bucket, key, pattern or path breaks a naming rule.
    BadName,
    /// The cluster file is wrong, or the daemon's own entry in it.
    Config,
    NotFound,
    AlreadyExists,
    /// The directory to be removed is not empty.
    NotEmpty,
    /// Bytes do not match their recorded checksum or length.
    Checksum,
    /// The node is below its free-space reserve, or its disk is full.
    NoSpace,
    /// No connection, or a broken one.
    Unreachable,
    /// The peer made no progress within the deadline.
    Deadline,
    /// The peer was started with a different node list.
    ClusterMismatch,
    /// The key belongs on another node.
    WrongNode,
    /// The request lacks the shared secret or s4's header, or comes from a browser.
    Forbidden,
    /// The daemon does not serve such a request.
    BadRequest,
    MethodNotAllowed,
    /// The request, or something that it names, is larger than a bound. What others have used up is [`Self::Busy`].
    TooLarge,
    /// The request's body made no progress.
    RequestTimeout,
    /// A user's command failed.
    Command,
    Cancelled,
    /// The daemon is ending.
    ShuttingDown,
    /// The daemon is serving as many requests as it can.
    Busy,
    /// The reader of this program's output is gone; nobody needs a message.
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
    /// Death by this signal, which a user or program has sent. A calling script then ends too.
    Signal(i32),
}

impl ExitStatus {
    pub fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Command(code) => code,
            // The status that a shell would report, in case the signal does not end the program.
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

    /// The errno that a system call on the mount returns.
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

/// An error in one line, which names the key or node. It is sent over the wire as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Error {
    #[serde(deserialize_with = "kind_of_peer")]
    kind: ErrorKind,
    /// The node on which the error occurred, as messages name it: `node 1 (10.0.0.1:8080)`.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "bounds::optional_line")]
    node: Option<String>,
    /// The requested key, `bucket/dir/name`. The message names it where that helps.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "bounds::optional_line")]
    key: Option<String>,
    #[serde(deserialize_with = "bounds::line")]
    message: String,
    /// The daemon's own node list; only for [`ErrorKind::ClusterMismatch`].
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "bounds::lines")]
    nodes: Option<Vec<String>>,
    /// The connection broke before the answer was complete.
    #[serde(skip)]
    broken_off: bool,
}

/// Parses a kind that a peer has sent. One that this program does not know, of a later version, becomes `Io`: the message
/// says the rest. A peer cannot know that the reader of this program's output is gone.
fn kind_of_peer<'de, D: Deserializer<'de>>(from: D) -> std::result::Result<ErrorKind, D::Error> {
    let name = bounds::line(from)?;
    Ok(match ErrorKind::deserialize(name.as_str().into_deserializer()) {
        Ok(ErrorKind::OutputClosed) | Err::<_, serde::de::value::Error>(_) => ErrorKind::Io,
        Ok(kind) => kind,
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

    /// Adds `nodes`, the daemon's node list.
    pub fn with_nodes(mut self, nodes: Vec<String>) -> Self {
        self.nodes = Some(nodes);
        self
    }

    /// Adds the node on which the error occurred. If `node` only passes on an error of another node, the message names
    /// both.
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

    /// Adds the name of the peer that has sent the error, in case the peer has not named itself.
    pub fn of_peer(self, who: impl fmt::Display) -> Self {
        if self.node.is_some() { self } else { self.by(who) }
    }

    /// Adds the key of the request.
    pub fn about(self, key: Option<String>) -> Self {
        Self { key: self.key.or(key), ..self }
    }

    /// The key of the request, if it had one.
    pub fn key(&self) -> Option<&str> {
        self.key.as_deref()
    }

    /// Appends `more` to the message.
    pub fn with_more(mut self, more: &str) -> Self {
        self.message = format!("{}; {more}", self.message);
        self
    }

    /// Marks the error as one of a broken connection. Requests that change nothing can then be repeated: the peer may
    /// just be restarting.
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

    /// The node on which the error occurred.
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
    fn an_error_names_its_node_once() {
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
    fn the_page_about_http_has_every_kind_and_its_status() {
        let page = include_str!("../docs/http.md");
        let table = page.split("| kind | status | meaning |").nth(1).expect("the table");
        let rows = table.lines().skip(2).take_while(|line| line.starts_with('|'));
        let mut kinds = 0;
        for row in rows {
            let mut cells = row.split('|').skip(1).map(str::trim);
            let (names, status) = (cells.next().expect("kinds"), cells.next().expect("a status"));
            for name in names.split(", ").map(|name| name.trim_matches('`')) {
                let kind: ErrorKind = serde_json::from_value(name.into()).expect(name);
                assert_eq!(kind.http_status().to_string(), status, "{name}");
                kinds += 1;
            }
        }
        assert_eq!(kinds, ErrorKind::Io as usize + 1, "the last kind's number tells how many there are");
    }

    #[test]
    fn an_error_crosses_the_wire_as_fields() {
        let error = Error::new(ErrorKind::NoSpace, "full").by("node 1 (a:1)").about(Some("b/k".to_owned()));
        let json = r#"{"kind":"no_space","node":"node 1 (a:1)","key":"b/k","message":"full"}"#;
        assert_eq!(serde_json::to_string(&error).expect("JSON"), json);
        assert_eq!(serde_json::from_str::<Error>(json).expect("an error"), error);
        let hostile = r#"{"kind":"output_closed","node":"n\u001b[2J","message":"a\nb"}"#;
        let read = serde_json::from_str::<Error>(hostile).expect("an error");
        assert_eq!((read.kind(), read.to_string()), (ErrorKind::Io, "n\\u{1b}[2J: a\\nb".to_owned()));
        let later = r#"{"kind":"of_a_later_version","message":"full of trees"}"#;
        let read = serde_json::from_str::<Error>(later).expect("an error");
        assert_eq!((read.kind(), read.to_string()), (ErrorKind::Io, "full of trees".to_owned()));
    }
}
