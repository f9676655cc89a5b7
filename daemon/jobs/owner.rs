//! Whose a key is that a client or another node puts.

use super::Jobs;
use super::fence::Fence;
use crate::store::Draft;
use s4::attribute::Mark;
use s4::error::Result;
use s4::protocol::Delivery;
use std::sync::Arc;

/// A job, which takes outputs only while it goes on, or nobody.
#[derive(Default)]
pub struct Owner {
    fence: Arc<Fence>,
    mark: Option<Mark>,
}

impl Owner {
    /// Marks the key as an output of the job's task.
    pub fn marked<'s>(&self, mut draft: Draft<'s>) -> Draft<'s> {
        if let Some(mark) = self.mark {
            draft.mark(mark);
        }
        draft
    }

    /// Publishes the key, unless the job has ended.
    pub fn publish(&self, publish: impl FnOnce() -> Result<()>) -> Result<()> {
        self.fence.pass(publish)
    }
}

impl Jobs {
    pub fn owner(&self, delivery: Option<&Delivery>) -> Result<Owner> {
        delivery.map_or_else(|| Ok(Owner::default()), |delivery| self.deliver(delivery).map(|(owner, _)| owner))
    }

    /// The owner of a task's outputs, and their mark.
    pub fn deliver(&self, delivery: &Delivery) -> Result<(Owner, Mark)> {
        let job = self.find(&delivery.job)?;
        let mark = job.mark(delivery.inputs, delivery.outputs);
        Ok((Owner { fence: job.fence.clone(), mark: Some(mark) }, mark))
    }
}
