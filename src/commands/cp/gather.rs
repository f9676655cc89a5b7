//! Keys in memory, and keys on their way through this process.

use s4::client::Client;
use s4::error::Result;
use s4::key::Key;
use std::io::{Error, Read, Write};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::mpsc::{Receiver, Sender, channel};

/// Writes that a reader has still to take.
const AHEAD: usize = 8;

/// What a reader says whose writer broke off: the writer knows why.
pub const NOT_WHOLE: &str = "it did not come whole";

/// All of a key, verified; `None` if it has more than `most` bytes.
pub async fn gather(client: &Client, key: &Key, most: usize) -> Result<Option<Vec<u8>>> {
    let gathered = Gathered { bytes: Arc::new(Mutex::new(Some(Vec::new()))), most };
    let got = client.get(key, gathered.clone(), "memory", most as u64).await;
    match gathered.bytes.lock().unwrap_or_else(PoisonError::into_inner).take() {
        Some(bytes) => got.map(|_| Some(bytes)),
        None => Ok(None),
    }
}

/// What was written; `None` once that is too much.
#[derive(Clone)]
struct Gathered {
    bytes: Arc<Mutex<Option<Vec<u8>>>>,
    most: usize,
}

impl Write for Gathered {
    fn write(&mut self, new: &[u8]) -> std::io::Result<usize> {
        let mut gathered = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *gathered {
            Some(bytes) if bytes.len() + new.len() <= self.most => {
                bytes.extend_from_slice(new);
                Ok(new.len())
            }
            _ => {
                *gathered = None;
                Err(Error::other("it is too large to be kept"))
            }
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// What goes through a pipe.
enum Part {
    Bytes(Vec<u8>),
    Failed(Error),
    End,
}

/// A pipe whose reader can tell its end from a writer that broke off, which is an error. Reading and writing block.
pub fn pipe() -> (PipeWriter, PipeEnd, PipeReader) {
    let (sender, parts) = channel(AHEAD);
    (PipeWriter(sender.clone()), PipeEnd(sender), PipeReader { parts, part: Vec::new(), at: 0, is_ended: false })
}

pub struct PipeWriter(Sender<Part>);

/// The right to say that all was written.
pub struct PipeEnd(Sender<Part>);

pub struct PipeReader {
    parts: Receiver<Part>,
    part: Vec<u8>,
    at: usize,
    is_ended: bool,
}

impl Write for PipeWriter {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let sent = self.0.blocking_send(Part::Bytes(bytes.to_vec()));
        sent.map(|()| bytes.len()).map_err(|_| Error::other("the copy was refused"))
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl PipeEnd {
    pub async fn end(self) {
        // A reader that has gone needs no end.
        let _ = self.0.send(Part::End).await;
    }

    /// The same, on a thread that may block. False if the reader has gone.
    pub fn end_blocking(self) -> bool {
        self.0.blocking_send(Part::End).is_ok()
    }

    /// Ends with an error, on a thread that may block.
    pub fn fail(self, error: Error) {
        let _ = self.0.blocking_send(Part::Failed(error));
    }
}

impl Read for PipeReader {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        while self.at == self.part.len() && !self.is_ended {
            match self.parts.blocking_recv() {
                Some(Part::Bytes(bytes)) => (self.part, self.at) = (bytes, 0),
                Some(Part::Failed(error)) => return Err(error),
                Some(Part::End) => self.is_ended = true,
                None => return Err(Error::other(NOT_WHOLE)),
            }
        }
        let n = buffer.len().min(self.part.len() - self.at);
        buffer[..n].copy_from_slice(&self.part[self.at..self.at + n]);
        self.at += n;
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_comes_and_then_the_end() {
        let (mut writer, end, mut reader) = pipe();
        let writing = std::thread::spawn(move || {
            (0..100).for_each(|n| writer.write_all(&[n; 1000]).expect("it is read"));
            drop(writer);
            tokio::runtime::Builder::new_current_thread().build().expect("a runtime").block_on(end.end());
        });
        let mut all = Vec::new();
        reader.read_to_end(&mut all).expect("it ended");
        writing.join().expect("no panic");
        assert_eq!(all, (0..100).flat_map(|n| [n; 1000]).collect::<Vec<u8>>());
    }

    #[test]
    fn a_writer_that_breaks_off_is_no_end() {
        let (mut writer, end, mut reader) = pipe();
        writer.write_all(b"part").expect("there is room");
        drop((writer, end));
        assert!(reader.read_to_end(&mut Vec::new()).is_err());
    }

    #[test]
    fn a_reader_that_has_gone_is_an_error() {
        let (mut writer, _end, reader) = pipe();
        drop(reader);
        assert!(writer.write_all(b"x").is_err());
    }
}
