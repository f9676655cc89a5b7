//! The format of a frame, and its parser. Does no I/O.
//!
//! A frame is a header of 9 bytes and a payload. The header has the [`Kind`], which is one ASCII letter, and the length
//! and the checksum of the payload, 4 bytes each, little-endian. The checksum is the lower half of the payload's
//! XXH3-64. For data it may be 0: then only the checksum of the whole key covers the payload.

use crate::blocks::leaf_sum;
use std::fmt;
use std::hash::Hasher as _;
use twox_hash::XxHash3_64;

/// Bytes of a header.
pub const HEADER: usize = 9;

/// The longest payload of data, in bytes: the capacity of a pipe, which is more than a leaf of a key.
pub const MAX_DATA: usize = 1024 * 1024;

/// The longest payload of any other kind, in bytes.
pub const MAX_MESSAGE: usize = 64 * 1024;

/// The kind of a frame. Any two letters differ in at least two bits, so that one flipped bit never turns a kind into
/// another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `M`: a [`Request`](super::Request) of the client or a [`Response`](super::Response) of the node, as JSON.
    Message,
    /// `D`: bytes of a key, or of a command's stdout.
    Data,
    /// `S`: bytes of a command's stderr.
    Stderr,
    /// `X`: an [`Error`](crate::error::Error) as JSON, in place of a response.
    Error,
    /// `A`: a keepalive, which may come between any two frames.
    Alive,
}

impl Kind {
    const ALL: [Self; 5] = [Self::Message, Self::Data, Self::Stderr, Self::Error, Self::Alive];

    const fn letter(self) -> u8 {
        match self {
            Self::Message => b'M',
            Self::Data => b'D',
            Self::Stderr => b'S',
            Self::Error => b'X',
            Self::Alive => b'A',
        }
    }

    /// The longest payload of this kind, in bytes.
    const fn limit(self) -> usize {
        match self {
            Self::Message | Self::Stderr | Self::Error => MAX_MESSAGE,
            Self::Data => MAX_DATA,
            Self::Alive => 0,
        }
    }
}

/// The header of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    pub kind: Kind,
    /// Bytes of the payload.
    pub len: usize,
    /// The checksum of the payload; 0 for data without one.
    pub sum: u32,
}

/// Why bytes are not a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Malformed {
    UnknownKind,
    TooLong,
    WrongSum,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::UnknownKind => "a frame of an unknown kind",
            Self::TooLong => "a frame is too long",
            Self::WrongSum => "a frame does not match its sum",
        })
    }
}

impl Header {
    /// The header of a frame with this payload.
    pub fn of(kind: Kind, payload: &[u8]) -> Self {
        debug_assert!(payload.len() <= kind.limit());
        Self { kind, len: payload.len(), sum: leaf_sum(payload) }
    }

    pub fn encode(self) -> [u8; HEADER] {
        let mut bytes = [self.kind.letter(); HEADER];
        bytes[1..5].copy_from_slice(&(self.len as u32).to_le_bytes());
        bytes[5..].copy_from_slice(&self.sum.to_le_bytes());
        bytes
    }

    pub fn parse(bytes: &[u8; HEADER]) -> Result<Self, Malformed> {
        let kind = Kind::ALL.into_iter().find(|kind| kind.letter() == bytes[0]).ok_or(Malformed::UnknownKind)?;
        let number = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let len = number(1) as usize;
        if len > kind.limit() {
            return Err(Malformed::TooLong);
        }
        Ok(Self { kind, len, sum: number(5) })
    }

    /// Compares a payload with its checksum. Data without a checksum matches.
    pub fn verify(self, payload: &[u8]) -> Result<(), Malformed> {
        if self.sum == 0 && self.kind == Kind::Data { Ok(()) } else { self.verify_parts([payload, &[]]) }
    }

