//! Requests about jobs to one node: submit, start, follow, stop, cancel; records, logs and files. Jobs over all nodes
//! are in `cluster_job`.

use super::core::{Client, blocking};
use super::lines::Lines;
use crate::body::{self, Activity, BoxBody, ChunkSender, Chunks};
use crate::error::{Error, ErrorKind, Result};
use crate::file::BLOCK;
use crate::key::{Dir, Key, Prefix};
use crate::placement::NodeId;
use crate::protocol::{Event, FoundOutputs, JobFile, JobId, JobRecord, JobSpec, Plan, Source, TaskFailure, escape};
use http_body_util::BodyExt;
use hyper::Method;
use hyper::body::Incoming;
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use tokio::sync::mpsc;

/// The most jobs that are read from a node, which is more than any node keeps.
const MAX_JOBS: usize = 10_000;

/// The stream of events of one node.
pub struct EventStream {
    lines: Lines,
    node: NodeId,
    subject: String,
}

impl EventStream {
    pub(super) fn new(chunks: Chunks<Incoming>, node: NodeId, subject: String) -> Self {
        Self { lines: Lines::new(chunks), node, subject }
    }

    /// The next event, or `None` at the stream's end. An [`Event::Error`] comes as the error itself.
    pub async fn next(&mut self) -> Result<Option<Event>> {
        let Some(line) = self.lines.next().await? else {
            return Ok(None);
        };
        match serde_json::from_slice(&line) {
            Ok(Event::Error(error)) => Err(error.of_peer(&self.subject)),
            // A node reports only its own tasks.
            Ok(Event::Failure(failure)) => Ok(Some(Event::Failure(TaskFailure { node: self.node, ..failure }))),
            Ok(event) => Ok(Some(event)),
            Err(e) => Err(Error::new(ErrorKind::Unreachable, format!("{}: malformed event: {e}", self.subject))),
        }
    }
}

impl Client {
    /// Makes `node` check a job and plan its own tasks. No task runs before [`Client::start_job`].
    pub async fn submit_job(&self, node: NodeId, spec: &JobSpec) -> Result<(Plan, Vec<Source>)> {
        self.submission(node, "/v1/jobs", spec).await
    }

    pub async fn start_job(&self, node: NodeId, spec: &JobSpec) -> Result<()> {
        let path = format!("/v1/jobs/{}/start", spec.id);
        self.send(node, Method::POST, &path, handed(spec), &Activity::default()).await.map(drop)
    }

    /// Starts the job on `node`, and follows it as [`Client::follow_job`] does.
    pub async fn start_and_follow_job(&self, node: NodeId, spec: &JobSpec) -> Result<EventStream> {
        self.events(node, Method::POST, &format!("/v1/jobs/{}/start?follow=true", spec.id), handed(spec)).await
    }

    /// Stops the job on `node`: no more tasks start, and running tasks continue.
    pub async fn stop_job(&self, node: NodeId, id: &JobId) -> Result<()> {
        self.job_request(node, Method::POST, &format!("/v1/jobs/{id}/stop")).await
    }

    /// Kills the job's commands on `node`.
    pub async fn cancel_job(&self, node: NodeId, id: &JobId) -> Result<()> {
        let (path, activity) = (format!("/v1/jobs/{id}"), Activity::default());
        // Sent even to a silent node, which will read it when it continues.
        self.send_now(node, Method::DELETE, &path, body::empty(), &activity).await.map(drop)
    }

    /// Deletes outputs below `prefix` on `node` that earlier runs of the same map have left: those of a task whose
    /// inputs have the digest `inputs`, or whose inputs are gone.
    pub async fn clean_job(&self, node: NodeId, id: &JobId, prefix: &Prefix, inputs: Option<u64>) -> Result<()> {
        let inputs = inputs.map_or_else(String::new, |inputs| format!("&inputs={inputs:016x}"));
        let path = format!("/v1/jobs/{id}/clean?prefix={}{inputs}", escape(prefix.as_str()));
        self.job_request(node, Method::POST, &path).await
    }

    /// Sends to `found` the existing outputs below `outdir` on `node` that tasks of node `of` have made; without `of`,
    /// all keys there.
    pub async fn existing_outputs(
        &self,
        node: NodeId,
        outdir: &Dir,
        of: Option<NodeId>,
        found: &mpsc::Sender<Result<FoundOutputs>>,
    ) -> Result<()> {
        let of = of.map_or_else(String::new, |node| format!("&node={node}"));
        let path = format!("/v1/existing?outdir={}{of}", escape(outdir.as_str()));
        let mut events = self.events(node, Method::GET, &path, body::empty()).await?;
        while let Some(event) = events.next().await? {
            let existing = match event {
                Event::Existing(existing) => existing,
                Event::Complete => return Ok(()),
                _ => continue,
            };
            // The receiver is gone if another node has failed.
            if found.send(Ok(existing)).await.is_err() {
                return Ok(());
            }
        }
        Err(Error::new(ErrorKind::Unreachable, format!("{}: the answer was cut off", self.cluster().name(node))))
    }

    /// The progress, failures and end of the job on `node`, from the beginning of the job.
    pub async fn follow_job(&self, node: NodeId, id: &JobId) -> Result<EventStream> {
        self.events(node, Method::GET, &format!("/v1/jobs/{id}/events"), body::empty()).await
    }

