//! Detects skew: keys on few nodes because of their leading numbers. The number modulo the nodes is the node, so names
//! such as `2023_01` to `2023_12` are all on one node, and have one merge name.

use crate::bounds;
use crate::checksum;
use crate::key::{Key, split_number};
use crate::placement::NodeId;
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::ops::AddAssign;

/// Percent of the keys that the crowded nodes hold together.
const PERCENT_OF_KEYS: u64 = 90;
/// Keys per crowded node, on average, from which a warning is useful.
const MANY: u64 = 4;
/// Limit of different numbers that are counted; more do not change the result.
const MAX_NUMBERS: usize = 1024;

/// True if a node with `part` of `whole` has more than twice its fair share.
pub fn is_crowded(part: u64, whole: u64, nodes: usize) -> bool {
    part > 2 * whole.div_ceil((nodes as u64).max(1))
}

/// A node with more than twice its fair share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Crowded {
    pub node: NodeId,
    pub of: Amount,
    pub part: u64,
    pub whole: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Amount {
    Tasks,
    Keys,
    Bytes,
}

impl Amount {
    /// The least amount for which a warning is useful: less may be on few nodes by chance.
    fn least(self, nodes: usize) -> u64 {
        match self {
            Self::Tasks | Self::Keys => MANY * nodes as u64,
            Self::Bytes => 1 << 30,
        }
    }
}

/// The node with the largest of `parts`, if it is crowded. There are `nodes` nodes, some of which may be unknown.
pub fn crowded(of: Amount, nodes: usize, parts: impl Iterator<Item = (NodeId, u64)> + Clone) -> Option<Crowded> {
    let whole = parts.clone().fold(0, |sum: u64, (_, part)| sum.saturating_add(part));
    let (node, part) = parts.max_by_key(|(_, part)| *part)?;
    let is_worth_telling = whole >= of.least(nodes) && is_crowded(part, whole, nodes);
    is_worth_telling.then_some(Crowded { node, of, part, whole })
}

/// The keys and bytes of a node.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Load {
    #[serde(deserialize_with = "bounds::count")]
    pub keys: u64,
    #[serde(deserialize_with = "bounds::count")]
    pub bytes: u64,
}

impl Load {
    /// One key of this size.
    pub fn of_key(bytes: u64) -> Self {
        Self { keys: 1, bytes }
    }
}

impl AddAssign for Load {
    fn add_assign(&mut self, other: Self) {
        self.keys = self.keys.saturating_add(other.keys);
        self.bytes = self.bytes.saturating_add(other.bytes);
    }
}

/// Counts of leading numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Numbers {
    /// Keys with a leading number.
    #[serde(deserialize_with = "bounds::count")]
    pub keys: u64,
    /// Different numbers, up to the limit.
    pub distinct: u32,
}

/// A skew: most keys are on few nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Skew {
    /// The number of crowded nodes, and of all nodes.
    pub crowded: usize,
    pub nodes: usize,
    /// The load of the crowded nodes, and of all nodes.
    pub there: Load,
    pub all: Load,
    pub distinct: u32,
}

/// The skew, if leading numbers distribute keys unevenly over `nodes`. Not a skew: few keys that are on few nodes by
/// chance, and small keys beside large ones that are spread.
pub fn skew(nodes: &[Load], numbers: Numbers) -> Option<Skew> {
    let all = sum(nodes);
    if numbers.keys.saturating_mul(2) < all.keys || numbers.distinct == 0 {
        return None;
    }
    let mut sorted = nodes.to_vec();
    sorted.sort_by_key(|load| std::cmp::Reverse(load.keys));
    let crowded = (1..=sorted.len())
        .find(|&few| sum(&sorted[..few]).keys.saturating_mul(100) >= all.keys.saturating_mul(PERCENT_OF_KEYS))?;
    let there = sum(&sorted[..crowded]);
    // So few different numbers cannot reach more nodes. With many numbers but few keys, the distribution may be chance.
    let by_chance = numbers.distinct as usize * 2 > nodes.len() && all.keys < MANY * nodes.len() as u64;
    let (on_each, fair) = (there.keys / crowded as u64, all.keys.div_ceil(nodes.len() as u64));
    let is_skew = crowded * 2 <= nodes.len()
        && !by_chance
        && on_each >= MANY.max(2 * fair)
        && there.bytes.saturating_mul(2) >= all.bytes;
    is_skew.then_some(Skew { crowded, nodes: nodes.len(), there, all, distinct: numbers.distinct })
}

