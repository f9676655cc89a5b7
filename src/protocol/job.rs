//! Jobs on the wire: the specification that a client submits.

use super::copy::{CopySpec, Credentials};
use super::to_name::NameTemplate;
use crate::attribute::Mark;
use crate::checksum::hash;
use crate::error::{Error, ErrorKind, Result};
use crate::hasher::Hasher;
use crate::key::{Dir, Key};
use crate::pattern::Pattern;
use crate::time;
use serde::{Deserialize, Serialize};
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::time::SystemTime;

/// A job's id. Ids sort by the time of submission.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct JobId(String);

impl JobId {
    /// `YYYYMMDD-HHMMSS-mmm-xxxxxx`: UTC, and six random hexadecimal digits.
    pub fn new() -> Self {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let seed = format!("{} {}", now.as_nanos(), std::process::id());
        let (date, time) = time::utc(now.as_secs() as i64);
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

/// A user's command, byte for byte. In JSON a string, or an array of bytes if it is not UTF-8.
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
    /// Errors: the command is empty, or has a NUL byte, which no argument can contain.
    pub fn new(text: OsString) -> Result<Self> {
        let command = Self(text);
        command.check().map(|()| command)
    }

    /// The same checks as in [`CommandText::new`], for a command that came over the wire.
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
        // On one line, otherwise as it was typed.
        self.0.to_string_lossy().chars().try_for_each(|c| match c.is_control() {
            true => write!(f, "{}", c.escape_debug()),
            false => write!(f, "{c}"),
        })
    }
}

/// The three maps, and the copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MapKind {
    /// 1:1
    Map,
    /// 1:n, the shuffle
    MapToN,
    /// n:1, the merge
    MapFromN,
    /// Between S3 and the cluster, by a worker on each node
    Copy,
}

impl fmt::Display for MapKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Map => "map",
            Self::MapToN => "map-to-n",
            Self::MapFromN => "map-from-n",
            Self::Copy => "copy",
        })
    }
}

/// What a map does about existing outputs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rerun {
    /// Existing outputs are an error.
    #[default]
    Refuse,
    /// Runs the tasks without current outputs. Outputs of another recipe are an error.
    Resume,
    /// Also runs tasks whose recipe has changed, and removes outputs whose inputs no longer exist.
    Update,
    /// Keeps all existing outputs, and runs the tasks without outputs.
    Missing,
}

/// A map over the cluster, or a copy, as every node receives it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JobSpec {
    pub id: JobId,
    pub kind: MapKind,
    /// Of a copy, INDIR and OUTDIR are both its directory in the cluster.
    pub indir: Pattern,
    pub outdir: Dir,
    pub cmd: CommandText,
    /// Of the kind `copy`, and of no other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copy: Option<CopySpec>,
    /// What the client hands to the workers of a copy when it starts them. Neither sent nor stored with the job.
    #[serde(skip)]
    pub credentials: Option<Credentials>,
    /// Run the other tasks after one has failed.
    #[serde(default)]
    pub keep_going: bool,
    /// The timeout of a task, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<f64>,
    /// How often a failed command is run again.
    #[serde(default)]
    pub retries: u32,
    /// Exit statuses that mean success.
    #[serde(default = "zero_alone")]
    pub ok_exit: Vec<i32>,
    /// What to do about existing outputs.
    #[serde(default)]
    pub rerun: Rerun,
    /// Accept an INDIR that another job has not finished.
    #[serde(default)]
    pub partial: bool,
    /// Additional environment variables for the commands.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<(String, String)>,
    /// Files for every task's directory.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<JobFile>,
    /// Bytes of memory that a task may use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<u64>,
    /// CPUs that a task may use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpus: Option<f64>,
    /// Commands that run at once on each node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jobs: Option<u16>,
    /// The template for the outputs' names. `None`: outputs have the names of their inputs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to_name: Option<NameTemplate>,
}

/// The command of a copy, on every node.
const COPY_WORKER: &str = "exec s4-s3 copy-worker";

fn zero_alone() -> Vec<i32> {
    vec![0]
}

impl JobSpec {
    /// A map without any option.
    pub fn new(kind: MapKind, indir: Pattern, outdir: Dir, cmd: CommandText) -> Self {
        Self {
            id: JobId::new(),
            kind,
            indir,
            outdir,
            cmd,
            copy: None,
            credentials: None,
            keep_going: false,
            timeout: None,
            retries: 0,
            ok_exit: zero_alone(),
            rerun: Rerun::default(),
            partial: false,
            env: Vec::new(),
            files: Vec::new(),
            memory: None,
            cpus: None,
            jobs: None,
            to_name: None,
        }
    }