    /// Compares a payload in two parts with its checksum, which it must have.
    pub fn verify_parts(self, parts: [&[u8]; 2]) -> Result<(), Malformed> {
        let found = match parts {
            [payload, []] => leaf_sum(payload),
            [first, rest] => {
                let mut state = XxHash3_64::new();
                state.write(first);
                state.write(rest);
                state.finish() as u32
            }
        };
        if found == self.sum { Ok(()) } else { Err(Malformed::WrongSum) }
    }
}

/// Appends a frame to `out`.
pub fn encode(kind: Kind, payload: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&Header::of(kind, payload).encode());
    out.extend_from_slice(payload);
}

/// The first frame in `bytes` and its payload, if the frame is complete.
pub fn parse(bytes: &[u8]) -> Result<Option<(Header, &[u8])>, Malformed> {
    let Some(header) = bytes.first_chunk() else { return Ok(None) };
    let header = Header::parse(header)?;
    let Some(payload) = bytes[HEADER..].get(..header.len) else { return Ok(None) };
    header.verify(payload)?;
    Ok(Some((header, payload)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn encoded(kind: Kind, payload: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        encode(kind, payload, &mut bytes);
        bytes
    }

    #[test]
    fn a_frame_is_a_letter_a_length_a_sum_and_a_payload() {
        assert_eq!(encoded(Kind::Message, b"{}"), b"M\x02\0\0\0\x16\x5cp\x27{}");
        assert_eq!(encoded(Kind::Alive, b"")[..5], *b"A\0\0\0\0");
    }

    #[test]
    fn what_no_frame_may_be_is_refused_from_its_header_alone() {
        let header = |kind: u8, len: u32| {
            let mut bytes = [kind; HEADER];
            bytes[1..5].copy_from_slice(&len.to_le_bytes());
            Header::parse(&bytes).map(|header| header.len)
        };
        assert_eq!(header(b'K', 0), Err(Malformed::UnknownKind));
        assert_eq!(header(b'A', 1), Err(Malformed::TooLong));
        assert_eq!((header(b'M', 65_536), header(b'M', 65_537)), (Ok(65_536), Err(Malformed::TooLong)));
        assert_eq!((header(b'D', 1 << 20), header(b'D', u32::MAX)), (Ok(1 << 20), Err(Malformed::TooLong)));
    }

    #[test]
    fn data_alone_may_have_no_sum() {
        let mut data = encoded(Kind::Data, b"bytes");
        let mut message = encoded(Kind::Message, b"bytes");
        for frame in [&mut data, &mut message] {
            frame[5..HEADER].fill(0);
        }
        assert!(parse(&data).is_ok_and(|frame| frame.is_some()));
        assert_eq!(parse(&message), Err(Malformed::WrongSum));
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_parsed(payload in proptest::collection::vec(any::<u8>(), 0..300), more in any::<[u8; 4]>()) {
            for kind in [Kind::Message, Kind::Data, Kind::Stderr, Kind::Error] {
                let mut bytes = encoded(kind, &payload);
                for len in 0..bytes.len() {
                    prop_assert_eq!(parse(&bytes[..len]), Ok(None));
                }
                bytes.extend(more);
                prop_assert_eq!(parse(&bytes), Ok(Some((Header::of(kind, &payload), &payload[..]))));
            }
        }

        #[test]
        fn a_flipped_bit_is_found(payload in proptest::collection::vec(any::<u8>(), 1..100), at in any::<prop::sample::Index>(), bit in 0..8) {
            let mut bytes = encoded(Kind::Message, &payload);
            let at = at.index(bytes.len());
            bytes[at] ^= 1u8 << bit;
            // A longer frame is not there whole yet; as data, a sum of 0 would be none.
            let is_found = parse(&bytes).is_err() || (1..5).contains(&at);
            prop_assert!(is_found, "byte {}: {:?}", at, parse(&bytes));
        }

        #[test]
        fn no_bytes_make_the_parser_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(Some((header, payload))) = parse(&bytes) {
                prop_assert!(header.len == payload.len() && header.len + HEADER <= bytes.len());
            }
        }
    }
}
