//! What crosses the wire besides keys' bytes: header names, routes, and the JSON and lines in bodies.

use crate::checksum::{Checksum, hash};
use crate::error::{Error, ErrorKind, Result};
use crate::key::{Dir, Key};
use crate::pattern::Pattern;
use crate::placement::NodeId;
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use serde::{Deserialize, Serialize};
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

/// Digest of the sender's node list. Every request carries it, so that no browser can be tricked into one.
pub const CLUSTER_HEADER: &str = "s4-cluster";
/// A key's checksum, with its bytes in the body.
pub const CHECKSUM_HEADER: &str = "s4-checksum";
/// The shared secret, where the daemons ask for one.
pub const SECRET_HEADER: &str = "s4-secret";

/// A body of progress lines says something at least this often, so that silence means a dead peer.
pub const HEARTBEAT: Duration = Duration::from_secs(1);
/// How long a peer may be silent unless the user says otherwise.
pub const DEADLINE: Duration = Duration::from_secs(10);
/// Keys asked for in one pack.
pub const PACK_KEYS: usize = 256;

/// The longest part of a key that can be asked for, in bytes.
pub const MAX_RANGE: usize = 4 << 20;

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

/// Where one key is read, written and deleted.
pub fn key_path(key: &Key) -> String {
    format!("/v1/keys/{}", escape(key.as_str()))
}

/// A job's name. Sorts by the time of its submission.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct JobId(String);

impl JobId {
    /// `YYYYMMDD-HHMMSS-mmm-xxxxxx`: UTC, and six hexadecimal digits of chance.
    pub fn new() -> Self {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let seed = format!("{} {}", now.as_nanos(), std::process::id());
        let (date, time) = crate::time::utc(now.as_secs() as i64);
        let compact = format!("{date}-{time}").replace(':', "").replacen('-', "", 2);
        Self(format!("{compact}-{:03}-{:06x}", now.subsec_millis(), hash(seed.as_bytes()) & 0xff_ffff))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for JobId {
    fn default() -> Self {
        Self::new()
    }
}

impl TryFrom<String> for JobId {
    type Error = Error;
    fn try_from(text: String) -> Result<Self> {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
        match (8..=64).contains(&text.len()) && text.bytes().all(plain) {
            true => Ok(Self(text)),
            false => Err(Error::new(ErrorKind::BadRequest, format!("'{}' is no job id", text.escape_debug()))),
        }
    }
}

impl From<JobId> for String {
    fn from(id: JobId) -> Self {
        id.0
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A user's command, byte for byte. JSON has it as a string, or as an array of bytes where it is not UTF-8.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "CommandJson", into = "CommandJson")]
pub struct CommandText(OsString);

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum CommandJson {
    Text(String),
    Bytes(Vec<u8>),
}

impl From<CommandJson> for CommandText {
    fn from(json: CommandJson) -> Self {
        match json {
            CommandJson::Text(text) => Self(text.into()),
            CommandJson::Bytes(bytes) => Self(OsString::from_vec(bytes)),
        }
    }
}

impl From<CommandText> for CommandJson {
    fn from(command: CommandText) -> Self {
        match command.0.into_string() {
            Ok(text) => Self::Text(text),
            Err(bytes) => Self::Bytes(bytes.into_vec()),
        }
    }
}

impl CommandText {
    /// Errors: an empty command, or a NUL byte, which no argument can carry.
    pub fn new(text: OsString) -> Result<Self> {
        let command = Self(text);
        command.check().map(|()| command)
    }

    /// What [`CommandText::new`] checks, for one that came over the wire.
    pub fn check(&self) -> Result<()> {
        if self.0.as_bytes().contains(&0) {
            return Err(Error::usage("CMD has a NUL byte, which no command line can carry"));
        }
        match self.0.as_bytes().trim_ascii().is_empty() {
            true => Err(Error::usage("CMD is empty")),
            false => Ok(()),
        }
    }

    pub fn as_os_str(&self) -> &OsStr {
        &self.0
    }
}

impl fmt::Display for CommandText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // On one line, and else as it was typed.
        self.0.to_string_lossy().chars().try_for_each(|c| match c.is_control() {
            true => write!(f, "{}", c.escape_debug()),
            false => write!(f, "{c}"),
        })
    }
}

/// The three maps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MapKind {
    /// 1:1
    Map,
    /// 1:n, the shuffle
    MapToN,
    /// n:1, the merge
    MapFromN,
}

impl fmt::Display for MapKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Map => "map",
            Self::MapToN => "map-to-n",
            Self::MapFromN => "map-from-n",
        })
    }
}

/// One map over the cluster, as every node gets it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JobSpec {
    pub id: JobId,
    pub kind: MapKind,
    pub indir: Pattern,
    pub outdir: Dir,
    pub cmd: CommandText,
    /// Go on with the other tasks after one has failed.
    #[serde(default)]
    pub keep_going: bool,
    /// Seconds that a task may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<f64>,
}

/// What one node is to do for a job.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    pub tasks: u64,
    pub keys: u64,
    pub bytes: u64,
}

/// Why a job on a node has no more tasks to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    Done,
    Failed,
    /// A task on another node failed first.
    Stopped,
    Cancelled,
}

