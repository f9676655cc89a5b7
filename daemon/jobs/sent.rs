//! Where the outputs of a 1:n map go: counted as they are sent, in memory that does not grow with them, and told with the job's end.

use s4::key::Key;
use s4::placement::NodeId;
use s4::skew::{Spread, Tally};
use std::sync::{Mutex, PoisonError};

/// Outputs that have been sent by the tasks of a job; `None` before the first.
#[derive(Default)]
pub struct Sent(Mutex<Option<Tally>>);

impl Sent {
    /// Counts outputs: each with its node, one of `nodes`, and its bytes.
    pub fn add<'k>(&self, nodes: usize, outputs: impl Iterator<Item = (&'k Key, NodeId, u64)>) {
        let mut sent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let tally = sent.get_or_insert_with(|| Tally::new(nodes));
        outputs.for_each(|(key, node, bytes)| tally.add(key, node, bytes));
    }

    /// Keeps no more than is told.
    pub fn close(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter_mut().for_each(Tally::close);
    }

    pub fn spread(&self) -> Option<Spread> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(|tally| tally.spread().clone())
    }
}
