//! Nodes on this machine, whose data directories this process can see.

use crate::file::read_small;
use crate::protocol::Health;
use std::path::Path;

/// Bytes of a token.
const LONGEST_TOKEN: usize = 256;

impl Health {
    /// The node's data directory, if it is on this machine: it holds the token that the node names.
    pub fn local_dir(&self) -> Option<&Path> {
        // The path is what the node says: whatever is there is not waited for, nor read to its end.
        let token = read_small(&self.data.join(".s4/token"), LONGEST_TOKEN).ok()?;
        (token == self.token.as_bytes() && !token.is_empty()).then_some(&self.data)
    }
}
