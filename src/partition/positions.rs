//! Finds the positions of a byte in a line. Examines eight bytes at a time: fields are often short, and a search from
//! each delimiter to the next takes three times as long.

use std::slice::ChunksExact;

const ONES: u64 = 0x0101_0101_0101_0101;
const LOW: u64 = 0x7f * ONES;

/// The positions of a byte in a line, in order.
pub struct Positions<'a> {
    byte: u8,
    words: ChunksExact<'a, u8>,
    /// The bytes after the last whole word, until they are examined.
    rest: Option<&'a [u8]>,
    /// The top bit of each byte of the current word that matches and was not returned yet.
    found: u64,
    /// The positions of the current word and of the next one.
    at: usize,
    next_at: usize,
}

impl<'a> Positions<'a> {
    #[inline]
    pub fn of(byte: u8, line: &'a [u8]) -> Self {
        let words = line.chunks_exact(8);
        let rest = Some(words.remainder());
        Self { byte, words, rest, found: 0, at: 0, next_at: 0 }
    }

    /// Examines the next word; false at the end.
    #[inline]
    fn advance(&mut self) -> bool {
        let word = match self.words.next() {
            Some(word) => word.try_into().unwrap_or_default(),
            None => {
                let Some(rest) = self.rest.take() else { return false };
                let mut word = [!self.byte; 8];
                word[..rest.len()].copy_from_slice(rest);
                word
            }
        };
        // A byte that matches becomes zero. Then only the top bits of the zero bytes are set.
        let word = u64::from_le_bytes(word) ^ (ONES * u64::from(self.byte));
        self.found = !(((word & LOW) + LOW) | word | LOW);
        (self.at, self.next_at) = (self.next_at, self.next_at + 8);
        true
    }
}

impl Iterator for Positions<'_> {
    type Item = usize;

    #[inline]
    fn next(&mut self) -> Option<usize> {
        while self.found == 0 {
            if !self.advance() {
                return None;
            }
        }
        let position = self.at + self.found.trailing_zeros() as usize / 8;
        self.found &= self.found - 1;
        Some(position)
    }

    /// Counts the matches in a word, instead of visiting each.
    #[inline]
    fn nth(&mut self, number: usize) -> Option<usize> {
        let mut left = number;
        loop {
            let count = ((self.found >> 7).wrapping_mul(ONES) >> 56) as usize;
            if count > left {
                (0..left).for_each(|_| self.found &= self.found - 1);
                return self.next();
            }
            left -= count;
            self.found = 0;
            if !self.advance() {
                return None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn positions_are_those_of_a_search_byte_by_byte(
            line in proptest::collection::vec(prop::sample::select(&b",-\x00\x7f\x80\xac\xff"[..]), 0..40),
            byte in prop::sample::select(&b",\x00\xff"[..]), skipped in 0_usize..9
        ) {
            let simple: Vec<usize> = (0..line.len()).filter(|&at| line[at] == byte).collect();
            prop_assert_eq!(Positions::of(byte, &line).collect::<Vec<_>>(), simple.clone());
            let mut positions = Positions::of(byte, &line);
            let mut wanted = simple.into_iter();
            prop_assert_eq!(positions.nth(skipped), wanted.nth(skipped));
            prop_assert_eq!(positions.nth(skipped), wanted.nth(skipped));
            prop_assert_eq!(positions.collect::<Vec<_>>(), wanted.collect::<Vec<_>>());
        }
    }
}
