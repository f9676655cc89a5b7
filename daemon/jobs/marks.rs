//! The marks of a job's outputs.

use s4::attribute::Mark;
use s4::checksum::hash;
use s4::protocol::{JobId, JobSpec};

/// The mark of a job's outputs, except inputs and number.
pub fn mark_of(spec: &JobSpec) -> Mark {
    Mark { recipe: spec.recipe(), inputs: 0, job: owner_of(&spec.id), source: spec.source(), outputs: 1 }
}

/// The hash of a job's id, by which marks refer to the job.
pub fn owner_of(id: &JobId) -> u64 {
    hash(id.as_str().as_bytes())
}
