//! Uploads in parts: what a client and the node of a key say about a key that comes in parts, each of them a put of its
//! own. The parts lie on the node until the upload is completed, which joins them to the key, or aborted.

use super::listing::hex;
use crate::checksum::Checksum;
use crate::error::{Error, ErrorKind, Result};
use crate::key::Key;
use crate::time::now_milliseconds;
use serde::{Deserialize, Serialize};
use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::{BuildHasher, Hasher};

/// The most parts of an upload, and the number of the last one.
pub const MAX_PARTS: u32 = 10_000;

/// The most uploads in one answer.
pub const UPLOADS_AT_ONCE: usize = 500;

/// The most parts in one answer.
pub const PARTS_AT_ONCE: usize = 1000;

/// The id of an upload: 28 hexadecimal digits. Ids are in the order of their time.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct UploadId(String);

impl UploadId {
    const DIGITS: usize = 28;

    /// A new id of now.
    pub fn random() -> Self {
        let now = now_milliseconds() as u64 & 0xffff_ffff_ffff;
        Self(format!("{now:012x}{:016x}", RandomState::new().build_hasher().finish()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for UploadId {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        let is_id = text.len() == Self::DIGITS && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        match is_id {
            true => Ok(Self(text)),
            false => Err(Error::new(ErrorKind::BadRequest, "an upload's id is 28 hexadecimal digits in lower case")),
        }
    }
}

impl From<UploadId> for String {
    fn from(id: UploadId) -> Self {
        id.0
    }
}

impl fmt::Display for UploadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The number of a part, from 1 to [`MAX_PARTS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct PartNumber(u32);

impl PartNumber {
    pub fn get(self) -> u32 {
        self.0
    }
}

impl TryFrom<u32> for PartNumber {
    type Error = Error;

    fn try_from(number: u32) -> Result<Self> {
        match number {
            1..=MAX_PARTS => Ok(Self(number)),
            _ => Err(Error::new(ErrorKind::BadRequest, format!("a part's number is from 1 to {MAX_PARTS}"))),
        }
    }
}

impl From<PartNumber> for u32 {
    fn from(number: PartNumber) -> Self {
        number.0
    }
}

impl fmt::Display for PartNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Which part of which upload a put is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UploadPart {
    pub upload: UploadId,
    pub number: PartNumber,
}

/// A part as the completing client names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CompletedPart {
    pub number: PartNumber,
    #[serde(with = "hex")]
    pub xxh3: u64,
}

/// An upload that is neither completed nor aborted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UploadInfo {
    pub key: Key,
    pub id: UploadId,
    /// Milliseconds since 1970.
    pub created: i64,
}

impl UploadInfo {
    /// Uploads are listed in this order.
    pub fn order(&self) -> (&str, &UploadId) {
        (self.key.as_str(), &self.id)
    }
}

/// Uploads in their order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Uploads {
    pub uploads: Vec<UploadInfo>,
    /// True if more come after the last of these.
    pub more: bool,
}

/// A part that a node has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartInfo {
    pub number: PartNumber,
    pub checksum: Checksum,
    /// Nanoseconds since 1970.
    pub mtime: i64,
}

/// Parts in the order of their numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UploadedParts {
    pub parts: Vec<PartInfo>,
    /// True if more come after the last of these.
    pub more: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_in_the_order_of_their_time_and_read_as_written() {
        let id = UploadId::random();
        assert_eq!(UploadId::try_from(id.as_str().to_owned()), Ok(id.clone()));
        assert!(id.as_str() > "01800000000", "{id}");
        for text in ["", "../../../../../../../../tok", "0123456789ABCDEF0123456789ab", &id.as_str()[1..]] {
            assert!(UploadId::try_from(text.to_owned()).is_err(), "{text}");
        }
    }

    #[test]
    fn parts_look_as_documented_and_have_numbers_in_bounds() {
        let part = CompletedPart { number: PartNumber(7), xxh3: 10 };
        let json = r#"{"number":7,"xxh3":"000000000000000a"}"#;
        assert_eq!(serde_json::to_string(&part).expect("JSON"), json);
        assert_eq!(serde_json::from_str::<CompletedPart>(json).expect("a part"), part);
        for number in ["0", "10001", "-1", "4294967297"] {
            assert!(serde_json::from_str::<PartNumber>(number).is_err(), "{number}");
        }
        assert_eq!(serde_json::from_str::<PartNumber>("10000").expect("the last"), PartNumber(MAX_PARTS));
    }
}
