//! The set of published pieces, for the message after a failure. Pieces are published nearly in order, so memory use
//! does not grow with their number.

use super::pieces::Names;
use std::collections::BTreeSet;

#[derive(Debug, Default)]
pub struct Published {
    /// All pieces below this number are published.
    below: u64,
    /// Published pieces above it.
    later: BTreeSet<u64>,
}

impl Published {
    pub fn add(&mut self, number: u64) {
        self.later.insert(number);
        while self.later.remove(&self.below) {
            self.below += 1;
        }
    }

    /// The text for the message.
    pub fn text(&self, names: &Names) -> String {
        let name = |number| names.key(number).map_or_else(|_| number.to_string(), |key| key.to_string());
        let first = match self.below {
            0 => None,
            1 => Some(name(0)),
            below => Some(format!("{} to {}", name(0), name(below - 1))),
        };
        let parts: Vec<String> = first.into_iter().chain(self.later.iter().map(|&number| name(number))).collect();
        match parts.len() {
            0 => "no key was made".to_owned(),
            _ => format!("these keys were made: {}", parts.join(", ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use s4::key::Dir;

    #[test]
    fn published_keys_are_shown_as_a_range_and_the_rest() {
        let names = Names { dir: Dir::parse_url("s4://b/").unwrap(), name: "x".to_owned(), digits: 4 };
        let text = |numbers: &[u64]| {
            let mut published = Published::default();
            numbers.iter().for_each(|&number| published.add(number));
            published.text(&names)
        };
        assert_eq!(text(&[]), "no key was made");
        assert_eq!(text(&[0]), "these keys were made: s4://b/0000_x");
        assert_eq!(text(&[2, 0, 1, 5]), "these keys were made: s4://b/0000_x to s4://b/0002_x, s4://b/0005_x");
        assert_eq!(text(&[1]), "these keys were made: s4://b/0001_x");
    }
}
