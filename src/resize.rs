//! The two node lists of a resize: that of the cluster before it, and that after it. Placement goes by the numbers of
//! nodes, so one list must begin with the other: nodes are added at the end, or taken from there.

use crate::cluster::{Address, Cluster, NodeName};
use crate::error::{Error, ErrorKind, Result};
use crate::placement::NodeId;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// The node lists before and after a resize. They differ.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(try_from = "Texts", into = "Texts")]
pub struct Lists {
    before: Cluster,
    after: Cluster,
}

/// The numbers of nodes before and after a resize.
#[derive(Debug, Clone, Copy)]
pub struct Sizes {
    pub before: usize,
    pub after: usize,
}

impl Lists {
    /// Errors: the lists are equal; a node has another number or address in the list after.
    pub fn new(before: Cluster, after: Cluster) -> Result<Self> {
        let refuse = |why: String| Err(Error::new(ErrorKind::Config, why));
        let common = before.len().min(after.len());
        if let Some(node) = (0..common).find(|&node| before.address(node) != after.address(node)) {
            return refuse(format!(
                "node {node} is {} now, and {} in the new list: a resize adds nodes at the end of the list or takes them from there, since \
                 the numbers of nodes say where keys lie",
                before.address(node),
                after.address(node)
            ));
        }
        match before.len() == after.len() {
            true => refuse("the new list is the one that the cluster has".to_owned()),
            false => Ok(Self { before, after }),
        }
    }

    pub fn before(&self) -> &Cluster {
        &self.before
    }

    pub fn after(&self) -> &Cluster {
        &self.after
    }

    pub fn sizes(&self) -> Sizes {
        Sizes { before: self.before.len(), after: self.after.len() }
    }

    /// All nodes of both lists.
    pub fn ids(&self) -> std::ops::Range<NodeId> {
        0..self.before.len().max(self.after.len())
    }

    /// True for a node that is not in the list after.
    pub fn leaves(&self, node: NodeId) -> bool {
        node >= self.after.len()
    }

    /// The list by which `node` works during the resize: that after it, unless the node is not in it.
    pub fn of(&self, node: NodeId) -> &Cluster {
        if self.leaves(node) { &self.before } else { &self.after }
    }

    pub fn address(&self, node: NodeId) -> &Address {
        self.of(node).address(node)
    }

    pub fn name(&self, node: NodeId) -> NodeName<'_> {
        self.of(node).name(node)
    }

    /// True if `digest` is that of one of the lists.
    pub fn has(&self, digest: &[u8]) -> bool {
        [&self.before, &self.after].iter().any(|list| list.digest().as_bytes() == digest)
    }
}

impl PartialEq for Lists {
    fn eq(&self, other: &Self) -> bool {
        self.before.lines() == other.before.lines() && self.after.lines() == other.after.lines()
    }
}

/// The lists as JSON has them.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Texts {
    before: Vec<String>,
    after: Vec<String>,
}

impl TryFrom<Texts> for Lists {
    type Error = Error;

    fn try_from(texts: Texts) -> Result<Self> {
        let parse = |lines: Vec<String>, what: &str| Cluster::parse(&lines.join("\n"), Path::new(what));
        Self::new(parse(texts.before, "before")?, parse(texts.after, "after")?)
    }
}

impl From<Lists> for Texts {
    fn from(lists: Lists) -> Self {
        Self { before: lists.before.lines(), after: lists.after.lines() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::placement::node_of_basename;
    use proptest::prelude::*;

    fn list(text: &str) -> Cluster {
        Cluster::parse(&text.replace(' ', "\n"), Path::new("conf")).unwrap()
    }

    #[test]
    fn nodes_are_added_and_taken_at_the_end_only() {
        let grown = Lists::new(list("a:1 b:1"), list("a:1 b:1 c:1")).unwrap();
        assert!(!grown.leaves(2) && grown.of(0).len() == 3);
        let shrunk = Lists::new(list("a:1 b:1 c:1"), list("a:1")).unwrap();
        assert!(shrunk.leaves(1) && shrunk.of(2).len() == 3 && shrunk.of(0).len() == 1);
        for (before, after, why) in [
            ("a:1 b:1", "a:1 b:1", "the one that the cluster has"),
            ("a:1 b:1", "b:1 a:1 c:1", "node 0 is a:1 now, and b:1 in the new list"),
            ("a:1 b:1 c:1", "a:1 c:1", "node 1 is b:1 now, and c:1 in the new list"),
            ("a:1 b:1", "a:1 b:2 c:1", "node 1 is b:1 now, and b:2 in the new list"),
        ] {
            let refused = Lists::new(list(before), list(after)).unwrap_err().to_string();
            assert!(refused.contains(why), "{refused}");
        }
        let json = serde_json::to_string(&grown).unwrap();
        assert_eq!(json, r#"{"before":["a:1","b:1"],"after":["a:1","b:1","c:1"]}"#);
        assert_eq!(serde_json::from_str::<Lists>(&json).unwrap(), grown);
        assert!(serde_json::from_str::<Lists>(r#"{"before":["a:1"],"after":["b:1"]}"#).is_err());
    }

    proptest! {
        /// A hashed name moves only to a new node, or from one that leaves.
        #[test]
        fn no_hashed_name_moves_without_need(name in "[a-z]{1,12}", before in 1_usize..40, after in 1_usize..40) {
            let (from, to) = (node_of_basename(&name, before), node_of_basename(&name, after));
            prop_assert!(from == to || from >= after || to >= before);
        }
    }
}
