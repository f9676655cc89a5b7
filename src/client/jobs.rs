//! Jobs over the wire: submit to a node, start, follow, stop, cancel.

use super::Client;
use super::lines::Lines;
use crate::body::{self, Activity, Chunks};
use crate::error::{Error, ErrorKind, Result};
use crate::placement::NodeId;
use crate::protocol::{Event, JobId, JobSpec, Plan};
use hyper::Method;
use hyper::body::Incoming;

/// Events of one node, as they come.
pub struct EventStream {
    lines: Lines,
    who: String,
}

impl EventStream {
    pub(super) fn new(chunks: Chunks<Incoming>, who: String) -> Self {
        Self { lines: Lines::new(chunks), who }
    }

    /// The next event, or `None` at the stream's end. An [`Event::Error`] comes as the error itself.
    pub async fn next(&mut self) -> Result<Option<Event>> {
        let Some(line) = self.lines.next().await? else {
            return Ok(None);
        };
        match serde_json::from_slice(&line) {
            Ok(Event::Error(error)) => Err(error.by(&self.who)),
            Ok(event) => Ok(Some(event)),
            Err(e) => Err(Error::new(ErrorKind::Unreachable, format!("{}: malformed event: {e}", self.who))),
        }
    }
}

impl Client {
    /// Has `node` check a job and list its own tasks. Nothing runs before [`Client::start_job`].
    pub async fn submit_job(&self, node: NodeId, spec: &JobSpec) -> Result<Plan> {
        let json = serde_json::to_vec(spec).map_err(|e| Error::new(ErrorKind::BadRequest, e.to_string()))?;
        let mut events = self.events(node, Method::POST, "/v1/jobs", body::full(json)).await?;
        while let Some(event) = events.next().await? {
            if let Event::Planned(plan) = event {
                return Ok(plan);
            }
        }
        Err(Error::new(ErrorKind::Unreachable, format!("{}: no plan came", self.cluster().name(node))))
    }

    pub async fn start_job(&self, node: NodeId, id: &JobId) -> Result<()> {
        self.job_request(node, Method::POST, &format!("/v1/jobs/{id}/start")).await
    }

    /// Starts no more of the job's tasks on `node`; those that run go on.
    pub async fn stop_job(&self, node: NodeId, id: &JobId) -> Result<()> {
        self.job_request(node, Method::POST, &format!("/v1/jobs/{id}/stop")).await
    }

    /// Kills the job's commands on `node`.
    pub async fn cancel_job(&self, node: NodeId, id: &JobId) -> Result<()> {
        self.job_request(node, Method::DELETE, &format!("/v1/jobs/{id}")).await
    }

    /// Progress, failures and the end of the job on `node`, from its beginning.
    pub async fn follow_job(&self, node: NodeId, id: &JobId) -> Result<EventStream> {
        self.events(node, Method::GET, &format!("/v1/jobs/{id}/events"), body::empty()).await
    }

    async fn job_request(&self, node: NodeId, method: Method, path: &str) -> Result<()> {
        self.send(node, method, path, body::empty(), &Activity::default()).await.map(drop)
    }
}
