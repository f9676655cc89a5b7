//! Finds the jobs that made the inputs of a map, or are still making them. Without that, a map over an incomplete INDIR
//! would silently process less data.

use super::job::Job;
use super::marks::owner_of;
use crate::store::Store;
use s4::error::{Error, Result};
use s4::key::Key;
use s4::protocol::Source;
use s4::stored::record_at;
use std::collections::HashMap;
use std::sync::Arc;

/// The jobs that write to a map's INDIR, as far as this node knows.
#[derive(Default)]
pub struct Sources {
    jobs: Vec<Source>,
    /// Index into `jobs`, by the job's hash in the marks of its outputs.
    places: HashMap<u64, usize>,
}

impl Sources {
    pub fn add(&mut self, job: &Arc<Job>) {
        let record = job.record();
        self.places.insert(owner_of(&record.spec.id), self.jobs.len());
        self.jobs.push(Source {
            job: record.spec.id,
            kind: record.spec.kind,
            indir: record.spec.indir,
            outdir: record.spec.outdir,
            to_name: record.spec.to_name,
            rerun: record.spec.rerun,
            started: record.started.is_some(),
            outcome: record.outcome,
            tasks: record.progress.tasks,
            done: record.progress.done,
            nodes: record.plan.nodes,
            inputs: 0,
        });
    }

    /// Counts an input for the job that made it.
    pub fn count(&mut self, store: &Store, key: &Key) -> Result<()> {
        if self.jobs.is_empty() {
            return Ok(());
        }
        let record = record_at(&store.path(key)).map_err(|e| Error::io(key, &e))?;
        let place = record.and_then(|record| record.mark).and_then(|mark| self.places.get(&mark.job));
        if let Some(source) = place.and_then(|&place| self.jobs.get_mut(place)) {
            source.inputs += 1;
        }
        Ok(())
    }

    pub fn into_jobs(self) -> Vec<Source> {
        self.jobs
    }
}
