//! A part of a key over a stream, each leaf with its sum as it was recorded when the key was published: a reader that never comes to
//! the key's end cannot compare the whole.
//!
//! The format is, for each [leaf](crate::blocks) from the one that holds the first byte on, its sum, 4 bytes little-endian, and its
//! bytes.

use crate::aligned;
use crate::blocks::{LEAF, leaf_sum};
use crate::error::{Error, ErrorKind, Result};
use crate::stream::Stream;
use bytes::{Buf, Bytes, BytesMut};
use std::fs::File;
use std::hash::Hasher as _;
use twox_hash::XxHash3_64;

/// Bytes of a sum.
const SUM: usize = 4;

/// Sends `file`, a key of `len` bytes, from leaf `first` on. `sum_of` gives the sum of a leaf. Blocks.
pub fn send(
    stream: &mut Stream,
    file: &File,
    len: u64,
    first: usize,
    mut sum_of: impl FnMut(usize) -> Result<u32>,
) -> Result<()> {
    for leaf in first.. {
        let start = leaf as u64 * LEAF;
        if start >= len {
            break;
        }
        stream.send_more(&sum_of(leaf)?.to_le_bytes())?;
        stream.send_file(file, start, LEAF.min(len - start))?;
    }
    Ok(())
}

/// The receiving end.
pub struct Summed {
    stream: Stream,
    /// Where the next leaf begins, and how long the key is.
    next: u64,
    len: u64,
    /// Bytes of the next leaf that nobody wants.
    skipped: usize,
    /// What is verified and was not asked for yet.
    ready: BytesMut,
}

impl Summed {
    /// Of a stream that brings a key of `len` bytes from the leaf on that holds byte `offset`. What is asked for begins with `ready`,
    /// which is here already, and goes on from there.
    pub fn new(stream: Stream, len: u64, offset: u64, ready: &[u8]) -> Self {
        let skipped = (offset % LEAF) as usize;
        Self { stream, next: offset - skipped as u64, len, skipped, ready: BytesMut::from(ready) }
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

    /// Appends the next leaf to `block` up to a length of `most`, and keeps the rest of it ready, all of it verified.
    fn receive(&mut self, block: &mut BytesMut, most: usize) -> Result<()> {
        let leaf = LEAF.min(self.len.saturating_sub(self.next)) as usize;
        if leaf == 0 {
            return Err(self.stream.broken(&std::io::ErrorKind::UnexpectedEof.into()));
        }
        let mut sum = [0; SUM];
        self.stream.receive_exact(&mut sum)?;
        let here = if self.skipped == 0 { leaf.min(most - block.len()) } else { 0 };
        let begin = block.len();
        self.stream.receive_onto(block, here)?;
        if here < leaf {
            self.ready.clear();
            aligned::reserve(&mut self.ready, leaf - here);
            self.stream.receive_onto(&mut self.ready, leaf - here)?;
        }
        let found = match here == leaf {
            true => leaf_sum(&block[begin..]),
            false => {
                let mut state = XxHash3_64::new();
                state.write(&block[begin..]);
                state.write(&self.ready);
                state.finish() as u32
            }
        };
        if found.to_le_bytes() != sum {
            // Nothing of it may come out.
            self.ready.clear();
            return Err(changed(self.stream.who(), self.next));
        }
        self.next += leaf as u64;
        self.ready.advance(std::mem::take(&mut self.skipped).min(self.ready.len()));
        Ok(())
    }
}

/// Compares the leaves of a key from byte `start` on, where one begins, with their sums. `who` names node and key.
pub fn verify(bytes: &[u8], sums: &[u32], start: u64, who: &str) -> Result<()> {
    for (number, (leaf, sum)) in bytes.chunks(LEAF as usize).zip(sums).enumerate() {
        if leaf_sum(leaf) != *sum {
            return Err(changed(who, start + number as u64 * LEAF));
        }
    }
    match bytes.len().div_ceil(LEAF as usize) == sums.len() {
        true => Ok(()),
        false => {
            Err(Error::new(ErrorKind::Checksum, format!("{who}: checksum error: the node sent other sums than bytes")))
        }
    }
}

/// The error of bytes that are not as they were recorded.
pub fn changed(who: &str, start: u64) -> Error {
    let message = format!(
        "{who}: checksum error: the bytes from {start} on are not those that were stored; delete the key and make it again"
    );
    Error::new(ErrorKind::Checksum, message)
}
