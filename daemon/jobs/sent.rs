//! Counts the outputs whose names the job chooses (of a 1:n map, or with `--to-name`) for each node, for the report at
//! the end of the job. Memory does not grow with their number.

use s4::key::Key;
use s4::placement::NodeId;
use s4::skew::{Spread, Tally};
use std::sync::{Mutex, PoisonError};

/// The outputs that the tasks of a job have sent; `None` before the first.
#[derive(Default)]
pub struct Sent(Mutex<Option<Tally>>);

impl Sent {
    /// Counts outputs. Each has a node (of `nodes`) and a size in bytes.
    pub fn add<'k>(&self, nodes: usize, outputs: impl Iterator<Item = (&'k Key, NodeId, u64)>) {
        let mut sent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let tally = sent.get_or_insert_with(|| Tally::new(nodes));
        outputs.for_each(|(key, node, bytes)| tally.add(key, node, bytes));
    }

    /// Drops the names that the report does not need.
    pub fn close(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter_mut().for_each(Tally::close);
    }

    pub fn spread(&self) -> Option<Spread> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(|tally| tally.spread().clone())
    }
}
