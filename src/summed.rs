//! A part of a key over a stream, each piece with its sum: a reader that never comes to the key's end cannot compare the whole.
//!
//! The format is, for each 128 KiB and once for what is left, the XXH3-64 of the bytes, 8 bytes little-endian, and the bytes.

use crate::checksum::hash;
use crate::error::{Error, ErrorKind, Result};
use crate::stream::Stream;
use bytes::{BufMut, Bytes, BytesMut};
use std::fs::File;
use std::os::unix::fs::FileExt;

/// Bytes that each sum is of; the last has fewer.
const PIECE: usize = 128 * 1024;
/// Bytes of a sum.
const SUM: usize = 8;

/// Sends `len` bytes of `file` from `offset`. Blocks.
pub fn send(stream: &mut Stream, file: &File, offset: u64, len: u64) -> Result<()> {
    let mut buffer = vec![0; SUM + PIECE];
    let mut sent = 0;
    while sent < len {
        let n = (len - sent).min(PIECE as u64) as usize;
        let (sum, piece) = buffer[..SUM + n].split_at_mut(SUM);
        file.read_exact_at(piece, offset + sent).map_err(|e| Error::io(stream.who(), &e))?;
        sum.copy_from_slice(&hash(piece).to_le_bytes());
        stream.send(&buffer[..SUM + n])?;
        sent += n as u64;
    }
    Ok(())
}

/// The receiving end.
pub struct Summed {
    stream: Stream,
    /// Bytes still to come.
    left: u64,
    /// The last piece with its sum, in one buffer so that it stays in the processor's cache.
    buffer: Vec<u8>,
    /// What of the buffer is verified and was not asked for yet.
    ready: std::ops::Range<usize>,
}

impl Summed {
    /// Of a stream that brings `len` bytes.
    pub fn new(stream: Stream, len: u64) -> Self {
        Self { stream, left: len, buffer: vec![0; SUM + PIECE], ready: 0..0 }
    }

    /// Exactly `len` bytes, which must still be to come. Errors: the peer sends no more; bytes that do not match their sum.
    /// Blocks, each step for the deadline at most.
    pub fn next_block(&mut self, len: usize) -> Result<Bytes> {
        let mut block = BytesMut::with_capacity(len);
        while block.len() < len {
            if self.ready.is_empty() {
                self.receive()?;
            }
            let n = self.ready.len().min(len - block.len());
            block.put_slice(&self.buffer[self.ready.start..self.ready.start + n]);
            self.ready.start += n;
        }
        Ok(block.freeze())
    }

    fn receive(&mut self) -> Result<()> {
        let n = self.left.min(PIECE as u64) as usize;
        self.stream.receive_exact(&mut self.buffer[..SUM + n])?;
        let (sum, piece) = self.buffer[..SUM + n].split_at(SUM);
        if n == 0 || hash(piece).to_le_bytes() != sum {
            let message = format!("{}: checksum error: the bytes changed on their way", self.stream.who());
            return Err(Error::new(ErrorKind::Checksum, message));
        }
        self.left -= n as u64;
        self.ready = SUM..SUM + n;
        Ok(())
    }
}
