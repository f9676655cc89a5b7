//! Keys over the wire: get, put, delete, packs of many, and `eval`.

use super::jobs::EventStream;
use super::{Client, blocking};
use crate::aligned::Block;
use crate::body::{self, Activity, ChunkReader, Hangup, Side};
use crate::checksum::{BLOCK, Checksum, Hasher};
use crate::error::{Error, ErrorKind, Result};
use crate::frame::{BEAT, CommandEnd, Frame, FrameReader, FrameWriter};
use crate::key::{Key, Prefix};
use crate::placement::NodeId;
use crate::protocol::{self, CHECKSUM_HEADER, Change, Delivery, Event, Handover, PackAnswer, escape};
use crate::upload::{Ending, Upload};
use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::{Method, Response};
use std::fs::File;
use std::io::{Read, Write};
use std::str::FromStr;

/// A key under way in a pack.
pub enum PackItem {
    /// A key begins; pieces follow, then `Whole` or `Failed`.
    Begin(Key),
    Piece(Bytes),
    /// The key's bytes have come and match their checksum.
    Whole(Checksum),
    /// The key did not come, or does not match.
    Failed(Error),
}

/// The keys of a received pack. Blocks.
pub struct Received {
    frames: FrameReader,
    key: Option<Key>,
    hasher: Hasher,
    side: Side,
    who: String,
}

impl Received {
    /// `who` names the node that takes part in errors, `side` which of the two receives.
    pub fn new(chunks: ChunkReader, side: Side, who: String) -> Self {
        Self { frames: FrameReader::new(chunks, who.clone()), key: None, hasher: Hasher::new(), side, who }
    }

    /// The next item; `None` at the pack's end.
    pub fn next_item(&mut self) -> Result<Option<PackItem>> {
        let frame = loop {
            match self.frames.next_frame()? {
                Frame::Beat => {}
                frame => break frame,
            }
        };
        let item = match (frame, &self.key) {
            (Frame::Key(key), None) => {
                self.hasher = Hasher::new();
                self.key = Some(key.clone());
                PackItem::Begin(key)
            }
            (Frame::Data(piece), Some(_)) => {
                self.hasher.update(&piece);
                PackItem::Piece(piece)
            }
            (Frame::Sum(sum), Some(key)) => {
                let (found, what) = (self.hasher.finish(), format!("{}: {key}", self.who));
                let verified = match self.side {
                    Side::Client => sum.verify(found, what),
                    Side::Server => sum.verify_sent(found, what),
                };
                self.key = None;
                verified.map_or_else(PackItem::Failed, |()| PackItem::Whole(sum))
            }
            (Frame::Fail(error), Some(_)) => {
                self.key = None;
                PackItem::Failed(error.by(&self.who))
            }
            (Frame::End, None) => return Ok(None),
            _ => {
                return Err(Error::new(
                    ErrorKind::BadRequest,
                    format!("{}: malformed body: frames out of order", self.who),
                ));
            }
        };
        Ok(Some(item))
    }
}

impl Client {
    /// Reads `key` into `sink`, verified, on a thread for it. An error after bytes were written means that they are not to be
    /// used. A key of at most `here` bytes is received whole, and written only when it is verified, on this thread, which saves
    /// starting another.
    pub async fn get(
        &self,
        key: &Key,
        sink: impl Write + Send + 'static,
        sink_name: &str,
        here: u64,
    ) -> Result<Checksum> {
        let node = self.cluster().node_of(key);
        let response = self.send_for_stream(node, Method::GET, &protocol::key_path(key)).await?;
        let who = format!("{}: {key}", self.cluster().name(node));
        let stored = stored_checksum(&response, &who)?;
        if stored.len <= here {
            let bytes = self.whole(node, response, stored, &who).await?;
            let mut sink = sink;
            sink.write_all(&bytes).and_then(|()| sink.flush()).map_err(|e| Error::io(sink_name, &e))?;
            return Ok(stored);
        }
        let reader = match self.granted(response, self.cluster().name(node).to_string()).await? {
            Ok(stream) => ChunkReader::Stream(stream),
            Err(response) => self.reader(node, response),
        };
        let sink_name = sink_name.to_owned();
        let found = self.noting(node, blocking(move || copy(reader, sink, &sink_name)).await)?;
        if found.len < stored.len {
            // The end of a stream is only known by its length.
            return Err(Side::Client.broken(&who, &std::io::Error::from(std::io::ErrorKind::UnexpectedEof)));
        }
        stored.verify(found, who).map(|()| found)
    }

    /// The bytes of a small key, verified.
    async fn whole(&self, node: NodeId, response: Response<Incoming>, stored: Checksum, who: &str) -> Result<Bytes> {
        let receive = Limited::new(response.into_body(), stored.len as usize).collect();
        let received = tokio::time::timeout(self.deadline(), receive).await.map_err(|_| self.late(node));
        let bytes = self.noting(node, received)?.map_err(|e| Side::Client.broken(who, &*e))?.to_bytes();
        stored.verify(Checksum::of(&bytes), who).map(|()| bytes)
    }

