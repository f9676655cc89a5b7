//! Puts over frames: one key of any length, or many small keys to one node.

use super::core::{Client, blocking};
use super::input_reader::{Input, InputReader};
use crate::checksum::Checksum;
use crate::error::{Error, ErrorKind, Result};
use crate::error_summary::Errors;
use crate::file::AtPosition;
use crate::file::BLOCK;
use crate::hasher::{FileHasher, Hasher};
use crate::key::Key;
use crate::placement::NodeId;
use crate::protocol::{Change, Delivery, HEARTBEAT, Metadata, UploadPart};
use crate::wire::frame::MAX_DATA;
use crate::wire::{Connection, Incoming, LARGE, Put, PutEnd, Request, Response, SMALL, SendError};
use bytes::Bytes;
use std::fs::File;
use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The most puts that are sent before the node answers the first.
const MAX_UNANSWERED: u64 = 256;

/// How long to wait for the reason after a node has broken off.
const REASON_TIMEOUT: Duration = Duration::from_secs(1);

/// What a new key is made with besides its bytes.
#[derive(Debug, Clone, Default)]
pub struct PutOptions {
    pub change: Change,
    pub metadata: Metadata,
    /// The bytes are a part of an upload of the key. Attributes and metadata belong to the upload then.
    pub part: Option<UploadPart>,
}

/// A key that is being sent. All calls block, each step at most for the deadline. If it is dropped before
/// [`end`](Self::end), no key is created.
pub struct Upload {
    client: Client,
    node: NodeId,
    connection: Connection,
}

impl Upload {
    fn send(&mut self, came: Input) -> Result<()> {
        self.check_not_ended()?;
        pass_on(&mut self.connection, came).map_err(|error| reported_error(&mut self.connection, error))
    }

