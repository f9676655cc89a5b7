//! Provenance on the wire: what made a key, as a node knows it.

use super::job::JobSpec;
use crate::attribute::Mark;
use crate::bounds;
use crate::checksum::Checksum;
use crate::key::Key;
use serde::{Deserialize, Serialize};

/// Limit of inputs in one answer.
pub const MAX_INPUTS: usize = 1000;

/// The provenance of a key of this node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Provenance {
    pub checksum: Checksum,
    /// When the key was last written, in milliseconds since 1970.
    #[serde(default, deserialize_with = "bounds::moment")]
    pub modified: Option<i64>,
    /// The mark; `None` if no map has made the key.
    pub mark: Option<Mark>,
    /// The journal's record of the task that made it.
    pub task: Option<TaskRecord>,
}

impl Provenance {
    pub fn json(&self) -> String {
        serde_json::to_string(self).expect("it is plain JSON")
    }
}

/// A node's record of a task that it ran.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TaskRecord {
    pub job: JobSpec,
    /// The number of inputs of the task.
    #[serde(deserialize_with = "bounds::count")]
    pub count: u64,
    /// Some of the inputs, in their order.
    pub inputs: Vec<Input>,
}

impl TaskRecord {
    /// True if all its inputs are here.
    pub fn is_whole(&self) -> bool {
        self.inputs.len() as u64 == self.count
    }
}

/// A key as a task read it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Input {
    pub key: Key,
    pub checksum: Checksum,
}
