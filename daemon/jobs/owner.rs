//! The owner of a key that a client or another node puts.

use super::fence::Fence;
use crate::store::{Draft, Receiving, Requester, Store};
use s4::attribute::Mark;
use s4::error::Result;
use s4::key::{Dir, Key};
use s4::protocol::Attributes;
use std::sync::Arc;

/// A job, whose outputs are accepted only while it has not ended, or nobody.
#[derive(Default)]
pub struct Owner {
    fence: Arc<Fence>,
    mark: Option<Mark>,
    /// The sender is the home of the key's directory, and has recorded this node as a holder.
    is_from_home: bool,
    /// The attributes of a file that a resize moves here.
    moved: Option<Arc<Attributes>>,
}

impl Owner {
    /// The job of `fence`. `mark` is the mark of its output.
    pub fn new(fence: Arc<Fence>, mark: Mark, is_from_home: bool) -> Self {
        Self { fence, mark: Some(mark), is_from_home, moved: None }
    }

    /// Nobody: a resize moves the key here, with these attributes.
    pub fn of_moved(attributes: Attributes) -> Self {
        Self { moved: Some(Arc::new(attributes)), ..Self::default() }
    }

    /// Marks the key as an output of the job's task.
    pub fn marked<'s>(&self, mut draft: Draft<'s>) -> Draft<'s> {
        if let Some(mark) = self.mark {
            draft.mark(mark);
        }
        if let Some(attributes) = &self.moved {
            draft.moved(attributes.clone());
        }
        draft
    }

    /// If the home of the output's directory sends the output and has recorded this node as a holder, creates a copy of
    /// that directory. `last` is the copy of the output before; it must be kept until all outputs are published.
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
