//! The whole cluster at one moment, for `s4 top` and the web page: the status of each node, and the merged jobs.

use super::core::{Client, Settings};
use super::job_table::{self, ClusterJob, JobState};
use crate::body::{self, Activity};
use crate::error::{Error, ErrorKind, Result};
use crate::placement::NodeId;
use crate::protocol::node::{Counted, NodeStatus, Sample};
use crate::protocol::{FailureGroups, Health, JobId, Progress};
use crate::skew::{self, Amount, Crowded};
use crate::time::now_milliseconds;
use crate::timeout::within;
use hyper::Method;
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::Duration;

/// How long one node may take. The whole view must be complete within 2 s.
const NODE_TIMEOUT: Duration = Duration::from_millis(1500);

/// The state of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum NodeState {
    Up,
    /// Below its free-space reserve: takes no more keys.
    Full,
    Down,
    /// It answers with an error: it has another node list, another secret or another version.
    Refuses,
}

impl NodeState {
    pub fn name(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Full => "full",
            Self::Down => "down",
            Self::Refuses => "refuses",
        }
    }
}

/// One node, whether it answered or not.
#[derive(Debug, Clone, Serialize)]
pub struct NodeView {
    pub node: NodeId,
    pub address: String,
    pub state: NodeState,
    /// Why it is down or refuses.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    pub health: Option<Health>,
    pub usage: Option<Counted>,
    /// The oldest first.
    pub samples: Vec<Sample>,
}

impl NodeView {
    pub fn last_sample(&self) -> Option<Sample> {
        self.samples.last().copied()
    }
}

/// One node's part of a job. JSON has it as an array of five numbers.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(into = "[u64; 5]")]
pub struct JobPart {
    pub node: NodeId,
    pub progress: Progress,
}

impl From<JobPart> for [u64; 5] {
    fn from(part: JobPart) -> Self {
        let Progress { tasks, done, failed, running, .. } = part.progress;
        [part.node as u64, tasks, done, failed, running]
    }
}

/// One job over the nodes that answered.
#[derive(Debug, Clone, Serialize)]
pub struct JobView {
    pub id: String,
    pub kind: String,
    pub indir: String,
    pub outdir: String,
    pub cmd: String,
    pub state: &'static str,
    /// Milliseconds since 1970.
    pub started: Option<i64>,
    pub ended: Option<i64>,
    /// Milliseconds from its start to its end, or until now, on the node where that is longest.
    pub elapsed: Option<i64>,
    /// An estimate, only while it runs.
    pub seconds_left: Option<f64>,
    pub progress: Progress,
    /// Tasks that are skipped, since a previous run has finished them.
    pub done_before: u64,
    pub parts: Vec<JobPart>,
    /// The node with most of its tasks, if these are distributed unevenly.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub crowded: Option<Crowded>,
    pub failures: FailureGroups,
}

impl JobView {
    pub fn is_running(&self) -> bool {
        self.state == JobState::Running.name()
    }
}

/// The cluster at one moment.
#[derive(Debug, Clone, Serialize)]
pub struct ClusterView {
    /// Milliseconds since 1970, by the clock of the client.
    pub now: i64,
    pub nodes: Vec<NodeView>,
    /// The node with most of the bytes or keys, if these are distributed unevenly.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub crowded: Option<Crowded>,
    /// The newest first.
    pub jobs: Vec<JobView>,
}

impl Client {
    /// The status of `node`, with its last `samples` samples.
    pub async fn status(&self, node: NodeId, samples: usize) -> Result<NodeStatus> {
        let path = format!("/v1/status?samples={samples}");
        let response = self.send(node, Method::GET, &path, body::empty(), &Activity::default()).await?;
        self.json(node, response).await
    }

    /// A client for [`Client::cluster_view`]. A node that does not answer soon counts as down, and is probed until it
    /// answers.
    pub fn for_watching(&self) -> Self {
        let settings = &self.inner.settings;
        let deadline = NODE_TIMEOUT.min(self.deadline());
        Self::new(self.cluster().clone(), Settings { deadline, restart: Duration::ZERO, ..settings.clone() })
    }

