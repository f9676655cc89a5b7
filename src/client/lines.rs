//! A received body, split into lines.

use crate::body::Chunks;
use crate::error::Result;
use bytes::{Buf, Bytes, BytesMut};
use hyper::body::Incoming;

/// The longest line, in bytes: more than a job's record or a failure takes.
const MAX_LINE: usize = 4 << 20;

pub struct Lines {
    chunks: Chunks<Incoming>,
    chunk: Bytes,
    /// The start of a line whose end is in a later chunk.
    partial: BytesMut,
}

impl Lines {
    pub fn new(chunks: Chunks<Incoming>) -> Self {
        Self { chunks, chunk: Bytes::new(), partial: BytesMut::new() }
    }

    /// The next line without its newline, or `None` at the body's end. A last line without a newline is dropped: it was
    /// cut off.
    pub async fn next(&mut self) -> Result<Option<Bytes>> {
        loop {
            if let Some(end) = self.chunk.iter().position(|&b| b == b'\n') {
                let line = self.chunk.split_to(end);
                self.chunk.advance(1);
                if self.partial.is_empty() {
                    return Ok(Some(line));
                }
                self.partial.extend_from_slice(&line);
                return Ok(Some(self.partial.split().freeze()));
            }
            self.partial.extend_from_slice(&self.chunk);
            if self.partial.len() > MAX_LINE {
                return Err(self.chunks.malformed("a line is too long"));
            }
            match self.chunks.next().await? {
                Some(chunk) => self.chunk = chunk,
                None => return Ok(None),
            }
        }
    }
}
