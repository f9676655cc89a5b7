//! The jobs of a cluster: merges the records that each node has of a job.

use super::core::Client;
use crate::error::{Error, ErrorKind, Result};
use crate::placement::NodeId;
use crate::protocol::{JobId, JobRecord, JobSpec, Outcome, Progress};
use std::collections::BTreeMap;

/// The state of a job over the whole cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobState {
    /// It was not started yet.
    Planned,
    Running,
    Done,
    Failed,
    Cancelled,
    /// A daemon ended before the job did.
    Interrupted,
    /// Done on the nodes that answered; the other nodes did not answer.
    Unknown,
}

impl JobState {
    /// The state of a started job, from its outcome on each node.
    pub fn of(outcomes: impl IntoIterator<Item = Option<Outcome>>) -> Self {
        // The state of the job is the outcome that comes last in this order.
        let weight = |outcome: Option<Outcome>| match outcome {
            Some(Outcome::Done) => (0, Self::Done),
            Some(Outcome::Stopped) => (1, Self::Failed),
            Some(Outcome::Interrupted) => (2, Self::Interrupted),
            Some(Outcome::Failed) => (3, Self::Failed),
            Some(Outcome::Cancelled) => (4, Self::Cancelled),
            None => (5, Self::Running),
        };
        let heaviest = outcomes.into_iter().map(weight).max_by_key(|(weight, _)| *weight);
        heaviest.map_or(Self::Done, |(_, state)| state)
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Planned => "planned",
            Self::Running => "running",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Interrupted => "interrupted",
            Self::Unknown => "unknown",
        }
    }
}

/// One job, as the nodes that answered know it.
#[derive(Debug, Clone)]
pub struct ClusterJob {
    pub spec: JobSpec,
    pub nodes: BTreeMap<NodeId, JobRecord>,
    /// The nodes that did not answer.
    pub silent: Vec<NodeId>,
}

impl ClusterJob {
    pub fn state(&self) -> JobState {
        match JobState::of(self.nodes.values().map(|record| record.outcome)) {
            JobState::Running if !self.was_started() => JobState::Planned,
            JobState::Done if !self.silent.is_empty() => JobState::Unknown,
            state => state,
        }
    }

    fn was_started(&self) -> bool {
        self.nodes.values().any(|record| record.started.is_some())
    }

    /// True if it has ended without having started: then it is not shown.
    fn is_nothing(&self) -> bool {
        !self.was_started() && self.nodes.values().all(|record| record.outcome.is_some())
    }

    pub fn progress(&self) -> Progress {
        let mut sum = Progress::default();
        self.nodes.values().for_each(|record| sum += record.progress);
        sum
    }

    /// Tasks that are skipped, since a previous run has finished them.
    pub fn done_before(&self) -> u64 {
        self.nodes.values().map(|record| record.plan.done_before).sum()
    }

    /// When the first node started it, in milliseconds since 1970.
    pub fn started(&self) -> Option<i64> {
        self.nodes.values().filter_map(|record| record.started).min()
    }

    /// Milliseconds from its start to its end, or until now, on the node where that is longest. Each node uses its own
    /// clock, since clocks may differ.
    pub fn elapsed(&self) -> Option<i64> {
        self.nodes.values().filter_map(|record| record.elapsed).max()
    }

    /// When it ended on the last node, in milliseconds since 1970; `None` until it has ended on all.
    pub fn ended(&self) -> Option<i64> {
        let ends: Option<Vec<i64>> = self.nodes.values().map(|record| record.ended).collect();
        ends?.into_iter().max()
    }
}

/// Merges the records of the nodes. Jobs are in the order of their ids. `silent`: the nodes that did not answer.
pub fn merge(records: impl IntoIterator<Item = (NodeId, JobRecord)>, silent: &[NodeId]) -> BTreeMap<JobId, ClusterJob> {
    let mut jobs: BTreeMap<JobId, ClusterJob> = BTreeMap::new();
    for (node, record) in records {
        let job = jobs.entry(record.spec.id.clone()).or_insert_with(|| ClusterJob {
            spec: record.spec.clone(),
            nodes: BTreeMap::new(),
            silent: silent.to_vec(),
        });
        job.nodes.insert(node, record);
    }
    jobs.retain(|_, job| !job.is_nothing());
    jobs
}

impl Client {
    /// The jobs of all nodes, and the errors of the nodes that did not answer.
    pub async fn all_jobs(&self) -> (BTreeMap<JobId, ClusterJob>, Vec<Error>) {
        let asked = self.on_every_node(|client, node| async move { (node, client.list_jobs(node).await) }).await;
        let (mut records, mut silent, mut errors) = (Vec::new(), Vec::new(), Vec::new());
        for (node, answer) in asked {
            match answer {
                Ok(jobs) => records.extend(jobs.into_iter().map(|job| (node, job))),
                Err(error) => {
                    silent.push(node);
                    errors.push(error);
                }
            }
        }
        (merge(records, &silent), errors)
    }

    /// One job. Error: no node that answers knows it.
    pub async fn cluster_job(&self, id: &JobId) -> Result<ClusterJob> {
        let asked = self.on_every_node(|client, node| {
            let id = id.clone();
            async move { (node, client.find_job(node, &id).await) }
        });
        let (mut records, mut silent, mut failed) = (Vec::new(), Vec::new(), None);
        for (node, answer) in asked.await {
            match answer {
                Ok(record) => records.push((node, record)),
                Err(error) => {
                    silent.extend((error.kind() != ErrorKind::NotFound).then_some(node));
                    failed = Some(error);
                }
            }
        }
        match (merge(records, &silent).remove(id), failed) {
            (Some(job), _) => Ok(job),
            (None, failed) => Err(failed.unwrap_or_else(|| Error::usage(format!("job {id}: the cluster has no node")))),
        }
    }
}
