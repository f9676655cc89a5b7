//! What nodes tell each other about directories: see ARCHITECTURE.md.

use crate::key::Dir;
use crate::placement::NodeId;
use serde::{Deserialize, Serialize};

/// Directories in one message at most, so that it is no longer than a body that a node reads whole.
pub const DIRS_AT_ONCE: usize = 500;

/// Directories, and the node that enters them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entered {
    pub node: NodeId,
    pub dirs: Vec<Dir>,
}