fn sum(loads: &[Load]) -> Load {
    let mut sum = Load::default();
    loads.iter().for_each(|load| sum += *load);
    sum
}

/// How keys are distributed over the nodes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spread {
    /// The load of each node.
    pub nodes: Vec<Load>,
    pub numbers: Numbers,
    /// The first key with a leading number.
    pub example: Option<Key>,
}

impl Spread {
    pub fn new(nodes: usize) -> Self {
        Self { nodes: vec![Load::default(); nodes], numbers: Numbers::default(), example: None }
    }

    /// Adds other keys. Assumes that they have the same numbers.
    pub fn add(&mut self, other: Self) {
        for (load, more) in self.nodes.iter_mut().zip(other.nodes) {
            *load += more;
        }
        self.numbers.keys = self.numbers.keys.saturating_add(other.numbers.keys);
        self.numbers.distinct = self.numbers.distinct.max(other.numbers.distinct);
        self.example = self.example.take().or(other.example);
    }

    /// The load of all nodes together.
    pub fn all(&self) -> Load {
        sum(&self.nodes)
    }

    /// The skew, and a key that is affected.
    pub fn skew(&self) -> Option<(Skew, &Key)> {
        skew(&self.nodes, self.numbers).zip(self.example.as_ref())
    }
}

/// Counts keys. Memory use does not grow with their number.
#[derive(Debug)]
pub struct Tally {
    spread: Spread,
    /// Hashes of the different numbers.
    numbers: HashSet<u64>,
}

impl Tally {
    pub fn new(nodes: usize) -> Self {
        Self { spread: Spread::new(nodes), numbers: HashSet::new() }
    }

    /// Counts `key`, which is on `node` and has this number of bytes.
    pub fn add(&mut self, key: &Key, node: NodeId, bytes: u64) {
        self.spread.nodes[node] += Load::of_key(bytes);
        let Some((number, _)) = split_number(key.basename()) else {
            return;
        };
        self.spread.numbers.keys += 1;
        if self.numbers.len() < MAX_NUMBERS && self.numbers.insert(checksum::hash(number.as_bytes())) {
            self.spread.numbers.distinct += 1;
        }
        self.spread.example.get_or_insert_with(|| key.clone());
    }

    /// Frees memory that is needed only to add keys.
    pub fn close(&mut self) {
        self.numbers = HashSet::new();
    }

