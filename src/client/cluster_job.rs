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

/// Between two tries to reach a node again.
const RETRY: Duration = Duration::from_millis(250);

/// How long a node may take to kill what runs of a job. What it does after that it does all the same; the deadline has mostly
/// passed already.
const CANCEL: Duration = Duration::from_millis(400);

/// Events under way to the follower.
const QUEUE: usize = 64;

pub type NodeEvent = (NodeId, Result<Event>);

impl Client {
    /// Asks every node at once; the answers come in the order of the nodes.
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

    /// The answers of all nodes, or the error to tell. A node that waits for a silent one may be late itself: the one is to blame that
    /// does not even say how it is.
    pub async fn all_or_blame<T>(&self, answers: Vec<Result<T>>) -> Result<Vec<T>> {
        let is_silence = |error: &Error| matches!(error.kind(), ErrorKind::Deadline | ErrorKind::Unreachable);
        let watcher = self.for_watching();
        // One alone that is late has nobody else to blame.
        let has_several = answers.iter().filter(|answer| answer.as_ref().is_err_and(is_silence)).count() > 1;
        for (node, answer) in answers.iter().enumerate() {
            if let Err(error) = answer
                && has_several
                && is_silence(error)
                && watcher.health(node).await.is_err()
            {
                return Err(error.clone());
            }
        }
        answers.into_iter().collect()
    }

    /// The same as [`Client::on_every_node`]; the first error is told at once, and what was asked of the others is not waited for: a node that asks a silent one
    /// has more patience than we may have.
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

    /// Plans the job on every node, then starts it on all. Returns the number of its tasks. After an error the job is to
    /// be cancelled.
    pub async fn begin_job(&self, spec: &JobSpec) -> Result<u64> {
        Ok(self.start_everywhere(spec).await?.iter().map(|plan| plan.tasks).sum())
    }

    /// The same, and returns the plan of each node.
    pub async fn start_everywhere(&self, spec: &JobSpec) -> Result<Vec<Plan>> {
        let plans = self.submit_everywhere(spec).await?;
        let started = self.on_every_node_or_fail(|client, node| {
            let id = spec.id.clone();
            async move { client.start_job(node, &id).await }
        });
        started.await?;
        Ok(plans)
    }

    /// The same, and follows it: see [`Client::follow_everywhere`].
    pub async fn run_everywhere(&self, spec: &JobSpec) -> Result<(Vec<Plan>, mpsc::Receiver<NodeEvent>)> {
        let plans = self.submit_everywhere(spec).await?;
        let started = self.on_every_node_or_fail(|client, node| {
            let id = spec.id.clone();
            async move { client.start_and_follow_job(node, &id).await }
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

    /// What each node would do for a job. Nothing is kept of it.
    pub async fn plan_everywhere(&self, spec: &JobSpec) -> Result<Vec<Plan>> {
        let plans = self.on_every_node_or_fail(|client, node| {
            let spec = spec.clone();
            async move { client.plan_job(node, &spec).await }
        });
        accepted(spec, plans.await?)
    }

    /// Kills what runs of the job, on the nodes that can be reached.
    pub async fn cancel_everywhere(&self, id: &JobId) {
        // A node that is silent has had its deadline already.
        self.with_deadline(self.deadline().min(CANCEL))
            .on_every_node(|client, node| {
                let id = id.clone();
                async move {
                    // The error that led here is the one to tell.
                    let _ = client.cancel_job(node, &id).await;
                }
            })
            .await;
    }

    /// The events of every node, until each has ended. A node's error is its last event.
    pub fn follow_everywhere(&self, id: &JobId) -> mpsc::Receiver<NodeEvent> {
        self.follow_each(id, self.cluster().ids().map(|_| None))
    }

    /// The same, with the events of each node from its beginning where they come already.
    fn follow_each(&self, id: &JobId, begun: impl Iterator<Item = Option<EventStream>>) -> mpsc::Receiver<NodeEvent> {
        let (sender, events) = mpsc::channel(QUEUE);
        for (node, begun) in self.cluster().ids().zip(begun) {
            let (client, id, sender) = (self.clone(), id.clone(), sender.clone());
            tokio::spawn(async move {
                if let Err(error) = follow_node(&client, node, &id, begun, &sender).await {
                    // Nobody listens once another node's error has ended the job.
                    let _ = sender.send((node, Err(error))).await;
                }
            });
        }
        events
    }
}

/// The plans, if they are of any key at all, and no job that made some of these keys is unfinished.
fn accepted(spec: &JobSpec, planned: Vec<(Plan, Vec<Source>)>) -> Result<Vec<Plan>> {
    let (plans, sources): (Vec<Plan>, Vec<Vec<Source>>) = planned.into_iter().unzip();
    unfinished::refuse(spec, plans.len(), sources.into_iter().flatten())?;
    match plans.iter().all(|plan| plan.tasks + plan.done_before + plan.gone == 0) {
        true => Err(Error::new(ErrorKind::NotFound, format!("{}: no keys in it", spec.indir))),
        false => Ok(plans),
    }
}

/// Hands on one node's events. A connection that breaks is made again, and what was told already is left out.
async fn follow_node(
    client: &Client,
    node: NodeId,
    id: &JobId,
    mut begun: Option<EventStream>,
    sender: &mpsc::Sender<NodeEvent>,
) -> Result<()> {
    let mut failures = 0;
    // Of the time since the connection was lost.
    let mut lost: Option<Timeout> = None;
    loop {
        let (mut told, began) = (0, Instant::now());
        let left = lost.as_ref().map_or(client.deadline(), Timeout::left);
        let followed = match begun.take() {
            Some(begun) => Some(Ok(begun)),
            None => within(left, client.follow_job(node, id)).await,
        };
        let broken = match followed.unwrap_or_else(|| Err(client.late(node))) {
            Err(error) => error,
            Ok(mut stream) => loop {
                match stream.next().await {
                    Ok(Some(event)) => {
                        // A node that breaks off again and again at once is lost too.
                        if began.elapsed() >= HEARTBEAT {
                            lost = None;
                        }
                        if matches!(event, Event::Failure(_)) {
                            told += 1;
                            if told <= failures {
                                continue;
                            }
                            failures = told;
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
