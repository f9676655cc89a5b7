//! A window over the input, which is read in blocks. Bytes that were not consumed stay at the front, before the bytes
//! of the next read.

use crate::error::{Error, Result};
use std::io::Read;

/// Bytes read at a time. They fit into a CPU's cache together with the output.
const BLOCK: usize = 256 * 1024;
/// Limit of bytes of a record that are held in memory.
pub const LONGEST: usize = 64 << 20;

pub struct Window<R> {
    input: R,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    has_ended: bool,
}

impl<R: Read> Window<R> {
    pub fn new(input: R) -> Self {
        Self { input, buffer: vec![0; BLOCK], start: 0, end: 0, has_ended: false }
    }

    /// The bytes that were read and not consumed.
    pub fn bytes(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    pub fn consume(&mut self, bytes: usize) {
        self.start += bytes;
    }

    /// Reads as much as there is room for; false at the end of the input.
    pub fn fill(&mut self) -> Result<bool> {
        self.buffer.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        if self.buffer.len() > BLOCK && self.end < BLOCK {
            self.buffer.truncate(BLOCK);
            self.buffer.shrink_to_fit();
        }
        let before = self.end;
        // Fill the whole block even if a pipe delivers short pieces: the bytes that remain are examined again with the
        // next block.
        while !self.has_ended && self.end < self.buffer.len() {
            match self.input.read(&mut self.buffer[self.end..]) {
                Ok(0) => self.has_ended = true,
                Ok(bytes) => self.end += bytes,
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(e) => return Err(Error::io("stdin", &e)),
            }
        }
        Ok(self.end > before)
    }

    /// True if bytes must be consumed before more can be read.
    pub fn is_full(&self) -> bool {
        self.end - self.start == self.buffer.len()
    }

    /// Makes room for more. False if the limit of [`LONGEST`] bytes is reached.
    pub fn grow(&mut self) -> bool {
        let size = (self.buffer.len() * 2).min(LONGEST);
        let grows = size > self.buffer.len();
        self.buffer.resize(size, 0);
        grows
    }
}
