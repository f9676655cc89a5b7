//! Gets: one key, a part of a key, or many small keys of one node. All bytes are verified.

use super::core::{Client, TRIES, blocking, retry_if_broken};
use crate::blocks::LEAF;
use crate::body::{ChunkReader, Role};
use crate::checksum::Checksum;
use crate::error::{Error, ErrorKind, Result};
use crate::file::BLOCK;
use crate::hasher::Hasher;
use crate::key::Key;
use crate::placement::NodeId;
use crate::protocol::{self, CHECKSUM_HEADER};
use crate::wire::parts::Parts;
use crate::wire::{Connection, Incoming, Part, Request, Response};
use bytes::{Bytes, BytesMut};
use hyper::body::Incoming as Body;
use hyper::{Method, Response as HttpResponse, StatusCode};
use std::collections::VecDeque;
use std::io::Write;
use std::str::FromStr;

/// The most gets that are sent before the first is answered.
const AHEAD: usize = 64;

impl Client {
    /// Reads `key` into `sink` on a blocking thread, and verifies it. After an error, the bytes in `sink` must not be
    /// used. A key of at most `max_inline` bytes is received as a whole, and verified before it is written; this thread
    /// does that, which saves waking another.
    pub async fn get(
        &self,
        key: &Key,
        sink: impl Write + Send + 'static,
        sink_name: &str,
        max_inline: u64,
    ) -> Result<Checksum> {
        let node = self.cluster().node_of(key);
        let subject = format!("{}: {key}", self.cluster().name(node));
        let (stored, source) = match retry_if_broken(|| self.begin_get(node, key, &subject)).await? {
            Begun::Connection(stored, connection) => (stored, Source::Whole(connection, BytesMut::new())),
            Begun::Body(stored, response) if stored.len <= max_inline => {
                let bytes = self.whole_body(node, response, stored.len).await?;
                stored.verify(Checksum::of(&bytes), &subject)?;
                let mut sink = sink;
                sink.write_all(&bytes).and_then(|()| sink.flush()).map_err(|e| Error::io(sink_name, &e))?;
                return Ok(stored);
            }
            Begun::Body(stored, response) => (stored, Source::Body(self.reader(node, response))),
        };
        let (sink_name, len) = (sink_name.to_owned(), stored.len);
        let copying = Copying { sink, sink_name, hasher: Hasher::new(), written: 0, len, subject: subject.clone() };
        let found = self.copy(node, key, stored, source, copying).await?;
        stored.verify(found, subject).map(|()| found)
    }

