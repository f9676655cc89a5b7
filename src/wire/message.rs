//! What a client asks over a connection, and what a node answers.

use crate::checksum::Checksum;
use crate::error::Error;
use crate::key::{Dir, Key};
use crate::protocol::{Change, Delivery, JobFile, Stat};
use serde::{Deserialize, Serialize};

/// What a client says. After [`Put`](Self::Put), [`Eval`](Self::Eval), [`Run`](Self::Run) and [`Try`](Self::Try) come data and their end. Each request gets one
/// response, in the order of the requests; a client may send several before it reads.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// What `path` (`bucket/dir/name`) is, of which the node is the home.
    Stat { path: Dir },
    /// The bytes of a key, or a part of them.
    Get {
        key: Key,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        part: Option<Part>,
    },
    /// To make a key of the data that follows.
    Put {
        key: Key,
        /// A number of this put's own, by which its sender can ask what became of it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        put: Option<u64>,
        /// The task that it is an output of.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        delivery: Option<Delivery>,
    },
    /// The end of a key's data.
    PutEnd(PutEnd),
    /// To run the command that follows as data, with the key as stdin, and with files that the node has in its directory.
    Eval {
        key: Key,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        files: Vec<JobFile>,
    },
    /// The same without a key.
    Run {
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        files: Vec<JobFile>,
    },
    /// To run the command of the job that follows as data, JSON, on the task of the key, and to publish nothing.
    Try { key: Key },
    /// The end of the data of an `Eval`, a `Run` or a `Try`.
    End,
}

impl Request {
    /// The key that is asked for, if it is one.
    pub fn key(&self) -> Option<&Key> {
        match self {
            Self::Get { key, .. } | Self::Put { key, .. } | Self::Eval { key, .. } | Self::Try { key } => Some(key),
            Self::Stat { .. } | Self::Run { .. } | Self::PutEnd(_) | Self::End => None,
        }
    }
}

/// What ends a put.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PutEnd {
    /// Of all bytes as they are to be stored.
    pub checksum: Checksum,
    /// What the key is born with.
    #[serde(default)]
    pub change: Change,
}

/// A part of a key as it was when it had this checksum. The node holds it open for ten minutes after the last request, also if it is
/// deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Part {
    pub checksum: Checksum,
    /// Whole [leaves](crate::blocks) are sent, from the one on that holds this byte.
    pub offset: u64,
    /// Up to the leaf that holds the last of so many bytes; to the key's end without it. With 0 the key is held open, and nothing
    /// is sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub len: Option<u64>,
    /// Make sure that the name still is this key: a deleted one is read on, but not opened again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub open: bool,
}

/// What a node says, where it does not say an error.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Response {
    Stat(Stat),
    /// The key's data follows, and then `End`. Of a part, each frame is a leaf, with the sum that was recorded for it.
    Key(Checksum),
    /// The put is published.
    Stored,
    /// How a command came to its end, whose streams came before.
    Exit(CommandEnd),
    /// The end of a key's data.
    End,
}

/// How a command that a client ran on a key came to its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CommandEnd {
    Exit(i32),
    Signal(i32),
    /// The command ran, but its input does not match its checksum, or s4 could not run it.
    Error(Error),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_look_as_documented() {
        let part = Part { checksum: Checksum { xxh3: 1, len: 6 }, offset: 0, len: Some(6), open: false };
        let get = Request::Get { key: Key::parse("b/0_k").expect("a key"), part: Some(part) };
        let json = r#"{"get":{"key":"b/0_k","part":{"checksum":"0000000000000001 6","offset":0,"len":6}}}"#;
        assert_eq!(serde_json::to_string(&get).expect("JSON"), json);
        assert_eq!(serde_json::from_str::<Request>(json).expect("a request"), get);
        assert_eq!(serde_json::to_string(&Response::Stored).expect("JSON"), r#""stored""#);
        assert_eq!(
            serde_json::to_string(&Response::Exit(CommandEnd::Exit(3))).expect("JSON"),
            r#"{"exit":{"exit":3}}"#
        );
    }

    #[test]
    fn a_name_that_no_key_has_is_no_request() {
        for json in [
            r#"{"get":{"key":"../x"}}"#,
            r#"{"stat":{"path":".s4/token"}}"#,
            r#"{"put":{"key":"b"}}"#,
            r#"{"get":{"key":"b/k","other":1}}"#,
            r#""none""#,
        ] {
            assert!(serde_json::from_str::<Request>(json).is_err(), "{json}");
        }
    }
}
