//! What all objects of a copy share, and the count of those that are done.

use super::report::{Copied, Report};
use crate::client::{S3, S3Url, Settings};
use crate::upload::Uploads;
use s4::client::{Client, Secret, Settings as ClientSettings};
use s4::cluster::Cluster;
use s4::error::{Error, ErrorKind, Result};
use s4::key::{Dir, Key};
use s4::protocol::{CopySpec, WorkerTask};
use std::path::Path;
use std::sync::Arc;
use tokio::sync::Semaphore;

/// Objects at a time, unless the task says otherwise.
const JOBS: u16 = 16;
/// Large objects at a time: of each, some parts are in memory.
const LARGE: usize = 3;
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

impl Work {
    pub fn new(task: WorkerTask, report: Report) -> Result<Self> {
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
        let s3 = S3::new(Settings::new(&spec.access, credentials, jobs * 2)?)?;
        let (jobs, large) = (Arc::new(Semaphore::new(jobs)), Arc::new(Semaphore::new(LARGE.min(jobs))));
        Ok(Self { spec, s3, url, client, node, dir, report, uploads: Uploads::default(), jobs, large })
    }

    /// The object of a key, by its path below the directory.
    pub fn object(&self, below: &str) -> S3Url {
        S3Url { bucket: self.url.bucket.clone(), key: format!("{}{below}", self.url.key) }
    }

    /// Counts the end of an object. Errors: so many have failed that it is no use to go on.
    pub async fn note(&self, key: Option<Key>, len: u64, copied: Result<Copied>) -> Result<()> {
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
