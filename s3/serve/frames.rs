//! The frames of an aws-chunked body, before s3s sees them. s3s holds a whole chunk in memory, and some clients send
//! gigabytes as one chunk. So chunks without signatures are cut into small ones here. A signature covers a whole chunk:
//! signed chunks pass unchanged, and large ones are refused. s3s also accepts a body without its last chunk.

use bytes::{Buf, Bytes};
use std::collections::VecDeque;

/// The largest signed chunk. Clients send 64 KiB to 1 MiB.
const MAX_SIGNED: u64 = 8 << 20;
/// The longest line that begins a chunk, in bytes.
const MAX_LINE: usize = 1024;

/// Why a body was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Malformed {
    /// No chunk begins where one was expected.
    Frame,
    ChunkTooLarge,
}

pub struct Frames {
    is_signed: bool,
    state: State,
    /// The part of a line that has come.
    line: Vec<u8>,
}

enum State {
    /// In the line that begins a chunk.
    Line,
    /// In the data of a chunk, with this many bytes left.
    Data(u64),
    /// In the line end after the data.
    LineEnd,
    /// After the last chunk.
    Trailer,
}

impl Frames {
    pub fn new(is_signed: bool) -> Self {
        Self { is_signed, state: State::Line, line: Vec::new() }
    }

    /// True if the last chunk has come.
    pub fn is_complete(&self) -> bool {
        matches!(self.state, State::Trailer)
    }

    /// Takes the next bytes, and appends to `out` what s3s is to see of them.
    pub fn push(&mut self, mut bytes: Bytes, out: &mut VecDeque<Bytes>) -> Result<(), Malformed> {
        if self.is_signed {
            out.push_back(bytes.clone());
        }
        while !bytes.is_empty() {
            match self.state {
                State::Line => {
                    if let Some(line) = self.take_line(&mut bytes)? {
                        self.begin(&line, out)?;
                    }
                }
                State::Data(left) => {
                    let n = left.min(bytes.len() as u64);
                    let data = bytes.split_to(n as usize);
                    if !self.is_signed {
                        out.extend([Bytes::from(format!("{n:x}\r\n")), data, Bytes::from_static(b"\r\n")]);
                    }
                    self.state = if n == left { State::LineEnd } else { State::Data(left - n) };
                }
                State::LineEnd => {
                    if let Some(line) = self.take_line(&mut bytes)? {
                        if line != b"\r\n" {
                            return Err(Malformed::Frame);
                        }
                        self.state = State::Line;
                    }
                }
                State::Trailer => {
                    let rest = std::mem::take(&mut bytes);
                    if !self.is_signed {
                        out.push_back(rest);
                    }
                }
            }
        }
        Ok(())
    }

    /// The line that ends in `bytes`, with its end.
    fn take_line(&mut self, bytes: &mut Bytes) -> Result<Option<Vec<u8>>, Malformed> {
        let end = bytes.iter().position(|&byte| byte == b'\n').map(|at| at + 1);
        let n = end.unwrap_or(bytes.len());
        if self.line.len() + n > MAX_LINE {
            return Err(Malformed::Frame);
        }
        self.line.extend_from_slice(&bytes[..n]);
        bytes.advance(n);
        Ok(end.map(|_| std::mem::take(&mut self.line)))
    }

