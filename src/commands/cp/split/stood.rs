//! The keys that stand, in memory that does not grow with their number: pieces are published nearly in their order.

use super::pieces::Names;
use std::collections::BTreeSet;

#[derive(Debug, Default)]
pub struct Stood {
    /// All pieces before this one stand.
    below: u64,
    /// Those behind it that do.
    later: BTreeSet<u64>,
}

impl Stood {
    pub fn add(&mut self, number: u64) {
        self.later.insert(number);
        while self.later.remove(&self.below) {
            self.below += 1;
        }
    }

    /// What stands, in words.
    pub fn text(&self, names: &Names) -> String {
        let name = |number| names.key(number).map_or_else(|_| number.to_string(), |key| key.to_string());
        let first = match self.below {
            0 => None,
            1 => Some(name(0)),
            below => Some(format!("{} to {}", name(0), name(below - 1))),
        };
        let stand: Vec<String> = first.into_iter().chain(self.later.iter().map(|&number| name(number))).collect();
        match stand.len() {
            0 => "no key was made".to_owned(),
            _ => format!("these keys stand: {}", stand.join(", ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use s4::key::Dir;

    #[test]
    fn what_stands_is_told_as_a_range_and_the_rest() {
        let names = Names { dir: Dir::parse_url("s4://b/").unwrap(), name: "x".to_owned(), digits: 4 };
        let text = |numbers: &[u64]| {
            let mut stood = Stood::default();
            numbers.iter().for_each(|&number| stood.add(number));
            stood.text(&names)
        };
        assert_eq!(text(&[]), "no key was made");
        assert_eq!(text(&[0]), "these keys stand: s4://b/0000_x");
        assert_eq!(text(&[2, 0, 1, 5]), "these keys stand: s4://b/0000_x to s4://b/0002_x, s4://b/0005_x");
        assert_eq!(text(&[1]), "these keys stand: s4://b/0001_x");
    }
}
