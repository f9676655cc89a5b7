//! Checksums of a key's parts, recorded at its publish, so that a reader can verify a part without the rest.
//!
//! A key is divided into leaves of 512 KiB; the last may be shorter. The checksum of a leaf is the low half of the
//! XXH3-64 of its bytes. A key of more than one leaf has a table of these checksums in an extended attribute. If there
//! are too many, each pair of neighbours is replaced by one, the low half of the XXH3-64 of both; this is repeated
//! until they fit. Then one checksum covers a block of several leaves.

use crate::checksum::{Checksum, hash};
use std::hash::Hasher as _;
use twox_hash::XxHash3_64;

/// Bytes of a leaf. It fits into a CPU's own cache while it is copied and hashed.
pub const LEAF: u64 = 512 * 1024;

/// The extended attribute that holds a key's table.
pub const BLOCKS_ATTRIBUTE: &str = "user.s4.blocks";

/// Limit of checksums in a table. ext4 has one block of 4 KiB for all attributes of a file.
const MAX_LEAVES: usize = 900;
/// The first byte of a table.
const VERSION: u8 = 1;
/// Version, level, two zero bytes, and a checksum of the rest of the table and of the key's checksum.
const HEADER: usize = 8;

/// The checksum of a leaf's bytes.
pub fn leaf_sum(leaf: &[u8]) -> u32 {
    hash(leaf) as u32
}

/// The number of leaves of a key of `len` bytes.
pub fn leaves_of(len: u64) -> usize {
    len.div_ceil(LEAF) as usize
}

/// Computes the checksums of leaves from bytes in pieces of any size.
#[derive(Default)]
pub struct Leaves {
    sums: Vec<u32>,
    /// The hash of an incomplete leaf, and its bytes so far.
    begun: Option<(XxHash3_64, u64)>,
}

impl Leaves {
    pub fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.begun.is_none()
                && let Some((leaf, rest)) = bytes.split_at_checked(LEAF as usize)
            {
                self.sums.push(leaf_sum(leaf));
                bytes = rest;
                continue;
            }
            let (mut state, filled) = self.begun.take().unwrap_or_else(|| (XxHash3_64::new(), 0));
            let (part, rest) = bytes.split_at(bytes.len().min((LEAF - filled) as usize));
            state.write(part);
            bytes = rest;
            match filled + part.len() as u64 {
                LEAF => self.sums.push(state.finish() as u32),
                filled => self.begun = Some((state, filled)),
            }
        }
    }

    /// Appends the checksum of a whole leaf that the caller has hashed. Must be called between leaves.
    pub fn push(&mut self, sum: u32) {
        debug_assert!(self.begun.is_none());
        self.sums.push(sum);
    }

    pub fn finish(mut self) -> Vec<u32> {
        self.sums.extend(self.begun.map(|(state, _)| state.finish() as u32));
        self.sums
    }
}

/// The recorded checksums of a key's parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// Each checksum covers 2^`level` leaves.
    level: u8,
    sums: Vec<u32>,
}

impl Table {
    pub fn of(mut sums: Vec<u32>) -> Self {
        let mut level = 0;
        while sums.len() > MAX_LEAVES {
            sums = halved(&sums);
            level += 1;
        }
        Self { level, sums }
    }

    /// The same with half as many checksums, each of a block twice as large; `None` if there is one only.
    pub fn halved(&self) -> Option<Self> {
        (self.sums.len() > 1).then(|| Self { level: self.level + 1, sums: halved(&self.sums) })
    }

    /// The checksum of a leaf, if checksums of single leaves are recorded.
    pub fn leaf(&self, leaf: usize) -> Option<u32> {
        self.sums.get(leaf).copied().filter(|_| self.level == 0)
    }

    /// The first leaf of the block that contains `leaf`, and the number of leaves per block.
    pub fn block_of(&self, leaf: usize) -> (usize, usize) {
        (leaf >> self.level << self.level, 1 << self.level)
    }

    /// True if `leaves` are the checksums of the leaves of the block that begins with leaf `first`.
    pub fn has_block(&self, first: usize, leaves: &[u32]) -> bool {
        let mut sums = leaves.to_vec();
        for _ in 0..self.level {
            sums = halved(&sums);
        }
        sums.len() == 1 && self.sums.get(first >> self.level) == sums.first()
    }