    /// Copies all of the key, and resumes after a connection breaks. Returns the checksum of the written bytes.
    async fn copy<W: Write + Send + 'static>(
        &self,
        node: NodeId,
        key: &Key,
        stored: Checksum,
        mut source: Source,
        mut copying: Copying<W>,
    ) -> Result<Checksum> {
        let (mut tries, mut written_before) = (TRIES, 0);
        loop {
            let (copied, came) = blocking(move || {
                let came = copying.copy(source);
                (copying, came)
            })
            .await;
            copying = copied;
            match self.noting(node, came) {
                Ok(done) => {
                    done.into_iter().for_each(|connection| self.keep(node, connection));
                    return Ok(copying.hasher.finish());
                }
                Err(error) if error.is_of_broken_connection() && tries > 1 => {
                    tries = if copying.written > written_before { TRIES } else { tries - 1 };
                    written_before = copying.written;
                    // Resume after the bytes that are already written. If the node refuses that, report its reason,
                    // else the first error.
                    let rest = self.get_rest(key, stored, written_before, Bytes::new()).await;
                    source = Source::Rest(rest.map_err(|why| match why.kind() {
                        ErrorKind::Unreachable | ErrorKind::Deadline | ErrorKind::NotFound => error,
                        _ => why,
                    })?);
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Requests a key. The node sends a large key over frames, and a small one as the HTTP body.
    async fn begin_get(&self, node: NodeId, key: &Key, subject: &str) -> Result<Begun> {
        let response = self.send_for_connection(node, Method::GET, &protocol::key_path(key)).await?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Ok(Begun::Body(stored_checksum(&response, subject)?, response));
        }
        let mut connection = self.upgraded(node, response, subject.to_owned()).await?;
        let begun = blocking(move || receive_head(&mut connection).map(|stored| (stored, connection))).await;
        let (stored, connection) = self.noting(node, begun)?;
        Ok(Begun::Connection(stored, connection))
    }

    /// All of `key` from `offset` on, verified. The key must have `checksum`, now or when it was opened. `ready` has
    /// the first of these bytes, up to the end of a leaf, if they were received before.
    pub async fn get_rest(&self, key: &Key, checksum: Checksum, offset: u64, ready: Bytes) -> Result<Parts> {
        let offset = offset + ready.len() as u64;
        let part = Part { checksum, offset, len: None, open: false };
        self.get_part(key, part, move |connection, subject| {
            Ok(Parts::new(connection, subject, offset, checksum.len, &ready))
        })
        .await
    }

    /// `len` bytes of `key` from `offset`, fewer at its end, verified by whole [leaves](crate::blocks). The key must
    /// have `checksum`, now or when it was opened.
    pub async fn get_range(&self, key: &Key, checksum: Checksum, offset: u64, len: usize) -> Result<Bytes> {
        self.range(key, Part { checksum, offset, len: Some(len as u64), open: false }).await
    }

    /// The first `len` bytes of `key`, verified by whole leaves, if the name still stands for the key with `checksum`.
    /// From now on the node keeps the key open.
    pub async fn open_range(&self, key: &Key, checksum: Checksum, len: usize) -> Result<Bytes> {
        self.range(key, Part { checksum, offset: 0, len: Some(len as u64), open: true }).await
    }

    async fn range(&self, key: &Key, part: Part) -> Result<Bytes> {
        let node = self.cluster().node_of(key);
        let end = part.offset.saturating_add(part.len.unwrap_or(0)).min(part.checksum.len);
        let len = end.saturating_sub(part.offset) as usize;
        let whole = match len {
            0 => end,
            _ => end.next_multiple_of(LEAF).min(part.checksum.len),
        };
        let client = self.clone();
        self.get_part(key, part, move |connection, subject| {
            let mut parts = Parts::new(connection, subject, part.offset, whole, &[]);
            let bytes = parts.next_block((whole - part.offset.min(whole)) as usize)?;
            client.keep(node, parts.finish()?);
            Ok(bytes.slice(..len))
        })
        .await
    }

    pub(super) async fn get_part<T: Send + 'static>(
        &self,
        key: &Key,
        part: Part,
        receive: impl FnOnce(Connection, String) -> Result<T> + Clone + Send + 'static,
    ) -> Result<T> {
        let node = self.cluster().node_of(key);
        let subject = format!("{}: {key}", self.cluster().name(node));
        let (request, named) = (Request::Get { key: key.clone(), part: Some(part) }, subject.clone());
        self.read_request(node, &request, &subject, move |mut connection| {
            if receive_head(&mut connection)? != part.checksum {
                return Err(connection.malformed("another key than was asked for"));
            }
            receive.clone()(connection, named.clone())
        })
        .await
    }

    /// Requests `keys`, which all belong to `node`, without waiting for one before requesting the next.
    pub async fn get_many(&self, node: NodeId, keys: &[Key]) -> Result<Fetched> {
        let connection = self.connection(node).await?;
        let keys = keys.iter().cloned().collect();
        Ok(Fetched { client: self.clone(), node, connection, unasked: keys, asked: VecDeque::new(), current: None })
    }
}

/// An event while keys are received.
pub enum FetchedItem {
    /// A key begins; pieces follow, then `Whole` or `Failed`.
    Begin(Key),
    Piece(Bytes),
    /// The key is complete and matches its checksum.
    Whole,
    /// The key was not sent, or does not match its checksum.
    Failed(Error),
}

/// Keys that are received from a node. Blocks.
pub struct Fetched {
    client: Client,
    node: NodeId,
    connection: Connection,
    unasked: VecDeque<Key>,
    asked: VecDeque<Key>,
    current: Option<(Checksum, Hasher)>,
}

impl Fetched {
    /// The next item; `None` once all keys have come. Errors: of the connection.
    pub fn next_item(&mut self, buffer: &mut BytesMut) -> Result<Option<FetchedItem>> {
        if self.connection.data_left() == 0 {
            if self.asked.is_empty() && self.unasked.is_empty() {
                return Ok(None);
            }
            if let Some(item) = self.next_frame()? {
                return Ok(Some(item));
            }
        }
        let piece = self.connection.receive_piece(buffer)?;
        match &mut self.current {
            Some((_, hasher)) => hasher.update(&piece),
            None => return Err(self.connection.malformed("data of no key")),
        }
        Ok(Some(FetchedItem::Piece(piece)))
    }

    /// `None` if data follows.
    fn next_frame(&mut self) -> Result<Option<FetchedItem>> {
        self.ask_ahead()?;
        let name = self.client.cluster().name(self.node);
        let key = self.asked.front().expect("something was asked for").clone();
        let item = match (self.connection.receive_next()?, self.current.take()) {
            (Incoming::Message(Response::Key(checksum)), None) => {
                self.current = Some((checksum, Hasher::new()));
                return Ok(Some(FetchedItem::Begin(key)));
            }
            (Incoming::Data(_), Some(current)) => {
                self.current = Some(current);
                return Ok(None);
            }
            (Incoming::Message(Response::End), Some((checksum, hasher))) => {
                let verified = checksum.verify(hasher.finish(), format!("{name}: {key}"));
                verified.map_or_else(FetchedItem::Failed, |()| FetchedItem::Whole)
            }
            (Incoming::Error(error), _) => FetchedItem::Failed(error.of_peer(name)),
            _ => return Err(self.connection.malformed("frames out of order")),
        };
        self.asked.pop_front();
        Ok(Some(item))
    }

    fn ask_ahead(&mut self) -> Result<()> {
        if self.asked.len() > AHEAD / 2 {
            return Ok(());
        }
        while self.asked.len() < AHEAD
            && let Some(key) = self.unasked.pop_front()
        {
            self.connection.put_message(&Request::Get { key: key.clone(), part: None })?;
            self.asked.push_back(key);
        }
        Ok(())
    }

    /// Returns the connection to the pool, once all keys were received.
    pub fn finish(self) {
        self.client.keep(self.node, self.connection);
    }
}

/// The response that announces a key.
fn receive_head(connection: &mut Connection) -> Result<Checksum> {
    match connection.receive_next()? {
        Incoming::Message(Response::Key(checksum)) => Ok(checksum),
        Incoming::Error(error) => Err(error.of_peer(connection.subject())),
        _ => Err(connection.malformed("no key came where one was expected")),
    }
}

pub(super) fn stored_checksum(response: &HttpResponse<Body>, subject: &str) -> Result<Checksum> {
    let header = response.headers().get(CHECKSUM_HEADER).and_then(|value| value.to_str().ok());
    header
        .and_then(|text| Checksum::from_str(text).ok())
        .ok_or_else(|| Error::new(ErrorKind::Checksum, format!("{subject}: the node sent no checksum")))
}

/// The beginning of a get.
enum Begun {
    Connection(Checksum, Connection),
    Body(Checksum, HttpResponse<Body>),
}

/// Where the bytes of a key come from: a whole key over frames or as a body, or the rest after a broken connection.
enum Source {
    Whole(Connection, BytesMut),
    Body(ChunkReader),
    Rest(Parts),
}

/// A key that is being written to `sink`.
struct Copying<W> {
    sink: W,
    sink_name: String,
    /// The hash of the written bytes.
    hasher: Hasher,
    written: u64,
    /// The length of the whole key.
    len: u64,
    /// Names node and key in errors.
    subject: String,
}

impl<W: Write> Copying<W> {
    /// Writes the rest of the key. Blocks. Returns the connection if it can be reused. Errors: the source ends before
    /// the key does.
    fn copy(&mut self, mut source: Source) -> Result<Option<Connection>> {
        while let Some(chunk) = self.next_chunk(&mut source)? {
            self.hasher.update(&chunk);
            self.sink.write_all(&chunk).map_err(|e| Error::io(&self.sink_name, &e))?;
            self.written += chunk.len() as u64;
            if self.written > self.len {
                // More bytes than the key has: the stream may never end.
                break;
            }
        }
        if self.written < self.len {
            let ended = std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
            return Err(Role::Client.broken(&self.subject, &ended));
        }
        self.sink.flush().map_err(|e| Error::io(&self.sink_name, &e))?;
        Ok(match source {
            // A connection that sends more than it has announced is useless.
            Source::Whole(connection, _) if self.written == self.len => Some(connection),
            Source::Rest(parts) => parts.finish().ok(),
            Source::Whole(..) | Source::Body(_) => None,
        })
    }

    fn next_chunk(&self, source: &mut Source) -> Result<Option<Bytes>> {
        let left = self.len.saturating_sub(self.written);
        match source {
            Source::Body(reader) => reader.next_chunk(),
            Source::Rest(_) if left == 0 => Ok(None),
            Source::Rest(parts) => parts.next_block(left.min(BLOCK as u64) as usize).map(Some),
            Source::Whole(connection, buffer) => {
                if connection.data_left() == 0 {
                    match connection.receive_next()? {
                        Incoming::Data(_) => {}
                        Incoming::Message(Response::End) => return Ok(None),
                        Incoming::Error(error) => return Err(error.of_peer(&self.subject)),
                        _ => return Err(connection.malformed("frames out of order")),
                    }
                }
                connection.receive_piece(buffer).map(Some)
            }
        }
    }
}
