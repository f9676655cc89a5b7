//! A job over the whole cluster: planned everywhere before it starts anywhere, then followed on every node.

use super::core::Client;
use super::jobs::EventStream;
use super::unfinished;
use crate::error::{Error, ErrorKind, Result};
use crate::placement::NodeId;
use crate::protocol::{Event, HEARTBEAT, JobId, JobSpec, Plan, Source};
use crate::timeout::{Timeout, within};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// The pause between two attempts to reach a node.
const RETRY: Duration = Duration::from_millis(250);

/// How long to wait for a node to cancel a job. A node that takes longer still cancels it. A full deadline has usually
/// passed before.
const CANCEL: Duration = Duration::from_millis(400);

/// How long a node takes at most to answer that has nothing to wait for. A full deadline has passed before.
const ANSWERS: Duration = Duration::from_millis(400);

/// The most events in the queue to the follower.
const QUEUE: usize = 64;

pub type NodeEvent = (NodeId, Result<Event>);

impl Client {
    /// Sends a request to all nodes at once. Returns the answers in the order of the nodes.
    pub async fn on_every_node<T, F>(&self, ask: impl Fn(Client, NodeId) -> F) -> Vec<T>
    where
        T: Send + 'static,
        F: Future<Output = T> + Send + 'static,
    {
        let asked: Vec<_> = self.cluster().ids().map(|node| tokio::spawn(ask(self.clone(), node))).collect();
        let mut answers = Vec::new();
        for answer in asked {
            match answer.await {
                Ok(answer) => answers.push(answer),
                Err(error) => std::panic::resume_unwind(error.into_panic()),
            }
        }
        answers
    }

    /// The answers of all nodes, or the error to report. A node may be late only because it waits for a silent node.
    /// Therefore the error of a node that does not even answer a health request comes first.
    pub async fn all_or_blame<T>(&self, answers: Vec<Result<T>>) -> Result<Vec<T>> {
        let is_silence = |error: &Error| matches!(error.kind(), ErrorKind::Deadline | ErrorKind::Unreachable);
        let watcher = self.for_watching();
        // If only one node is late, it cannot be waiting for another.
        let has_several = answers.iter().filter(|answer| answer.as_ref().is_err_and(is_silence)).count() > 1;
        for (node, answer) in answers.iter().enumerate() {
            if let Err(error) = answer
                && has_several
                && is_silence(error)
                && within(ANSWERS, watcher.health(node)).await.is_none_or(|answer| answer.is_err())
            {
                return Err(error.clone());
            }
        }
        answers.into_iter().collect()
    }

    /// Like [`Client::on_every_node`], but returns the first error at once, without waiting for the other nodes: a node
    /// that waits for a silent node may have a longer timeout than this client.
    async fn on_every_node_or_fail<T, F>(&self, ask: impl Fn(Client, NodeId) -> F) -> Result<Vec<T>>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let mut asked: JoinSet<_> = self
            .cluster()
            .ids()
            .map(|node| {
                let asked = ask(self.clone(), node);
                async move { asked.await.map(|answer| (node, answer)) }
            })
            .collect();
        let mut answers = BTreeMap::new();
        while let Some(answer) = asked.join_next().await {
            let (node, answer) = answer.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))?;
            answers.insert(node, answer);
        }
        Ok(answers.into_values().collect())
    }

    /// Plans the job on every node, then starts it on all. Returns the number of its tasks. After an error the caller
    /// must cancel the job.
    pub async fn begin_job(&self, spec: &JobSpec) -> Result<u64> {
        Ok(self.start_everywhere(spec).await?.iter().map(|plan| plan.tasks).sum())
    }

    /// Like [`Client::begin_job`], but returns the plan of each node.
    pub async fn start_everywhere(&self, spec: &JobSpec) -> Result<Vec<Plan>> {
        let plans = self.submit_everywhere(spec).await?;
        let started = self.on_every_node_or_fail(|client, node| {
            let spec = spec.clone();
            async move { client.start_job(node, &spec).await }
        });
        started.await?;
        Ok(plans)
    }

    /// Starts the job, and follows it as [`Client::follow_everywhere`] does.
    pub async fn run_everywhere(&self, spec: &JobSpec) -> Result<(Vec<Plan>, mpsc::Receiver<NodeEvent>)> {
        let plans = self.submit_everywhere(spec).await?;
        let started = self.on_every_node_or_fail(|client, node| {
            let spec = spec.clone();
            async move { client.start_and_follow_job(node, &spec).await }
        });
        let started = started.await?.into_iter().map(Some);
        Ok((plans, self.follow_each(&spec.id, started)))
    }

    async fn submit_everywhere(&self, spec: &JobSpec) -> Result<Vec<Plan>> {
        let plans = self.on_every_node_or_fail(|client, node| {
            let spec = spec.clone();
            async move { client.submit_job(node, &spec).await }
        });
        accepted(spec, plans.await?)
    }

    /// The plan that each node would make for a job. The nodes forget it.
    pub async fn plan_everywhere(&self, spec: &JobSpec) -> Result<Vec<Plan>> {
        let plans = self.on_every_node_or_fail(|client, node| {
            let spec = spec.clone();
            async move { client.plan_job(node, &spec).await }
        });
        accepted(spec, plans.await?)
    }

    /// Cancels the job on all nodes that can be reached.
    pub async fn cancel_everywhere(&self, id: &JobId) {
        // The deadline of a silent node has already passed.
        self.with_deadline(self.deadline().min(CANCEL))
            .on_every_node(|client, node| {
                let id = id.clone();
                async move {
                    // The user sees the error that led to the cancellation.
                    let _ = client.cancel_job(node, &id).await;
                }
            })
            .await;
    }

    /// The events of every node, until each has ended. A node's error is its last event.
    pub fn follow_everywhere(&self, id: &JobId) -> mpsc::Receiver<NodeEvent> {
        self.follow_each(id, self.cluster().ids().map(|_| None))
    }

    /// Follows the job with the event streams of `begun`, and opens those that are missing.
    fn follow_each(&self, id: &JobId, begun: impl Iterator<Item = Option<EventStream>>) -> mpsc::Receiver<NodeEvent> {
        let (sender, events) = mpsc::channel(QUEUE);
        for (node, begun) in self.cluster().ids().zip(begun) {
            let (client, id, sender) = (self.clone(), id.clone(), sender.clone());
            tokio::spawn(async move {
                if let Err(error) = follow_node(&client, node, &id, begun, &sender).await {
                    // The receiver is gone if the error of another node has ended the job.
                    let _ = sender.send((node, Err(error))).await;
                }
            });
        }
        events
    }
}

