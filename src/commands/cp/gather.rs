//! Keys in memory, and pipes for keys that pass through this process.

use s4::client::Client;
use s4::error::Result;
use s4::key::Key;
use std::io::{Error, Read, Write};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::mpsc::{Receiver, Sender, channel};

/// Writes that may wait in a pipe.
const AHEAD: usize = 8;

/// All bytes of a key, verified; `None` if it has more than `most` bytes.
pub async fn gather(client: &Client, key: &Key, most: usize) -> Result<Option<Vec<u8>>> {
    let gathered = Gathered { bytes: Arc::new(Mutex::new(Some(Vec::new()))), most };
    let got = client.get(key, gathered.clone(), "memory", most as u64).await;
    match gathered.bytes.lock().unwrap_or_else(PoisonError::into_inner).take() {
        Some(bytes) => got.map(|_| Some(bytes)),
        None => Ok(None),
    }
}

/// The bytes that were written; `None` once there are too many.
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

/// A message through a pipe.
enum Part {
    Bytes(Vec<u8>),
    Failed(Error),
    End,
}

/// A pipe. If the writer is dropped before it has sent the end, reading fails. Reading and writing block.
pub fn pipe() -> (PipeWriter, PipeEnd, PipeReader) {
    let (sender, parts) = channel(AHEAD);
    (PipeWriter(sender.clone()), PipeEnd(sender), PipeReader { parts, part: Vec::new(), at: 0, is_ended: false })
}

pub struct PipeWriter(Sender<Part>);

/// Sends the end of the data.
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
        // This fails if the reader is gone.
        let _ = self.0.send(Part::End).await;
    }

    /// True if the reader was dropped.
    pub fn is_reader_gone(&self) -> bool {
        self.0.is_closed()
    }

    /// Sends the end from a blocking thread. False if the reader is gone.
    pub fn end_blocking(self) -> bool {
        self.0.blocking_send(Part::End).is_ok()
    }

    /// Makes reading fail with `error`. For a blocking thread.
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
                None => return Err(Error::other("it did not come whole")),
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
    fn written_bytes_arrive_and_then_the_end() {
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
    fn a_dropped_writer_is_an_error_for_the_reader() {
        let (mut writer, end, mut reader) = pipe();
        writer.write_all(b"part").expect("there is room");
        drop((writer, end));
        assert!(reader.read_to_end(&mut Vec::new()).is_err());
    }

    #[test]
    fn a_dropped_reader_is_an_error_for_the_writer() {
        let (mut writer, _end, reader) = pipe();
        drop(reader);
        assert!(writer.write_all(b"x").is_err());
    }
}