    /// The bytes to store with a key that has `checksum`.
    pub fn encode(&self, checksum: Checksum) -> Vec<u8> {
        let mut bytes = vec![0; HEADER];
        (bytes[0], bytes[1]) = (VERSION, self.level);
        self.sums.iter().for_each(|sum| bytes.extend_from_slice(&sum.to_le_bytes()));
        let sum = own_sum(&bytes, checksum);
        bytes[HEADER - 4..HEADER].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    /// `None` if it is not the table of a key with `checksum`.
    pub fn decode(bytes: &[u8], checksum: Checksum) -> Option<Self> {
        let (header, sums) = bytes.split_at_checked(HEADER)?;
        let level = header[1];
        let blocks = leaves_of(checksum.len).div_ceil(1usize.checked_shl(level.into())?);
        let is_ours = header[0] == VERSION && sums.len() == 4 * blocks && blocks <= MAX_LEAVES;
        if !is_ours || header[HEADER - 4..] != own_sum(bytes, checksum).to_le_bytes() {
            return None;
        }
        let sums = sums.chunks_exact(4).map(|sum| u32::from_le_bytes([sum[0], sum[1], sum[2], sum[3]])).collect();
        Some(Self { level, sums })
    }
}

/// The checksum of a table's bytes (without the field for it), and of the key's checksum.
fn own_sum(bytes: &[u8], checksum: Checksum) -> u32 {
    let mut state = XxHash3_64::new();
    state.write(&bytes[..HEADER - 4]);
    state.write(&bytes[HEADER..]);
    state.write(&checksum.xxh3.to_le_bytes());
    state.write(&checksum.len.to_le_bytes());
    state.finish() as u32
}

/// Combines each pair of checksums into one.
fn halved(sums: &[u32]) -> Vec<u32> {
    let joined = |pair: &[u32]| hash(&pair.iter().flat_map(|sum| sum.to_le_bytes()).collect::<Vec<u8>>()) as u32;
    sums.chunks(2).map(joined).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sums(count: usize) -> Vec<u32> {
        (0..count as u64).map(|number| hash(&number.to_le_bytes()) as u32).collect()
    }

    #[test]
    fn leaves_are_the_same_however_the_bytes_come() {
        let bytes: Vec<u8> = (0..3 * LEAF as usize + 7).map(|at| ((at * at) >> 9) as u8).collect();
        let whole: Vec<u32> = bytes.chunks(LEAF as usize).map(leaf_sum).collect();
        for piece in [bytes.len(), LEAF as usize, 100_003, LEAF as usize + 1] {
            let mut leaves = Leaves::default();
            bytes.chunks(piece).for_each(|piece| leaves.update(piece));
            assert_eq!(leaves.finish(), whole, "in pieces of {piece}");
        }
        assert_eq!(Leaves::default().finish(), [0u32; 0]);
    }

    #[test]
    fn a_table_is_read_as_written_and_not_with_a_bit_changed() {
        for count in [2, 3, MAX_LEAVES, MAX_LEAVES + 1, 5 * MAX_LEAVES + 3] {
            let checksum = Checksum { xxh3: 77, len: count as u64 * LEAF - 5 };
            let table = Table::of(sums(count));
            let bytes = table.encode(checksum);
            assert!(bytes.len() <= HEADER + 4 * MAX_LEAVES);
            assert_eq!(Table::decode(&bytes, checksum), Some(table));
            assert_eq!(Table::decode(&bytes, Checksum { xxh3: 78, ..checksum }), None, "of another key");
            for at in [0, 1, 4, 8, bytes.len() - 1] {
                let mut changed = bytes.clone();
                changed[at] ^= 1;
                assert_eq!(Table::decode(&changed, checksum), None, "byte {at} of {count} sums");
            }
            assert_eq!(Table::decode(&bytes[..bytes.len() - 1], checksum), None);
        }
    }

    #[test]
    fn a_block_is_verified_by_the_checksums_of_its_leaves() {
        let all = sums(3 * MAX_LEAVES + 1);
        let table = Table::of(all.clone());
        assert_eq!(table.leaf(0), None, "they are too many to be recorded themselves");
        for leaf in [0, 5, 3 * MAX_LEAVES] {
            let (first, count) = table.block_of(leaf);
            let block = &all[first..(first + count).min(all.len())];
            assert!(table.has_block(first, block), "leaf {leaf}");
            let mut other = block.to_vec();
            other[0] ^= 1;
            assert!(!table.has_block(first, &other));
        }
        assert_eq!(Table::of(all[..MAX_LEAVES].to_vec()).leaf(4), Some(all[4]));
    }
}
