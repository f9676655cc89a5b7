//! Jobs on the wire: the reports of a node about its part.

use super::job::{FoundOutputs, JobId, JobSpec, MapKind, Rerun};
use super::plan::Plan;
use super::to_name::NameTemplate;
use crate::bounds;
use crate::error::Error;
use crate::key::{Dir, Key};
use crate::pattern::Pattern;
use crate::placement::NodeId;
use crate::skew::Spread;
use serde::{Deserialize, Serialize};

/// A job that writes or has written to another job's INDIR, as one node knows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Source {
    pub job: JobId,
    pub kind: MapKind,
    pub indir: Pattern,
    pub outdir: Dir,
    /// What the outputs are called, where the map says that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to_name: Option<NameTemplate>,
    /// It may have replaced or removed outputs that others made.
    #[serde(default)]
    pub rerun: Rerun,
    pub started: bool,
    pub outcome: Option<Outcome>,
    #[serde(deserialize_with = "bounds::count")]
    pub tasks: u64,
    #[serde(deserialize_with = "bounds::count")]
    pub done: u64,
    /// The nodes that the cluster had then.
    #[serde(default, deserialize_with = "bounds::count")]
    pub nodes: u64,
    /// The keys in INDIR that the job has made.
    #[serde(deserialize_with = "bounds::count")]
    pub inputs: u64,
}

/// How a job ended on a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    Done,
    Failed,
    /// It was stopped because a task on another node failed.
    Stopped,
    Cancelled,
    /// The daemon ended before the job.
    Interrupted,
}

/// Counts of one node's part of a job. Except for `running`, they only grow.
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
    /// The bytes of all inputs.
    #[serde(deserialize_with = "bounds::count")]
    pub bytes: u64,
    /// The bytes of the inputs of successful tasks.
    #[serde(deserialize_with = "bounds::count")]
    pub bytes_done: u64,
    /// The bytes of the inputs of failed tasks.
    #[serde(default, deserialize_with = "bounds::count")]
    pub bytes_failed: u64,
    /// Of a copy: objects that were there before. They count as done too.
    #[serde(default, skip_serializing_if = "is_zero", deserialize_with = "bounds::count")]
    pub skipped: u64,
    /// Of a copy: objects whose source has no checksum to compare with. They count as done too.
    #[serde(default, skip_serializing_if = "is_zero", deserialize_with = "bounds::count")]
    pub unverified: u64,
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

impl Progress {
    /// The share of tasks that have ended, from 0 to 1, successful or not. Measured in bytes if there are any, since
    /// keys differ in size.
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
        self.skipped += other.skipped;
        self.unverified += other.unverified;
    }
}

/// A task that failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskFailure {
    pub node: NodeId,
    /// The (first) input.
    pub key: Key,
    /// `exit status 3`, `signal 9 (SIGKILL)`, or an error of s4.
    #[serde(deserialize_with = "bounds::line")]
    pub reason: String,
    /// The end of the command's stderr.
    pub stderr: String,
}

/// A running task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunningTask {
    /// The (first) input.
    pub key: Key,
    pub seconds: f64,
}

/// A job, running or past, as one node knows it.
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
    /// Milliseconds from the start to the end, or to now: the clocks of nodes may differ. If the daemon ended first, to
    /// the last write of the job.
    #[serde(default, deserialize_with = "bounds::moment")]
    pub elapsed: Option<i64>,
    /// `None` while the job is running or not started.
    pub outcome: Option<Outcome>,
}

/// Limit of the buckets that a node names after a delete.
pub const MAX_BUCKETS: usize = 1000;

/// A line of the answer to a submission, a start, or a request to follow a job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// A keepalive.
    Alive,
    Planned(Plan),
    Progress(Progress),
    Failure(TaskFailure),
    /// The tasks that have run for the longest time, longest first.
    Running {
        tasks: Vec<RunningTask>,
    },
    /// One of the jobs that a node knows.
    Job(Box<JobRecord>),
    Ended {
        outcome: Outcome,
        progress: Progress,
        /// The nodes to which the outputs of this node's tasks went, for a 1:n map or `--to-name`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        spread: Option<Box<Spread>>,
    },
    /// A job that writes to the INDIR of the job that is being planned.
    Source(Source),
    /// Existing outputs of a 1:n map.
    Existing(FoundOutputs),
    /// The answer is complete.
    Complete,
    /// Keys deleted so far.
    Deleted {
        #[serde(deserialize_with = "bounds::count")]
        keys: u64,
        /// Their bytes.
        #[serde(default, deserialize_with = "bounds::count")]
        bytes: u64,
        /// Up to [`MAX_BUCKETS`] of their buckets. Only in the last event.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        buckets: Vec<String>,
    },
    /// The request failed after the answer had begun.
    Error(Error),
}
