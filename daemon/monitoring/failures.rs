//! The failures of each job that the status shows, put together by kind as they are read from the job's record.

use crate::jobs::{Job, Jobs};
use s4::protocol::{Event, FailureGroups, JobId, JobRecord};
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Bytes of JSON of all failures together, so that the status stays below what a client reads.
const FAILURES: usize = 512 * 1024;
/// Times that a job's record is read on for one status, each up to a MiB; the next status goes on there.
const READS: usize = 8;

/// What is known of each job's failures. A failure is read once.
#[derive(Default)]
pub struct Failures(Mutex<BTreeMap<JobId, Known>>);

/// What has been read of a job's failures.
#[derive(Default, Clone)]
struct Known {
    failures: FailureGroups,
    /// How long they are as JSON.
    len: usize,
    /// Where the record goes on.
    from: u64,
}

impl Failures {
    /// The failures of each of `records`; of jobs that are not among them nothing is kept.
    pub fn of(&self, jobs: &Jobs, records: &[JobRecord]) -> Vec<FailureGroups> {
        let before = std::mem::take(&mut *self.lock());
        let mut room = FAILURES;
        let mut after = BTreeMap::new();
        let mut told = Vec::new();
        for record in records {
            let id = &record.spec.id;
            let mut known = before.get(id).cloned().unwrap_or_default();
            if record.progress.failed > known.failures.count()
                && let Ok(job) = jobs.find(id)
            {
                known.read_on(&job);
            }
            let fits = known.len <= room;
            room -= if fits { known.len } else { 0 };
            told.push(if fits { known.failures.clone() } else { FailureGroups::default() });
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
    /// Reads more of the job's failures, if there are more.
    fn read_on(&mut self, job: &Job) {
        let cmd = job.spec.cmd.to_string();
        for _ in 0..READS {
            let Ok((events, from)) = job.failures(self.from) else {
                break;
            };
            if from == self.from {
                break;
            }
            self.from = from;
            for event in events {
                if let Event::Failure(failure) = event {
                    self.failures.add(&failure, &cmd);
                }
            }
        }
        self.len = serde_json::to_string(&self.failures).map_or(0, |json| json.len());
    }
}
