//! The extended attribute of a key's file. It contains the checksum and length of the key's bytes; for an output of a
//! map, also the mark, which says what made it.
//!
//! 17 bytes, or 49 with a mark, little-endian: version, XXH3-64, length; recipe, inputs, job, source, outputs. Version 1
//! is a key without metadata; version 2 has metadata in an attribute of its own, which is looked for only then.
//! Together with its name it fits beside ext4's other fields in an inode of 256 bytes, so that a small key needs no
//! additional block.

use crate::checksum::Checksum;
use serde::{Deserialize, Serialize};

/// The attribute's name.
pub const KEY_ATTRIBUTE: &str = "user.s4.key";
/// The name of the attribute with a key's metadata: the low half of the XXH3-64 of what follows as 8 hexadecimal
/// digits, a space, and the metadata as JSON.
pub const METADATA_ATTRIBUTE: &str = "user.s4.meta";

/// The name of the attribute of a key that was joined from the parts of an upload: the id of the upload, a space, and
/// the XXH3-64 of the list of its parts, as 16 hexadecimal digits.
pub const UPLOAD_ATTRIBUTE: &str = "user.s4.upload";

const VERSION: u8 = 1;
const WITH_METADATA: u8 = 2;
const PLAIN: usize = 17;
const MARKED: usize = 49;

/// The record of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyRecord {
    pub checksum: Checksum,
    /// Only for outputs of a map.
    pub mark: Option<Mark>,
    /// True if [`METADATA_ATTRIBUTE`] has the key's metadata.
    pub has_metadata: bool,
}

/// The mark of an output: what made it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Mark {
    /// Digest of the recipe: the map's kind, its command, files, variables and exit statuses.
    pub recipe: u64,
    /// Digest of the names and checksums of the task's inputs.
    pub inputs: u64,
    /// Hash of the job's id.
    pub job: u64,
    /// Hash of INDIR and OUTDIR.
    pub source: u32,
    /// The number of outputs of its task.
    pub outputs: u32,
}

impl KeyRecord {
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(MARKED);
        bytes.push(if self.has_metadata { WITH_METADATA } else { VERSION });
        bytes.extend_from_slice(&self.checksum.xxh3.to_le_bytes());
        bytes.extend_from_slice(&self.checksum.len.to_le_bytes());
        if let Some(mark) = self.mark {
            for field in [mark.recipe, mark.inputs, mark.job] {
                bytes.extend_from_slice(&field.to_le_bytes());
            }
            bytes.extend_from_slice(&mark.source.to_le_bytes());
            bytes.extend_from_slice(&mark.outputs.to_le_bytes());
        }
        bytes
    }

    /// `None` if the bytes are damaged or have an unknown version.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (&version, mut rest) = bytes.split_first()?;
        if !matches!(version, VERSION | WITH_METADATA) || !matches!(bytes.len(), PLAIN | MARKED) {
            return None;
        }
        let checksum = Checksum { xxh3: long(&mut rest)?, len: long(&mut rest)? };
        let mark = match rest.is_empty() {
            true => None,
            false => Some(Mark {
                recipe: long(&mut rest)?,
                inputs: long(&mut rest)?,
                job: long(&mut rest)?,
                source: short(&mut rest)?,
                outputs: short(&mut rest)?,
            }),
        };
        Some(Self { checksum, mark, has_metadata: version == WITH_METADATA })
    }
}

impl From<Checksum> for KeyRecord {
    fn from(checksum: Checksum) -> Self {
        Self { checksum, mark: None, has_metadata: false }
    }
}

fn long(bytes: &mut &[u8]) -> Option<u64> {
    let (field, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(u64::from_le_bytes(*field))
}

fn short(bytes: &mut &[u8]) -> Option<u32> {
    let (field, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(u32::from_le_bytes(*field))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn records() -> impl Strategy<Value = KeyRecord> {
        let mark = any::<(u64, u64, u64, u32, u32)>();
        let mark =
            mark.prop_map(|(recipe, inputs, job, source, outputs)| Mark { recipe, inputs, job, source, outputs });
        let checksum = any::<(u64, u64)>().prop_map(|(xxh3, len)| Checksum { xxh3, len });
        let record = (checksum, proptest::option::of(mark), any::<bool>());
        record.prop_map(|(checksum, mark, has_metadata)| KeyRecord { checksum, mark, has_metadata })
    }

    proptest! {
        #[test]
        fn a_record_is_read_as_it_was_written(record in records()) {
            prop_assert_eq!(KeyRecord::decode(&record.encode()), Some(record));
        }

        #[test]
        fn a_record_that_was_cut_or_has_another_version_is_none(record in records(), cut in 0..MARKED, version in 3_u8..) {
            let mut bytes = record.encode();
            if cut < bytes.len() && cut != PLAIN {
                prop_assert_eq!(KeyRecord::decode(&bytes[..cut]), None);
            }
            bytes[0] = version;
            prop_assert_eq!(KeyRecord::decode(&bytes), None);
        }

        #[test]
        fn any_bytes_are_read_without_a_crash(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            if let Some(record) = KeyRecord::decode(&bytes) {
                prop_assert_eq!(record.encode(), bytes);
            }
        }
    }

    #[test]
    fn the_bytes_are_as_documented() {
        let mark = Mark { recipe: 3, inputs: 4, job: 5, source: 6, outputs: 7 };
        let bytes =
            KeyRecord { checksum: Checksum { xxh3: 1, len: 2 }, mark: Some(mark), has_metadata: false }.encode();
        let expected =
            "01 0100000000000000 0200000000000000 0300000000000000 0400000000000000 0500000000000000 06000000 07000000";
        let shown: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(shown, expected.replace(' ', ""));
    }

    /// In an inode of 256 bytes, ext4 has 96 bytes for attributes: 4 for a header, 4 for an end mark, and for each
    /// attribute 16, its name without `user.`, and its value, both padded to 4.
    #[test]
    fn a_marked_key_needs_no_block_for_its_attribute() {
        let padded = |len: usize| len.next_multiple_of(4);
        let name = KEY_ATTRIBUTE.trim_start_matches("user.").len();
        assert!(4 + padded(16 + name) + padded(MARKED) + 4 <= 96);
    }
}
