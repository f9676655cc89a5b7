//! Cuts an input at line ends, so that the pieces are as large as a limit permits. A line longer than the limit is a
//! piece of its own.
//!
//! The same input gives the same pieces, however slowly it arrives, so that a failed copy can be continued. In a file,
//! only the bytes around each end are read to find it. A stream is cut while it arrives, with little memory.

use s4::file::read_full;
use std::fs::File;
use std::io::Read;

/// Bytes that are searched at a time.
pub const BLOCK: usize = 1 << 20;
/// Bytes around the end of a piece that are searched at a time.
const SEARCH_BLOCK: usize = 64 * 1024;

/// The end of the piece of `file` that begins at `start`: at most `room` bytes, or one line. `len` is the length of the
/// file. Blocks.
pub fn end_of_piece(file: &File, start: u64, len: u64, room: u64) -> std::io::Result<u64> {
    let most = start.saturating_add(room);
    if most >= len {
        return Ok(len);
    }
    let mut block = vec![0; SEARCH_BLOCK];
    // Search backwards from the last byte that has room.
    let mut end = most;
    while end > start {
        let begin = end.saturating_sub(SEARCH_BLOCK as u64).max(start);
        let part = &mut block[..(end - begin) as usize];
        read_all(file, part, begin)?;
        if let Some(at) = last_line_end(part) {
            return Ok(begin + at as u64);
        }
        end = begin;
    }
    // The line is too long: search for its end.
    let mut begin = most;
    while begin < len {
        let part = &mut block[..(len - begin).min(SEARCH_BLOCK as u64) as usize];
        read_all(file, part, begin)?;
        if let Some(at) = first_line_end(part) {
            return Ok(begin + at as u64);
        }
        begin += part.len() as u64;
    }
    Ok(len)
}

/// Errors: the file ends before `part` is full.
fn read_all(file: &File, part: &mut [u8], at: u64) -> std::io::Result<()> {
    match read_full(file, part, at)? == part.len() {
        true => Ok(()),
        false => Err(shorter()),
    }
}

/// The error that the file is shorter than it was.
pub fn shorter() -> std::io::Error {
    std::io::Error::other("it became shorter while it was read")
}

/// The number of bytes up to the end of the last complete line in `bytes`.
fn last_line_end(bytes: &[u8]) -> Option<usize> {
    bytes.iter().rposition(|&byte| byte == b'\n').map(|at| at + 1)
}

/// The number of bytes of the first line, if it is complete in `bytes`.
pub fn first_line_end(bytes: &[u8]) -> Option<usize> {
    bytes.iter().position(|&byte| byte == b'\n').map(|at| at + 1)
}

/// The receiver of the pieces of a stream.
pub trait Pieces {
    /// Appends to the current piece, or begins one. False if no more is wanted.
    fn add(&mut self, bytes: &[u8]) -> bool;
    /// Ends the current piece. False if no more is wanted.
    fn end(&mut self) -> bool;
}

/// Cuts a stream into pieces.
pub struct StreamCutter<R> {
    input: R,
    block: Vec<u8>,
    /// Bytes in the block.
    filled: usize,
    is_end: bool,
    room: u64,
    /// Bytes of the current piece.
    piece: u64,
}

impl<R: Read> StreamCutter<R> {
    pub fn new(input: R) -> Self {
        Self { input, block: vec![0; BLOCK], filled: 0, is_end: false, room: u64::MAX, piece: 0 }
    }

    /// Removes the first line from the stream; `None` if it is longer than a block. Blocks.
    pub fn take_first_line(&mut self) -> std::io::Result<Option<Vec<u8>>> {
        self.fill()?;
        let line = match first_line_end(&self.block[..self.filled]) {
            None if !self.is_end => return Ok(None),
            end => end.unwrap_or(self.filled),
        };
        let taken = self.block[..line].to_vec();
        self.consume(line);
        Ok(Some(taken))
    }

    /// Cuts the rest into `pieces` of at most `room` bytes, or one line. An empty stream gives none. Blocks.
    pub fn cut(&mut self, room: u64, pieces: &mut impl Pieces) -> std::io::Result<()> {
        self.room = room;
        loop {
            self.fill()?;
            let Some(used) = self.cut_block(pieces) else {
                return Ok(());
            };
            self.consume(used);
            if self.is_end && self.filled == 0 {
                return Ok(());
            }
            if used == 0 && !self.pass_long_line(pieces)? {
                return Ok(());
            }
        }
    }

