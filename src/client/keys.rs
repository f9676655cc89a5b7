//! Keys over the wire: get, put, delete, packs of many, and `eval`.

use super::jobs::EventStream;
use super::{Client, TRIES, again_if_broken, blocking};
use crate::aligned::Block;
use crate::blocks::LEAF;
use crate::body::{self, Activity, ChunkReader, Hangup, Side};
use crate::checksum::{BLOCK, Checksum, Hasher, Sums};
use crate::error::{Error, ErrorKind, Result};
use crate::frame::{BEAT, CommandEnd, Frame, FrameReader, FrameWriter};
use crate::key::{Key, Prefix};
use crate::placement::NodeId;
use crate::protocol::{self, CHECKSUM_HEADER, Change, Delivery, Event, PackAnswer, escape};
use crate::summed::Summed;
use crate::upload::{Ending, Upload};
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::{Method, Response};
use std::fs::File;
use std::io::{Read, Write};
use std::str::FromStr;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

/// A key under way in a pack.
pub enum PackItem {
    /// A key begins; pieces follow, then `Whole` or `Failed`.
    Begin(Key),
    Piece(Bytes),
    /// The key's bytes have come and match their checksum.
    Whole(Sums),
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
                self.hasher = match self.side {
                    Side::Client => Hasher::new(),
                    Side::Server => Hasher::of_parts(),
                };
                self.key = Some(key.clone());
                PackItem::Begin(key)
            }
            (Frame::Data(piece), Some(_)) => {
                self.hasher.update(&piece);
                PackItem::Piece(piece)
            }
            (Frame::Sum(sum), Some(key)) => {
                let (found, what) = (self.hasher.sums(), format!("{}: {key}", self.who));
                let verified = match self.side {
                    Side::Client => sum.verify(found.checksum, what),
                    Side::Server => sum.verify_sent(found.checksum, what),
                };
                self.key = None;
                verified.map_or_else(PackItem::Failed, |()| PackItem::Whole(found))
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
        let mut source = match self.granted(response, node, self.cluster().name(node).to_string()).await? {
            Ok(stream) => Source::Whole(ChunkReader::Stream(stream)),
            Err(response) => Source::Whole(self.reader(node, response)),
        };
        let (sink_name, len) = (sink_name.to_owned(), stored.len);
        let mut copying = Copying { sink, sink_name, hasher: Hasher::new(), written: 0, len, who: who.clone() };
        let (mut tries, mut had) = (TRIES, 0);
        loop {
            let (copied, came) = blocking(move || {
                let came = copying.copy(source);
                (copying, came)
            })
            .await;
            copying = copied;
            match self.noting(node, came) {
                Ok(()) => {
                    let found = copying.hasher.finish();
                    return stored.verify(found, who).map(|()| found);
                }
                Err(error) if error.is_of_broken_connection() && tries > 1 => {
                    tries = if copying.written > had { TRIES } else { tries - 1 };
                    had = copying.written;
                    // From there on: what has come is written already. If that cannot be, what happened first is told.
                    source = Source::Rest(self.get_rest(key, stored, had, Bytes::new()).await.map_err(|_| error)?);
                }
                // The end of a stream is only known by its length; the node may know why it ends there.
                Err(error) if error.is_of_broken_connection() => {
                    let leaf = copying.written / LEAF * LEAF;
                    let asked = self.get_range(key, stored, leaf, LEAF as usize).await;
                    return Err(asked.err().filter(|why| why.kind() != ErrorKind::Unreachable).unwrap_or(error));
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// The bytes of a small key, verified.
    async fn whole(&self, node: NodeId, response: Response<Incoming>, stored: Checksum, who: &str) -> Result<Bytes> {
        let bytes = self.whole_body(node, response, stored.len).await?;
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
        let (client, named, input_name) = (self.putting(), key.clone(), input_name.to_owned());
        let node = self.cluster().node_of(key);
        let whole = Arc::new(OnceLock::new());
        let told = whole.clone();
        let put = client.put_pack(node, None, move |mut frames| {
            frames.key(&named)?;
            let sent = frames.content(&mut input, hint, &input_name)?;
            if let Ok(checksum) = &sent {
                // Set once only.
                let _ = told.set((*checksum, Instant::now()));
            }
            frames.end().map(|()| sent)
        });
        match (put.await, whole.get()) {
            (Ok((sent, answer)), _) => match answer.errors.into_iter().next() {
                Some(error) => sent.and(Err(error)),
                None => sent,
            },
            (Err(error), Some(&(checksum, asked))) => {
                client.settled(key, Change::default(), asked, Err(error), async { Ok(checksum) }).await
            }
            (Err(error), None) => Err(error),
        }
    }

    /// The same over a connection of its own, which is worth it for a large key; it is born with `change`.
    pub async fn put_born(
        &self,
        key: &Key,
        mut input: impl Read + Send + 'static,
        input_name: &str,
        change: Change,
    ) -> Result<Checksum> {
        let input_name = input_name.to_owned();
        let send = move |upload: &mut Upload| send_read(upload, &mut input, &input_name);
        self.putting().send_all((key, None), change, send).await
    }

    /// Sends a file as `key`, over a connection of its own; `name` names it in errors. As an output of a
    /// job, it is taken only while that goes on. Errors: bad request, if somebody changes the file meanwhile.
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
            Ok((checksum, asked, upload.end(&Ending { checksum, change })))
        });
        let node = self.cluster().node_of(key);
        let (checksum, asked, ended) = self.noting(node, sent.await)?;
        let ended = self.noting(node, ended).map(|()| checksum);
        self.settled(key, change, asked, ended, async { Ok(checksum) }).await
    }

    /// Begins a key whose bytes are still to come, as an output of a task or of none.
    pub async fn upload(&self, key: &Key, delivery: Option<&Delivery>) -> Result<Upload> {
        let node = self.cluster().node_of(key);
        let name = self.cluster().name(node).to_string();
        let query = delivery.map(|delivery| format!("?{}", delivery.query())).unwrap_or_default();
        let path = format!("{}{query}", protocol::key_path(key));
        let response = self.send_for_stream(node, Method::PUT, &path).await?;
        let refused = || Error::new(ErrorKind::Unreachable, format!("{name}: malformed answer"));
        self.granted(response, node, name.clone()).await?.map(Upload::new).map_err(|_| refused())
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

    /// Asks `node` for `keys`, all its own, in one exchange.
    pub async fn get_pack(&self, node: NodeId, keys: &[Key]) -> Result<Received> {
        let list: String = keys.iter().map(|key| format!("{}\n", key.as_str())).collect();
        let list = Bytes::from(list);
        let ask = || async {
            self.send(node, Method::POST, "/v1/pack/get", body::full(list.clone()), &Activity::default()).await
        };
        // By its name it is a POST, but it changes nothing.
        let response = again_if_broken(ask).await?;
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
        body::reader(response.into_body(), self.timeout(node), Side::Client, who)
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
        Ok(EventStream::new(self.chunks(node, response), node, self.cluster().name(node).to_string()))
    }
}

pub(super) fn stored_checksum(response: &Response<Incoming>, who: &str) -> Result<Checksum> {
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

/// Where the bytes of a key come from: from its beginning, or from where they broke off.
enum Source {
    Whole(ChunkReader),
    Rest(Summed),
}

/// A key that is being written to `sink`.
struct Copying<W> {
    sink: W,
    sink_name: String,
    /// Of what is written.
    hasher: Hasher,
    written: u64,
    /// Of the whole key.
    len: u64,
    /// Names node and key in errors.
    who: String,
}

impl<W: Write> Copying<W> {
    /// Writes what is still to come. Blocks. Errors: it ends before the key's end.
    fn copy(&mut self, mut source: Source) -> Result<()> {
        loop {
            let left = self.len.saturating_sub(self.written);
            let chunk = match &mut source {
                Source::Whole(reader) => reader.next_chunk()?,
                Source::Rest(_) if left == 0 => None,
                Source::Rest(summed) => Some(summed.next_block(left.min(BLOCK as u64) as usize)?),
            };
            let Some(chunk) = chunk else { break };
            self.hasher.update(&chunk);
            self.sink.write_all(&chunk).map_err(|e| Error::io(&self.sink_name, &e))?;
            self.written += chunk.len() as u64;
            if self.written > self.len {
                // No key of that length: it may never end.
                break;
            }
        }
        if self.written < self.len {
            // The end of a stream is only known by its length.
            let ended = std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
            return Err(Side::Client.broken(&self.who, &ended));
        }
        self.sink.flush().map_err(|e| Error::io(&self.sink_name, &e))
    }
}
