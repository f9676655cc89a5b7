//! The format of bodies that hold many keys or a command's streams: frames of a tag, a length and a payload.
//!
//! A frame is one ASCII letter, a little-endian `u32` length, and that many bytes. A pack of keys is, for each key,
//! `K` (bucket/key), any number of `D` (bytes), and `S` (checksum and length, as in the header) or `F` (an error, JSON);
//! then `E`. A command's streams are `O` (stdout) and `R` (stderr), then `X` (its end, JSON). A `B` (empty, a sign of
//! life) may stand between any two frames.

use crate::body::{ChunkReader, ChunkSender, Hangup};
use crate::checksum::{BLOCK, Checksum, Hasher};
use crate::error::{Error, ErrorKind, Result};
use crate::key::Key;
use bytes::{Buf, Bytes};
use serde::{Deserialize, Serialize};
use std::io::Read;

/// A whole `B` frame.
pub const BEAT: &[u8] = b"B\0\0\0\0";

const HEADER: usize = 5;
/// The largest payload that is held in memory whole; `D`, `O` and `R` pass through in pieces.
const MAX_CONTROL: usize = 64 * 1024;
const MAX_DATA: usize = 1024 * 1024;

/// How a command that `eval` ran came to its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CommandEnd {
    Exit(i32),
    Signal(i32),
    /// The command ran, but its input does not match its checksum, or s4 could not run it.
    Error(Error),
}

#[derive(Debug)]
pub enum Frame {
    Key(Key),
    /// A piece of the key's bytes; one frame may come as several pieces.
    Data(Bytes),
    Sum(Checksum),
    Fail(Error),
    End,
    Stdout(Bytes),
    Stderr(Bytes),
    Beat,
    Exit(CommandEnd),
}

/// Reads frames from a body. Blocks.
pub struct FrameReader {
    chunks: ChunkReader,
    buffer: Bytes,
    /// The tag of a streamed frame, and its bytes yet to come.
    streaming: Option<(u8, usize)>,
    who: String,
}

impl FrameReader {
    /// `who` names the peer in errors.
    pub fn new(chunks: ChunkReader, who: String) -> Self {
        Self { chunks, buffer: Bytes::new(), streaming: None, who }
    }

    /// The next frame or piece of one. The end of the body before an `E` or `X` frame is an error.
    pub fn next_frame(&mut self) -> Result<Frame> {
        loop {
            if let Some((tag, left)) = self.streaming {
                return self.piece(tag, left);
            }
            let header = self.take(HEADER)?;
            let (tag, len) = (header[0], u32::from_le_bytes([header[1], header[2], header[3], header[4]]) as usize);
            match tag {
                b'D' | b'O' | b'R' if len <= MAX_DATA => {
                    if len > 0 {
                        self.streaming = Some((tag, len));
                    }
                }
                _ if len > MAX_CONTROL => return Err(self.malformed("a frame is too long")),
                _ => {
                    let payload = self.take(len)?;
                    return self.control(tag, &payload);
                }
            }
        }
    }

    fn piece(&mut self, tag: u8, left: usize) -> Result<Frame> {
        if self.buffer.is_empty() {
            self.fill()?;
        }
        let piece = self.buffer.split_to(left.min(self.buffer.len()));
        self.streaming = (piece.len() < left).then_some((tag, left - piece.len()));
        Ok(match tag {
            b'D' => Frame::Data(piece),
            b'O' => Frame::Stdout(piece),
            _ => Frame::Stderr(piece),
        })
    }

    fn control(&self, tag: u8, payload: &[u8]) -> Result<Frame> {
        let text = std::str::from_utf8(payload).map_err(|_| self.malformed("a frame is not UTF-8"))?;
        let json = |e: serde_json::Error| self.malformed(&e.to_string());
        Ok(match tag {
            b'K' => Frame::Key(Key::parse(text).map_err(|e| self.malformed(&e.to_string()))?),
            b'S' => Frame::Sum(text.parse().map_err(|()| self.malformed("a checksum is none"))?),
            b'F' => Frame::Fail(serde_json::from_str(text).map_err(json)?),
            b'E' | b'B' if !payload.is_empty() => return Err(self.malformed("a mark has a payload")),
            b'E' => Frame::End,
            b'B' => Frame::Beat,
            b'X' => Frame::Exit(serde_json::from_str(text).map_err(json)?),
            _ => return Err(self.malformed("a frame has an unknown tag")),
        })
    }

    /// Exactly `n` bytes.
    fn take(&mut self, n: usize) -> Result<Bytes> {
        if self.buffer.len() >= n {
            return Ok(self.buffer.split_to(n));
        }
        let mut whole = Vec::with_capacity(n);
        while whole.len() < n {
            if self.buffer.is_empty() {
                self.fill()?;
            }
            let piece = (n - whole.len()).min(self.buffer.len());
            whole.extend_from_slice(&self.buffer[..piece]);
            self.buffer.advance(piece);
        }
        Ok(whole.into())
    }

    fn fill(&mut self) -> Result<()> {
        let ended = || Error::new(ErrorKind::BadRequest, format!("{}: the body ends before its end mark", self.who));
        self.buffer = self.chunks.next_chunk()?.ok_or_else(ended)?;
        Ok(())
    }