    /// Asks all nodes at once, each within the deadline of [`Client::for_watching`].
    pub async fn cluster_view(&self, samples: usize) -> ClusterView {
        let asked = self.on_every_node(|client, node| async move {
            // The head and the body of a response have a deadline each. This is one deadline for both.
            within(NODE_TIMEOUT, client.status(node, samples)).await.unwrap_or_else(|| Err(client.deadline_error(node)))
        });
        let answers = asked.await;
        let now = now_milliseconds();
        let (mut nodes, mut records) = (Vec::new(), Vec::new());
        let mut failures: BTreeMap<JobId, FailureGroups> = BTreeMap::new();
        for (node, answer) in answers.into_iter().enumerate() {
            let address = self.cluster().address(node).to_string();
            nodes.push(match answer {
                Ok(status) => {
                    for job in status.jobs {
                        failures.entry(job.record.spec.id.clone()).or_default().add_of_node(node, job.failures);
                        records.push((node, job.record));
                    }
                    let state = match status.health.free_bytes < status.health.reserve_bytes {
                        true => NodeState::Full,
                        false => NodeState::Up,
                    };
                    let NodeStatus { health, usage, samples, .. } = status;
                    NodeView { node, address, state, why: None, health: Some(health), usage, samples }
                }
                Err(error) => absent(node, address, &error),
            });
        }
        let silent: Vec<NodeId> = nodes.iter().filter(|node| node.health.is_none()).map(|node| node.node).collect();
        let jobs = job_table::merge(records, &silent).into_iter().rev();
        let jobs = jobs.map(|(id, job)| view_of(&job, failures.remove(&id).unwrap_or_default(), self.cluster().len()));
        let stored = |read: fn(&Counted) -> u64| {
            nodes.iter().filter_map(move |node| node.usage.as_ref().map(|usage| (node.node, read(usage))))
        };
        let crowded = skew::crowded(Amount::Bytes, nodes.len(), stored(|counted| counted.usage.bytes))
            .or_else(|| skew::crowded(Amount::Keys, nodes.len(), stored(|counted| counted.usage.keys)));
        ClusterView { now, crowded, jobs: jobs.collect(), nodes }
    }
}

/// A node that did not answer, or answered with an error.
fn absent(node: NodeId, address: String, error: &Error) -> NodeView {
    let state = match error.kind() {
        ErrorKind::Unreachable | ErrorKind::Deadline => NodeState::Down,
        _ => NodeState::Refuses,
    };
    NodeView { node, address, state, why: Some(error.to_string()), health: None, usage: None, samples: Vec::new() }
}

fn view_of(job: &ClusterJob, failures: FailureGroups, nodes: usize) -> JobView {
    let (state, progress, started) = (job.state(), job.progress(), job.started());
    let running = state == JobState::Running;
    JobView {
        id: job.spec.id.to_string(),
        kind: job.spec.kind.to_string(),
        indir: job.spec.from(),
        outdir: job.spec.to(),
        cmd: job.spec.cmd.as_os_str().to_string_lossy().into_owned(),
        state: state.name(),
        started,
        ended: job.ended(),
        elapsed: job.elapsed(),
        seconds_left: job.elapsed().filter(|_| running).and_then(|elapsed| seconds_left(&progress, elapsed)),
        progress,
        done_before: job.done_before(),
        parts: job.nodes.iter().map(|(&node, record)| JobPart { node, progress: record.progress }).collect(),
        crowded: skew::crowded(Amount::Tasks, nodes, job.nodes.iter().map(|(&node, part)| (node, part.progress.tasks))),
        failures,
    }
}

/// An estimate from the work that was finished in `milliseconds`.
fn seconds_left(progress: &Progress, milliseconds: i64) -> Option<f64> {
    let share = progress.share();
    (share > 0.0 && milliseconds > 0).then(|| milliseconds as f64 / 1000.0 * (1.0 - share).max(0.0) / share)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_takes_as_long_as_what_was_done() {
        let progress = Progress { tasks: 10, done: 2, ..Progress::default() };
        assert_eq!(seconds_left(&progress, 1000), Some(4.0));
        let bytes = Progress { bytes: 100, bytes_done: 50, ..progress };
        assert_eq!(seconds_left(&bytes, 1000), Some(1.0));
        assert_eq!(seconds_left(&Progress { done: 0, ..progress }, 1000), None);
        let failed = Progress { failed: 3, ..progress };
        assert_eq!(seconds_left(&failed, 1000), Some(1.0), "what failed is not to be done");
        let failed = Progress { bytes: 100, bytes_done: 20, bytes_failed: 30, ..failed };
        assert_eq!(seconds_left(&failed, 1000), Some(1.0));
    }
}
