//! A key's bytes over a stream, from a sender that may still be told how many there are and what the key is to be.
//!
//! The format is pieces: the length, 8 bytes little-endian, and so many bytes. A length of 0 is a sign of life. A length of
//! all ones ends them; behind it are the length of an [`Ending`], 8 bytes little-endian, and the ending, JSON. The receiver
//! answers with JSON: `null` once the key is published, else the error, which it may also say before the end. While it publishes,
//! it sends spaces as signs of life.

use crate::checksum::{Checksum, FileHasher};
use crate::error::{Error, ErrorKind, Result};
use crate::protocol::{Change, HEARTBEAT};
use crate::stream::{Pipe, Stream};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

/// Instead of a piece's length: there are no more.
const END: u64 = u64::MAX;

/// Bytes of a file that are hashed and then sent, and that are received and then hashed: as many as a pipe takes. With fewer,
/// sender and receiver mostly wake each other, and with more, they wait for each other.
const AT_ONCE: u64 = 1024 * 1024;

/// The longest ending and the longest answer, in bytes.
const LONGEST: u64 = 64 * 1024;

/// Bytes that are thrown away after an early answer until the sender has seen it, and how long it may take.
const DRAINED: (u64, Duration) = (256 << 20, Duration::from_secs(30));

/// How long a receiver that broke off may take to say why.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// What a sender says once it has sent all bytes.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Ending {
    /// Of the bytes as they are to be stored.
    pub checksum: Checksum,
    /// What the key is born with.
    #[serde(default)]
    pub change: Change,
}

/// The sending end. Everything blocks, each step for the deadline at most. Dropped before its end, it leaves nothing.
pub struct Upload(Stream);

impl Upload {
    pub fn new(stream: Stream) -> Self {
        Self(stream)
    }

    pub fn send(&mut self, bytes: &[u8]) -> Result<()> {
        let sent = self.begin(bytes.len() as u64).and_then(|()| self.0.send(bytes));
        sent.map_err(|error| self.said_instead(error))
    }

    /// All of `file`; `what` names it in errors. Returns its checksum, which is not that of the bytes sent if somebody changes them
    /// meanwhile. Blocks. Errors: the file becomes shorter.
    pub fn send_whole(&mut self, file: &File, what: &str) -> Result<Checksum> {
        let unreadable = |e: std::io::Error| Error::io(what, &e);
        let (mut sent, mut hasher) = (0, FileHasher::new());
        loop {
            let len = file.metadata().map_err(unreadable)?.len();
            if len == sent {
                return Ok(hasher.finish());
            }
            // One that has become shorter cannot be read so far.
            let until = len.min(sent + AT_ONCE).max(sent + 1);
            // First, so that they are sent from the processor's cache, out of which the receiver then copies them.
            let hashed = hasher.read_to(file, until).map_err(unreadable);
            if let Err(error) = hashed.and_then(|()| self.send_file(file, sent, until - sent)) {
                return Err(match file.metadata() {
                    Ok(now) if now.len() < until => {
                        Error::new(ErrorKind::Io, format!("{what}: it became shorter while it was read"))
                    }
                    _ => error,
                });
            }
            sent = until;
        }
    }

    /// `len` bytes of `file` from `offset`, which never come into this process.
    pub fn send_file(&mut self, file: &File, offset: u64, len: u64) -> Result<()> {
        let sent = self.begin(len).and_then(|()| self.0.send_file(file, offset, len));
        sent.map_err(|error| self.said_instead(error))
    }

    /// Says that more is to come.
    pub fn beat(&mut self) -> Result<()> {
        let sent = self.look().and_then(|()| self.0.send(&0u64.to_le_bytes()));
        sent.map_err(|error| self.said_instead(error))
    }

    /// Ends the key, and returns once it is published.
    pub fn end(mut self, ending: &Ending) -> Result<()> {
        let json = serde_json::to_vec(ending).expect("an ending is plain JSON");
        let ended = [&END.to_le_bytes()[..], &(json.len() as u64).to_le_bytes(), &json].concat();
        self.0.send(&ended).map_err(|error| self.said_instead(error))?;
        self.answer(None)
    }

