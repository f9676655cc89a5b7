//! What crosses the wire over HTTP, besides the bytes of keys: header names, paths, and the JSON in bodies.

mod causes;
mod change;
mod copy;
mod dirs;
mod failures;
mod job;
mod job_report;
mod listing;
mod metadata;
pub mod node;
mod plan;
mod provenance;
mod resize;
mod scrub;
mod to_name;
mod uploads;
mod worker;

pub use causes::{Runner, hint};
pub use change::Change;
pub use copy::{Access, CopySpec, Credentials, S3};
pub use dirs::Entered;
pub use failures::{FailedTask, FailureGroup, FailureGroups};
pub use job::{CommandText, Delivery, FoundOutputs, JobFile, JobId, JobSpec, MapKind, Rerun};
pub use job_report::{Event, JobRecord, MAX_BUCKETS, Outcome, Progress, RunningTask, Source, TaskFailure};
pub use listing::{Detail, Entry, Listed, ListingLine};
pub use metadata::{MAX_METADATA, Metadata, SourceObject};
pub use plan::{Plan, Reason, Reasons};
pub use provenance::{Input, MAX_INPUTS, Provenance, TaskRecord};
pub use resize::{Attribute, Attributes, Moved, MovedDir, ResizeLine, ResizePlan, ResizeState};
pub use scrub::{Fault, Finding, ScrubLine, Scrubbed};
pub use to_name::NameTemplate;
pub use uploads::{
    CompletedPart, MAX_PARTS, PARTS_AT_ONCE, PartInfo, PartNumber, UPLOADS_AT_ONCE, UploadId, UploadInfo, UploadPart,
    UploadedParts, Uploads,
};
pub use worker::{MAX_WORKER_TASK, WorkerEvent, WorkerTask};

use crate::bounds;
use crate::checksum::Checksum;
use crate::key::Key;
use crate::placement::NodeId;
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::time::Duration;

/// The number of the protocol between clients and daemons, and between daemons. It grows with a change that programs of
/// the versions before would misunderstand. Nodes of different numbers are not one cluster.
pub const PROTOCOL: u32 = 1;

/// The version of this program. The compiler cannot look into it, so that it stays one text in the program: a test makes
/// a newer program by replacing the text.
pub fn version() -> &'static str {
    std::hint::black_box(env!("CARGO_PKG_VERSION"))
}

/// The digest of the sender's node list. Every request carries it. A web page cannot make a browser send it.
pub const CLUSTER_HEADER: &str = "s4-cluster";
/// The checksum of the key in the body.
pub const CHECKSUM_HEADER: &str = "s4-checksum";
/// The shared secret, if the daemons require one.
pub const SECRET_HEADER: &str = "s4-secret";

/// How many milliseconds the sender waits for the answer after its last byte. A node does not execute a request that
/// has waited longer in the socket: its sender has reported a timeout.
pub const WAITS_HEADER: &str = "s4-waits";

/// The number of the put that the request belongs to.
pub const PUT_HEADER: &str = "s4-put";

/// An answer of events has a line at least this often, so that silence means a dead peer.
pub const HEARTBEAT: Duration = Duration::from_secs(1);
/// The default of how long a peer may be silent.
pub const DEADLINE: Duration = Duration::from_secs(10);
/// How long to wait for a daemon that refuses connections, in case it is restarting.
pub const RESTART: Duration = Duration::from_secs(1);
/// Bytes per second that any disk reads or writes.
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

/// Escapes `text` for use in a path or query.
pub fn escape(text: &str) -> String {
    utf8_percent_encode(text, ESCAPED).to_string()
}

/// The timeout for a node that reads or writes `len` bytes before it answers. `deadline` is the limit of its silence.
pub fn transfer_timeout(deadline: Duration, len: u64) -> Duration {
    deadline + Duration::from_secs(len / SURELY_A_SECOND)
}

/// The path at which one key is read, written and deleted.
pub fn key_path(key: &Key) -> String {
    format!("/v1/keys/{}", escape(key.as_str()))
}

/// What a node says of itself (`GET /v1/health`, and a part of its status).
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
    /// The path of the data directory on the daemon's machine.
    pub data: PathBuf,
    /// The content of the file `.s4/token` in it. With it, a client verifies that the directory belongs to this daemon.
    #[serde(deserialize_with = "bounds::line")]
    pub token: String,
    #[serde(deserialize_with = "bounds::count")]
    pub running_tasks: u64,
    /// What is wrong with the node's disk, if anything.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "bounds::optional_line")]
    pub trouble: Option<String>,
    /// Keys that a power cut had damaged, and that the daemon removed at its start.
    #[serde(default, skip_serializing_if = "is_zero", deserialize_with = "bounds::count")]
    pub lost_keys: u64,
    #[serde(deserialize_with = "bounds::count")]
    pub uptime_seconds: u64,
    /// [`PROTOCOL`] of the daemon.
    #[serde(default = "first_protocol")]
    pub protocol: u32,
    /// The node's clock when it answered, in milliseconds since 1970; 0 from a daemon that does not report it.
    #[serde(default)]
    pub clock_ms: i64,
}

fn first_protocol() -> u32 {
    1
}

/// When a key was made, and its checksum.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Made {
    pub checksum: Checksum,
    /// Nanoseconds since 1970.
    pub mtime: i64,
    /// Milliseconds since its publishing or its last change, by the node's clock.
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

/// The number of keys and bytes on a node.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    #[serde(deserialize_with = "bounds::count")]
    pub keys: u64,
    #[serde(deserialize_with = "bounds::count")]
    pub bytes: u64,
}

/// The result of a lookup at the home node of a name.
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

/// A key's attributes with its metadata.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyHead {
    #[serde(flatten)]
    pub stat: KeyStat,
    #[serde(default, skip_serializing_if = "Metadata::is_empty")]
    pub metadata: Metadata,
}

/// A file that another process on the daemon's machine has open (fd handoff), to be linked as a key. The daemon
/// verifies the identity of the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Handoff {
    pub pid: u32,
    pub fd: i32,
    pub device: u64,
    pub inode: u64,
    pub len: u64,
    /// The checksum of the file, if the process computed it while writing; otherwise the daemon reads the file.
    #[serde(default)]
    pub checksum: Option<Checksum>,
    /// The table of checksums of its parts, as stored with the key, if it was computed too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blocks: Option<Vec<u8>>,
    #[serde(default)]
    pub change: Change,
    #[serde(default, skip_serializing_if = "Metadata::is_empty")]
    pub metadata: Metadata,
}
