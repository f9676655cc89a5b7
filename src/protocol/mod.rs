//! What crosses the wire besides keys' bytes: header names, routes, and the JSON and lines in bodies.

mod causes;
mod dirs;
mod failures;
mod job;
mod job_report;
mod listing;
pub mod node;
mod plan;
mod provenance;
mod to_name;

pub use dirs::Entered;
pub use failures::{FailedTask, FailureGroup, FailureGroups};
pub use job::{CommandText, Delivery, JobFile, JobId, JobSpec, MapKind, Rerun, Standing};
pub use job_report::{Event, JobRecord, MOST_BUCKETS, Outcome, Progress, RunningTask, Source, TaskFailure};
pub use listing::{Detail, Entry, Listed, ListingLine};
pub use plan::{Plan, Reason, Reasons};
pub use provenance::{Input, MOST_INPUTS, Provenance, TaskRecord};
pub use to_name::NameTemplate;

use crate::bounds;
use crate::checksum::Checksum;
use crate::key::Key;
use crate::placement::NodeId;
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::time::Duration;

/// Digest of the sender's node list. Every request carries it, so that no browser can be tricked into one.
pub const CLUSTER_HEADER: &str = "s4-cluster";
/// A key's checksum, with its bytes in the body.
pub const CHECKSUM_HEADER: &str = "s4-checksum";
/// The shared secret, where the daemons ask for one.
pub const SECRET_HEADER: &str = "s4-secret";

/// How many milliseconds the sender waits for the answer after it has sent its last byte. A node does nothing for a request that has
/// lain there for longer: its sender has said that there was no answer.
pub const WAITS_HEADER: &str = "s4-waits";

/// The number of the put that the request belongs to.
pub const PUT_HEADER: &str = "s4-put";

/// A body of progress lines says something at least this often, so that silence means a dead peer.
pub const HEARTBEAT: Duration = Duration::from_secs(1);
/// How long a peer may be silent unless the user says otherwise.
pub const DEADLINE: Duration = Duration::from_secs(10);
/// How long a daemon that refuses connections is waited for.
pub const RESTART: Duration = Duration::from_secs(1);
/// Bytes that a disk surely reads or writes in a second.
const SURELY_A_SECOND: u64 = 64 << 20;
const ESCAPED: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'%')
    .add(b'&')
    .add(b'+')
    .add(b'<')
    .add(b'=')
    .add(b'>')
    .add(b'?')
    .add(b'[')
    .add(b'\\')
    .add(b']')
    .add(b'^')
    .add(b'`')
    .add(b'{')
    .add(b'|')
    .add(b'}');

/// `text` as a part of a path or query.
pub fn escape(text: &str) -> String {
    utf8_percent_encode(text, ESCAPED).to_string()
}

/// How long to wait for a node that reads or writes `len` bytes before it answers, where it may be silent for `deadline`.
pub fn patience(deadline: Duration, len: u64) -> Duration {
    deadline + Duration::from_secs(len / SURELY_A_SECOND)
}

/// Where one key is read, written and deleted.
pub fn key_path(key: &Key) -> String {
    format!("/v1/keys/{}", escape(key.as_str()))
}

/// What `s4 health` asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    pub node: NodeId,
    #[serde(deserialize_with = "bounds::line")]
    pub version: String,
    #[serde(deserialize_with = "bounds::count")]
    pub total_bytes: u64,
    #[serde(deserialize_with = "bounds::count")]
    pub free_bytes: u64,
    #[serde(deserialize_with = "bounds::count")]
    pub reserve_bytes: u64,
    /// The data directory on the daemon's machine.
    pub data: PathBuf,
    /// What the file `.s4/token` in it holds, so that a reader can make sure that it is this daemon's.
    #[serde(deserialize_with = "bounds::line")]
    pub token: String,
    #[serde(deserialize_with = "bounds::count")]
    pub running_tasks: u64,
    /// What is wrong with the node's disk.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "bounds::optional_line")]
    pub trouble: Option<String>,
    /// Keys that a power cut had damaged, and that the daemon took away at its start.
    #[serde(default, skip_serializing_if = "is_zero", deserialize_with = "bounds::count")]
    pub lost_keys: u64,
    #[serde(deserialize_with = "bounds::count")]
    pub uptime_seconds: u64,
}

/// When a key was made, and of which bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Made {
    pub checksum: Checksum,
    /// Nanoseconds since 1970.
    pub mtime: i64,
    /// By the node's clock, from its publishing or its last change on.
    pub age_ms: u64,
}

impl Made {
    pub fn age(&self) -> Duration {
        Duration::from_millis(self.age_ms)
    }
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// What a node holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    #[serde(deserialize_with = "bounds::count")]
    pub keys: u64,
    #[serde(deserialize_with = "bounds::count")]
    pub bytes: u64,
}

/// What a name is, as its home knows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub enum Stat {
    Key(KeyStat),
    /// `mtime`: nanoseconds since 1970.
    Dir {
        mtime: i64,
        /// Permission bits.
        mode: u32,
    },
    Absent,
}

/// A key's attributes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyStat {
    pub checksum: Checksum,
    /// Nanoseconds since 1970.
    pub mtime: i64,
    /// Permission bits; write bits are always off.
    pub mode: u32,
}

/// Attributes to be changed, or what a key is born with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Change {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<u32>,
    /// Nanoseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtime: Option<i64>,
    /// A key that is born may take the place of an empty one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub over_empty: bool,
}

/// A file of another process on the daemon's machine, to be linked as a key. The daemon compares what it finds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Adoption {
    pub pid: u32,
    pub fd: i32,
    pub device: u64,
    pub inode: u64,
    pub len: u64,
    /// Of what the process has written, if it was computed while it wrote; else the daemon reads the file.
    #[serde(default)]
    pub checksum: Option<Checksum>,
    /// The table of its parts, as it is stored with the key, if that was computed too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blocks: Option<Vec<u8>>,
    #[serde(default)]
    pub change: Change,
}