    fn begin(&mut self, line: &[u8], out: &mut VecDeque<Bytes>) -> Result<(), Malformed> {
        let size = std::str::from_utf8(line).ok().and_then(|line| line.strip_suffix("\r\n"));
        let size = size.and_then(|line| line.split(';').next()).filter(|size| !size.starts_with('+'));
        let size = size.and_then(|size| u64::from_str_radix(size, 16).ok()).ok_or(Malformed::Frame)?;
        if self.is_signed && size > MAX_SIGNED {
            return Err(Malformed::ChunkTooLarge);
        }
        self.state = match size {
            0 => State::Trailer,
            size => State::Data(size),
        };
        if size == 0 && !self.is_signed {
            out.push_back(Bytes::copy_from_slice(line));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    /// What s3s sees of `body` if it comes in pieces of `n` bytes.
    fn seen(is_signed: bool, body: &[u8], n: usize) -> Result<(Vec<u8>, bool), Malformed> {
        let (mut frames, mut out) = (Frames::new(is_signed), VecDeque::new());
        for piece in body.chunks(n) {
            frames.push(Bytes::copy_from_slice(piece), &mut out)?;
        }
        Ok((out.into_iter().flatten().collect(), frames.is_complete()))
    }

    #[test]
    fn a_large_chunk_comes_out_as_small_ones() {
        let body = b"9\r\nabcdefghi\r\n0\r\nx-amz-checksum-crc32:AAAA\r\n\r\n";
        for n in 1..=body.len() {
            let (out, is_complete) = seen(false, body, n).expect("well-formed");
            let text = String::from_utf8(out).expect("text");
            let (data, trailer) = text.split_once("0\r\nx-amz").expect("a last chunk");
            let pieces: Vec<&str> = data.split_terminator("\r\n").collect();
            assert!(pieces.chunks(2).all(|pair| pair[0] == format!("{:x}", pair[1].len())), "{text}");
            assert_eq!(pieces.chunks(2).map(|pair| pair[1]).collect::<String>(), "abcdefghi");
            assert_eq!((trailer, is_complete), ("-checksum-crc32:AAAA\r\n\r\n", true));
        }
    }

    #[test]
    fn signed_chunks_pass_unchanged_and_are_bounded() {
        let body = format!("3;chunk-signature={0}\r\nabc\r\n0;chunk-signature={0}\r\n\r\n", "0".repeat(64));
        for n in [1, 7, 1000] {
            assert_eq!(seen(true, body.as_bytes(), n), Ok((body.clone().into_bytes(), true)));
        }
        assert_eq!(seen(true, b"800001;chunk-signature=0\r\n", 5), Err(Malformed::ChunkTooLarge));
    }

    #[test]
    fn what_is_no_chunk_is_refused_and_a_cut_body_is_not_complete() {
        for body in ["x\r\n", "\r\n", "+1\r\na\r\n", "1\na\r\n", "1\r\nab\r\n", "-1\r\n", "10000000000000000\r\n"] {
            assert_eq!(seen(false, body.as_bytes(), 3), Err(Malformed::Frame), "{body}");
        }
        assert_eq!(seen(false, &[b'0'; 2000], 100), Err(Malformed::Frame));
        for cut in ["", "3", "3\r\nab", "3\r\nabc", "3\r\nabc\r\n"] {
            assert_eq!(seen(false, cut.as_bytes(), 4).map(|(_, complete)| complete), Ok(false), "{cut}");
        }
    }
    /// The data of chunks, and whether the last one has come.
    fn taken_apart(mut body: &[u8]) -> Option<(Vec<u8>, bool)> {
        let mut data = Vec::new();
        while !body.is_empty() {
            let end = body.windows(2).position(|pair| pair == b"\r\n")?;
            let size = usize::from_str_radix(std::str::from_utf8(&body[..end]).ok()?.split(';').next()?, 16).ok()?;
            body = &body[end + 2..];
            if size == 0 {
                return Some((data, true));
            }
            data.extend_from_slice(body.get(..size)?);
            body = body[size..].strip_prefix(b"\r\n")?;
        }
        Some((data, false))
    }

    proptest! {
        #[test]
        fn the_data_stays_whatever_its_chunks_and_however_they_come(
            chunks in vec(vec(any::<u8>(), 1..40), 0..6), is_signed: bool, n in 1..60usize,
        ) {
            let mut body = Vec::new();
            for chunk in &chunks {
                body.extend_from_slice(format!("{:x};a=b\r\n", chunk.len()).as_bytes());
                body.extend_from_slice(chunk);
                body.extend_from_slice(b"\r\n");
            }
            body.extend_from_slice(b"0\r\nx-amz-checksum-crc32:AAAAAA==\r\n\r\n");
            let (out, is_complete) = seen(is_signed, &body, n).unwrap();
            prop_assert_eq!((taken_apart(&out), is_complete), (Some((chunks.concat(), true)), true));
        }

        #[test]
        fn any_bytes_are_the_same_however_they_come(
            body in "([0-9a-f]{0,3}(;x)?\r?\n?|\\PC{0,4}|\r\n){0,8}", is_signed: bool, n in 1..9usize,
        ) {
            let whole = seen(is_signed, body.as_bytes(), body.len().max(1));
            let pieces = seen(is_signed, body.as_bytes(), n);
            let data = |seen: &(Vec<u8>, bool)| match is_signed {
                true => Some((seen.0.clone(), seen.1)),
                false => taken_apart(&seen.0),
            };
            match (&whole, &pieces) {
                (Ok(whole), Ok(pieces)) => prop_assert_eq!(data(whole), data(pieces)),
                _ => prop_assert_eq!(whole.is_err(), pieces.is_err()),
            }
        }
    }
}
