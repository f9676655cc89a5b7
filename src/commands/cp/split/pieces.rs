//! The pieces of an input, and the keys that they become.

use super::cut::{Pieces, StreamCutter, end_of_piece, first_line_end, shorter};
use super::input::Input;
use crate::commands::cp::gather::{PipeEnd, PipeWriter, pipe};
use s4::error::{Error, ErrorKind, Result};
use s4::file::{AtPosition, read_full};
use s4::key::{Dir, Key};
use std::fs::File;
use std::io::{Cursor, Read, Write};
use std::sync::Arc;
use tokio::sync::mpsc::Sender;

/// Limit of bytes of a first line that is repeated in each piece.
const LONGEST_HEADER: usize = 1 << 20;
/// Digits of the numbers if the number of pieces is not known.
const DIGITS_OF_STREAM: usize = 6;
/// The minimal number of digits.
const DIGITS: usize = 4;
/// Bytes that go through a pipe at a time.
const PART: usize = 256 * 1024;

/// The options of a split.
#[derive(Debug, Clone, Copy)]
pub struct Split {
    pub size: u64,
    pub has_header: bool,
}

/// Names of the form `DIR/NUMBER_NAME`. The number decides the node, so consecutive pieces go to consecutive nodes.
#[derive(Debug, Clone)]
pub struct Names {
    pub dir: Dir,
    pub name: String,
    pub digits: usize,
}

impl Names {
    pub fn key(&self, number: u64) -> Result<Key> {
        let digits = self.digits;
        self.dir.join(&format!("{number:0digits$}_{}", self.name))
    }
}

/// The number of digits for the numbers of all pieces. Two consecutive pieces together are larger than the room of one,
/// which limits the number of pieces.
pub fn digits(input: &Input, split: Split) -> usize {
    let room = if split.has_header { split.size / 2 } else { split.size };
    match input {
        Input::File(_, len) => (len / room.max(1)).saturating_mul(2).saturating_add(1).to_string().len().max(DIGITS),
        Input::Stream(_) => DIGITS_OF_STREAM,
    }
}

/// A piece that becomes a key.
pub struct Piece {
    pub number: u64,
    /// The number of its bytes, if it is known already.
    pub len: Option<u64>,
    pub input: Box<dyn Read + Send>,
}

/// Sends every piece of `input` to `to`, or the error that ends the input. Stops when the receiver is closed. Blocks.
pub fn cut(what: &str, input: Input, split: Split, to: &Sender<Result<Piece>>) {
    let cut = match input {
        Input::File(file, len) => cut_file(Arc::new(file), len, split, to),
        Input::Stream(input) => cut_stream(input, split, to),
    };
    if let Err(error) = cut {
        // If the receiver is closed, an error was reported already.
        let _ = to.blocking_send(Err(Error::io(what, &error)));
    }
}

/// The room that a header of `len` bytes leaves in a piece: at least half of it.
fn check_header(len: Option<usize>, split: Split) -> std::io::Result<u64> {
    match len {
        Some(len) if len as u64 <= split.size / 2 => Ok(split.size - len as u64),
        Some(len) => Err(std::io::Error::other(format!("the first line has {len} bytes, more than half of --split"))),
        None => Err(std::io::Error::other("the first line has more than 1 MiB, and is no header")),
    }
}

fn cut_file(file: Arc<File>, len: u64, split: Split, to: &Sender<Result<Piece>>) -> std::io::Result<()> {
    let (mut header, mut room) = (Vec::new(), split.size);
    if split.has_header && len > 0 {
        header.resize(len.min(LONGEST_HEADER as u64) as usize, 0);
        let read = read_full(&file, &mut header, 0)?;
        header.truncate(first_line_end(&header[..read]).unwrap_or(read));
        let is_line = header.ends_with(b"\n") || header.len() as u64 == len;
        room = check_header(is_line.then_some(header.len()), split)?;
    }
    let (mut start, mut number) = (header.len() as u64, 0);
    // An empty file becomes one empty key.
    while start < len || number == 0 {
        let end = end_of_piece(&file, start, len, room)?;
        let range = Range { file: AtPosition::new(file.clone(), start), left: end - start };
        let piece = Piece {
            number,
            len: Some(header.len() as u64 + end - start),
            input: Box::new(Cursor::new(header.clone()).chain(range)),
        };
        if to.blocking_send(Ok(piece)).is_err() {
            return Ok(());
        }
        (start, number) = (end, number + 1);
    }
    Ok(())
}

/// A part of a file. Reading fails if the file is shorter now.
struct Range {
    file: AtPosition<Arc<File>>,
    left: u64,
}

impl Read for Range {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let most = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        match self.file.read(&mut buffer[..most])? {
            0 if most > 0 => Err(shorter()),
            n => {
                self.left -= n as u64;
                Ok(n)
            }
        }
    }
}

fn cut_stream(input: Box<dyn Read + Send>, split: Split, to: &Sender<Result<Piece>>) -> std::io::Result<()> {
    let mut cutter = StreamCutter::new(input);
    let (mut header, mut room) = (Vec::new(), split.size);
    if split.has_header {
        let first = cutter.take_first_line()?;
        if first.as_ref().is_none_or(|line| !line.is_empty()) {
            room = check_header(first.as_ref().map(Vec::len), split)?;
        }
        header = first.unwrap_or_default();
    }
    let mut pipes = Pipes { header, number: 0, open: None, to };
    let cut = cutter.cut(room, &mut pipes);
    pipes.finish(cut)
}

/// Pieces that are sent through pipes while the stream is cut.
struct Pipes<'a> {
    header: Vec<u8>,
    /// The number of the next piece.
    number: u64,
    open: Option<(PipeWriter, PipeEnd)>,
    to: &'a Sender<Result<Piece>>,
}

impl Pipes<'_> {
    fn open(&mut self) -> bool {
        let (writer, end, reader) = pipe();
        let input = Box::new(Cursor::new(self.header.clone()).chain(reader));
        let piece = Piece { number: self.number, len: None, input };
        self.number += 1;
        self.open = Some((writer, end));
        self.to.blocking_send(Ok(piece)).is_ok()
    }

    /// Ends the last piece, or makes it fail with the error of the input.
    fn finish(mut self, cut: std::io::Result<()>) -> std::io::Result<()> {
        match (cut, self.open.take()) {
            // The piece fails with this error as the reason.
            (Err(error), Some((_, end))) => {
                end.fail(error);
                Ok(())
            }
            (Err(error), None) => Err(error),
            (Ok(()), open) => {
                self.open = open;
                // An empty stream becomes one empty key.
                let _ = (self.number > 0 || self.open()) && self.end();
                Ok(())
            }
        }
    }
}

impl Pieces for Pipes<'_> {
    fn add(&mut self, bytes: &[u8]) -> bool {
        if self.open.is_none() && !self.open() {
            return false;
        }
        let Some((writer, _)) = &mut self.open else {
            return false;
        };
        bytes.chunks(PART).all(|part| writer.write_all(part).is_ok())
    }

    fn end(&mut self) -> bool {
        self.open.take().is_none_or(|(_, end)| end.end_blocking())
    }
}

/// Refuses a number with more digits than the others.
pub fn check_number(names: &Names, number: u64) -> Result<()> {
    match number.to_string().len() > names.digits {
        true => Err(Error::new(
            ErrorKind::Io,
            format!("{}: it has more than {number} pieces; choose a larger --split", names.dir),
        )),
        false => Ok(()),
    }
}
