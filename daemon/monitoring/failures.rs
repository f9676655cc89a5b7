//! The failures of each job for the status, grouped by kind while they are read from the job's record.

use crate::jobs::{Job, Jobs};
use s4::protocol::{Event, FailureGroups, JobId, JobRecord};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Limit of bytes of JSON for all failures. The status must be shorter than what a client reads.
const FAILURES: usize = 512 * 1024;
/// Limit of reads of a job's record for one status, each up to 1 MiB. The next status continues there.
const READS: usize = 8;

/// The failures of each job so far. A failure is read once, also by requests at the same time: the lock of one job's
/// entry is held while its record is read.
#[derive(Default)]
pub struct Failures(Mutex<BTreeMap<JobId, Entry>>);

type Entry = Arc<Mutex<Known>>;

/// The failures of one job so far.
#[derive(Default)]
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
        let entries = self.entries(records.iter().map(|record| &record.spec.id));
        let mut room = FAILURES;
        let mut listed = Vec::new();
        for (record, entry) in records.iter().zip(entries) {
            let mut known = lock(&entry);
            if record.progress.failed > known.failures.count()
                && let Ok(job) = jobs.find(&record.spec.id)
            {
                known.read_on(&job);
            }
            let fits = known.len <= room;
            room -= if fits { known.len } else { 0 };
            listed.push(if fits { known.failures.clone() } else { FailureGroups::default() });
        }
        listed
    }

    /// The entries of these jobs, in this order. Those of other jobs are removed.
    fn entries<'a>(&self, ids: impl Iterator<Item = &'a JobId>) -> Vec<Entry> {
        let mut known = lock(&self.0);
        let before = std::mem::take(&mut *known);
        ids.map(|id| known.entry(id.clone()).or_insert_with(|| before.get(id).cloned().unwrap_or_default()).clone())
            .collect()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Known {
    /// Reads more failures of the job, if there are any.
    fn read_on(&mut self, job: &Job) {
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
                    self.failures.add(&failure, &job.spec.cmd);
                }
            }
        }
        self.len = serde_json::to_string(&self.failures).map_or(0, |json| json.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_at_the_same_time_share_what_was_read_of_a_job() {
        let failures = Failures::default();
        let ids = ["20260101-a", "20260101-b"].map(|id| JobId::try_from(id.to_owned()).unwrap());
        let first = failures.entries(ids.iter());
        let second = failures.entries(ids.iter());
        assert!(first.iter().zip(&second).all(|(one, other)| Arc::ptr_eq(one, other)));
        let third = failures.entries(ids[1..].iter());
        assert!(Arc::ptr_eq(&first[1], &third[0]));
        assert!(!Arc::ptr_eq(&first[0], &failures.entries(ids.iter())[0]), "a job that is not shown is forgotten");
    }
}