    /// The plan that `node` would make for a job. The node forgets it.
    pub async fn plan_job(&self, node: NodeId, spec: &JobSpec) -> Result<(Plan, Vec<Source>)> {
        self.submission(node, "/v1/jobs?dry_run=true", spec).await
    }

    /// Every job that `node` knows, in the order of their ids.
    pub async fn list_jobs(&self, node: NodeId) -> Result<Vec<JobRecord>> {
        let mut events = self.events(node, Method::GET, "/v1/jobs", body::empty()).await?;
        let mut jobs = Vec::new();
        while let Some(event) = events.next().await? {
            if let Event::Job(job) = event {
                jobs.push(*job);
            }
            if jobs.len() > MAX_JOBS {
                let name = self.cluster().name(node);
                return Err(Error::new(ErrorKind::Unreachable, format!("{name}: more than {MAX_JOBS} jobs")));
            }
        }
        Ok(jobs)
    }

    /// The record of one job at `node`.
    pub async fn find_job(&self, node: NodeId, id: &JobId) -> Result<JobRecord> {
        let path = format!("/v1/jobs/{id}");
        let response = self.send(node, Method::GET, &path, body::empty(), &Activity::default()).await?;
        self.json(node, response).await
    }

    /// Writes the stderr of the job's tasks on `node` into `sink`: with a `key`, that of the task whose first input it
    /// is, byte for byte; else that of all tasks, each under a line `==> KEY <==`. Error: there is no such task, or no
    /// stderr of it is kept.
    pub async fn job_log(
        &self,
        node: NodeId,
        id: &JobId,
        key: Option<&Key>,
        mut sink: impl Write + Send + 'static,
    ) -> Result<()> {
        let query = key.map_or_else(String::new, |key| format!("?key={}", escape(key.as_str())));
        let path = format!("/v1/jobs/{id}/logs{query}");
        let response = self.send(node, Method::GET, &path, body::empty(), &Activity::default()).await?;
        let mut reader = self.reader(node, response);
        blocking(move || {
            while let Some(chunk) = reader.next_chunk()? {
                sink.write_all(&chunk).map_err(|e| Error::io("stdout", &e))?;
            }
            Ok(())
        })
        .await
    }

    /// Sends the local file at `path` to `node`, which keeps it for jobs, unless the node has it.
    pub async fn put_job_file(&self, node: NodeId, file: &JobFile, path: PathBuf) -> Result<()> {
        let route = format!("/v1/files/{}", file.digest);
        let asked = self.send(node, Method::GET, &route, body::empty(), &Activity::default()).await;
        match asked {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            asked => return asked.map(drop),
        }
        let (sender, body) = body::channel();
        let activity = body.activity();
        let sending = tokio::task::spawn_blocking(move || send_local(&path, &sender));
        let answer = self.send(node, Method::PUT, &route, body.boxed_unsync(), &activity).await;
        // If both failed, the error of sending is the cause.
        let sent = sending.await.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()));
        sent.and(answer.map(drop))
    }

    /// Sends a request whose answer is a stream of events.
    pub(super) async fn events(
        &self,
        node: NodeId,
        method: Method,
        path: &str,
        body: body::BoxBody,
    ) -> Result<EventStream> {
        let response = self.send(node, method, path, body, &Activity::default()).await?;
        Ok(EventStream::new(self.chunks(node, response), node, self.cluster().name(node).to_string()))
    }

    async fn submission(&self, node: NodeId, path: &str, spec: &JobSpec) -> Result<(Plan, Vec<Source>)> {
        let mut events = self.events(node, Method::POST, path, body::full(job_json(spec)?)).await?;
        let (mut planned, mut sources) = (None, Vec::new());
        // The response is read to its end, so that the connection can be reused.
        while let Some(event) = events.next().await? {
            match event {
                Event::Source(source) if sources.len() < MAX_JOBS => sources.push(source),
                Event::Planned(plan) => planned = Some(plan),
                _ => {}
            }
        }
        if let Some(plan) = planned {
            return Ok((plan, sources));
        }
        Err(Error::new(ErrorKind::Unreachable, format!("{}: no plan came", self.cluster().name(node))))
    }

    async fn job_request(&self, node: NodeId, method: Method, path: &str) -> Result<()> {
        self.send(node, method, path, body::empty(), &Activity::default()).await.map(drop)
    }
}

/// Sends a local file block by block, until its end or until the receiver is gone.
fn send_local(path: &Path, sender: &ChunkSender) -> Result<()> {
    let failed = |e: std::io::Error| Error::io(format!("--file {}", path.display()), &e);
    let sent = (|| {
        let mut file = File::open(path).map_err(failed)?;
        loop {
            let mut block = vec![0; BLOCK];
            match file.read(&mut block).map_err(failed)? {
                0 => return Ok(()),
                n => block.truncate(n),
            }
            if sender.send(block.into()).is_err() {
                return Ok(());
            }
        }
    })();
    sent.inspect_err(|error: &Error| sender.fail(error.clone()))
}

pub(super) fn job_json(spec: &JobSpec) -> Result<Vec<u8>> {
    serde_json::to_vec(spec).map_err(|e| Error::new(ErrorKind::BadRequest, e.to_string()))
}

/// The body of a start: the credentials for the workers of a copy, if the client sends some.
fn handed(spec: &JobSpec) -> BoxBody {
    let json = spec.credentials.as_ref().map(|credentials| serde_json::to_vec(credentials).expect("plain JSON"));
    json.map_or_else(body::empty, body::full)
}
