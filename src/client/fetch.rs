//! Keys on their way from their nodes: one, or many small ones.

use super::core::{Client, TRIES, again_if_broken, blocking};
use crate::blocks::LEAF;
use crate::body::{ChunkReader, Side};
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

/// Gets that are sent ahead of their answers.
const AHEAD: usize = 64;

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
        let who = format!("{}: {key}", self.cluster().name(node));
        let (stored, source) = match again_if_broken(|| self.begin_get(node, key, &who)).await? {
            Begun::Connection(stored, connection) => (stored, Source::Whole(connection, BytesMut::new())),
            Begun::Body(stored, response) if stored.len <= here => {
                let bytes = self.whole_body(node, response, stored.len).await?;
                stored.verify(Checksum::of(&bytes), &who)?;
                let mut sink = sink;
                sink.write_all(&bytes).and_then(|()| sink.flush()).map_err(|e| Error::io(sink_name, &e))?;
                return Ok(stored);
            }
            Begun::Body(stored, response) => (stored, Source::Body(self.reader(node, response))),
        };
        let (sink_name, len) = (sink_name.to_owned(), stored.len);
        let copying = Copying { sink, sink_name, hasher: Hasher::new(), written: 0, len, who: who.clone() };
        let found = self.copy(node, key, stored, source, copying).await?;
        stored.verify(found, who).map(|()| found)
    }

    /// Copies all of the key, and goes on where a connection breaks off. Returns the checksum of what was written.
    async fn copy<W: Write + Send + 'static>(
        &self,
        node: NodeId,
        key: &Key,
        stored: Checksum,
        mut source: Source,
        mut copying: Copying<W>,
    ) -> Result<Checksum> {
        let (mut tries, mut had) = (TRIES, 0);
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
                    tries = if copying.written > had { TRIES } else { tries - 1 };
                    had = copying.written;
                    // From there on: what has come is written already. If the node says why that cannot be, that is told, else what
                    // happened first.
                    let rest = self.get_rest(key, stored, had, Bytes::new()).await;
                    source = Source::Rest(rest.map_err(|why| match why.kind() {
                        ErrorKind::Unreachable | ErrorKind::Deadline | ErrorKind::NotFound => error,
                        _ => why,
                    })?);
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Asks for a key; a node sends a large one over a connection, and a small one as the body.
    async fn begin_get(&self, node: NodeId, key: &Key, who: &str) -> Result<Begun> {
        let response = self.send_for_connection(node, Method::GET, &protocol::key_path(key)).await?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Ok(Begun::Body(stored_checksum(&response, who)?, response));
        }
        let mut connection = self.upgraded(node, response, who.to_owned()).await?;
        let begun = blocking(move || receive_head(&mut connection).map(|stored| (stored, connection))).await;
        let (stored, connection) = self.noting(node, begun)?;
        Ok(Begun::Connection(stored, connection))
    }

    /// All of `key` from `offset` on, verified; the key must still have, or have been opened with, `checksum`. Its first bytes may be
    /// here as `ready`, up to the end of a leaf.
    pub async fn get_rest(&self, key: &Key, checksum: Checksum, offset: u64, ready: Bytes) -> Result<Parts> {
        let offset = offset + ready.len() as u64;
        let part = Part { checksum, offset, len: None, open: false };
        self.get_part(key, part, move |connection, who| Ok(Parts::new(connection, who, offset, checksum.len, &ready)))
            .await
    }

    /// `len` bytes of `key` from `offset`, fewer at its end: whole [leaves](crate::blocks), verified. The key must still have, or have
    /// been opened with, `checksum`.
    pub async fn get_range(&self, key: &Key, checksum: Checksum, offset: u64, len: usize) -> Result<Bytes> {
        self.range(key, Part { checksum, offset, len: Some(len as u64), open: false }).await
    }

    /// The first `len` bytes of `key`, whole leaves, if the name still is the key with `checksum`. The node holds it open from now on.
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
        self.get_part(key, part, move |connection, who| {
            let mut parts = Parts::new(connection, who, part.offset, whole, &[]);
            let bytes = parts.next_block((whole - part.offset.min(whole)) as usize)?;
            client.keep(node, parts.finish()?);
            Ok(bytes.slice(..len))
        })
        .await
    }

    async fn get_part<T: Send + 'static>(
        &self,
        key: &Key,
        part: Part,
        receive: impl FnOnce(Connection, String) -> Result<T> + Clone + Send + 'static,
    ) -> Result<T> {
        let node = self.cluster().node_of(key);
        let who = format!("{}: {key}", self.cluster().name(node));
        let (request, named) = (Request::Get { key: key.clone(), part: Some(part) }, who.clone());
        self.asking(node, &request, &who, move |mut connection| {
            if receive_head(&mut connection)? != part.checksum {
                return Err(connection.malformed("another key than was asked for"));
            }
            receive.clone()(connection, named.clone())
        })
        .await
    }

    /// Asks `node` for `keys`, all its own, one after the other without waiting in between.
    pub async fn get_many(&self, node: NodeId, keys: &[Key]) -> Result<Fetched> {
        let connection = self.connection(node).await?;
        let keys = keys.iter().cloned().collect();
        Ok(Fetched { client: self.clone(), node, connection, unasked: keys, asked: VecDeque::new(), current: None })
    }
}