/// The plans. Errors: there are no keys, or a job that made some of these keys is not finished.
fn accepted(spec: &JobSpec, planned: Vec<(Plan, Vec<Source>)>) -> Result<Vec<Plan>> {
    let (plans, sources): (Vec<Plan>, Vec<Vec<Source>>) = planned.into_iter().unzip();
    unfinished::refuse(spec, plans.len(), sources.into_iter().flatten())?;
    let is_empty = |plan: &Plan| plan.tasks + plan.done_before + plan.gone == 0;
    // The workers of a copy find out what there is.
    match spec.copy.is_none() && plans.iter().all(is_empty) {
        true => Err(Error::new(ErrorKind::NotFound, format!("{}: no keys in it", spec.indir))),
        false => Ok(plans),
    }
}

/// Passes the events of one node on. Reconnects if the connection breaks, and skips failures that were already
/// reported.
async fn follow_node(
    client: &Client,
    node: NodeId,
    id: &JobId,
    mut begun: Option<EventStream>,
    sender: &mpsc::Sender<NodeEvent>,
) -> Result<()> {
    let mut failures = 0;
    // The timeout since the connection was lost.
    let mut lost: Option<Timeout> = None;
    loop {
        let (mut reported, began) = (0, Instant::now());
        let left = lost.as_ref().map_or(client.deadline(), Timeout::left);
        let followed = match begun.take() {
            Some(begun) => Some(Ok(begun)),
            None => within(left, client.follow_job(node, id)).await,
        };
        let broken = match followed.unwrap_or_else(|| Err(client.deadline_error(node))) {
            Err(error) => error,
            Ok(mut stream) => loop {
                match stream.next().await {
                    Ok(Some(event)) => {
                        // Only after a while: a node whose connections break at once counts as lost.
                        if began.elapsed() >= HEARTBEAT {
                            lost = None;
                        }
                        if matches!(event, Event::Failure(_)) {
                            reported += 1;
                            if reported <= failures {
                                continue;
                            }
                            failures = reported;
                        }
                        let ended = matches!(event, Event::Ended { .. });
                        if sender.send((node, Ok(event))).await.is_err() || ended {
                            return Ok(());
                        }
                    }
                    Ok(None) => {
                        break Error::new(
                            ErrorKind::Unreachable,
                            format!("{}: its daemon ended", client.cluster().name(node)),
                        );
                    }
                    Err(error) => break error,
                }
            },
        };
        if broken.kind() != ErrorKind::Unreachable {
            return Err(broken);
        }
        let lost = lost.get_or_insert_with(|| Timeout::new(client.deadline()));
        tokio::time::sleep(RETRY).await;
        if lost.is_over() {
            return Err(broken);
        }
    }
}