/// Counts of one node's part of a job. They only grow, but for `running`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    pub tasks: u64,
    pub done: u64,
    pub failed: u64,
    pub running: u64,
    /// Keys published.
    pub outputs: u64,
}

/// A task that failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskFailure {
    pub node: NodeId,
    /// The input, or the first of them.
    pub key: Key,
    /// `exit status 3`, `signal 9 (SIGKILL)`, or what s4 could not do.
    pub reason: String,
    /// The end of the command's stderr.
    pub stderr: String,
}

/// One line of the answer to a submission, a start, or a request to follow.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// Nothing new; the node is alive.
    Alive,
    Planned(Plan),
    Progress(Progress),
    Failure(TaskFailure),
    Ended {
        outcome: Outcome,
        progress: Progress,
    },
    /// Keys deleted so far.
    Deleted {
        keys: u64,
    },
    /// The request failed after its answer had begun.
    Error(Error),
}

/// What `s4 health` asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    pub node: NodeId,
    pub version: String,
    pub total_bytes: u64,
    pub free_bytes: u64,
    pub reserve_bytes: u64,
    /// The data directory on the daemon's machine.
    pub data: PathBuf,
    /// What the file `.s4/token` in it holds, so that a reader can make sure that it is this daemon's.
    pub token: String,
    pub running_tasks: u64,
    pub uptime_seconds: u64,
}

/// What a node holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    pub keys: u64,
    pub bytes: u64,
}

/// The answer to a pack of puts: what was not published, and how many were.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackAnswer {
    pub published: u64,
    pub failed: u64,
    /// The first failures; [`PackAnswer::failed`] counts all.
    pub errors: Vec<Error>,
}

impl PackAnswer {
    /// Failures told in full.
    pub const ERRORS: usize = 20;

    pub fn refuse(&mut self, error: Error) {
        self.failed += 1;
        if self.errors.len() < Self::ERRORS {
            self.errors.push(error);
        }
    }
}

/// What a listing tells of a key only when asked, since it takes another look at the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Detail {
    /// Permission bits.
    pub mode: u32,
    pub xxh3: u64,
}

/// What a name is on one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub enum Stat {
    Key(KeyStat),
    /// `mtime`: nanoseconds since 1970.
    Dir {
        mtime: i64,
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

/// Attributes to be changed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Change {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<u32>,
    /// Nanoseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtime: Option<i64>,
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
    #[serde(default)]
    pub change: Change,
}

/// A line of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// `mtime`: nanoseconds since 1970. `detail` only where it was asked for.
    Key { path: String, size: u64, mtime: i64, detail: Option<Detail> },
    /// `path` ends in `/`.
    Dir { path: String },
}

impl Entry {
    /// `bucket/dir/name`, or `bucket/dir/` of a directory. Listings are sorted by its bytes.
    pub fn path(&self) -> &str {
        match self {
            Self::Key { path, .. } | Self::Dir { path } => path,
        }
    }

    /// Appends the entry's line. Names hold no whitespace, so a space parts the fields.
    pub fn write_line(&self, out: &mut Vec<u8>) {
        use std::io::Write;
        let written = match self {
            Self::Key { path, size, mtime, detail: None } => writeln!(out, "k {mtime} {size} {path}"),
            Self::Key { path, size, mtime, detail: Some(Detail { mode, xxh3 }) } => {
                writeln!(out, "a {mtime} {size} {mode:o} {xxh3:016x} {path}")
            }
            Self::Dir { path } => writeln!(out, "d {path}"),
        };
        written.expect("a vector takes every write");
    }

    /// Parses a line without its newline; `None` at the listing's end mark. A line of an error is that error.
    pub fn parse_line(line: &str) -> Result<Option<Self>> {
        if let Some(Ok(error)) = line.strip_prefix(LISTING_ERROR).map(serde_json::from_str) {
            return Err(error);
        }
        let malformed =
            || Error::new(ErrorKind::Unreachable, format!("malformed line in a listing: '{}'", line.escape_debug()));
        let fields: Vec<&str> = line.split(' ').collect();
        let key = |path: &str, size: &str, mtime: &str, detail| {
            let (size, mtime) = (size.parse().map_err(|_| malformed())?, mtime.parse().map_err(|_| malformed())?);
            Ok(Self::Key { path: path.to_owned(), size, mtime, detail })
        };
        let entry = match fields[..] {
            ["k", mtime, size, path] => key(path, size, mtime, None)?,
            ["a", mtime, size, mode, xxh3, path] => {
                let mode = u32::from_str_radix(mode, 8).map_err(|_| malformed())?;
                let xxh3 = u64::from_str_radix(xxh3, 16).map_err(|_| malformed())?;
                key(path, size, mtime, Some(Detail { mode, xxh3 }))?
            }
            ["d", path] => Self::Dir { path: path.to_owned() },
            [LISTING_END] => return Ok(None),
            _ => return Err(malformed()),
        };
        Ok(Some(entry))
    }
}

/// The last line of a whole listing: a listing without it was cut off.
pub const LISTING_END: &str = "end";
/// How the last line of a listing that failed begins; the error follows as JSON.
pub const LISTING_ERROR: &str = "error ";
