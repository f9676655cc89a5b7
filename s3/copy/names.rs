//! Which key an object becomes, and on which node.

use super::work::Work;
use s4::checksum::hash;
use s4::key::Key;

/// What an object is to a worker.
#[derive(Debug, PartialEq, Eq)]
pub enum Name {
    /// A key of this node.
    Own(Key),
    /// The concern of another node's worker, or the mark of a directory, which the cluster does not need.
    Other,
    /// No key can have the name, for this reason. This worker reports it.
    Bad(&'static str),
}

impl Work {
    /// Looks at the name of an object of `len` bytes.
    pub fn name(&self, object: &str, len: u64) -> Name {
        let Some(below) = object.strip_prefix(&self.url.key) else { return Name::Other };
        if len == 0 && (below.is_empty() || below.ends_with('/')) {
            return Name::Other;
        }
        let cluster = self.client.cluster();
        match self.dir.join_checked(below) {
            Ok(key) if cluster.node_of(&key) == self.node => Name::Own(key),
            Ok(_) => Name::Other,
            // Any rule will do by which one node reports it.
            Err(rule) if hash(object.as_bytes()) % cluster.len() as u64 == self.node as u64 => Name::Bad(rule),
            Err(_) => Name::Other,
        }
    }
}
