//! `s4-s3 copy-worker`: the part of a copy on one node, which the node's daemon starts. It gets its task on stdin, and ends,
//! with all that it has begun aborted, when stdin ends: the daemon cancels it so, and so does the daemon's own end. It
//! reports on stdout.
//!
//! In: every worker lists the source itself and copies the objects whose keys belong on its node, from the first page on.
//! Out: every worker copies the keys of its node. A failed object stops no other.

mod inward;
mod keys;
mod names;
mod outward;
mod report;

use crate::client::{S3, S3Url, Settings};
use crate::upload::Uploads;
use report::Report;
use s4::client::{Client, Secret, Settings as ClientSettings};
use s4::cluster::Cluster;
use s4::error::{Error, ErrorKind, Result};
use s4::key::Dir;
use s4::protocol::{CopySpec, MAX_WORKER_TASK, WorkerTask};
use std::io::{BufRead, Read};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, oneshot};

/// Objects at a time, unless the task says otherwise.
const JOBS: u16 = 16;
/// Large objects at a time: of each, some parts are in memory.
const LARGE: usize = 3;
/// How long the end of a worker may take.
const END: Duration = Duration::from_secs(3);
/// A copy with more failures on one node is given up.
const MAX_FAILURES: u64 = 100_000;

/// What all objects of a copy share.
pub struct Work {
    pub spec: CopySpec,
    pub s3: S3,
    /// The bucket and the prefix.
    pub url: S3Url,
    pub client: Client,
    pub node: usize,
    /// The directory in the cluster.
    pub dir: Dir,
    pub report: Report,
    pub uploads: Uploads,
    pub jobs: Arc<Semaphore>,
    pub large: Arc<Semaphore>,
}

/// How an object came to be where it is.
pub enum Copied {
    /// Its bytes were compared with a checksum of the source.
    Verified,
    /// The source has no checksum of it.
    Unverified,
    /// It was there before.
    Skipped,
}

pub async fn run() -> Result<()> {
    let (task, ended) = read_task()?;
    let (report, printer) = Report::start();
    let work = Arc::new(Work::new(task, report)?);
    let copied = tokio::select! {
        copied = copy(&work) => copied,
        _ = ended => Err(Error::new(ErrorKind::Cancelled, "cancelled")),
    };
    if copied.is_err() {
        let aborted = tokio::time::timeout(END, work.uploads.abort_all(&work.s3)).await;
        for error in aborted.unwrap_or_default() {
            eprintln!("s4-s3: {error}");
        }
    }
    work.report.finish();
    // If nobody reads, nobody needs it.
    let _ = printer.await;
    copied
}

async fn copy(work: &Arc<Work>) -> Result<()> {
    match work.spec.from.starts_with("s3://") {
        true => inward::copy(work).await,
        false => outward::copy(work).await,
    }
}

/// The task, and what resolves when stdin ends.
fn read_task() -> Result<(WorkerTask, oneshot::Receiver<()>)> {
    let failed = |e: std::io::Error| Error::io("stdin", &e);
    let mut line = Vec::new();
    let mut stdin = std::io::stdin().lock();
    stdin.by_ref().take(MAX_WORKER_TASK as u64).read_until(b'\n', &mut line).map_err(failed)?;
    drop(stdin);
    // The error of the parser would show what it has read.
    let task = serde_json::from_slice(&line);
    let task = task.map_err(|_| Error::usage("copy-worker is started by s4-server, with a task on its stdin"))?;
    let (sender, ended) = oneshot::channel();
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
        sender.send(())
    });
    Ok((task, ended))
}

impl Work {
    fn new(task: WorkerTask, report: Report) -> Result<Self> {
        let WorkerTask { copy: spec, node, jobs, cluster, secret, credentials } = task;
        let cluster = Cluster::parse(&cluster.join("\n"), Path::new("the task"))?;
        let malformed = |why| Error::new(ErrorKind::Config, format!("the cluster's secret: {why}"));
        let secret = secret.map(|secret| Secret::parse(&secret).map_err(malformed)).transpose()?;
        let client = Client::new(cluster, ClientSettings { secret, ..ClientSettings::default() });
        let (s3, dir) = match spec.from.starts_with("s3://") {
            true => (&spec.from, &spec.to),
            false => (&spec.to, &spec.from),
        };
        let (mut url, dir) = (S3Url::parse(s3)?, Dir::parse_url(dir)?);
        // A directory of S3 is what begins with its name and a slash.
        if !url.key.is_empty() && !url.key.ends_with('/') {
            url.key.push('/');
        }
        let jobs = jobs.unwrap_or(JOBS).max(1) as usize;
        let s3 = S3::new(Settings::new(&spec.access, credentials, jobs * 2)?);
        let (jobs, large) = (Arc::new(Semaphore::new(jobs)), Arc::new(Semaphore::new(LARGE.min(jobs))));
        Ok(Self { spec, s3, url, client, node, dir, report, uploads: Uploads::default(), jobs, large })
    }

    /// The object of a key, by its path below the directory.
    pub fn object(&self, below: &str) -> S3Url {
        S3Url { bucket: self.url.bucket.clone(), key: format!("{}{below}", self.url.key) }
    }

    /// Counts the end of an object. Errors: so many have failed that it is no use to go on.
    pub async fn note(&self, key: Option<s4::key::Key>, len: u64, copied: Result<Copied>) -> Result<()> {
        match copied {
            Ok(copied) => self.report.done(len, &copied),
            Err(error) => self.report.failed(key, len, error.to_string()).await,
        }
        match self.report.failures() >= MAX_FAILURES {
            true => Err(Error::new(
                ErrorKind::Command,
                format!("{MAX_FAILURES} objects have failed here; the copy is given up"),
            )),
            false => Ok(()),
        }
    }
}
