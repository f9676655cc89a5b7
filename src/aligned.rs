//! Buffers aligned to a cache line. The kernel copies into them up to 1.5 times as fast as into others. An allocator
//! puts a header in front of a large buffer, so the buffer is not aligned by itself.

use bytes::{Buf, BufMut, BytesMut};
use std::ops::{Deref, DerefMut};

/// Bytes of a cache line.
const LINE: usize = 64;

/// An aligned buffer of a fixed length.
pub struct Block {
    bytes: Vec<u8>,
    start: usize,
}

impl Block {
    /// A buffer of `len` zeros.
    pub fn new(len: usize) -> Self {
        let mut bytes = vec![0; len + LINE - 1];
        let start = bytes.as_ptr().align_offset(LINE).min(LINE - 1);
        bytes.truncate(start + len);
        Self { bytes, start }
    }
}

impl Deref for Block {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[self.start..]
    }
}

impl DerefMut for Block {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..]
    }
}

/// Reserves `len` bytes in the empty `buffer`, aligned. Reuses its memory if nobody else uses that any more.
pub fn reserve(buffer: &mut BytesMut, len: usize) {
    debug_assert!(buffer.is_empty());
    buffer.reserve(len + LINE - 1);
    let pad = buffer.spare_capacity_mut().as_ptr().align_offset(LINE).min(LINE - 1);
    buffer.put_bytes(0, pad);
    buffer.advance(pad);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_begin_with_a_line_and_have_their_length() {
        for len in [0, 1, 4096, 300_000, 2 << 20] {
            let block = Block::new(len);
            assert_eq!((block.as_ptr() as usize % LINE, block.len()), (0, len));
        }
        let mut buffer = BytesMut::new();
        for len in [1 << 20, 1, 300_000, 1 << 20] {
            reserve(&mut buffer, len);
            assert!(buffer.spare_capacity_mut().len() >= len, "room for {len}");
            assert_eq!(buffer.spare_capacity_mut().as_ptr() as usize % LINE, 0);
            buffer.put_bytes(1, len);
            drop(buffer.split().freeze());
        }
    }
}
