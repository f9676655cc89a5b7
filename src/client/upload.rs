//! Keys on their way to their nodes: one of any length, or many small ones.

use super::core::{Client, blocking};
use super::reading::{Came, Reading};
use crate::checksum::Checksum;
use crate::error::{Error, ErrorKind, Result};
use crate::file::AtPosition;
use crate::file::BLOCK;
use crate::hasher::{FileHasher, Hasher};
use crate::key::Key;
use crate::placement::NodeId;
use crate::protocol::{Change, Delivery, HEARTBEAT};
use crate::wire::frame::MAX_DATA;
use crate::wire::{Connection, Incoming, LARGE, PutEnd, Request, Response, SMALL, SendError};
use bytes::Bytes;
use std::fs::File;
use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

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
    fn send(&mut self, came: Came) -> Result<()> {
        self.look()?;
        pass_on(&mut self.connection, came).map_err(|error| said_instead(&mut self.connection, error))
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
            self.look()?;
            match self.connection.send_file(file, offset + sent, n as usize, 0) {
                Ok(()) => {}
                Err(SendError::File(e)) => return Err(Error::io(self.connection.who(), &e)),
                Err(SendError::Other(error)) => return Err(said_instead(&mut self.connection, error)),
            }
            sent += n;
        }
        Ok(())
    }

    /// Says that more is to come.
    pub fn send_alive(&mut self) -> Result<()> {
        self.send(Came::Nothing)
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
    fn look(&mut self) -> Result<()> {
        match self.connection.is_answered() {
            true => {
                let ended = std::io::Error::other("it ended the transfer before it had all");
                let error = self.connection.broken(&ended);
                Err(said_instead(&mut self.connection, error))
            }
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
    answers: PutAnswers,
    counts: PutCounts,
}

/// Counts that others look at while keys are put.
#[derive(Debug, Clone, Default)]
pub struct PutCounts {
    /// Keys that are published.
    pub keys: Arc<AtomicU64>,
    /// Bytes that are sent.
    pub bytes: Arc<AtomicU64>,
}

/// What became of many puts: how many were published, and what was not.
#[derive(Debug, Default)]
pub struct PutAnswers {
    pub published: u64,
    pub failed: u64,
    /// The first failures; `failed` counts all.
    pub errors: Vec<Error>,
}

impl PutAnswers {
    /// Failures told in full.
    const ERRORS: usize = 20;

    fn refuse(&mut self, error: Error) {
        self.failed += 1;
        if self.errors.len() < Self::ERRORS {
            self.errors.push(error);
        }
    }
}

impl Puts {
    /// Counts in `counts` what is sent from now on.
    pub fn count_in(&mut self, counts: PutCounts) {
        self.counts = counts;
    }

    /// Sends all of `file` as `key`; `what` names it in errors. The inner error is one of reading: the key is not put, and others can be.
    /// After the outer one nothing more can be sent.
    pub fn put(&mut self, key: &Key, file: File, len: u64, what: &str) -> Result<Result<()>> {
        let unreadable = |e: std::io::Error| Error::io(what, &e);
        if len >= LARGE {
            return self.put_large(key, file, what);
        }
        // All of it before any is sent, so that the node waits for nothing. One byte more than expected: that finds the end.
        let mut bytes = Vec::with_capacity(len as usize + 1);
        match (&file).take(LARGE).read_to_end(&mut bytes) {
            Err(e) => return Ok(Err(unreadable(e))),
            // It has become longer.
            Ok(n) if n as u64 == LARGE => return self.put_large(key, AtPosition::new(file, 0), what),
            Ok(_) => {}
        }
        self.make_room(UNANSWERED)?;
        self.connection.put_message(&(self.request)(key))?;
        for part in bytes.chunks(BLOCK) {
            self.connection.put_data(part, 0)?;
        }
        self.counts.bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        self.end(Checksum::of(&bytes)).map(Ok)
    }

    fn put_large(&mut self, key: &Key, input: impl Read + Send + 'static, what: &str) -> Result<Result<()>> {
        // Then an answer that comes before the end is to this key.
        self.make_room(1)?;
        self.connection.put_message(&(self.request)(key))?;
        let (connection, counter) = (&mut self.connection, &self.counts.bytes);
        let mut is_refused = false;
        let sent = send_all_of(input, Hasher::new(), what, |came| {
            is_refused = connection.is_answered();
            if is_refused {
                return Err(Error::new(ErrorKind::Cancelled, "it was refused"));
            }
            if let Came::Bytes(bytes) = &came {
                counter.fetch_add(bytes.len() as u64, Ordering::Relaxed);
            }
            pass_on(connection, came)
        });
        match sent {
            Ok(checksum) => self.end(checksum).map(Ok),
            Err(_) if is_refused => {
                self.unanswered += 1;
                self.receive()?;
                // In place of the end, which the node still waits for.
                self.connection.put_error(&Error::new(ErrorKind::Cancelled, "it was refused")).map(Ok)
            }
            Err(error) if self.connection.is_lost() => Err(error),
            Err(error) => {
                self.connection.put_error(&error)?;
                // The node's answer says nothing new.
                self.connection.receive_next::<Response>().map(|_| Err(error))
            }
        }
    }

    fn end(&mut self, checksum: Checksum) -> Result<()> {
        self.unanswered += 1;
        self.connection.put_message(&Request::PutEnd(PutEnd { checksum, change: Change::default() }))
    }

    /// Waits until fewer than `most` are unanswered.
    fn make_room(&mut self, most: u64) -> Result<()> {
        while self.unanswered >= most || self.unanswered > 0 && self.connection.has_unparsed() {
            self.receive()?;
        }
        Ok(())
    }

    fn receive(&mut self) -> Result<()> {
        match self.connection.receive_next()? {
            Incoming::Message(Response::Stored) => self.published(),
            Incoming::Error(error) => self.answers.refuse(error.of_peer(self.connection.who())),
            _ => return Err(self.connection.malformed("it did not say whether a key is stored")),
        }
        self.unanswered -= 1;
        Ok(())
    }

    fn published(&mut self) {
        self.answers.published += 1;
        self.counts.keys.fetch_add(1, Ordering::Relaxed);
    }

    /// What the node still says after the connection has failed: its answers, and then perhaps why.
    fn last_words(&mut self, error: Error) -> Error {
        let until = Instant::now() + LAST_WORDS;
        while error.kind() != ErrorKind::Deadline {
            match self.connection.receive_last::<Response>(until) {
                Some(Incoming::Message(Response::Stored)) if self.unanswered > 0 => self.published(),
                Some(Incoming::Error(refused)) if self.unanswered > 0 => {
                    self.answers.refuse(refused.of_peer(self.connection.who()));
                }
                Some(Incoming::Error(reason)) => return reason.of_peer(self.connection.who()),
                _ => break,
            }
            self.unanswered -= 1;
        }
        error
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
        let (first, input, input_name) = read.await?;
        if first.len() <= SMALL {
            return self.put_small(key, Bytes::from(first), change).await;
        }
        let send = move |upload: &mut Upload| {
            let mut hasher = Hasher::new();
            hasher.update(&first);
            upload.send(Came::Bytes(&first))?;
            send_all_of(input, hasher, &input_name, |came| upload.send(came))
        };
        self.putting().send_all((key, None), change, send).await
    }

    /// Writes `file`, of `len` bytes if it is a regular one, as `key`; `name` names it in errors.
    pub async fn put_file(&self, key: &Key, file: File, len: u64, name: &str) -> Result<Checksum> {
        if len < LARGE {
            return self.put(key, file, name, Change::default()).await;
        }
        match self.put_here(key, &file, len).await? {
            Some(made) => Ok(made),
            None => self.send_changing(key, file, name).await,
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
        let connection = self.ask_to_send(node, &request).await?;
        Ok(Upload { client: self.clone(), node, connection })
    }

    fn put_request(&self, key: &Key, delivery: Option<&Delivery>) -> Request {
        Request::Put { key: key.clone(), put: self.put.map(|put| put.number), delivery: delivery.cloned() }
    }

    /// Has `produce` put many keys of `node` on a blocking thread; outputs of a task are taken only while its job goes on. Returns what
    /// `produce` did, and the node's answers.
    pub async fn put_many<T: Send + 'static>(
        &self,
        node: NodeId,
        delivery: Option<&Delivery>,
        produce: impl FnOnce(&mut Puts) -> Result<T> + Send + 'static,
    ) -> (Result<T>, PutAnswers) {
        let connection = match self.connection(node).await {
            Ok(connection) => connection,
            Err(error) => return (Err(error), PutAnswers::default()),
        };
        let (client, delivery) = (self.clone(), delivery.cloned());
        let request = move |key: &Key| Request::Put { key: key.clone(), put: None, delivery: delivery.clone() };
        let (produced, answers) = blocking(move || {
            let answers = PutAnswers::default();
            let request = Box::new(request);
            let mut puts = Puts { connection, request, unanswered: 0, answers, counts: PutCounts::default() };
            let produced = produce(&mut puts).and_then(|produced| puts.make_room(1).map(|()| produced));
            let produced = produced.map_err(|error| puts.last_words(error));
            if produced.is_ok() {
                client.keep(node, puts.connection);
            }
            (produced, puts.answers)
        })
        .await;
        (self.noting(node, produced), answers)
    }
}

/// Sends all of `input`, as `send` does with what comes of it, and goes on with `hasher`. Errors: those of `send`, and of reading.
fn send_all_of(
    input: impl Read + Send + 'static,
    mut hasher: Hasher,
    what: &str,
    mut send: impl FnMut(Came) -> Result<()>,
) -> Result<Checksum> {
    let unreadable = |e: std::io::Error| Error::io(what, &e);
    let reading = Reading::start(input).map_err(unreadable)?;
    loop {
        let is_end = reading.next(HEARTBEAT, |came| {
            if let Came::Bytes(bytes) = &came {
                hasher.update(bytes);
            }
            let is_end = matches!(came, Came::End);
            send(came).map(|()| is_end)
        });
        if is_end.map_err(unreadable)?? {
            return Ok(hasher.finish());
        }
    }
}

/// Sends what has come, or that more is to come.
fn pass_on(connection: &mut Connection, came: Came) -> Result<()> {
    match came {
        Came::Bytes(bytes) => bytes.chunks(MAX_DATA).try_for_each(|part| connection.put_data(part, 0)),
        Came::Nothing => connection.send_alive(),
        Came::End => Ok(()),
    }
}
