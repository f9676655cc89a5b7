//! A part of a key over a connection. Each leaf comes with the checksum that was recorded when the key was published: a
//! reader of a part cannot compare the checksum of the whole key.

use super::connection::{Connection, Incoming};
use super::message::Response;
use super::send_error::SendError;
use crate::aligned;
use crate::blocks::LEAF;
use crate::error::{Error, ErrorKind, Result};
use bytes::{Buf, Bytes, BytesMut};
use std::fs::File;
use std::ops::Range;
use std::time::{Duration, Instant};

/// How long a node may take to report why a leaf does not match its checksum.
const REASON: Duration = Duration::from_secs(1);

/// Sends leaves of `file`, a key of `len` bytes; `sum_of` returns the checksum of a leaf. Blocks. If the file cannot be
/// read, the connection remains usable.
pub fn send(
    connection: &mut Connection,
    file: &File,
    len: u64,
    leaves: Range<usize>,
    mut sum_of: impl FnMut(usize) -> Result<u32>,
) -> std::result::Result<(), SendError> {
    for leaf in leaves {
        let start = leaf as u64 * LEAF;
        if start >= len {
            break;
        }
        let sent = connection.send_file(file, start, LEAF.min(len - start) as usize, sum_of(leaf)?);
        if matches!(sent, Err(SendError::File(_))) {
            connection.fill_up()?;
        }
        sent?;
    }
    Ok(())
}

/// The receiver of a part, after the response that announces it.
pub struct Parts {
    connection: Connection,
    /// Names node and key.
    subject: String,
    /// The offsets of the next leaf, and of the end of the last one.
    next: u64,
    end: u64,
    /// Bytes at the start of the next leaf that are dropped, since the part begins after them.
    skipped: usize,
    /// Verified bytes that the caller has not asked for yet.
    ready: BytesMut,
}

impl Parts {
    /// A receiver on a connection that sends the key from the leaf that holds byte `offset` up to `end`. The caller
    /// first gets `ready`, which was received before, and then the bytes from `offset` on.
    pub fn new(connection: Connection, subject: String, offset: u64, end: u64, ready: &[u8]) -> Self {
        let skipped = (offset % LEAF) as usize;
        Self { connection, subject, next: offset - skipped as u64, end, skipped, ready: BytesMut::from(ready) }
    }

    /// Exactly `len` bytes; the part must have that many left. Errors: the peer ends early, or bytes do not match their
    /// checksum. Blocks, each step at most for the deadline.
    pub fn next_block(&mut self, len: usize) -> Result<Bytes> {
        let mut block = BytesMut::new();
        aligned::reserve(&mut block, len);
        while block.len() < len {
            if self.ready.is_empty() {
                self.receive(&mut block, len)?;
            } else {
                let n = self.ready.len().min(len - block.len());
                block.extend_from_slice(&self.ready[..n]);
                self.ready.advance(n);
            }
        }
        Ok(block.freeze())
    }

    /// Waits for the end of the part, and returns the connection.
    pub fn finish(mut self) -> Result<Connection> {
        match self.connection.receive_next()? {
            Incoming::Message(Response::End) => Ok(self.connection),
            Incoming::Error(error) => Err(error.of_peer(&self.subject)),
            _ => Err(self.connection.malformed("more data than was asked for")),
        }
    }

    /// Verifies the next leaf, appends it to `block` up to a length of `most`, and keeps the rest in `ready`.
    fn receive(&mut self, block: &mut BytesMut, most: usize) -> Result<()> {
        let leaf = LEAF.min(self.end.saturating_sub(self.next)) as usize;
        match self.connection.receive_next::<Response>()? {
            Incoming::Data(len) if len == leaf && leaf > 0 => {}
            Incoming::Error(error) => return Err(error.of_peer(&self.subject)),
            _ => return Err(self.connection.malformed("no leaf came where one was expected")),
        }
        let begin = block.len();
        self.ready.clear();
        let here = if self.skipped == 0 { most } else { begin };
        if !self.connection.receive_data(block, here, &mut self.ready)? {
            // No unverified byte may be returned.
            block.truncate(begin);
            self.ready.clear();
            return Err(self.reason());
        }
        self.next += leaf as u64;
        self.ready.advance(std::mem::take(&mut self.skipped).min(self.ready.len()));
        Ok(())
    }

    /// Why a leaf does not match its checksum: the node may report that it could not read the file.
    fn reason(&mut self) -> Error {
        match self.connection.receive_until::<Response>(Instant::now() + REASON, None) {
            Ok(Some(Incoming::Error(error))) => error.of_peer(&self.subject),
            _ => changed(&self.subject, self.next),
        }
    }
}

/// The error for bytes that do not match the recorded checksum. `subject` names node and key.
pub fn changed(subject: &str, start: u64) -> Error {
    let message = format!(
        "{subject}: checksum error: the bytes from {start} on are not those that were stored; delete the key and make it again"
    );
    Error::new(ErrorKind::Checksum, message)
}
