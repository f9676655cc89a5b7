//! A part of a key over a stream, each piece with its sum: a reader that never comes to the key's end cannot compare the whole.
//!
//! The format is, for each 512 KiB and once for what is left, the XXH3-64 of the bytes, 8 bytes little-endian, and the bytes.

use crate::aligned::{self, Block};
use crate::checksum::hash;
use crate::error::{Error, ErrorKind, Result};
use crate::stream::Stream;
use bytes::{Buf, Bytes, BytesMut};
use std::fs::File;
use std::os::unix::fs::FileExt;

/// Bytes that each sum is of; the last has fewer. They stay in a processor's own cache from one step to the next, and with
/// fewer sender and receiver mostly wake each other.
const PIECE: usize = 512 * 1024;
/// Bytes of a sum.
const SUM: usize = 8;

/// Sends `len` bytes of `file`, which never change, from `offset`. Blocks.
pub fn send(stream: &mut Stream, file: &File, offset: u64, len: u64) -> Result<()> {
    let mut buffer = Block::new(PIECE.min(len as usize));
    let mut sent = 0;
    while sent < len {
        let n = (len - sent).min(PIECE as u64) as usize;
        let piece = &mut buffer[..n];
        file.read_exact_at(piece, offset + sent).map_err(|e| Error::io(stream.who(), &e))?;
        stream.send_more(&hash(piece).to_le_bytes())?;
        // From the file once more, which is in the cache now, rather than by another copy.
        stream.send_file(file, offset + sent, n as u64)?;
        sent += n as u64;
    }
    Ok(())
}

/// The receiving end.
pub struct Summed {
    stream: Stream,
    /// Bytes still to come.
    left: u64,
    /// What is verified and was not asked for yet, of a piece that is longer than its block.
    ready: BytesMut,
}

impl Summed {
    /// Of a stream that brings `len` bytes.
    pub fn new(stream: Stream, len: u64) -> Self {
        Self { stream, left: len, ready: BytesMut::new() }
    }

    /// Exactly `len` bytes, which must still be to come. Errors: the peer sends no more; bytes that do not match their sum.
    /// Blocks, each step for the deadline at most.
    pub fn next_block(&mut self, len: usize) -> Result<Bytes> {
        let mut block = BytesMut::new();
        aligned::reserve(&mut block, len);
        while block.len() < len {
            let missing = len - block.len();
            let next = self.left.min(PIECE as u64) as usize;
            if !self.ready.is_empty() {
                let n = self.ready.len().min(missing);
                block.extend_from_slice(&self.ready[..n]);
                self.ready.advance(n);
            } else if next <= missing {
                receive(&mut self.stream, next, &mut block)?;
                self.left -= next as u64;
            } else {
                // Back only once it is verified.
                let mut piece = std::mem::take(&mut self.ready);
                aligned::reserve(&mut piece, next);
                receive(&mut self.stream, next, &mut piece)?;
                self.left -= next as u64;
                self.ready = piece;
            }
        }
        Ok(block.freeze())
    }
}

/// Appends the next piece, of `len` bytes, to `buffer`, verified.
fn receive(stream: &mut Stream, len: usize, buffer: &mut BytesMut) -> Result<()> {
    let mut sum = [0; SUM];
    stream.receive_exact(&mut sum)?;
    let begin = buffer.len();
    stream.receive_onto(buffer, len)?;
    if len == 0 || hash(&buffer[begin..]).to_le_bytes() != sum {
        let message = format!("{}: checksum error: the bytes changed on their way", stream.who());
        return Err(Error::new(ErrorKind::Checksum, message));
    }
    Ok(())
}