    /// Reads until the block is full, so that its contents do not depend on how the stream arrives.
    fn fill(&mut self) -> std::io::Result<()> {
        while self.filled < BLOCK && !self.is_end {
            match self.input.read(&mut self.block[self.filled..]) {
                Ok(0) => self.is_end = true,
                Ok(n) => self.filled += n,
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    fn consume(&mut self, bytes: usize) {
        self.block.copy_within(bytes..self.filled, 0);
        self.filled -= bytes;
    }

    /// Passes on the complete lines; returns the number of bytes. `None` if no more is wanted.
    fn cut_block(&mut self, pieces: &mut impl Pieces) -> Option<usize> {
        let block = &self.block[..self.filled];
        let whole = if self.is_end { block.len() } else { last_line_end(block).unwrap_or(0) };
        let mut at = 0;
        while at < whole {
            let lines = &block[at..whole];
            let fit = self.room.saturating_sub(self.piece);
            let taken = match lines.len() as u64 <= fit {
                true => lines.len(),
                false => last_line_end(&lines[..fit as usize]).unwrap_or(0),
            };
            let (taken, is_full) = match (taken, self.piece) {
                // A single line is too long.
                (0, 0) => (first_line_end(lines).unwrap_or(lines.len()), true),
                (taken, _) => (taken, taken < lines.len()),
            };
            if taken > 0 && !pieces.add(&lines[..taken]) || is_full && !pieces.end() {
                return None;
            }
            self.piece = if is_full { 0 } else { self.piece + taken as u64 };
            at += taken;
        }
        Some(whole)
    }

    /// Passes on a line that is longer than the block, in a piece that begins with it. False if no more is wanted.
    fn pass_long_line(&mut self, pieces: &mut impl Pieces) -> std::io::Result<bool> {
        if self.piece > 0 && !pieces.end() {
            return Ok(false);
        }
        self.piece = 0;
        loop {
            let line = first_line_end(&self.block[..self.filled]);
            let taken = line.unwrap_or(self.filled);
            if !pieces.add(&self.block[..taken]) {
                return Ok(false);
            }
            self.piece += taken as u64;
            self.consume(taken);
            if line.is_some() || self.is_end {
                return Ok(true);
            }
            self.fill()?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Write;

    #[derive(Default)]
    struct Kept {
        pieces: Vec<Vec<u8>>,
        open: bool,
    }

    impl Pieces for Kept {
        fn add(&mut self, bytes: &[u8]) -> bool {
            assert!(!bytes.is_empty());
            if !std::mem::replace(&mut self.open, true) {
                self.pieces.push(Vec::new());
            }
            self.pieces.last_mut().expect("one is open").extend_from_slice(bytes);
            true
        }

        fn end(&mut self) -> bool {
            assert!(std::mem::replace(&mut self.open, false), "an empty piece");
            true
        }
    }

    /// A reader that returns a few bytes at a time.
    struct Slow<'a>(&'a [u8], usize);

    impl Read for Slow<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            let n = self.1.min(self.0.len()).min(buffer.len());
            buffer[..n].copy_from_slice(&self.0[..n]);
            self.0 = &self.0[n..];
            Ok(n)
        }
    }

    fn of_stream(bytes: &[u8], room: u64, at_once: usize) -> Vec<Vec<u8>> {
        let mut kept = Kept::default();
        StreamCutter::new(Slow(bytes, at_once)).cut(room, &mut kept).expect("memory is read");
        kept.pieces
    }

    fn of_file(bytes: &[u8], room: u64) -> Vec<Vec<u8>> {
        let mut file = tempfile::tempfile().expect("a file");
        file.write_all(bytes).expect("written");
        let (len, mut start, mut pieces) = (bytes.len() as u64, 0, Vec::new());
        while start < len {
            let end = end_of_piece(&file, start, len, room).expect("read");
            pieces.push(bytes[start as usize..end as usize].to_vec());
            start = end;
        }
        pieces
    }

    fn lines(piece: &[u8]) -> usize {
        piece.split_inclusive(|&byte| byte == b'\n').count()
    }

    fn check(bytes: &[u8], room: u64, pieces: &[Vec<u8>]) {
        assert_eq!(pieces.concat(), bytes);
        for (at, piece) in pieces.iter().enumerate() {
            assert!(piece.len() as u64 <= room || lines(piece) == 1, "{} bytes", piece.len());
            assert!(at + 1 == pieces.len() || piece.ends_with(b"\n"));
        }
    }

    proptest! {
        #[test]
        fn files_and_streams_are_cut_alike(text in "([a-z]{0,12}\n){0,40}[a-z]{0,6}", room in 1_u64..60, at_once in 1_usize..40) {
            let pieces = of_file(text.as_bytes(), room);
            check(text.as_bytes(), room, &pieces);
            for pair in pieces.windows(2) {
                let next = first_line_end(&pair[1]).unwrap_or(pair[1].len());
                prop_assert!((pair[0].len() + next) as u64 > room, "the next line would have fitted");
            }
            prop_assert_eq!(of_stream(text.as_bytes(), room, at_once), pieces);
        }
    }

    #[test]
    fn the_cut_does_not_depend_on_blocks() {
        let line = |n: usize| format!("{n} {}\n", "x".repeat(n % 977));
        let text: String = (0..20_000).map(line).collect();
        assert!(text.len() > 5 * BLOCK);
        for room in [50_000, BLOCK as u64 - 1, BLOCK as u64, 3_000_001, u64::MAX] {
            let pieces = of_file(text.as_bytes(), room);
            check(text.as_bytes(), room, &pieces);
            assert!(of_stream(text.as_bytes(), room, 100_003) == pieces, "{room}");
        }
    }

    #[test]
    fn a_line_longer_than_a_block_stays_whole() {
        let text = ["a\n", &"x".repeat(3 * BLOCK + 5), "\nb\nc\n", &"y".repeat(BLOCK), "\n"].concat();
        for room in [2, 100, 2 * BLOCK as u64, 10 * BLOCK as u64] {
            check(text.as_bytes(), room, &of_file(text.as_bytes(), room));
            let pieces = of_stream(text.as_bytes(), room, 77_777);
            check(text.as_bytes(), room, &pieces);
            assert_eq!(pieces, of_stream(text.as_bytes(), room, BLOCK), "{room}");
        }
    }

    #[test]
    fn the_first_line_can_be_taken() {
        let first = |bytes: &[u8]| StreamCutter::new(bytes).take_first_line().expect("read");
        assert_eq!(first(b"a,b\n1,2\n"), Some(b"a,b\n".to_vec()));
        assert_eq!(first(b"a,b"), Some(b"a,b".to_vec()));
        assert_eq!(first(b""), Some(Vec::new()));
        assert_eq!(first(&[b'x'; BLOCK + 1]), None);
    }
}
