//! Numbers in the order of `sort -n`: a decimal of any length at the beginning of a text. A text without a number
//! counts as 0.

use std::cmp::Ordering;

/// Decimal digits that a float represents exactly.
const EXACT: usize = 15;
/// Powers of ten that a float represents exactly.
const POWERS: [f64; 16] = [1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Number<'a> {
    negative: bool,
    /// Digits before the point, without leading zeros.
    whole: &'a [u8],
    /// Digits after the point, without trailing zeros.
    fraction: &'a [u8],
}

impl<'a> Number<'a> {
    /// Parses the number at the beginning of `text`.
    pub fn of(text: &'a [u8]) -> Self {
        let text = text.trim_ascii_start();
        let (negative, text) = match text.strip_prefix(b"-") {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let (whole, rest) = text.split_at(digits(text));
        let fraction = rest.strip_prefix(b".").map_or(&b""[..], |rest| &rest[..digits(rest)]);
        let zeros = whole.iter().take_while(|&&digit| digit == b'0').count();
        let kept = fraction.iter().rposition(|&digit| digit != b'0').map_or(0, |last| last + 1);
        let (whole, fraction) = (&whole[zeros..], &fraction[..kept]);
        // -0 is equal to 0.
        Self { negative: negative && !(whole.is_empty() && fraction.is_empty()), whole, fraction }
    }

    /// True if no other number for which this is true has the same head.
    pub fn has_exact_head(&self) -> bool {
        self.whole.len() + self.fraction.len() <= EXACT
    }

    /// An integer with the same order as the numbers, except that numbers close to each other may have the same head.
    pub fn head(&self) -> u64 {
        let bits = self.near().to_bits() | 1 << 63;
        if self.negative { !bits } else { bits }
    }

    /// The magnitude, computed from the first digits. The exact quotient or product is rounded once, so that a greater
    /// number never gets a smaller value.
    fn near(&self) -> f64 {
        let whole = self.whole.len().min(EXACT);
        let fraction = self.fraction.len().min(EXACT - whole);
        let digits = self.whole[..whole].iter().chain(&self.fraction[..fraction]);
        let mantissa = digits.fold(0, |sum: u64, digit| sum * 10 + u64::from(digit - b'0')) as f64;
        match self.whole.len() - whole {
            0 => mantissa / POWERS[fraction],
            more => POWERS.get(more).map_or(f64::INFINITY, |power| mantissa * power),
        }
    }

    fn size(&self, other: &Self) -> Ordering {
        let whole = self.whole.len().cmp(&other.whole.len()).then_with(|| self.whole.cmp(other.whole));
        whole.then_with(|| self.fraction.cmp(other.fraction))
    }
}

fn digits(text: &[u8]) -> usize {
    text.iter().take_while(|byte| byte.is_ascii_digit()).count()
}

impl Ord for Number<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self.negative, other.negative) {
            (false, false) => self.size(other),
            (true, true) => other.size(self),
            (true, false) => Ordering::Less,
            (false, true) => Ordering::Greater,
        }
    }
}

impl PartialOrd for Number<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_in_the_order_of_sort() {
        let sorted =
            ["-10", "-9.5", " -1e9", "-0.5", "0", "0.04", ".4", "1e3", "2", "10.0", "10.01", "99999999999999999999"];
        for (at, number) in sorted.iter().enumerate() {
            for (other_at, other) in sorted.iter().enumerate() {
                let order = Number::of(number.as_bytes()).cmp(&Number::of(other.as_bytes()));
                assert_eq!(order, at.cmp(&other_at), "{number} and {other}");
                let heads = [number, other].map(|text| Number::of(text.as_bytes()).head());
                assert!(at > other_at || heads[0] <= heads[1], "{number} and {other}: {heads:?}");
            }
        }
        for same in ["0", "-0", "", "NA", "+5", "-", ".", "00", "0.0", "-.0x"] {
            assert_eq!(Number::of(same.as_bytes()), Number::of(b"0"), "{same}");
        }
        assert_eq!(Number::of(b"\t007.50 "), Number::of(b"7.5"));
    }
}
