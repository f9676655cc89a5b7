//! Placement: the node of a name. It depends on the basename alone.

use crate::checksum;
use crate::key::{Key, split_number};

/// A node's number: its line in the cluster file, from 0.
pub type NodeId = usize;

/// The node of `key` in a cluster of `nodes` (at least 1).
pub fn node_of(key: &Key, nodes: usize) -> NodeId {
    node_of_basename(key.basename(), nodes)
}

/// A leading number modulo `nodes`; for any other basename, jump consistent hash over its XXH3-64.
pub fn node_of_basename(basename: &str, nodes: usize) -> NodeId {
    let name = temporary_target(basename).unwrap_or(basename);
    match split_number(name) {
        Some((number, _)) => modulo(number, nodes),
        None => jump_hash(checksum::hash(name.as_bytes()), nodes),
    }
}

/// NAME of a temporary name `.NAME.XXXXXX`, which rsync and other programs write before a rename.
fn temporary_target(basename: &str) -> Option<&str> {
    let (name, random) = basename.strip_prefix('.')?.rsplit_once('.')?;
    let is_random = random.len() == 6 && random.bytes().all(|b| b.is_ascii_alphanumeric());
    (is_random && !name.is_empty()).then_some(name)
}

/// Decimal `digits` modulo `nodes`, whatever their length.
fn modulo(digits: &str, nodes: usize) -> NodeId {
    let nodes = nodes as u64;
    let rest = digits.bytes().fold(0, |rest, digit| (rest * 10 + u64::from(digit - b'0')) % nodes);
    rest as NodeId
}

/// Jump consistent hash. Source: Lamping and Veach, "A Fast, Minimal Memory, Consistent Hash Algorithm", 2014.
fn jump_hash(mut hash: u64, nodes: usize) -> NodeId {
    let (mut chosen, mut next) = (0_i64, 0_i64);
    while next < nodes as i64 {
        chosen = next;
        hash = hash.wrapping_mul(2_862_933_555_777_941_757).wrapping_add(1);
        let step = (1_u64 << 31) as f64 / ((hash >> 33) + 1) as f64;
        next = ((chosen + 1) as f64 * step) as i64;
    }
    chosen as NodeId
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn numbers_choose_their_node_modulo_the_cluster() {
        for (name, nodes, node) in [
            ("000_a", 3, 0),
            ("001_a", 3, 1),
            ("7", 3, 1),
            ("12_x_y", 12, 0),
            ("99999999999999999999999_x", 10, 9),
            (".001_a.x7Yz01", 3, 1),
        ] {
            assert_eq!(node_of_basename(name, nodes), node, "{name}");
        }
    }

    #[test]
    fn a_temporary_name_is_placed_as_its_target() {
        for nodes in [2, 3, 12, 1000] {
            let target = node_of_basename("origin_EWR.csv", nodes);
            assert_eq!(node_of_basename(".origin_EWR.csv.Ab12cd", nodes), target);
        }
        assert_eq!(temporary_target(".a.short"), None);
        assert_eq!(temporary_target("..abcdef"), None);
    }

    #[test]
    fn jump_hash_gives_the_published_values() {
        // Computed with the reference implementation in the paper.
        for (hash, nodes, node) in
            [(0, 1, 0), (0, 100, 0), (1, 1, 0), (10_863_919_174_838_991, 11, 6), (256, 1024, 520)]
        {
            assert_eq!(jump_hash(hash, nodes), node, "{hash} {nodes}");
        }
    }

    proptest! {
        #[test]
        fn a_new_node_only_takes_keys(name in "[a-z]{1,20}", nodes in 1_usize..200) {
            let (before, after) = (node_of_basename(&name, nodes), node_of_basename(&name, nodes + 1));
            prop_assert!(after == before || after == nodes);
        }
    }
}