    /// Writes all of `input`, however long, as `key`. `hint` is how many bytes to expect; `input_name` names it in errors.
    pub async fn put(
        &self,
        key: &Key,
        mut input: impl Read + Send + 'static,
        hint: u64,
        input_name: &str,
    ) -> Result<Checksum> {
        let (key, input_name) = (key.clone(), input_name.to_owned());
        let node = self.cluster().node_of(&key);
        let (sent, answer) = self
            .put_pack(node, None, move |mut frames| {
                frames.key(&key)?;
                let sent = frames.content(&mut input, hint, &input_name)?;
                frames.end().map(|()| sent)
            })
            .await?;
        let sent = sent?;
        match answer.errors.into_iter().next() {
            Some(error) => Err(error),
            None => Ok(sent),
        }
    }

    /// The same over a connection of its own, which is worth it for a large key; it is born with `change`.
    pub async fn put_born(
        &self,
        key: &Key,
        mut input: impl Read + Send + 'static,
        hint: u64,
        input_name: &str,
        change: Change,
    ) -> Result<Checksum> {
        let input_name = input_name.to_owned();
        let send = move |upload: &mut Upload| send_read(upload, &mut input, &input_name);
        self.send_all(self.upload(key, None).await?, key, hint, change, send).await
    }

    /// Sends a file of about `len` bytes as `key`, over a connection of its own; `name` names it in errors. As an output of a
    /// job, it is taken only while that goes on. Errors: bad request, if somebody changes the file meanwhile.
    pub async fn send_file(
        &self,
        key: &Key,
        delivery: Option<&Delivery>,
        file: File,
        len: u64,
        name: &str,
    ) -> Result<Checksum> {
        let name = name.to_owned();
        let send = move |upload: &mut Upload| upload.send_whole(&file, &name);
        self.send_all(self.upload(key, delivery).await?, key, len, Change::default(), send).await
    }

    async fn send_all(
        &self,
        mut upload: Upload,
        key: &Key,
        hint: u64,
        change: Change,
        send: impl FnOnce(&mut Upload) -> Result<Checksum> + Send + 'static,
    ) -> Result<Checksum> {
        // The node may have to write all of it to the disk before it answers.
        let patience = self.patience(hint);
        let sent = blocking(move || {
            let checksum = send(&mut upload)?;
            upload.end(&Ending { checksum, change }, patience).map(|()| checksum)
        });
        self.noting(self.cluster().node_of(key), sent.await)
    }

    /// Begins a key whose bytes are still to come, as an output of a task or of none.
    pub async fn upload(&self, key: &Key, delivery: Option<&Delivery>) -> Result<Upload> {
        let node = self.cluster().node_of(key);
        let name = self.cluster().name(node).to_string();
        let query = delivery.map(|delivery| format!("?{}", delivery.query())).unwrap_or_default();
        let path = format!("{}{query}", protocol::key_path(key));
        let response = self.send_for_stream(node, Method::PUT, &path).await?;
        let refused = || Error::new(ErrorKind::Unreachable, format!("{name}: malformed answer"));
        self.granted(response, name.clone()).await?.map(Upload::new).map_err(|_| refused())
    }

    /// Hands `result` on; a deadline that was met in a stream counts as the node's silence.
    pub fn noting<T>(&self, node: NodeId, result: Result<T>) -> Result<T> {
        result.inspect_err(|error| {
            if error.kind() == ErrorKind::Deadline {
                self.note_silence(node);
            }
        })
    }

