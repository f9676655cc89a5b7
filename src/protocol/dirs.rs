//! Messages between nodes about directories; see ARCHITECTURE.md.

use crate::key::Dir;
use crate::placement::NodeId;
use serde::{Deserialize, Serialize};

/// Directories, and the node that enters them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entered {
    pub node: NodeId,
    pub dirs: Vec<Dir>,
}