    fn begin(&mut self, len: u64) -> Result<()> {
        self.look()?;
        self.0.send_more(&len.to_le_bytes())
    }

    /// Errors: the receiver wants no more.
    fn look(&self) -> Result<()> {
        match self.0.is_answered() {
            true => Err(self.0.broken(&std::io::Error::other("it ended the transfer before it had all"))),
            false => Ok(()),
        }
    }

    /// Why the receiver broke off, if it has said so.
    fn said_instead(&mut self, error: Error) -> Error {
        if error.kind() == ErrorKind::Deadline {
            return error;
        }
        match self.answer(Some(LAST_WORDS)) {
            Err(said) if !matches!(said.kind(), ErrorKind::Unreachable | ErrorKind::Deadline) => said,
            _ => error,
        }
    }

    /// What the receiver answers, which may take the stream's own time or `limit` to begin.
    fn answer(&mut self, limit: Option<Duration>) -> Result<()> {
        let answer = self.0.rest(LONGEST, limit)?;
        if answer.trim_ascii().is_empty() {
            return Err(self.0.broken(&std::io::ErrorKind::UnexpectedEof.into()));
        }
        let said: Option<Error> = serde_json::from_slice(&answer)
            .map_err(|_| self.0.broken(&std::io::Error::other("it did not say whether the key is stored")))?;
        said.map_or(Ok(()), |error| Err(error.by(self.0.who())))
    }
}

/// The receiving end.
pub struct Arrival {
    stream: Stream,
    pipe: Pipe,
}

impl Arrival {
    pub fn new(stream: Stream, pipe: Pipe) -> Self {
        Self { stream, pipe }
    }

    /// Appends all bytes to `file`; `progress` is told the length so far. `what` names the key in errors. Blocks.
    pub fn receive(&mut self, file: &File, what: &str, progress: &mut dyn FnMut(u64) -> Result<()>) -> Result<Ending> {
        let mut received = 0;
        loop {
            match self.number()? {
                END => break,
                0 => {}
                mut left => {
                    while left > 0 {
                        // File systems keep whole, aligned pieces together.
                        let most = left.min(AT_ONCE - received % AT_ONCE);
                        let n = self.stream.receive_into(file, most, &self.pipe, what)?;
                        (left, received) = (left - n, received + n);
                        progress(received)?;
                    }
                }
            }
        }
        let len = self.number()?;
        if len > LONGEST {
            return Err(malformed(what));
        }
        let mut json = vec![0; len as usize];
        self.stream.receive_exact(&mut json)?;
        serde_json::from_slice(&json).map_err(|_| malformed(what))
    }

    /// Does `publish`, with signs of life for the sender as long as it takes: it may write much to a slow disk.
    pub fn publish(&self, publish: impl FnOnce() -> Result<()>) -> Result<()> {
        let mut beats = self.stream.clone_to_send()?;
        let (done, is_done) = mpsc::channel::<()>();
        std::thread::scope(|scope| {
            let beat = move || {
                while is_done.recv_timeout(HEARTBEAT) == Err(RecvTimeoutError::Timeout) && beats.send(b" ").is_ok() {}
            };
            // Without a thread there are no signs of life.
            let _ = std::thread::Builder::new().spawn_scoped(scope, beat);
            let published = publish();
            drop(done);
            published
        })
    }

    /// Tells the sender how it went.
    pub fn answer(mut self, result: &Result<()>) -> Result<()> {
        let said = result.as_ref().err();
        self.stream.send(&serde_json::to_vec(&said).expect("an error is plain JSON"))?;
        match said {
            // The sender may not have looked yet, and would not hear of it from a connection with unread bytes.
            Some(_) => self.stream.drain(DRAINED.0, DRAINED.1),
            None => Ok(()),
        }
    }

    fn number(&mut self) -> Result<u64> {
        let mut number = [0; 8];
        self.stream.receive_exact(&mut number)?;
        Ok(u64::from_le_bytes(number))
    }
}

fn malformed(what: &str) -> Error {
    Error::new(ErrorKind::BadRequest, format!("{what}: malformed body: the end is no checksum"))
}
