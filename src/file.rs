//! Reading a file that others read or write through the same descriptor.

use std::borrow::Borrow;
use std::fs::File;
use std::os::unix::fs::FileExt;

/// Reads a file from a position of its own, and leaves the descriptor's alone.
pub struct AtPosition<F> {
    file: F,
    position: u64,
}

impl<F: Borrow<File>> AtPosition<F> {
    pub fn new(file: F, position: u64) -> Self {
        Self { file, position }
    }
}

impl<F: Borrow<File>> std::io::Read for AtPosition<F> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let n = self.file.borrow().read_at(buffer, self.position)?;
        self.position += n as u64;
        Ok(n)
    }
}