    /// A copy that makes or reads the keys in `dir`.
    pub fn copying(copy: CopySpec, dir: Dir) -> Result<Self> {
        let (indir, cmd) = (Pattern::parse_url(&dir.to_string())?, CommandText::new(COPY_WORKER.into())?);
        // An object that cannot be copied stops no other.
        Ok(Self { copy: Some(copy), keep_going: true, ..Self::new(MapKind::Copy, indir, dir, cmd) })
    }

    /// What the job reads, as the user named it.
    pub fn from(&self) -> String {
        self.copy.as_ref().map_or_else(|| self.indir.to_string(), |copy| copy.from.clone())
    }

    /// What the job makes, as the user named it.
    pub fn to(&self) -> String {
        self.copy.as_ref().map_or_else(|| self.outdir.to_string(), |copy| copy.to.clone())
    }

    /// What one of its tasks is called.
    pub fn unit(&self) -> &'static str {
        if self.copy.is_some() { "object" } else { "task" }
    }

    /// The directory in which the job makes keys.
    pub fn makes(&self) -> Option<&Dir> {
        self.copy.as_ref().is_none_or(CopySpec::makes_keys).then_some(&self.outdir)
    }

    /// Refuses a job that no node could run.
    pub fn check(&self) -> Result<()> {
        self.cmd.check()?;
        if self.copy.is_some() != (self.kind == MapKind::Copy) {
            return Err(Error::usage("a copy is a job of the kind 'copy'"));
        }
        self.copy.as_ref().map_or(Ok(()), CopySpec::check)?;
        if self.copy.is_none() && self.indir.overlaps(&self.outdir) {
            let (indir, outdir) = (&self.indir, &self.outdir);
            let message = format!(
                "OUTDIR {outdir} and INDIR {indir} overlap, so that outputs would be inputs; choose another OUTDIR"
            );
            return Err(Error::usage(message));
        }
        if self.timeout.is_some_and(|timeout| time::seconds(timeout).is_none()) {
            return Err(Error::usage("a timeout is a number of seconds above 0, and at most 1000000000"));
        }
        if self.cpus.is_some_and(|cpus| !(cpus > 0.0 && cpus < 100_000.0)) || self.memory == Some(0) {
            return Err(Error::usage("a task needs some memory and CPU time"));
        }
        if self.to_name.is_some() && self.kind != MapKind::Map {
            return Err(Error::usage(format!(
                "--to-name is for 's4 map'; the outputs of {} have names already",
                self.kind
            )));
        }
        if self.jobs == Some(0) {
            return Err(Error::usage("a job that may run no command never ends"));
        }
        for (name, value) in &self.env {
            let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
            if name.is_empty()
                || name.as_bytes()[0].is_ascii_digit()
                || !name.bytes().all(plain)
                || value.contains('\0')
            {
                return Err(Error::usage(format!("'{}' cannot be a variable of a command", name.escape_debug())));
            }
        }
        self.files.iter().try_for_each(JobFile::check)
    }

    /// The digest of the recipe: everything that decides what a task makes of its inputs.
    pub fn recipe(&self) -> u64 {
        let mut recipe = Recipe(Hasher::new());
        recipe.add(&[self.kind.to_string().as_bytes(), self.cmd.0.as_bytes()]);
        let (mut env, mut files, mut statuses) = (self.env.clone(), self.files.clone(), self.ok_exit.clone());
        env.sort();
        env.iter().for_each(|(name, value)| recipe.add(&[b"env", name.as_bytes(), value.as_bytes()]));
        files.sort_by(|one, other| one.name.cmp(&other.name));
        for file in files {
            recipe.add(&[b"file", file.name.as_bytes(), file.digest.as_bytes(), &[file.executable.into()]]);
        }
        statuses.sort_unstable();
        statuses.dedup();
        statuses.iter().for_each(|status| recipe.add(&[b"status", &status.to_le_bytes()]));
        recipe.0.finish().xxh3
    }

    /// Hash of INDIR and OUTDIR.
    pub fn source(&self) -> u32 {
        hash(format!("{} {}", self.indir, self.outdir).as_bytes()) as u32
    }

    /// Bytes of memory that it takes, approximately.
    pub fn bytes(&self) -> usize {
        /// The allocator's overhead for a string.
        const MORE: usize = 16;
        let env = self.env.iter().map(|(name, value)| name.len() + value.len() + 2 * MORE);
        let files = self.files.iter().map(|file| file.name.len() + file.digest.len() + 2 * MORE);
        size_of::<Self>()
            + self.cmd.0.len()
            + size_of_val(&self.env[..])
            + env.sum::<usize>()
            + size_of_val(&self.files[..])
            + files.sum::<usize>()
            + size_of_val(&self.ok_exit[..])
            + self.copy.as_ref().map_or(0, CopySpec::bytes)
            + self.to_name.as_ref().map_or(0, |template| template.as_str().len() + MORE)
    }
}

