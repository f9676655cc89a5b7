//! Keys on their way to their nodes: one of any length, or many small ones.

use super::core::{Client, blocking};
use crate::aligned::Block;
use crate::checksum::Checksum;
use crate::error::{Error, ErrorKind, Result};
use crate::file::AtPosition;
use crate::file::BLOCK;
use crate::hasher::{FileHasher, Hasher};
use crate::key::Key;
use crate::placement::NodeId;
use crate::protocol::{Change, Delivery, PackAnswer};
use crate::wire::frame::MAX_DATA;
use crate::wire::{Connection, Incoming, LARGE, PutEnd, Request, Response};
use bytes::Bytes;
use std::fs::File;
use std::io::Read;
use std::time::{Duration, Instant};

/// The longest key that is put in one HTTP request, in bytes.
const SMALL: usize = 64 * 1024;

/// Puts that a node has not answered yet, before the next is sent to it.
const UNANSWERED: u64 = 256;

/// How long a node that broke off may take to say why.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// A key that is being sent. Everything blocks, each step for the deadline at most. Dropped before its end, it leaves nothing.
pub struct Upload {
    client: Client,
    node: NodeId,
    connection: Connection,
}

impl Upload {
    pub fn send(&mut self, bytes: &[u8]) -> Result<()> {
        for part in bytes.chunks(MAX_DATA) {
            let sent = self.look().and_then(|()| self.connection.put_data(part, 0));
            sent.map_err(|error| said_instead(&mut self.connection, error))?;
        }
        Ok(())
    }

    /// All of `file`; `what` names it in errors. Returns its checksum, which is not that of the bytes sent if somebody changes them
    /// meanwhile. Errors: the file becomes shorter.
    pub fn send_whole(&mut self, file: &File, what: &str) -> Result<Checksum> {
        let unreadable = |e: std::io::Error| Error::io(what, &e);
        let (mut sent, mut hasher) = (0, FileHasher::new());
        loop {
            let len = file.metadata().map_err(unreadable)?.len();
            if len == sent {
                return Ok(hasher.finish());
            }
            // One that has become shorter cannot be read so far.
            let until = len.min(sent + MAX_DATA as u64).max(sent + 1);
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
        let mut sent = 0;
        while sent < len {
            let n = (len - sent).min(MAX_DATA as u64);
            let done = self.look().and_then(|()| self.connection.send_file(file, offset + sent, n as usize, 0));
            done.map_err(|error| said_instead(&mut self.connection, error))?;
            sent += n;
        }
        Ok(())
    }

    /// Says that more is to come.
    pub fn send_alive(&mut self) -> Result<()> {
        let sent = self.look().and_then(|()| self.connection.send_alive());
        sent.map_err(|error| said_instead(&mut self.connection, error))
    }

    /// Ends the key, and returns once it is published.
    pub fn end(mut self, end: PutEnd) -> Result<()> {
        let sent = self.connection.put_message(&Request::PutEnd(end)).and_then(|()| self.connection.flush());
        sent.map_err(|error| said_instead(&mut self.connection, error))?;
        let name = self.client.cluster().name(self.node);
        match self.connection.receive_next()? {
            Incoming::Message(Response::Stored) => {
                self.client.keep(self.node, self.connection);
                Ok(())
            }
            Incoming::Error(error) => {
                let error = error.of_peer(name);
                self.client.keep(self.node, self.connection);
                Err(error)
            }
            _ => Err(self.connection.malformed("it did not say whether the key is stored")),
        }
    }

    /// Errors: the receiver wants no more.
    fn look(&self) -> Result<()> {
        match self.connection.is_answered() {
            true => Err(self.connection.broken(&std::io::Error::other("it ended the transfer before it had all"))),
            false => Ok(()),
        }
    }
}

/// Why the node broke off, if it has said so.
fn said_instead(connection: &mut Connection, error: Error) -> Error {
    match error.kind() {
        ErrorKind::Deadline => error,
        _ => connection.last_words(LAST_WORDS).map_or(error, |said| said.of_peer(connection.who())),
    }
}

/// Many keys for one node over one connection; the node answers each, and does not hold up the next. Blocks.
pub struct Puts {
    connection: Connection,
    request: Box<dyn Fn(&Key) -> Request + Send>,
    unanswered: u64,
    answer: PackAnswer,
}

impl Puts {
    /// Sends all of `input` as `key`. `hint` is how many bytes to expect; `what` names it in errors. The inner error is one of reading:
    /// the key is not put, and others can be. After the outer one nothing more can be sent.
    pub fn put(&mut self, key: &Key, input: &mut impl Read, hint: u64, what: &str) -> Result<Result<()>> {
        // One byte more than expected, so that the read after the last one finds the end.
        let block = usize::try_from(hint).unwrap_or(BLOCK).saturating_add(1).clamp(4096, BLOCK);
        let (mut block, mut hasher, mut has_begun) = (Block::new(block), Hasher::new(), false);
        loop {
            match read_some(input, &mut block) {
                Ok(0) if has_begun => break,
                Ok(n) => {
                    if !std::mem::replace(&mut has_begun, true) {
                        self.make_room(if hint < LARGE { UNANSWERED } else { 1 })?;
                        self.connection.put_message(&(self.request)(key))?;
                    } else if self.unanswered == 0 && self.connection.is_answered() {
                        return self.break_off().map(Ok);
                    }
                    hasher.update(&block[..n]);
                    if n > 0 {
                        self.connection.put_data(&block[..n], 0)?;
                    } else {
                        break;
                    }
                }
                Err(e) => {
                    let error = Error::io(what, &e);
                    if has_begun {
                        self.receive_all()?;
                        // In place of the end; the node's answer to it says nothing new.
                        self.connection.put_error(&error)?;
                        self.connection.receive_next::<Response>()?;
                    }
                    return Ok(Err(error));
                }
            }
        }
        let end = PutEnd { checksum: hasher.finish(), change: Change::default() };
        self.connection.put_message(&Request::PutEnd(end))?;
        self.unanswered += 1;
        Ok(Ok(()))
    }

