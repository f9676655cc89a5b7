//! This node's status: how it is, what the machine did, its jobs and the first failures of each.

use crate::app::App;
use crate::handlers::{Answer, health_now, json};
use crate::jobs::Job;
use s4::client::blocking;
use s4::error::Result;
use s4::protocol::node::{FAILURES_TOLD, JOBS_TOLD, JobStatus, NodeStatus, SAMPLES_KEPT, shortened, tail};
use s4::protocol::{Event, JobId, JobRecord, TaskFailure};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Bytes of a command that are told.
const COMMAND: usize = 2000;
/// Bytes of the end of a task's stderr that are told.
const STDERR: usize = 1000;
/// Exit statuses that are told.
const OK_EXIT: usize = 16;
/// Bytes of JSON of all failures together, and of all records, so that the status stays below what a client reads.
const FAILURES: usize = 512 * 1024;
const RECORDS: usize = 384 * 1024;

/// The first failures of each job, which do not change once they are known.
#[derive(Default)]
pub struct Failures(Mutex<BTreeMap<JobId, Known>>);

/// What has been read of a job's failures.
#[derive(Default, Clone)]
struct Known {
    failures: Vec<TaskFailure>,
    /// How long they are as JSON.
    len: usize,
    /// Where the record goes on.
    from: u64,
}

/// `samples`: how many to tell, the last ones.
pub async fn answer(app: &Arc<App>, samples: Option<usize>) -> Answer {
    let app = app.clone();
    blocking(move || status(&app, samples.unwrap_or(SAMPLES_KEPT))).await.map(|status| json(&status))
}

/// Blocks: looks at the disk.
fn status(app: &App, samples: usize) -> Result<NodeStatus> {
    let records = told(app.jobs.records());
    let failures = app.watch.failures.of(app, &records);
    Ok(NodeStatus {
        health: health_now(app)?,
        usage: app.watch.sampler.counted(),
        samples: app.watch.sampler.samples(samples),
        jobs: records.into_iter().zip(failures).map(|(record, failures)| JobStatus { record, failures }).collect(),
    })
}

/// The newest jobs and those that have not ended, as far as there is room, without what may be long or secret. The newest first.
fn told(records: Vec<JobRecord>) -> Vec<JobRecord> {
    let newest_first = records.into_iter().rev().enumerate();
    let kept = newest_first.filter(|(at, record)| *at < JOBS_TOLD || record.outcome.is_none());
    let mut room = RECORDS;
    let shortened = kept.map(|(_, mut record)| {
        record.spec.cmd = shortened(&record.spec.cmd, COMMAND);
        record.spec.env.clear();
        record.spec.files.clear();
        record.spec.ok_exit.truncate(OK_EXIT);
        record
    });
    let fitting = shortened.filter(|record| {
        let len = serde_json::to_string(record).map_or(usize::MAX, |json| json.len());
        let fits = len <= room;
        room -= if fits { len } else { 0 };
        fits
    });
    fitting.collect()
}

impl Failures {
    /// The failures of each of `records`; of jobs that are not among them nothing is kept.
    fn of(&self, app: &App, records: &[JobRecord]) -> Vec<Vec<TaskFailure>> {
        let before = std::mem::take(&mut *self.lock());
        let mut room = FAILURES;
        let mut after = BTreeMap::new();
        let mut told = Vec::new();
        for record in records {
            let id = &record.spec.id;
            let mut known = before.get(id).cloned().unwrap_or_default();
            if record.progress.failed > 0
                && let Ok(job) = app.jobs.find(id)
            {
                known.read_on(&job);
            }
            let fits = known.len <= room;
            room -= if fits { known.len } else { 0 };
            told.push(if fits { known.failures.clone() } else { Vec::new() });
            after.insert(id.clone(), known);
        }
        *self.lock() = after;
        told
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<JobId, Known>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    /// Reads more of the job's failures, if some are missing.
    fn read_on(&mut self, job: &Job) {
        while self.failures.len() < FAILURES_TOLD {
            let Ok((events, from)) = job.failures(self.from) else {
                return;
            };
            if from == self.from {
                return;
            }
            self.from = from;
            let failures = events.into_iter().filter_map(|event| match event {
                Event::Failure(failure) => Some(failure),
                _ => None,
            });
            for mut failure in failures.take(FAILURES_TOLD - self.failures.len()) {
                failure.stderr = tail(&failure.stderr, STDERR).to_owned();
                self.len += serde_json::to_string(&failure).map_or(0, |json| json.len());
                self.failures.push(failure);
            }
        }
    }
}
