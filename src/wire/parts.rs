//! A part of a key over a connection, each leaf with its sum as it was recorded when the key was published: a reader that never comes to
//! the key's end cannot compare the whole.

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

/// How long a node may take to say why a leaf does not match its sum.
const REASON: Duration = Duration::from_secs(1);

/// Sends leaves of `file`, a key of `len` bytes; `sum_of` gives the sum of each. Blocks. After the error of a file that cannot be read, the
/// connection may be used on.
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

/// The receiving end of a part, after its head.
pub struct Parts {
    connection: Connection,
    /// Names node and key.
    who: String,
    /// Where the next leaf begins, and where the last one ends.
    next: u64,
    end: u64,
    /// Bytes of the next leaf that nobody wants.
    skipped: usize,
    /// What is verified and was not asked for yet.
    ready: BytesMut,
}

impl Parts {
    /// Of a connection that brings a key from the leaf on that holds byte `offset`, up to `end`. What is asked for begins with `ready`,
    /// which is here already, and goes on from there.
    pub fn new(connection: Connection, who: String, offset: u64, end: u64, ready: &[u8]) -> Self {
        let skipped = (offset % LEAF) as usize;
        Self { connection, who, next: offset - skipped as u64, end, skipped, ready: BytesMut::from(ready) }
    }

    /// Exactly `len` bytes, which must still be to come. Errors: the peer sends no more; bytes that do not match their sum.
    /// Blocks, each step for the deadline at most.
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

    /// The connection, once the part has ended.
    pub fn finish(mut self) -> Result<Connection> {
        match self.connection.receive_next()? {
            Incoming::Message(Response::End) => Ok(self.connection),
            Incoming::Error(error) => Err(error.of_peer(&self.who)),
            _ => Err(self.connection.malformed("more data than was asked for")),
        }
    }

    /// Appends the next leaf to `block` up to a length of `most`, and keeps the rest of it ready, all of it verified.
    fn receive(&mut self, block: &mut BytesMut, most: usize) -> Result<()> {
        let leaf = LEAF.min(self.end.saturating_sub(self.next)) as usize;
        match self.connection.receive_next::<Response>()? {
            Incoming::Data(len) if len == leaf && leaf > 0 => {}
            Incoming::Error(error) => return Err(error.of_peer(&self.who)),
            _ => return Err(self.connection.malformed("no leaf came where one was expected")),
        }
        let begin = block.len();
        self.ready.clear();
        let here = if self.skipped == 0 { most } else { begin };
        if !self.connection.receive_data(block, here, &mut self.ready)? {
            // Nothing of it may come out.
            block.truncate(begin);
            self.ready.clear();
            return Err(self.reason());
        }
        self.next += leaf as u64;
        self.ready.advance(std::mem::take(&mut self.skipped).min(self.ready.len()));
        Ok(())
    }

    /// Why a leaf does not match its sum: the node may say that it could not read it.
    fn reason(&mut self) -> Error {
        match self.connection.receive_until::<Response>(Instant::now() + REASON, None) {
            Ok(Some(Incoming::Error(error))) => error.of_peer(&self.who),
            _ => changed(&self.who, self.next),
        }
    }
}

/// The error of bytes that are not as they were recorded. `who` names them.
pub fn changed(who: &str, start: u64) -> Error {
    let message = format!(
        "{who}: checksum error: the bytes from {start} on are not those that were stored; delete the key and make it again"
    );
    Error::new(ErrorKind::Checksum, message)
}
