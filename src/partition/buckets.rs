//! Maps a key to its bucket: by its hash, or by its position among sorted splitters.

use super::numeric::Number;
use crate::checksum;
use crate::error::{Error, ErrorKind, Result};
use std::cmp::Ordering;
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// Limit of files that lines are split into.
pub const MAX_FILES: usize = 100_000;
/// Limit of bytes of a file of splitters.
const LONGEST: usize = 64 << 20;

#[derive(Debug)]
pub enum Buckets {
    /// XXH3-64 of the key modulo this number, which is at least 1.
    Hash(u64),
    /// The number of splitters that are less than or equal to the key.
    Ranges(Splitters),
}

/// Sorted splitters.
#[derive(Debug)]
pub struct Splitters {
    order: Order,
    /// An integer for each splitter with nearly the same order, so that a search reads little memory.
    heads: Vec<u64>,
    /// True if splitters with the same head are equal.
    are_exact: bool,
    all: Vec<Vec<u8>>,
}

/// The order of keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    Bytes,
    /// The order of `sort -n`.
    Numbers,
}

/// An integer that represents a key. A greater key never has a smaller head. If both heads are exact, a greater key has
/// a greater head.
#[derive(Debug, Clone, Copy)]
struct Head {
    value: u64,
    is_exact: bool,
}

impl Buckets {
    /// Reads splitters from a file, one per line. Errors: it cannot be read, or is not sorted.
    pub fn load(path: &Path, numeric: bool) -> Result<Self> {
        let refused = |why: &str| Error::new(ErrorKind::Io, format!("{}: {why}", path.display()));
        let mut text = Vec::new();
        let opened = File::open(path).and_then(|file| file.take(LONGEST as u64 + 1).read_to_end(&mut text));
        opened.map_err(|e| Error::io(path.display(), &e))?;
        if text.len() > LONGEST {
            return Err(refused(&format!("longer than {} MiB", LONGEST >> 20)));
        }
        let whole_lines = text.strip_suffix(b"\n").unwrap_or(&text);
        let lines = whole_lines.split(|&byte| byte == b'\n').map(<[u8]>::to_vec);
        let lines: Vec<Vec<u8>> = if text.is_empty() { Vec::new() } else { lines.take(MAX_FILES).collect() };
        if lines.len() >= MAX_FILES {
            return Err(refused(&format!("more than {} splitters", MAX_FILES - 1)));
        }
        let order = if numeric { Order::Numbers } else { Order::Bytes };
        if let Some(at) = lines.windows(2).position(|pair| order.compare(&pair[0], &pair[1]) == Ordering::Greater) {
            let sort = if numeric { "sort -n" } else { "sort" };
            return Err(refused(&format!(
                "line {}: below the line before it; sort the file with 'LC_ALL=C {sort}'",
                at + 2
            )));
        }
        let heads: Vec<Head> = lines.iter().map(|line| order.head(line)).collect();
        let are_exact = heads.iter().all(|head| head.is_exact);
        let heads = heads.into_iter().map(|head| head.value).collect();
        Ok(Self::Ranges(Splitters { order, heads, are_exact, all: lines }))
    }

    /// The number of buckets.
    pub fn count(&self) -> usize {
        match self {
            Self::Hash(count) => *count as usize,
            Self::Ranges(splitters) => splitters.all.len() + 1,
        }
    }

    /// The separator between fields of a key. For hashes it is always the same, so that records with another delimiter
    /// get the same bucket.
    pub fn joiner(&self, delimiter: u8) -> u8 {
        match self {
            Self::Hash(_) => b'\t',
            Self::Ranges(_) => delimiter,
        }
    }

    /// The bucket of a key, below [`Buckets::count`].
    #[inline]
    pub fn find(&self, key: &[u8]) -> usize {
        match self {
            Self::Hash(count) => (checksum::hash(key) % count) as usize,
            Self::Ranges(splitters) => splitters.not_above(key),
        }
    }
}

impl Splitters {
    fn not_above(&self, key: &[u8]) -> usize {
        let of_key = self.order.head(key);
        if self.are_exact && of_key.is_exact {
            return self.heads.partition_point(|&head| head <= of_key.value);
        }
        let below = self.heads.partition_point(|&head| head < of_key.value);
        // Splitters with the same head are compared as a whole.
        let same = self.heads[below..].partition_point(|&head| head == of_key.value);
        below + self.all[below..below + same].partition_point(|splitter| self.order.compare(splitter, key).is_le())
    }
}

impl Order {
    fn compare(self, a: &[u8], b: &[u8]) -> Ordering {
        match self {
            Self::Bytes => a.cmp(b),
            Self::Numbers => Number::of(a).cmp(&Number::of(b)),
        }
    }

    fn head(self, key: &[u8]) -> Head {
        match self {
            Self::Bytes => {
                let mut head = [0; 8];
                let length = key.len().min(8);
                head[..length].copy_from_slice(&key[..length]);
                // The head is padded with zeros, so a key that ends in a zero byte is not exact.
                let is_exact = key.len() <= 8 && key.last() != Some(&0);
                Head { value: u64::from_be_bytes(head), is_exact }
            }
            Self::Numbers => {
                let number = Number::of(key);
                Head { value: number.head(), is_exact: number.has_exact_head() }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn load(text: &[u8], numeric: bool) -> Result<Buckets> {
        let mut file = tempfile::NamedTempFile::new().expect("a file");
        std::io::Write::write_all(&mut file, text).expect("written");
        Buckets::load(file.path(), numeric)
    }

    proptest! {
        #[test]
        fn a_bucket_is_the_number_of_splitters_not_above_the_key(
            mut splitters in proptest::collection::vec("[\\x00ab]{0,10}", 0..20), key in "[\\x00ab]{0,10}"
        ) {
            splitters.sort();
            let text: String = splitters.iter().map(|splitter| format!("{splitter}\n")).collect();
            let buckets = load(text.as_bytes(), false).expect("splitters");
            let not_above = splitters.iter().filter(|splitter| **splitter <= key).count();
            prop_assert_eq!(buckets.find(key.as_bytes()), not_above);
            prop_assert!(not_above < buckets.count());
        }
    }

    proptest! {
        #[test]
        fn numbers_are_compared_as_by_sort(
            mut splitters in proptest::collection::vec("-?[019]{0,3}(\\.[019]{1,3})?", 0..20), key in "-?[019]{0,18}(\\.[019]{1,18})?"
        ) {
            splitters.sort_by(|a, b| Order::Numbers.compare(a.as_bytes(), b.as_bytes()));
            let text: String = splitters.iter().map(|splitter| format!("{splitter}\n")).collect();
            let buckets = load(text.as_bytes(), true).expect("splitters");
            let not_above = |splitter: &&String| Order::Numbers.compare(splitter.as_bytes(), key.as_bytes()).is_le();
            prop_assert_eq!(buckets.find(key.as_bytes()), splitters.iter().filter(not_above).count());
        }
    }

    #[test]
    fn splitters_that_are_not_sorted_are_refused_with_the_line() {
        let error = load(b"a\nc\nb\n", false).expect_err("not sorted").to_string();
        assert!(error.ends_with("line 3: below the line before it; sort the file with 'LC_ALL=C sort'"), "{error}");
        assert!(load(b"10\n9\n", false).is_ok() && load(b"9\n10\n", true).is_ok());
        assert!(load(b"9\n10\n", false).is_err() && load(b"10\n9\n", true).is_err());
        assert!(load(b"a\na", false).is_ok_and(|buckets| buckets.count() == 3));
        assert!(load(b"", false).is_ok_and(|buckets| buckets.count() == 1));
    }
}
