//! Whose a key is that a client or another node puts.

use super::fence::Fence;
use crate::store::{Draft, Receiving, Requester, Store};
use s4::attribute::Mark;
use s4::error::Result;
use s4::key::{Dir, Key};
use std::sync::Arc;

/// A job, which takes outputs only while it goes on, or nobody.
#[derive(Default)]
pub struct Owner {
    fence: Arc<Fence>,
    mark: Option<Mark>,
    /// The sender is the home of the directory that the key lies in, and has recorded this node as a holder.
    is_from_home: bool,
}

impl Owner {
    /// The job of `fence`, one of whose outputs has this mark.
    pub fn new(fence: Arc<Fence>, mark: Mark, is_from_home: bool) -> Self {
        Self { fence, mark: Some(mark), is_from_home }
    }

    /// Marks the key as an output of the job's task.
    pub fn marked<'s>(&self, mut draft: Draft<'s>) -> Draft<'s> {
        if let Some(mark) = self.mark {
            draft.mark(mark);
        }
        draft
    }

    /// Makes a copy of the directory that a job's output lies in, if its home sends the output and has recorded this node as a holder.
    /// `last` is that of the output before, and is to be kept until all are published.
    pub fn enter(
        &self,
        store: &Arc<Store>,
        requester: &impl Requester,
        key: &Key,
        last: &mut Option<Receiving>,
    ) -> Result<()> {
        if !self.is_from_home || last.as_ref().is_some_and(|last| last.dir().as_str() == key.parent()) {
            return Ok(());
        }
        let dir = Dir::try_from(key.parent().to_owned())?;
        *last = Some(store.begin_receiving(dir, || requester.check(key))?);
        Ok(())
    }

    /// Publishes the key, unless the job has ended.
    pub fn publish(&self, publish: impl FnOnce() -> Result<()>) -> Result<()> {
        self.fence.pass(publish)
    }
}
