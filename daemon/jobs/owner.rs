//! Whose a key is that a client or another node puts.

use super::fence::Fence;
use super::{Jobs, owner_of};
use crate::store::Draft;
use s4::error::Result;
use s4::protocol::JobId;
use std::sync::Arc;

/// A job, which takes outputs only while it goes on, or nobody.
#[derive(Default)]
pub struct Owner {
    fence: Arc<Fence>,
    mark: Option<u64>,
}

impl Owner {
    /// Marks the key as the job's.
    pub fn mark(&self, draft: &Draft) -> Result<()> {
        self.mark.map_or(Ok(()), |mark| draft.mark(mark))
    }

    /// Publishes the key, unless the job has ended.
    pub fn publish(&self, publish: impl FnOnce() -> Result<()>) -> Result<()> {
        self.fence.pass(publish)
    }
}

impl Jobs {
    pub fn owner(&self, job: Option<&JobId>) -> Result<Owner> {
        match job {
            Some(id) => Ok(Owner { fence: self.find(id)?.fence.clone(), mark: Some(owner_of(id)) }),
            None => Ok(Owner::default()),
        }
    }
}
