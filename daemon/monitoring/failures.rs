//! The failures of each job for the status, grouped by kind while they are read from the job's record.

use crate::jobs::{Job, Jobs};
use s4::protocol::{Event, FailureGroups, JobId, JobRecord};
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Limit of bytes of JSON for all failures. The status must be shorter than what a client reads.
const FAILURES: usize = 512 * 1024;
/// Limit of reads of a job's record for one status, each up to 1 MiB. The next status continues there.
const READS: usize = 8;

/// The failures of each job so far. A failure is read once.
#[derive(Default)]
pub struct Failures(Mutex<BTreeMap<JobId, Known>>);

/// The failures of one job so far.
#[derive(Default, Clone)]
struct Known {
    failures: FailureGroups,
    /// Their length as JSON.
    len: usize,
    /// Where to continue in the record.
    from: u64,
}

impl Failures {
    /// The failures of each of `records`. Other jobs are forgotten.
    pub fn of(&self, jobs: &Jobs, records: &[JobRecord]) -> Vec<FailureGroups> {
        let before = std::mem::take(&mut *self.lock());
        let mut room = FAILURES;
        let mut after = BTreeMap::new();
        let mut listed = Vec::new();
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
            listed.push(if fits { known.failures.clone() } else { FailureGroups::default() });
            after.insert(id.clone(), known);
        }
        *self.lock() = after;
        listed
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<JobId, Known>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    /// Reads more failures of the job, if there are any.
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