    /// Waits until fewer than `most` are unanswered.
    fn make_room(&mut self, most: u64) -> Result<()> {
        while self.unanswered >= most || self.unanswered > 0 && self.connection.has_unparsed() {
            self.receive()?;
        }
        Ok(())
    }

    /// Ends a large key that the node has refused before it had all.
    fn break_off(&mut self) -> Result<()> {
        self.unanswered += 1;
        self.receive()?;
        self.connection.put_error(&Error::new(ErrorKind::Cancelled, "it was refused"))
    }

    fn receive_all(&mut self) -> Result<()> {
        while self.unanswered > 0 {
            self.receive()?;
        }
        Ok(())
    }

    fn receive(&mut self) -> Result<()> {
        match self.connection.receive_next()? {
            Incoming::Message(Response::Stored) => self.answer.published += 1,
            Incoming::Error(error) => self.answer.refuse(error.of_peer(self.connection.who())),
            _ => return Err(self.connection.malformed("it did not say whether a key is stored")),
        }
        self.unanswered -= 1;
        Ok(())
    }
}

impl Client {
    /// Writes all of `input`, however long, as `key`, which is born with `change`; `input_name` names it in errors.
    pub async fn put(
        &self,
        key: &Key,
        mut input: impl Read + Send + 'static,
        input_name: &str,
        change: Change,
    ) -> Result<Checksum> {
        let input_name = input_name.to_owned();
        let read = blocking(move || {
            let mut first = Vec::new();
            let read = (&mut input).take(SMALL as u64 + 1).read_to_end(&mut first);
            read.map_err(|e| Error::io(&input_name, &e)).map(|_| (first, input, input_name))
        });
        let (first, mut input, input_name) = read.await?;
        if first.len() <= SMALL {
            return self.put_small(key, Bytes::from(first), change).await;
        }
        let send = move |upload: &mut Upload| {
            let mut hasher = Hasher::new();
            hasher.update(&first);
            upload.send(&first)?;
            send_read(upload, hasher, &mut input, &input_name)
        };
        self.putting().send_all((key, None), change, send).await
    }

    /// Writes `file`, of `len` bytes if it is a regular one, as `key`; `name` names it in errors.
    pub async fn put_file(&self, key: &Key, file: File, len: u64, name: &str) -> Result<Checksum> {
        match len < LARGE {
            true => self.put(key, file, name, Change::default()).await,
            false => self.send_changing(key, file, name).await,
        }
    }