    fn malformed(&self, why: &str) -> Error {
        Error::new(ErrorKind::BadRequest, format!("{}: malformed body: {why}", self.who))
    }
}

/// Writes frames to a body. Small ones are gathered into one chunk. Blocks.
pub struct FrameWriter {
    chunks: ChunkSender,
    buffer: Vec<u8>,
}

impl FrameWriter {
    pub fn new(chunks: ChunkSender) -> Self {
        Self { chunks, buffer: Vec::new() }
    }

    pub fn key(&mut self, key: &Key) -> std::result::Result<(), Hangup> {
        self.frame(b'K', key.as_str().as_bytes())
    }

    /// All of `input` as one key's bytes, then its checksum. `hint` is how many bytes to expect, for small keys' sake.
    /// The outer error is the hang-up of the peer; the inner one of reading, after which the key is marked as failed.
    pub fn content(
        &mut self,
        input: &mut impl Read,
        hint: u64,
        what: &str,
    ) -> std::result::Result<Result<Checksum>, Hangup> {
        let mut hasher = Hasher::new();
        let read = self.data(input, hint, |bytes| hasher.update(bytes))?;
        let checksum = hasher.finish();
        match read {
            Ok(()) => self.sum(checksum).map(|()| Ok(checksum)),
            Err(e) => {
                let error = Error::io(what, &e);
                self.fail(&error).map(|()| Err(error))
            }
        }
    }

    /// All of a stored key's bytes, then its checksum as recorded, so that the receiver sees damage. `failed` makes the error of one
    /// that cannot be read.
    pub fn recorded(
        &mut self,
        input: &mut impl Read,
        checksum: Checksum,
        failed: impl FnOnce(&std::io::Error) -> Error,
    ) -> std::result::Result<(), Hangup> {
        match self.data(input, checksum.len, |_| {})? {
            Ok(()) => self.sum(checksum),
            Err(e) => self.fail(&failed(&e)),
        }
    }

    /// All of `input` as data frames, each shown to `seen`.
    fn data(
        &mut self,
        input: &mut impl Read,
        hint: u64,
        mut seen: impl FnMut(&[u8]),
    ) -> std::result::Result<std::io::Result<()>, Hangup> {
        // One byte more than expected, so that the read after the last one finds the end.
        let block = usize::try_from(hint).unwrap_or(BLOCK).saturating_add(1).clamp(4096, self.chunks.block());
        loop {
            let start = self.buffer.len();
            self.buffer.resize(start + HEADER + block, 0);
            match input.read(&mut self.buffer[start + HEADER..]) {
                Ok(0) => {
                    self.buffer.truncate(start);
                    return Ok(Ok(()));
                }
                Ok(n) => {
                    self.buffer.truncate(start + HEADER + n);
                    self.buffer[start] = b'D';
                    self.buffer[start + 1..start + HEADER].copy_from_slice(&(n as u32).to_le_bytes());
                    seen(&self.buffer[start + HEADER..]);
                    self.flush_if_full()?;
                }
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => self.buffer.truncate(start),
                Err(e) => {
                    self.buffer.truncate(start);
                    return Ok(Err(e));
                }
            }
        }
    }

    fn sum(&mut self, checksum: Checksum) -> std::result::Result<(), Hangup> {
        self.frame(b'S', checksum.to_string().as_bytes())
    }

    pub fn fail(&mut self, error: &Error) -> std::result::Result<(), Hangup> {
        let json = serde_json::to_vec(error).expect("an error is plain JSON");
        self.frame(b'F', &json)
    }

    /// Ends a pack.
    pub fn end(mut self) -> std::result::Result<(), Hangup> {
        self.frame(b'E', b"")?;
        self.flush()
    }

    pub fn stdout(&mut self, bytes: &[u8]) -> std::result::Result<(), Hangup> {
        self.frame(b'O', bytes)?;
        self.flush()
    }

    pub fn stderr(&mut self, bytes: &[u8]) -> std::result::Result<(), Hangup> {
        self.frame(b'R', bytes)?;
        self.flush()
    }

    pub fn beat(&mut self) -> std::result::Result<(), Hangup> {
        self.frame(b'B', b"")?;
        self.flush()
    }

    /// Ends a command's streams.
    pub fn exit(mut self, end: &CommandEnd) -> std::result::Result<(), Hangup> {
        let json = serde_json::to_vec(end).expect("a command's end is plain JSON");
        self.frame(b'X', &json)?;
        self.flush()
    }

    fn frame(&mut self, tag: u8, payload: &[u8]) -> std::result::Result<(), Hangup> {
        self.buffer.push(tag);
        self.buffer.extend_from_slice(&(payload.len() as u32).to_le_bytes());
        self.buffer.extend_from_slice(payload);
        self.flush_if_full()
    }

    fn flush_if_full(&mut self) -> std::result::Result<(), Hangup> {
        match self.buffer.len() >= self.chunks.block() {
            true => self.flush(),
            false => Ok(()),
        }
    }

    fn flush(&mut self) -> std::result::Result<(), Hangup> {
        match self.buffer.is_empty() {
            true => Ok(()),
            false => self.chunks.send(std::mem::take(&mut self.buffer).into()),
        }
    }
}
