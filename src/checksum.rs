//! The checksum of a key: XXH3-64 and length of its bytes. It is stored with the key, and every receiver verifies it.

use crate::error::{Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;
use twox_hash::XxHash3_64;

/// Written as `<16 hexadecimal digits> <length in bytes>`, in the extended attribute and in the HTTP header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Checksum {
    pub xxh3: u64,
    pub len: u64,
}

/// XXH3-64 of `bytes`, seed 0.
pub fn hash(bytes: &[u8]) -> u64 {
    XxHash3_64::oneshot(bytes)
}

impl Checksum {
    /// The checksum of `bytes`. A [`Hasher`](crate::hasher::Hasher) accepts them in pieces.
    pub fn of(bytes: &[u8]) -> Self {
        Self { xxh3: hash(bytes), len: bytes.len() as u64 }
    }

    /// Refuses `found` unless it equals this recorded checksum. `what` names the key.
    pub fn verify(self, found: Self, what: impl fmt::Display) -> Result<()> {
        if self == found {
            return Ok(());
        }
        let message =
            format!("{what}: checksum error: stored as {self}, read as {found}; delete the key and make it again");
        Err(Error::new(ErrorKind::Checksum, message))
    }

    /// Refuses `found` unless it equals this checksum, which a sender has announced.
    pub fn verify_sent(self, found: Self, what: impl fmt::Display) -> Result<()> {
        if self == found {
            return Ok(());
        }
        let message = format!(
            "{what}: checksum error: announced as {self}, arrived as {found}; it changed on its way or while it was read, and nothing was stored"
        );
        Err(Error::new(ErrorKind::BadRequest, message))
    }
}

impl fmt::Display for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x} {}", self.xxh3, self.len)
    }
}

impl FromStr for Checksum {
    type Err = ();

    fn from_str(text: &str) -> std::result::Result<Self, ()> {
        let (xxh3, len) = text.split_once(' ').ok_or(())?;
        // The standard parsers would accept a sign.
        if xxh3.len() != 16 || xxh3.starts_with('+') || len.starts_with('+') {
            return Err(());
        }
        let xxh3 = u64::from_str_radix(xxh3, 16).map_err(drop)?;
        // Files cannot be longer.
        let len = len.parse().ok().filter(|&len| i64::try_from(len).is_ok()).ok_or(())?;
        Ok(Self { xxh3, len })
    }
}

impl TryFrom<String> for Checksum {
    type Error = &'static str;

    fn try_from(text: String) -> std::result::Result<Self, &'static str> {
        text.parse().map_err(|()| "a checksum is 16 hexadecimal digits, a space and a length")
    }
}

impl From<Checksum> for String {
    fn from(checksum: Checksum) -> Self {
        checksum.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_checksum_reads_as_written(xxh3 in any::<u64>(), len in 0..=i64::MAX as u64) {
            let checksum = Checksum { xxh3, len };
            prop_assert_eq!(checksum.to_string().parse(), Ok(checksum));
        }

        #[test]
        fn any_text_is_a_checksum_that_reads_as_written_or_an_error(text in "[0-9a-fA-F+]{14,18} [0-9+-]{0,20}|\\PC{0,20}") {
            if let Ok(checksum) = text.parse::<Checksum>() {
                prop_assert!(i64::try_from(checksum.len).is_ok());
                prop_assert_eq!(checksum.to_string().parse(), Ok(checksum));
            }
        }
    }
}
