//! The requests of clients and the responses of nodes over a connection.

use crate::checksum::Checksum;
use crate::error::Error;
use crate::key::{Dir, Key};
use crate::protocol::{Attributes, Change, Delivery, JobFile, Metadata, Stat, UploadId, UploadPart};
use serde::{Deserialize, Serialize};

/// A request of a client. Data frames and their end follow a [`Put`](Self::Put), [`Move`](Self::Move), [`Eval`](Self::Eval),
/// [`Run`](Self::Run), [`Try`](Self::Try) or [`Complete`](Self::Complete). Each request gets one response, in the order of the requests. A client may
/// send several requests before it reads the first response.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// Asks the home node of `path` (`bucket/dir/name`) what the name stands for.
    Stat { path: Dir },
    /// Asks for the bytes of a key, or a part of them.
    Get {
        key: Key,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        part: Option<Part>,
    },
    /// Creates a key from the data that follows.
    Put(Put),
    /// Like `Put`, during a resize: the key of another node, as its file was there.
    Move { key: Key, len: u64, attributes: Attributes },
    /// The end of a key's data.
    PutEnd(PutEnd),
    /// Runs the command that follows as data, with the key as stdin. `files`, which the node has, are put into the
    /// directory of the command.
    Eval {
        key: Key,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        files: Vec<JobFile>,
    },
    /// Runs a command like `Eval`, but without a key.
    Run {
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        files: Vec<JobFile>,
    },
    /// Runs a task of the job that follows as data, in JSON: the task of this key. Publishes nothing.
    Try { key: Key },
    /// Joins the parts whose list follows as data, in JSON, to the key of an upload, with these attributes.
    Complete {
        key: Key,
        upload: UploadId,
        #[serde(default)]
        change: Change,
    },
    /// The end of the data of an `Eval`, a `Run`, a `Try` or a `Complete`.
    End,
    /// Asks whether the connection still works. The response is `End`.
    Ping,
}

impl Request {
    /// True if data frames follow.
    pub fn has_data(&self) -> bool {
        match self {
            Self::Put(_)
            | Self::Move { .. }
            | Self::Eval { .. }
            | Self::Run { .. }
            | Self::Try { .. }
            | Self::Complete { .. } => true,
            Self::Stat { .. } | Self::Get { .. } | Self::PutEnd(_) | Self::End | Self::Ping => false,
        }
    }

    /// The key of the request, if it has one.
    pub fn key(&self) -> Option<&Key> {
        match self {
            Self::Put(put) => Some(&put.key),
            Self::Get { key, .. }
            | Self::Move { key, .. }
            | Self::Eval { key, .. }
            | Self::Try { key }
            | Self::Complete { key, .. } => Some(key),
            Self::Stat { .. } | Self::Run { .. } | Self::PutEnd(_) | Self::End | Self::Ping => None,
        }
    }
}

/// The beginning of a put.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Put {
    pub key: Key,
    /// A random id of this put, by which the sender can later ask for its outcome.
    #[serde(default, rename = "put", skip_serializing_if = "Option::is_none")]
    pub number: Option<u64>,
    /// The task whose output the key is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivery: Option<Delivery>,
    /// What is kept with the key.
    #[serde(default, skip_serializing_if = "Metadata::is_empty")]
    pub metadata: Metadata,
    /// The data is not all of the key, but a part of an upload. The key is made when the upload is completed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub part: Option<UploadPart>,
}

/// The end of a put.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PutEnd {
    /// The checksum of all bytes as they are to be stored.
    pub checksum: Checksum,
    /// The attributes of the new key.
    #[serde(default)]
    pub change: Change,
}

/// A part of the key that has this checksum. The node keeps the key open for ten minutes after the last request, even
/// if the key is deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Part {
    pub checksum: Checksum,
    /// Only whole [leaves](crate::blocks) are sent. The first one is the leaf that holds this byte.
    pub offset: u64,
    /// How many bytes are asked for; the last leaf is the one that holds the last of them. `None`: all bytes up to the
    /// end of the key. With 0 nothing is sent, and the node only keeps the key open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub len: Option<u64>,
    /// True for an open: the name must still stand for this key. A deleted key can still be read by those who have it
    /// open, but not opened again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub open: bool,
}

/// A response of a node, unless it is an error.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Response {
    Stat(Stat),
    /// The data of the key follows, and then `End`. In a part, each frame is a leaf with its recorded checksum.
    Key(Checksum),
    /// The put is published.
    Stored,
    /// The upload is completed. The key has this checksum.
    Completed(Checksum),
    /// The exit status of a command, after its streams.
    Exit(CommandEnd),
    /// The end of a key's data, or the response to a `Ping`.
    End,
}

/// How a command ended that a client has run.
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
        let key = Key::parse("b/0_k").expect("a key");
        let put = Request::Put(Put { key, number: Some(7), delivery: None, metadata: Metadata::default(), part: None });
        assert_eq!(serde_json::to_string(&put).expect("JSON"), r#"{"put":{"key":"b/0_k","put":7}}"#);
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