/// Hashes a recipe. Each field is preceded by its length, so that different recipes never give the same bytes.
struct Recipe(Hasher);

impl Recipe {
    fn add(&mut self, fields: &[&[u8]]) {
        for field in fields {
            self.0.update(&(field.len() as u64).to_le_bytes());
            self.0.update(field);
        }
    }
}

/// The task whose outputs a node sends to another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Delivery {
    pub job: JobId,
    /// Digest of the names and checksums of the task's inputs.
    pub inputs: u64,
    /// The number of outputs of the task, on all nodes.
    pub outputs: u32,
}

/// A file that is sent with a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JobFile {
    /// The name in the task's directory.
    pub name: String,
    /// XXH3-128 of its bytes, 32 hexadecimal digits. Nodes store the file under this name.
    pub digest: String,
    pub len: u64,
    pub executable: bool,
}

impl JobFile {
    /// Refuses a name that is not the name of a file in a directory.
    pub fn check(&self) -> Result<()> {
        match self.name.contains(['/', '\0', '\n']) || matches!(&*self.name, "" | "." | "..") {
            true => Err(Error::usage(format!("'{}' is no name of a file", self.name.escape_debug()))),
            false => Ok(()),
        }
    }
}

/// Existing outputs on a node, of one attempt of a task of a 1:n map.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoundOutputs {
    /// The basename of the task's input.
    pub input: String,
    pub mark: Mark,
    pub count: u64,
    /// One of the outputs.
    pub key: Key,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    /// JSON that is a job specification, or nearly one.
    fn specs() -> impl Strategy<Value = Value> {
        let dir = "[ab*?]{1,2}(/[ab*.]{1,2}){0,2}";
        let cmd = prop_oneof!["[ -~é\0]{0,6}".prop_map(Value::from), vec(any::<u8>(), 0..4).prop_map(Value::from)];
        let options = (any::<Option<f64>>(), any::<Option<f64>>(), any::<Option<u64>>(), vec(any::<i32>(), 0..3));
        let env = vec(("[A-Z_0-9=]{0,3}", "[a-z\0]{0,2}"), 0..3);
        let files = vec("[a./\n]{0,3}", 0..2);
        (dir, dir, cmd, options, env, files).prop_map(|(indir, outdir, cmd, (timeout, cpus, memory, ok_exit), env, files)| {
            let file = |name| json!({"name": name, "digest": "0", "len": 1, "executable": false});
            let files: Vec<Value> = files.into_iter().map(file).collect();
            json!({
                "id": "20260101-000000-000-000000", "kind": "map", "indir": indir, "outdir": outdir, "cmd": cmd, "timeout": timeout,
                "cpus": cpus, "memory": memory, "ok_exit": ok_exit, "env": env, "files": files,
            })
        })
    }

    proptest! {
        #[test]
        fn a_job_that_is_accepted_can_be_run_and_reads_as_written(json in specs()) {
            let Ok(spec) = serde_json::from_value::<JobSpec>(json) else { return Ok(()) };
            prop_assert!(spec.bytes() >= size_of::<JobSpec>());
            if spec.check().is_ok() {
                prop_assert!(!spec.cmd.as_os_str().as_bytes().contains(&0));
                prop_assert!(spec.env.iter().all(|(name, value)| !name.contains('=') && !value.contains('\0')));
                prop_assert!(spec.files.iter().all(|file| !file.name.contains('/') && !matches!(&*file.name, "" | "." | "..")));
                prop_assert!(spec.timeout.is_none_or(|seconds| time::seconds(seconds).is_some()));
                prop_assert!(!spec.indir.overlaps(&spec.outdir));
                let again: JobSpec = serde_json::from_str(&serde_json::to_string(&spec).unwrap()).unwrap();
                prop_assert_eq!((again.recipe(), again.source()), (spec.recipe(), spec.source()));
            }
        }

        #[test]
        fn any_text_is_a_job_id_that_is_a_file_name_or_an_error(text in "[0-9a-f-]{6,30}|[./\\PC]{0,12}") {
            if let Ok(id) = JobId::try_from(text) {
                prop_assert!(id.as_str().bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') && id.as_str().len() <= 64);
            }
        }
    }
}