    /// Sends all of `file`; `what` names it in errors. Returns the checksum of the file, which differs from that of the
    /// sent bytes if the file changes meanwhile. Errors: the file becomes shorter.
    pub fn send_whole(&mut self, file: &File, what: &str) -> Result<Checksum> {
        let unreadable = |e: std::io::Error| Error::io(what, &e);
        let (mut sent, mut hasher) = (0, FileHasher::new());
        loop {
            let len = file.metadata().map_err(unreadable)?.len();
            if len == sent {
                return Ok(hasher.finish());
            }
            // If the file has become shorter, reading up to here fails.
            let until = len.min(sent + MAX_DATA as u64).max(sent + 1);
            // Hashed first: then the bytes are in the CPU cache when they are sent.
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

    /// Sends `len` bytes of `file` from `offset`, without copying them into this process.
    pub fn send_file(&mut self, file: &File, offset: u64, len: u64) -> Result<()> {
        let mut sent = 0;
        while sent < len {
            let n = (len - sent).min(MAX_DATA as u64);
            self.check_not_ended()?;
            match self.connection.send_file(file, offset + sent, n as usize, 0) {
                Ok(()) => {}
                Err(SendError::File(e)) => return Err(Error::io(self.connection.subject(), &e)),
                Err(SendError::Other(error)) => return Err(reported_error(&mut self.connection, error)),
            }
            sent += n;
        }
        Ok(())
    }

    /// Sends a keepalive.
    pub fn send_alive(&mut self) -> Result<()> {
        self.send(Input::Pending)
    }

    /// Ends the key. Returns once it is published.
    pub fn end(mut self, end: PutEnd) -> Result<()> {
        let sent = self.connection.put_message(&Request::PutEnd(end)).and_then(|()| self.connection.flush());
        sent.map_err(|error| reported_error(&mut self.connection, error))?;
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

    /// Errors: the node has ended the transfer.
    fn check_not_ended(&mut self) -> Result<()> {
        match self.connection.is_answered() {
            true => {
                let ended = std::io::Error::other("it ended the transfer before it had all");
                let error = self.connection.broken(&ended);
                Err(reported_error(&mut self.connection, error))
            }
            false => Ok(()),
        }
    }
}

/// The error that the node has reported, else `error`.
fn reported_error(connection: &mut Connection, error: Error) -> Error {
    match error.kind() {
        ErrorKind::Deadline => error,
        _ => connection.receive_reason(REASON_TIMEOUT).map_or(error, |said| said.of_peer(connection.subject())),
    }
}

/// Puts of many keys to one node over one connection. The next key is sent without waiting for the answer to the last
/// one. Blocks.
pub struct Puts {
    connection: Connection,
    request: Box<dyn Fn(&Key) -> Request + Send>,
    unanswered: u64,
    answers: PutAnswers,
    counts: PutCounts,
}

/// Counts that other threads can read during the puts.
#[derive(Debug, Clone, Default)]
pub struct PutCounts {
    /// Published keys.
    pub keys: Arc<AtomicU64>,
    /// Sent bytes.
    pub bytes: Arc<AtomicU64>,
}

/// The outcome of many puts.
#[derive(Debug, Default)]
pub struct PutAnswers {
    pub published: u64,
    pub errors: Errors,
}

impl Puts {
    /// Counts the keys and bytes from now on in `counts`.
    pub fn count_in(&mut self, counts: PutCounts) {
        self.counts = counts;
    }

    /// True if the node has refused one.
    pub fn has_failed(&self) -> bool {
        !self.answers.errors.kept().is_empty()
    }

    /// Sends all of `file` as `key`; `what` names it in errors. An inner error comes from reading: this key is not put,
    /// but others can be. After an outer error nothing more can be sent.
    pub fn put(&mut self, key: &Key, file: File, len: u64, what: &str) -> Result<Result<()>> {
        let request = (self.request)(key);
        self.put_as(request, Change::default(), file, len, what)
    }

    /// Like [`put`](Self::put), with another request, and with attributes for the key.
    pub fn put_as(&mut self, request: Request, change: Change, file: File, len: u64, what: &str) -> Result<Result<()>> {
        let unreadable = |e: std::io::Error| Error::io(what, &e);
        if len >= LARGE {
            return self.put_large(&request, change, file, what);
        }
        // Read completely before it is sent, so that the node never waits for the disk. The buffer has one byte more
        // than the file, for the read that finds the end.
        let mut bytes = Vec::with_capacity(len as usize + 1);
        match (&file).take(LARGE).read_to_end(&mut bytes) {
            Err(e) => return Ok(Err(unreadable(e))),
            // It has become longer.
            Ok(n) if n as u64 == LARGE => return self.put_large(&request, change, AtPosition::new(file, 0), what),
            Ok(_) => {}
        }
        self.make_room(MAX_UNANSWERED)?;
        self.connection.put_message(&request)?;
        for part in bytes.chunks(BLOCK) {
            self.connection.put_data(part, 0)?;
        }
        self.counts.bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        self.end(Checksum::of(&bytes), change).map(Ok)
    }

    fn put_large(
        &mut self,
        request: &Request,
        change: Change,
        input: impl Read + Send + 'static,
        what: &str,
    ) -> Result<Result<()>> {
        // An answer that comes before the end of the key then belongs to this key.
        self.make_room(1)?;
        self.connection.put_message(request)?;
        let (connection, counter) = (&mut self.connection, &self.counts.bytes);
        let mut is_refused = false;
        let sent = send_all_of(input, Hasher::new(), what, |came| {
            is_refused = connection.is_answered();
            if is_refused {
                return Err(Error::new(ErrorKind::Cancelled, "it was refused"));
            }
            if let Input::Bytes(bytes) = &came {
                counter.fetch_add(bytes.len() as u64, Ordering::Relaxed);
            }
            pass_on(connection, came)
        });
        match sent {
            Ok(checksum) => self.end(checksum, change).map(Ok),
            Err(_) if is_refused => {
                self.unanswered += 1;
                self.receive()?;
                // The node still waits for the end: send an error instead.
                self.connection.put_error(&Error::new(ErrorKind::Cancelled, "it was refused")).map(Ok)
            }
            Err(error) if self.connection.is_lost() => Err(error),
            Err(error) => {
                self.connection.put_error(&error)?;
                // The answer of the node repeats this error.
                self.connection.receive_next::<Response>().map(|_| Err(error))
            }
        }
    }

    fn end(&mut self, checksum: Checksum, change: Change) -> Result<()> {
        self.unanswered += 1;
        self.connection.put_message(&Request::PutEnd(PutEnd { checksum, change }))
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
            Incoming::Error(error) => self.answers.errors.add(error.of_peer(self.connection.subject())),
            _ => return Err(self.connection.malformed("it did not say whether a key is stored")),
        }
        self.unanswered -= 1;
        Ok(())
    }

    fn published(&mut self) {
        self.answers.published += 1;
        self.counts.keys.fetch_add(1, Ordering::Relaxed);
    }

    /// After the connection has failed: receives the remaining answers, and returns the error that the node reports,
    /// else `error`.
    fn receive_rest(&mut self, error: Error) -> Error {
        let until = Instant::now() + REASON_TIMEOUT;
        while error.kind() != ErrorKind::Deadline {
            match self.connection.receive_last::<Response>(until) {
                Some(Incoming::Message(Response::Stored)) if self.unanswered > 0 => self.published(),
                Some(Incoming::Error(refused)) if self.unanswered > 0 => {
                    self.answers.errors.add(refused.of_peer(self.connection.subject()));
                }
                Some(Incoming::Error(reason)) => return reason.of_peer(self.connection.subject()),
                _ => break,
            }
            self.unanswered -= 1;
        }
        error
    }
}

impl Client {
    /// Puts all of `input`, of any length, as `key` with the attributes `change`; `input_name` names it in errors.
    pub async fn put(
        &self,
        key: &Key,
        input: impl Read + Send + 'static,
        input_name: &str,
        change: Change,
    ) -> Result<Checksum> {
        self.put_with(key, input, input_name, PutOptions { change, ..PutOptions::default() }).await
    }

    /// Like [`put`](Self::put), with these options.
    pub async fn put_with(
        &self,
        key: &Key,
        input: impl Read + Send + 'static,
        input_name: &str,
        options: PutOptions,
    ) -> Result<Checksum> {
        let begun = first_of(input, input_name).await?;
        self.put_begun(key, begun, input_name, options).await
    }

    /// Puts an input of which the [first bytes](first_of) were read.
    pub(super) async fn put_begun(
        &self,
        key: &Key,
        (first, input): (Vec<u8>, impl Read + Send + 'static),
        input_name: &str,
        options: PutOptions,
    ) -> Result<Checksum> {
        let input_name = input_name.to_owned();
        if first.len() <= SMALL {
            return self.put_small_with(key, Bytes::from(first), options).await;
        }
        let send = move |upload: &mut Upload| {
            let mut hasher = Hasher::new();
            hasher.update(&first);
            upload.send(Input::Bytes(&first))?;
            send_all_of(input, hasher, &input_name, |came| upload.send(came))
        };
        self.putting().send_all(key, options, None, send).await
    }

    /// Puts `file` as `key`. `len` is the length of a regular file; `name` names it in errors.
    pub async fn put_file(&self, key: &Key, file: File, len: u64, name: &str) -> Result<Checksum> {
        if len < LARGE {
            return self.put(key, file, name, Change::default()).await;
        }
        match self.put_local(key, &file, len).await? {
            Some(made) => Ok(made),
            None => self.send_changing(key, file, name).await,
        }
    }

    /// Sends a file that may change meanwhile.
    async fn send_changing(&self, key: &Key, file: File, name: &str) -> Result<Checksum> {
        let again = file.try_clone().map_err(|e| Error::io(name, &e))?;
        match self.send_file(key, None, file, name).await {
            // The file has changed between hashing and sending. Now each byte is read only once, for both.
            Err(error) if error.kind() == ErrorKind::BadRequest => {
                self.put(key, AtPosition::new(again, 0), name, Change::default()).await
            }
            sent => sent,
        }
    }

    /// Sends a file as `key`; `name` names it in errors. With a `delivery`, the node accepts it only while the job
    /// runs. Errors: bad request, if the file changes meanwhile.
    pub async fn send_file(&self, key: &Key, delivery: Option<&Delivery>, file: File, name: &str) -> Result<Checksum> {
        let name = name.to_owned();
        let send = move |upload: &mut Upload| upload.send_whole(&file, &name);
        self.putting().send_all(key, PutOptions::default(), delivery, send).await
    }

    async fn send_all(
        &self,
        key: &Key,
        options: PutOptions,
        delivery: Option<&Delivery>,
        send: impl FnOnce(&mut Upload) -> Result<Checksum> + Send + 'static,
    ) -> Result<Checksum> {
        let (change, is_part) = (options.change, options.part.is_some());
        let mut upload = self.begin_upload(key, options, delivery).await?;
        let sent = blocking(move || {
            let checksum = send(&mut upload)?;
            let asked = Instant::now();
            Ok((checksum, asked, upload.end(PutEnd { checksum, change })))
        });
        let node = self.cluster().node_of(key);
        let (checksum, asked, ended) = self.noting(node, sent.await)?;
        let ended = self.noting(node, ended).map(|()| checksum);
        if is_part {
            // It can be put again.
            return ended;
        }
        self.put_outcome(key, change, asked, ended, async { Ok(checksum) }).await
    }

    /// Begins the put of a key, whose bytes are sent later. `delivery`: the task whose output it is.
    pub async fn upload(&self, key: &Key, delivery: Option<&Delivery>) -> Result<Upload> {
        self.begin_upload(key, PutOptions::default(), delivery).await
    }

    async fn begin_upload(&self, key: &Key, options: PutOptions, delivery: Option<&Delivery>) -> Result<Upload> {
        let node = self.cluster().node_of(key);
        let (delivery, PutOptions { metadata, part, .. }) = (delivery.cloned(), options);
        let request = Request::Put(Put { key: key.clone(), number: self.put_number(), delivery, metadata, part });
        let connection = self.start_data_request(node, &request).await?;
        Ok(Upload { client: self.clone(), node, connection })
    }

    /// The number of the put that this client was made for.
    pub(super) fn put_number(&self) -> Option<u64> {
        self.put.map(|put| put.number)
    }

    /// Sends a file to the node of a key with `request`, which has the key, and attributes for it.
    pub async fn send_as(&self, request: Request, change: Change, file: File, what: &str) -> Result<()> {
        let key = request.key().ok_or_else(|| Error::new(ErrorKind::BadRequest, "a request without a key"))?;
        let node = self.cluster().node_of(key);
        let connection = self.start_data_request(node, &request).await?;
        let (mut upload, what) = (Upload { client: self.clone(), node, connection }, what.to_owned());
        let sent = blocking(move || {
            let checksum = upload.send_whole(&file, &what)?;
            upload.end(PutEnd { checksum, change })
        });
        self.noting(node, sent.await)
    }

    /// Runs `produce`, which puts many keys to `node`, on a blocking thread. With a `delivery`, the node accepts the
    /// keys only while the job runs. Returns the result of `produce`, and the answers of the node.
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
        let request = move |key: &Key| {
            let (key, delivery) = (key.clone(), delivery.clone());
            Request::Put(Put { key, number: None, delivery, metadata: Metadata::default(), part: None })
        };
        let (produced, answers) = blocking(move || {
            let answers = PutAnswers::default();
            let request = Box::new(request);
            let mut puts = Puts { connection, request, unanswered: 0, answers, counts: PutCounts::default() };
            let produced = produce(&mut puts).and_then(|produced| puts.make_room(1).map(|()| produced));
            let produced = produced.map_err(|error| puts.receive_rest(error));
            if produced.is_ok() {
                client.keep(node, puts.connection);
            }
            (produced, puts.answers)
        })
        .await;
        (self.noting(node, produced), answers)
    }
}

/// The first bytes of `input`, all of it if these are at most [`SMALL`], and the rest.
pub(super) async fn first_of<R: Read + Send + 'static>(mut input: R, input_name: &str) -> Result<(Vec<u8>, R)> {
    let read = blocking(move || {
        let mut first = Vec::new();
        (&mut input).take(SMALL as u64 + 1).read_to_end(&mut first).map(|_| (first, input))
    });
    read.await.map_err(|e| Error::io(input_name, &e))
}

/// Passes all of `input` to `send`. Adds it to `hasher`, and returns the checksum. Errors: those of `send`, and those
/// of reading.
fn send_all_of(
    input: impl Read + Send + 'static,
    mut hasher: Hasher,
    what: &str,
    mut send: impl FnMut(Input) -> Result<()>,
) -> Result<Checksum> {
    let unreadable = |e: std::io::Error| Error::io(what, &e);
    let input_reader = InputReader::start(input).map_err(unreadable)?;
    loop {
        let is_end = input_reader.next(HEARTBEAT, |came| {
            if let Input::Bytes(bytes) = &came {
                hasher.update(bytes);
            }
            let is_end = matches!(came, Input::End);
            send(came).map(|()| is_end)
        });
        if is_end.map_err(unreadable)?? {
            return Ok(hasher.finish());
        }
    }
}

/// Sends the bytes, or a keepalive if none have come.
fn pass_on(connection: &mut Connection, came: Input) -> Result<()> {
    match came {
        Input::Bytes(bytes) => bytes.chunks(MAX_DATA).try_for_each(|part| connection.put_data(part, 0)),
        Input::Pending => connection.send_alive(),
        Input::End => Ok(()),
    }
}
