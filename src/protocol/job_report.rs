//! Jobs on the wire: what a node reports of its part.

use super::job::{JobId, JobSpec, MapKind, Standing};
use super::plan::Plan;
use crate::bounds;
use crate::error::Error;
use crate::key::{Dir, Key};
use crate::pattern::Pattern;
use crate::placement::NodeId;
use crate::skew::Spread;
use serde::{Deserialize, Serialize};

/// A job that writes, or has written, to another's INDIR, as one node knows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Source {
    pub job: JobId,
    pub kind: MapKind,
    pub indir: Pattern,
    pub outdir: Dir,
    pub started: bool,
    pub outcome: Option<Outcome>,
    #[serde(deserialize_with = "bounds::count")]
    pub tasks: u64,
    #[serde(deserialize_with = "bounds::count")]
    pub done: u64,
    /// Keys in INDIR that it has made.
    #[serde(deserialize_with = "bounds::count")]
    pub inputs: u64,
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
    /// The daemon ended before the job did.
    Interrupted,
}

/// Counts of one node's part of a job. They only grow, but for `running`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    #[serde(deserialize_with = "bounds::count")]
    pub tasks: u64,
    #[serde(deserialize_with = "bounds::count")]
    pub done: u64,
    #[serde(deserialize_with = "bounds::count")]
    pub failed: u64,
    #[serde(deserialize_with = "bounds::count")]
    pub running: u64,
    /// Keys published.
    #[serde(deserialize_with = "bounds::count")]
    pub outputs: u64,
    /// Of all inputs.
    #[serde(deserialize_with = "bounds::count")]
    pub bytes: u64,
    /// Of the inputs of the tasks that are done.
    #[serde(deserialize_with = "bounds::count")]
    pub bytes_done: u64,
    /// Of the inputs of the tasks that failed.
    #[serde(default, deserialize_with = "bounds::count")]
    pub bytes_failed: u64,
}

impl Progress {
    /// How much is over, from 0 to 1, well or badly: of the bytes where there are any, since keys differ in size.
    pub fn share(&self) -> f64 {
        let share = match (self.bytes_done.saturating_add(self.bytes_failed), self.bytes) {
            (0, _) | (_, 0) => (self.done + self.failed) as f64 / self.tasks.max(1) as f64,
            (over, all) => over as f64 / all as f64,
        };
        match self.tasks {
            0 => 1.0,
            _ => share.clamp(0.0, 1.0),
        }
    }
}

impl std::ops::AddAssign for Progress {
    fn add_assign(&mut self, other: Self) {
        self.tasks += other.tasks;
        self.done += other.done;
        self.failed += other.failed;
        self.running += other.running;
        self.outputs += other.outputs;
        self.bytes += other.bytes;
        self.bytes_done += other.bytes_done;
        self.bytes_failed += other.bytes_failed;
    }
}

/// A task that failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskFailure {
    pub node: NodeId,
    /// The input, or the first of them.
    pub key: Key,
    /// `exit status 3`, `signal 9 (SIGKILL)`, or what s4 could not do.
    #[serde(deserialize_with = "bounds::line")]
    pub reason: String,
    /// The end of the command's stderr.
    pub stderr: String,
}

/// A task under way.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunningTask {
    /// The input, or the first of them.
    pub key: Key,
    pub seconds: f64,
}

/// What one node knows of a job, running or past.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JobRecord {
    pub spec: JobSpec,
    pub plan: Plan,
    pub progress: Progress,
    /// Milliseconds since 1970.
    #[serde(default, deserialize_with = "bounds::moment")]
    pub started: Option<i64>,
    #[serde(default, deserialize_with = "bounds::moment")]
    pub ended: Option<i64>,
    /// Milliseconds from its start to its end, or till now: nodes' clocks may differ. Of a job that its daemon did not outlive, to the last
    /// sign of it.
    #[serde(default, deserialize_with = "bounds::moment")]
    pub elapsed: Option<i64>,
    /// `None` while it runs, or has not been started.
    pub outcome: Option<Outcome>,
}

/// Buckets that a node names of the keys that it has deleted.
pub const MOST_BUCKETS: usize = 1000;

/// One line of the answer to a submission, a start, or a request to follow.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// Nothing new; the node is alive.
    Alive,
    Planned(Plan),
    Progress(Progress),
    Failure(TaskFailure),
    /// The tasks that have run for longest, the longest first.
    Running {
        tasks: Vec<RunningTask>,
    },
    /// One job of those that a node knows.
    Job(Box<JobRecord>),
    Ended {
        outcome: Outcome,
        progress: Progress,
        /// Where the outputs of this node's tasks went, if the job chooses their names: of a 1:n map, or with `--to-name`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        spread: Option<Box<Spread>>,
    },
    /// A job that writes to the INDIR of the one that is planned.
    Source(Source),
    /// Outputs of a 1:n map.
    Standing(Standing),
    /// All has been told.
    Complete,
    /// Keys deleted so far.
    Deleted {
        #[serde(deserialize_with = "bounds::count")]
        keys: u64,
        /// Their bytes.
        #[serde(default, deserialize_with = "bounds::count")]
        bytes: u64,
        /// Their buckets, in the last event only, and no more than [`MOST_BUCKETS`].
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        buckets: Vec<String>,
    },
    /// The request failed after its answer had begun.
    Error(Error),
}