/// What is to be done with a key that comes.
pub enum FetchedItem {
    /// A key begins; pieces follow, then `Whole` or `Failed`.
    Begin(Key),
    Piece(Bytes),
    /// The key's bytes have come and match their checksum.
    Whole,
    /// The key did not come, or does not match.
    Failed(Error),
}

/// Keys that come from a node. Blocks.
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

    /// Lets others use the connection, once all keys have come.
    pub fn finish(self) {
        self.client.keep(self.node, self.connection);
    }
}

/// What the node says of the key that it is about to send.
fn receive_head(connection: &mut Connection) -> Result<Checksum> {
    match connection.receive_next()? {
        Incoming::Message(Response::Key(checksum)) => Ok(checksum),
        Incoming::Error(error) => Err(error.of_peer(connection.who())),
        _ => Err(connection.malformed("no key came where one was expected")),
    }
}

pub(super) fn stored_checksum(response: &HttpResponse<Body>, who: &str) -> Result<Checksum> {
    let header = response.headers().get(CHECKSUM_HEADER).and_then(|value| value.to_str().ok());
    header
        .and_then(|text| Checksum::from_str(text).ok())
        .ok_or_else(|| Error::new(ErrorKind::Checksum, format!("{who}: the node sent no checksum")))
}

/// How a node begins to send a key.
enum Begun {
    Connection(Checksum, Connection),
    Body(Checksum, HttpResponse<Body>),
}

/// Where the bytes of a key come from: from its beginning, or from where they broke off.
enum Source {
    Whole(Connection, BytesMut),
    Body(ChunkReader),
    Rest(Parts),
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
    /// Writes what is still to come. Blocks. Returns the connection, once it is free. Errors: it ends before the key's end.
    fn copy(&mut self, mut source: Source) -> Result<Option<Connection>> {
        while let Some(chunk) = self.next_chunk(&mut source)? {
            self.hasher.update(&chunk);
            self.sink.write_all(&chunk).map_err(|e| Error::io(&self.sink_name, &e))?;
            self.written += chunk.len() as u64;
            if self.written > self.len {
                // No key of that length: it may never end.
                break;
            }
        }
        if self.written < self.len {
            let ended = std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
            return Err(Side::Client.broken(&self.who, &ended));
        }
        self.sink.flush().map_err(|e| Error::io(&self.sink_name, &e))?;
        Ok(match source {
            // One with more than was announced is of no use any more.
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
                        Incoming::Error(error) => return Err(error.of_peer(&self.who)),
                        _ => return Err(connection.malformed("frames out of order")),
                    }
                }
                connection.receive_piece(buffer).map(Some)
            }
        }
    }
}