    /// Sends `node` a pack that `produce` writes on a blocking thread; one of a task's outputs is taken only while its job
    /// goes on. Returns what `produce` did and the node's answer.
    pub async fn put_pack<T: Send + 'static>(
        &self,
        node: NodeId,
        delivery: Option<&Delivery>,
        produce: impl FnOnce(FrameWriter) -> std::result::Result<T, Hangup> + Send + 'static,
    ) -> Result<(T, PackAnswer)> {
        let (sender, body) = body::channel();
        let body = body.with_beat(BEAT);
        let activity = body.activity();
        let producer = tokio::task::spawn_blocking(move || produce(FrameWriter::new(sender)));
        let query = delivery.map(|delivery| format!("?{}", delivery.query())).unwrap_or_default();
        let path = format!("/v1/pack/put{query}");
        let response = self.send(node, Method::POST, &path, body.boxed_unsync(), &activity).await?;
        let answer: PackAnswer = self.json(node, response).await?;
        let hung_up = || {
            Error::new(
                ErrorKind::Unreachable,
                format!("{}: answered before it had all keys", self.cluster().name(node)),
            )
        };
        match producer.await {
            Ok(Ok(produced)) => Ok((produced, answer)),
            Ok(Err(Hangup)) => Err(answer.errors.into_iter().next().unwrap_or_else(hung_up)),
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }

    /// Has `node` link files of the daemon that asks, as outputs of a task. Errors: bad request, if it cannot link
    /// them.
    pub async fn hand_over(&self, node: NodeId, delivery: &Delivery, handover: &Handover) -> Result<PackAnswer> {
        let path = format!("/v1/pack/link?{}", delivery.query());
        let json = serde_json::to_vec(handover).map_err(|e| Error::new(ErrorKind::BadRequest, e.to_string()))?;
        let response = self.send(node, Method::POST, &path, body::full(json), &Activity::default()).await?;
        self.json(node, response).await
    }

    /// Asks `node` for `keys`, all its own, in one exchange.
    pub async fn get_pack(&self, node: NodeId, keys: &[Key]) -> Result<Received> {
        let list: String = keys.iter().map(|key| format!("{}\n", key.as_str())).collect();
        let response = self.send(node, Method::POST, "/v1/pack/get", body::full(list), &Activity::default()).await?;
        Ok(Received::new(self.reader(node, response), Side::Client, self.cluster().name(node).to_string()))
    }

    pub async fn delete(&self, key: &Key) -> Result<()> {
        let node = self.cluster().node_of(key);
        self.send(node, Method::DELETE, &protocol::key_path(key), body::empty(), &Activity::default()).await.map(drop)
    }

    /// Deletes all of `node`'s keys that begin with `prefix`; returns how many.
    pub async fn delete_prefix(&self, node: NodeId, prefix: &Prefix) -> Result<u64> {
        let path = format!("/v1/delete?prefix={}", escape(prefix.as_str()));
        let mut events = self.events(node, Method::POST, &path, body::empty()).await?;
        let mut deleted = None;
        while let Some(event) = events.next().await? {
            if let Event::Deleted { keys } = event {
                deleted = Some(keys);
            }
        }
        deleted.ok_or_else(|| {
            Error::new(ErrorKind::Unreachable, format!("{}: the answer was cut off", self.cluster().name(node)))
        })
    }

    /// Runs `cmd` on the node of `key` with the key as stdin. Its streams go to `stdout` and `stderr` as they come.
    pub async fn eval(
        &self,
        key: &Key,
        cmd: Vec<u8>,
        stdout: impl Write + Send + 'static,
        stderr: impl Write + Send + 'static,
    ) -> Result<CommandEnd> {
        let path = format!("/v1/eval/{}", escape(key.as_str()));
        self.run_command(self.cluster().node_of(key), &path, body::full(cmd), stdout, stderr).await
    }

    /// Sends a request whose answer is a command's streams.
    pub(super) async fn run_command(
        &self,
        node: NodeId,
        path: &str,
        body: body::BoxBody,
        mut stdout: impl Write + Send + 'static,
        mut stderr: impl Write + Send + 'static,
    ) -> Result<CommandEnd> {
        let response = self.send(node, Method::POST, path, body, &Activity::default()).await?;
        let mut frames = FrameReader::new(self.reader(node, response), self.cluster().name(node).to_string());
        blocking(move || {
            loop {
                match frames.next_frame()? {
                    Frame::Stdout(bytes) => {
                        stdout.write_all(&bytes).and_then(|()| stdout.flush()).map_err(|e| Error::io("stdout", &e))?;
                    }
                    Frame::Stderr(bytes) => stderr.write_all(&bytes).map_err(|e| Error::io("stderr", &e))?,
                    Frame::Exit(end) => return Ok(end),
                    _ => {}
                }
            }
        })
        .await
    }

    pub(super) fn reader(&self, node: NodeId, response: Response<Incoming>) -> ChunkReader {
        let who = self.cluster().name(node).to_string();
        body::reader(response.into_body(), self.deadline(), Side::Client, who)
    }

    /// Sends a request whose answer is a stream of events.
    pub(super) async fn events(
        &self,
        node: NodeId,
        method: Method,
        path: &str,
        body: body::BoxBody,
    ) -> Result<EventStream> {
        let response = self.send(node, method, path, body, &Activity::default()).await?;
        Ok(EventStream::new(self.chunks(node, response), self.cluster().name(node).to_string()))
    }
}

fn stored_checksum(response: &Response<Incoming>, who: &str) -> Result<Checksum> {
    let header = response.headers().get(CHECKSUM_HEADER).and_then(|value| value.to_str().ok());
    header
        .and_then(|text| Checksum::from_str(text).ok())
        .ok_or_else(|| Error::new(ErrorKind::Checksum, format!("{who}: the node sent no checksum")))
}

fn send_read(upload: &mut Upload, input: &mut impl Read, input_name: &str) -> Result<Checksum> {
    let (mut block, mut hasher) = (Block::new(BLOCK), Hasher::new());
    loop {
        match input.read(&mut block) {
            Ok(0) => return Ok(hasher.finish()),
            Ok(n) => {
                hasher.update(&block[..n]);
                upload.send(&block[..n])?;
            }
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(Error::io(input_name, &e)),
        }
    }
}

fn copy(mut reader: ChunkReader, mut sink: impl Write, sink_name: &str) -> Result<Checksum> {
    let mut hasher = Hasher::new();
    while let Some(chunk) = reader.next_chunk()? {
        hasher.update(&chunk);
        sink.write_all(&chunk).map_err(|e| Error::io(sink_name, &e))?;
    }
    sink.flush().map_err(|e| Error::io(sink_name, &e))?;
    Ok(hasher.finish())
}