    /// Sends a file that others may change meanwhile.
    async fn send_changing(&self, key: &Key, file: File, name: &str) -> Result<Checksum> {
        let again = file.try_clone().map_err(|e| Error::io(name, &e))?;
        match self.send_file(key, None, file, name).await {
            // Other bytes have come than were hashed. What is read once only is sent as it was hashed.
            Err(error) if error.kind() == ErrorKind::BadRequest => {
                self.put(key, AtPosition::new(again, 0), name, Change::default()).await
            }
            sent => sent,
        }
    }

    /// Sends a file as `key`; `name` names it in errors. As an output of a job, it is taken only while that goes on. Errors: bad request,
    /// if somebody changes the file meanwhile.
    pub async fn send_file(&self, key: &Key, delivery: Option<&Delivery>, file: File, name: &str) -> Result<Checksum> {
        let name = name.to_owned();
        let send = move |upload: &mut Upload| upload.send_whole(&file, &name);
        self.putting().send_all((key, delivery), Change::default(), send).await
    }

    async fn send_all(
        &self,
        (key, delivery): (&Key, Option<&Delivery>),
        change: Change,
        send: impl FnOnce(&mut Upload) -> Result<Checksum> + Send + 'static,
    ) -> Result<Checksum> {
        let mut upload = self.upload(key, delivery).await?;
        let sent = blocking(move || {
            let checksum = send(&mut upload)?;
            let asked = Instant::now();
            Ok((checksum, asked, upload.end(PutEnd { checksum, change })))
        });
        let node = self.cluster().node_of(key);
        let (checksum, asked, ended) = self.noting(node, sent.await)?;
        let ended = self.noting(node, ended).map(|()| checksum);
        self.settled(key, change, asked, ended, async { Ok(checksum) }).await
    }

    /// Begins a key whose bytes are still to come, as an output of a task or of none.
    pub async fn upload(&self, key: &Key, delivery: Option<&Delivery>) -> Result<Upload> {
        let node = self.cluster().node_of(key);
        let request = self.put_request(key, delivery);
        let connection = self.ask(node, &request, self.cluster().name(node).to_string()).await?;
        Ok(Upload { client: self.clone(), node, connection })
    }

    fn put_request(&self, key: &Key, delivery: Option<&Delivery>) -> Request {
        Request::Put { key: key.clone(), put: self.put.map(|put| put.number), delivery: delivery.cloned() }
    }

    /// Has `produce` put many keys of `node` on a blocking thread; outputs of a task are taken only while its job goes on. Returns what
    /// `produce` did, and the node's answers together.
    pub async fn put_many<T: Send + 'static>(
        &self,
        node: NodeId,
        delivery: Option<&Delivery>,
        produce: impl FnOnce(&mut Puts) -> Result<T> + Send + 'static,
    ) -> Result<(T, PackAnswer)> {
        let connection = self.connection(node).await?;
        let (client, delivery) = (self.clone(), delivery.cloned());
        let request = move |key: &Key| Request::Put { key: key.clone(), put: None, delivery: delivery.clone() };
        let put = blocking(move || {
            let mut puts =
                Puts { connection, request: Box::new(request), unanswered: 0, answer: PackAnswer::default() };
            let produced = produce(&mut puts).and_then(|produced| puts.receive_all().map(|()| produced));
            let produced = produced.map_err(|error| said_instead(&mut puts.connection, error))?;
            client.keep(node, puts.connection);
            Ok((produced, puts.answer))
        });
        self.noting(node, put.await)
    }
}

fn send_read(upload: &mut Upload, mut hasher: Hasher, input: &mut impl Read, input_name: &str) -> Result<Checksum> {
    let mut block = Block::new(BLOCK);
    loop {
        match read_some(input, &mut block).map_err(|e| Error::io(input_name, &e))? {
            0 => return Ok(hasher.finish()),
            n => {
                hasher.update(&block[..n]);
                upload.send(&block[..n])?;
            }
        }
    }
}

fn read_some(input: &mut impl Read, block: &mut [u8]) -> std::io::Result<usize> {
    loop {
        match input.read(block) {
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            read => return read,
        }
    }
}
