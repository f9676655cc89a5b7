//! Provenance that is copied from another cluster together with keys: the tasks that made the keys there.

use super::inputs::Reading;
use super::journal::{Journal, find};
use super::marks::owner_of;
use super::shared::Shared;
use s4::attribute::Mark;
use s4::error::{Error, ErrorKind, Result};
use s4::protocol::TaskRecord;
use std::sync::PoisonError;

/// Records a task of another cluster, to which the `mark` of its outputs refers. Does nothing if it is recorded
/// already. Errors: the mark does not belong to this task.
pub fn import(shared: &Shared, mark: Mark, task: &TaskRecord) -> Result<()> {
    let store = &*shared.store;
    let mut reading = Reading::new(store);
    for input in &task.inputs {
        reading.add(&input.key, input.checksum).map_err(|e| Error::io(&input.key, &e))?;
    }
    let inputs = reading.finish();
    let job = &task.job;
    let is_whole = task.inputs.len() as u64 == task.count && inputs.digest() == mark.inputs;
    if !is_whole || job.recipe() != mark.recipe || owner_of(&job.id) != mark.job {
        return Err(Error::new(ErrorKind::BadRequest, "the mark is not that of an output of this task"));
    }
    let _importing = shared.importing.lock().unwrap_or_else(PoisonError::into_inner);
    if find(store, mark.job, mark.inputs, 0, 0)?.is_some() {
        return Ok(());
    }
    let journal = Journal::new(store, mark.job)?;
    if !journal.has_begun()? {
        journal.clear()?;
        journal.begin(job)?;
    }
    journal.done(mark.outputs.into(), 0, inputs)?;
    journal.close(store.syncs())
}
