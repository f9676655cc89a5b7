//! The first failures of each job that the status shows, read once from the job's record.

use crate::jobs::{Job, Jobs};
use s4::protocol::node::{FAILURES_TOLD, tail};
use s4::protocol::{Event, JobId, JobRecord, TaskFailure};
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Bytes of the end of a task's stderr that are told.
const STDERR: usize = 1000;
/// Bytes of JSON of all failures together, so that the status stays below what a client reads.
const FAILURES: usize = 512 * 1024;

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

impl Failures {
    /// The failures of each of `records`; of jobs that are not among them nothing is kept.
    pub fn of(&self, jobs: &Jobs, records: &[JobRecord]) -> Vec<Vec<TaskFailure>> {
        let before = std::mem::take(&mut *self.lock());
        let mut room = FAILURES;
        let mut after = BTreeMap::new();
        let mut told = Vec::new();
        for record in records {
            let id = &record.spec.id;
            let mut known = before.get(id).cloned().unwrap_or_default();
            if record.progress.failed > 0
                && let Ok(job) = jobs.find(id)
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

    fn lock(&self) -> MutexGuard<'_, BTreeMap<JobId, Known>> {
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
