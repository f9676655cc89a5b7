//! What made a key, as a node knows it.

use super::job::JobSpec;
use crate::attribute::Mark;
use crate::bounds;
use crate::checksum::Checksum;
use crate::key::Key;
use serde::{Deserialize, Serialize};

/// Inputs that one answer has at most.
pub const MOST_INPUTS: usize = 1000;

/// What a node knows of one of its keys.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Provenance {
    pub checksum: Checksum,
    /// When the key was last written, in milliseconds since 1970.
    #[serde(default, deserialize_with = "bounds::moment")]
    pub modified: Option<i64>,
    /// What made it; `None` if no map has.
    pub mark: Option<Mark>,
    /// What this node has written down of the task that made it.
    pub task: Option<TaskRecord>,
}

impl Provenance {
    pub fn json(&self) -> String {
        serde_json::to_string(self).expect("it is plain JSON")
    }
}

/// What a node has written down of a task that it ran.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TaskRecord {
    pub job: JobSpec,
    /// How many inputs the task had.
    #[serde(deserialize_with = "bounds::count")]
    pub count: u64,
    /// Some of its inputs, in their order.
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
