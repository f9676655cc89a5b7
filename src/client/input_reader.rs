//! Reads an input, which may be slow, on a thread of its own. Meanwhile the thread that sends the input can send
//! keepalives.

use crate::aligned::Block;
use crate::file::BLOCK;
use std::io::Read;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender, SyncSender};
use std::time::Duration;

/// Blocks that are read in advance.
const AHEAD: usize = 2;

/// A block of the input, of which the first bytes are filled.
type Filled = (Block, usize);

/// An input that a thread reads in advance. After a drop, the thread ends when its current read returns.
pub struct InputReader {
    filled: Receiver<std::io::Result<Filled>>,
    empty: Sender<Block>,
}

/// What an input has returned.
pub enum Input<'a> {
    Bytes(&'a [u8]),
    Pending,
    End,
}

impl InputReader {
    /// Errors: no thread can be started.
    pub fn start(input: impl Read + Send + 'static) -> std::io::Result<Self> {
        let ((to_filled, filled), (empty, to_fill)) = (mpsc::sync_channel(AHEAD), mpsc::channel());
        std::thread::Builder::new().spawn(move || read_all(input, &to_filled, &to_fill))?;
        Ok(Self { filled, empty })
    }

    /// Passes the next bytes to `take`, or that none have come within `timeout`.
    pub fn next<T>(&self, timeout: Duration, take: impl FnOnce(Input) -> T) -> std::io::Result<T> {
        let (block, len) = match self.filled.recv_timeout(timeout) {
            Ok(filled) => filled?,
            Err(RecvTimeoutError::Timeout) => return Ok(take(Input::Pending)),
            // Only after its end, or if the input panicked.
            Err(RecvTimeoutError::Disconnected) => {
                return Err(std::io::Error::other("its reader has ended without its end"));
            }
        };
        if len == 0 {
            return Ok(take(Input::End));
        }
        let taken = take(Input::Bytes(&block[..len]));
        // An error means that the thread has reached the end of the input.
        let _ = self.empty.send(block);
        Ok(taken)
    }
}

fn read_all(mut input: impl Read, filled: &SyncSender<std::io::Result<Filled>>, empty: &Receiver<Block>) {
    loop {
        let mut block = empty.try_recv().unwrap_or_else(|_| Block::new(BLOCK));
        let read = loop {
            match input.read(&mut block) {
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                read => break read,
            }
        };
        let (is_last, read) = (matches!(read, Ok(0) | Err(_)), read.map(|n| (block, n)));
        if filled.send(read).is_err() || is_last {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Error, Write, pipe};

    fn all_of(reader: &InputReader) -> std::io::Result<Vec<u8>> {
        let mut all = Vec::new();
        loop {
            let is_end = reader.next(Duration::from_secs(10), |came| match came {
                Input::Bytes(bytes) => all.write_all(bytes).map(|()| false),
                Input::Pending => Ok(false),
                Input::End => Ok(true),
            })??;
            if is_end {
                return Ok(all);
            }
        }
    }

    #[test]
    fn all_comes_in_its_order() {
        let bytes: Vec<u8> = (0..3 * BLOCK + 77).map(|n| ((n * 31) >> 3) as u8).collect();
        let input = std::io::Cursor::new(bytes.clone());
        assert_eq!(all_of(&InputReader::start(input).expect("a thread")).expect("read"), bytes);
    }

    #[test]
    fn a_pause_is_told_and_an_error_is_the_end() {
        let (from, mut to) = pipe().expect("a pipe");
        let reader = InputReader::start(from).expect("a thread");
        assert!(reader.next(Duration::from_millis(1), |came| matches!(came, Input::Pending)).expect("no error"));
        to.write_all(b"x").expect("written");
        assert_eq!(reader.next(Duration::from_secs(10), |came| matches!(came, Input::Bytes(b"x"))).ok(), Some(true));
        struct Fails;
        impl Read for Fails {
            fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
                Err(Error::other("no"))
            }
        }
        assert!(all_of(&InputReader::start(Fails).expect("a thread")).is_err());
    }

    #[test]
    fn an_input_that_panics_has_not_ended() {
        struct Panics(bool);
        impl Read for Panics {
            fn read(&mut self, block: &mut [u8]) -> std::io::Result<usize> {
                assert!(!std::mem::replace(&mut self.0, true), "a panic of this test");
                Ok(block.len())
            }
        }
        assert!(all_of(&InputReader::start(Panics(false)).expect("a thread")).is_err());
    }
}