    pub fn spread(&self) -> &Spread {
        &self.spread
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::placement::node_of;
    use proptest::prelude::*;

    fn of(names: impl IntoIterator<Item = String>, nodes: usize) -> Option<Skew> {
        let mut tally = Tally::new(nodes);
        for name in names {
            let key = Key::parse(&format!("b/{name}")).unwrap();
            tally.add(&key, node_of(&key, nodes), 10);
        }
        tally.spread().skew().map(|(skew, _)| skew)
    }

    fn each(numbers: impl IntoIterator<Item = u64>, name: &str) -> Vec<String> {
        numbers.into_iter().map(|number| name.replace('#', &number.to_string())).collect()
    }

    #[test]
    fn months_of_one_year_are_on_one_node() {
        let skew = of(each(1..13, "2023_#.csv"), 3).expect("a skew");
        assert_eq!((skew.crowded, skew.nodes, skew.distinct), (1, 3, 1));
        assert_eq!((skew.there, skew.all), (Load { keys: 12, bytes: 120 }, Load { keys: 12, bytes: 120 }));
    }

    #[test]
    fn three_years_reach_no_more_than_three_of_twelve_nodes() {
        let years = (2021..2024).flat_map(|year| each(1..13, &format!("{year}_#")));
        let skew = of(years, 12).expect("a skew");
        assert_eq!((skew.crowded, skew.nodes, skew.distinct), (3, 12, 3));
    }

    #[test]
    fn numbers_that_share_a_factor_with_the_nodes_leave_nodes_empty() {
        assert_eq!(of(each((0..40).map(|n| 2 * n), "#_x"), 4).map(|skew| skew.crowded), Some(2));
        assert_eq!(of(each((0..40).map(|n| 3 * n), "#_x"), 4), None);
    }

    #[test]
    fn numbers_that_count_up_are_no_skew() {
        for (keys, nodes) in [(12, 3), (3, 12), (13, 12), (1000, 12), (4, 2), (7, 1)] {
            assert_eq!(of(each(0..keys, "#_x"), nodes), None, "{keys} keys, {nodes} nodes");
        }
    }

    #[test]
    fn few_keys_are_no_skew() {
        assert_eq!(of(each(1..4, "2023_#"), 3), None);
        assert!(of(each(1..5, "2023_#"), 3).is_some());
    }

    #[test]
    fn small_numbered_keys_beside_large_ones_are_no_skew() {
        let nodes = [Load { keys: 100, bytes: 100 }, Load { keys: 5, bytes: 5000 }, Load { keys: 5, bytes: 5000 }];
        assert_eq!(skew(&nodes, Numbers { keys: 100, distinct: 1 }), None);
        let even = nodes.map(|load| Load { bytes: load.keys, ..load });
        assert!(skew(&even, Numbers { keys: 100, distinct: 1 }).is_some());
        assert_eq!(skew(&even, Numbers { keys: 10, distinct: 1 }), None, "most are placed by their hash");
    }

    #[test]
    fn a_node_with_most_of_much_is_crowded() {
        let crowded = |of, parts: [u64; 3]| crowded(of, 3, parts.into_iter().enumerate());
        let found = Crowded { node: 1, of: Amount::Keys, part: 11, whole: 12 };
        assert_eq!(crowded(Amount::Keys, [1, 11, 0]), Some(found));
        assert_eq!(crowded(Amount::Keys, [0, 11, 0]), None, "few");
        assert_eq!(crowded(Amount::Tasks, [3, 8, 1]), None, "twice the fair share");
        assert_eq!(crowded(Amount::Bytes, [3, 80, 1]), None, "few bytes");
        assert!(crowded(Amount::Bytes, [1 << 20, 1 << 30, 0]).is_some());
        assert_eq!(crowded(Amount::Bytes, [1 << 60, 1 << 60, 1 << 60]), None, "even");
    }

    proptest! {
        #[test]
        fn names_without_numbers_are_no_skew(keys in 0_u64..200, nodes in 1_usize..20) {
            prop_assert_eq!(of(each(0..keys, "x#"), nodes), None);
        }

        #[test]
        fn a_reported_skew_has_most_keys_on_at_most_half_of_the_nodes(
            loads in proptest::collection::vec((0_u64..50, 0_u64..1000), 1..20), distinct in 0_u32..30,
        ) {
            let loads: Vec<Load> = loads.into_iter().map(|(keys, bytes)| Load { keys, bytes }).collect();
            let keys = sum(&loads).keys;
            if let Some(skew) = skew(&loads, Numbers { keys, distinct }) {
                prop_assert!(skew.crowded * 2 <= skew.nodes && skew.there.keys * 100 >= keys * PERCENT_OF_KEYS);
                prop_assert!(skew.there.bytes * 2 >= skew.all.bytes && skew.there.keys >= MANY);
            }
        }
    }
}
