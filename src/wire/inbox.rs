//! The bytes that a connection has received and not yet parsed. Does no I/O.

use super::frame::{HEADER, Header, Kind, Malformed};
use bytes::{Buf, Bytes, BytesMut};

/// Bytes received at a time where small frames are expected.
pub const SMALL_BLOCK: usize = 16 * 1024;
/// The payload of longer data frames bypasses the inbox, except for bytes that are already in it.
const BULK: usize = 96 * 1024;

/// Received bytes, and the position of the parser.
#[derive(Default)]
pub struct Inbox {
    bytes: BytesMut,
    /// The data frame whose payload is being received, and how many bytes of it are missing.
    data: Option<(Header, usize)>,
    /// True while large data frames come: only their headers are received into the inbox, so that the kernel can move
    /// the payload.
    is_bulk: bool,
}

/// A parsed frame.
#[derive(Debug, PartialEq, Eq)]
pub enum Parsed {
    /// The header of a data frame: the length of its payload in bytes. The payload must be taken before the next frame.
    Data(usize),
    /// Any other frame, complete.
    Frame(Kind, Bytes),
}

impl Inbox {
    /// An inbox with bytes that were received together with the head of the HTTP response.
    pub fn new(early: &[u8]) -> Self {
        Self { bytes: BytesMut::from(early), ..Self::default() }
    }

    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// How many bytes to receive into the inbox at once.
    pub fn wanted(&self) -> usize {
        match HEADER.saturating_sub(self.bytes.len()) {
            missing @ 1.. if self.is_bulk => missing,
            _ => SMALL_BLOCK,
        }
    }

    pub fn append(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The next frame, if it is complete. The payload of the last data frame must have been taken.
    pub fn parse(&mut self) -> Result<Option<Parsed>, Malformed> {
        debug_assert!(self.data.is_none(), "a payload was not received");
        while let Some(header) = self.bytes.first_chunk::<HEADER>() {
            let header = Header::parse(header)?;
            if header.kind == Kind::Data {
                self.bytes.advance(HEADER);
                self.is_bulk = header.len > BULK;
                // An empty data frame has no meaning.
                if header.len == 0 {
                    continue;
                }
                self.data = Some((header, header.len));
                return Ok(Some(Parsed::Data(header.len)));
            }
            self.is_bulk = false;
            if self.bytes.len() < HEADER + header.len {
                return Ok(None);
            }
            self.bytes.advance(HEADER);
            let payload = self.bytes.split_to(header.len).freeze();
            header.verify(&payload)?;
            return Ok(Some(Parsed::Frame(header.kind, payload)));
        }
        Ok(None)
    }

    /// The header of the data frame whose payload is being received.
    pub fn data(&self) -> Option<Header> {
        self.data.map(|(header, _)| header)
    }

    /// Bytes of its payload that are missing.
    pub fn data_left(&self) -> usize {
        self.data.map_or(0, |(_, left)| left)
    }

    /// The next bytes of the payload that are in the inbox, at most `most`.
    pub fn take_data(&mut self, most: usize) -> Bytes {
        let piece = self.bytes.split_to(most.min(self.data_left()).min(self.bytes.len())).freeze();
        self.note_data(piece.len());
        piece
    }

    /// Counts bytes of the payload that bypassed the inbox.
    pub fn note_data(&mut self, received: usize) {
        self.data = self.data.map(|(header, left)| (header, left - received)).filter(|(_, left)| *left > 0);
    }
}

#[cfg(test)]
mod tests {
    use super::super::frame::encode;
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn frames_come_out_in_their_order_and_data_is_taken_between() {
        let mut bytes = Vec::new();
        encode(Kind::Message, b"{}", &mut bytes);
        encode(Kind::Data, b"", &mut bytes);
        encode(Kind::Data, b"content", &mut bytes);
        encode(Kind::Alive, b"", &mut bytes);
        let mut inbox = Inbox::new(&bytes);
        assert_eq!(inbox.parse(), Ok(Some(Parsed::Frame(Kind::Message, Bytes::from_static(b"{}")))));
        assert_eq!(inbox.parse(), Ok(Some(Parsed::Data(7))));
        assert_eq!((&inbox.take_data(3)[..], inbox.data_left()), (&b"con"[..], 4));
        assert_eq!((&inbox.take_data(9)[..], inbox.data()), (&b"tent"[..], None));
        assert_eq!(inbox.parse(), Ok(Some(Parsed::Frame(Kind::Alive, Bytes::new()))));
        assert_eq!((inbox.parse(), inbox.is_empty()), (Ok(None), true));
    }

    #[test]
    fn behind_large_data_only_a_header_is_wanted() {
        let header = |len| Header { kind: Kind::Data, len, sum: 0 }.encode();
        let mut inbox = Inbox::new(&header(BULK + 1));
        assert_eq!((inbox.wanted(), inbox.parse()), (SMALL_BLOCK, Ok(Some(Parsed::Data(BULK + 1)))));
        inbox.note_data(BULK + 1);
        assert_eq!(inbox.wanted(), HEADER);
        inbox.append(&header(5)[..4]);
        assert_eq!((inbox.parse(), inbox.wanted()), (Ok(None), HEADER - 4));
        inbox.append(&header(5)[4..]);
        assert_eq!((inbox.parse(), inbox.wanted()), (Ok(Some(Parsed::Data(5))), SMALL_BLOCK));
    }

    #[test]
    fn the_rest_of_a_message_is_received_at_once_behind_large_data() {
        let mut inbox = Inbox { is_bulk: true, ..Inbox::default() };
        let mut message = Vec::new();
        encode(Kind::Message, &[b' '; 100], &mut message);
        inbox.append(&message[..HEADER]);
        assert_eq!((inbox.parse(), inbox.wanted()), (Ok(None), SMALL_BLOCK));
    }

    proptest! {
        #[test]
        fn it_does_not_matter_in_which_pieces_bytes_come(
            payloads in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..50), 1..6),
            cut in 1usize..40,
        ) {
            let mut bytes = Vec::new();
            payloads.iter().for_each(|payload| encode(Kind::Stderr, payload, &mut bytes));
            let (mut inbox, mut came) = (Inbox::default(), Vec::new());
            for piece in bytes.chunks(cut) {
                inbox.append(piece);
                while let Some(parsed) = inbox.parse().unwrap() {
                    came.push(parsed);
                }
            }
            let sent: Vec<Parsed> =
                payloads.into_iter().map(|payload| Parsed::Frame(Kind::Stderr, payload.into())).collect();
            prop_assert_eq!(came, sent);
        }
    }
}
