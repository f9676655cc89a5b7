//! Get, put and delete one key.

use super::{Answer, connection, done, get, json, put};
use crate::app::{App, BODY_DEADLINE};
use crate::jobs::owner::Owner;
use crate::peer::Peer;
use crate::store::{Opened, Requester, Store};
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderValue};
use hyper::{Request, Response, StatusCode};
use s4::body::{self, BoxBody, ChunkReader, ChunkSender, Chunks, Role};
use s4::checksum::Checksum;
use s4::client::blocking;
use s4::error::{Error, ErrorKind, Result};
use s4::file::BLOCK;
use s4::key::Key;
use s4::protocol::{CHECKSUM_HEADER, Change, KeyHead, Metadata, UploadPart};
use s4::wire::{self, LARGE};
use std::io::Read;
use std::sync::Arc;

/// Sends a key: a large one over a connection if the client asks for that, otherwise as the body.
pub async fn get(app: &Arc<App>, peer: Peer, key: Key, request: Request<Incoming>) -> Answer {
    let store = app.jobs.shared.store.clone();
    let (opened, small, key) = match store.read_at_once(&key, BLOCK as u64) {
        Some((opened, small)) => (opened, small, key),
        None => {
            blocking(move || get::open(&store, &key, BLOCK as u64).map(|(opened, small)| (opened, small, key))).await?
        }
    };
    let checksum = opened.checksum;
    if checksum.len >= LARGE && wire::is_wanted(request.headers()) {
        return Ok(connection::grant(app, peer, request, Some(wire::Request::Get { key, part: None })));
    }
    let (opened, key, metadata) = match opened.has_metadata() {
        true => {
            let store = app.jobs.shared.store.clone();
            blocking(move || store.metadata(&key, &opened).map(|metadata| (opened, key, metadata))).await?
        }
        false => (opened, key, Metadata::default()),
    };
    let content = match small {
        Some(bytes) => body::full(bytes),
        None => {
            let ((sender, body), store) = (app.channel(), app.jobs.shared.store.clone());
            tokio::task::spawn_blocking(move || send_file(&store, opened, &key, &sender));
            body.boxed_unsync()
        }
    };
    let mut response = Response::new(content);
    add_headers(response.headers_mut(), checksum, &metadata);
    Ok(response)
}

/// The headers of a key, without its bytes.
pub async fn head(app: &Arc<App>, key: Key) -> Answer {
    let found = find_head(app, key).await?;
    let mut response = done();
    add_headers(response.headers_mut(), found.stat.checksum, &found.metadata);
    Ok(response)
}

/// The attributes and metadata of a key, as JSON.
pub async fn head_json(app: &Arc<App>, key: Key) -> Answer {
    find_head(app, key).await.map(|found| json(&found))
}

async fn find_head(app: &Arc<App>, key: Key) -> Result<KeyHead> {
    let store = app.jobs.shared.store.clone();
    blocking(move || store.head(&key)).await
}

fn add_headers(headers: &mut HeaderMap, checksum: Checksum, metadata: &Metadata) {
    headers.insert(CONTENT_LENGTH, HeaderValue::from(checksum.len));
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(CHECKSUM_HEADER, checksum_value(checksum));
    metadata.add_to(headers);
}

/// Sends exactly the announced number of bytes. If the file ends early, the body is broken off.
fn send_file(store: &Store, mut opened: Opened, key: &Key, sender: &ChunkSender) {
    let mut left = opened.checksum.len;
    while left > 0 {
        let mut block = vec![0; sender.block().min(left as usize)];
        match opened.file.read(&mut block) {
            Ok(0) => {
                return sender.fail(Error::new(ErrorKind::Checksum, format!("{key}: the file became shorter")));
            }
            Ok(n) => {
                block.truncate(n);
                left -= n as u64;
                if sender.send(block.into()).is_err() {
                    return;
                }
            }
            Err(e) => return sender.fail(store.unreadable(key, &e)),
        }
    }
}

/// Publishes the body as the key, or keeps it as a part of an upload, if it matches the checksum in the header.
pub async fn put(
    app: &Arc<App>,
    peer: Peer,
    key: Key,
    (change, part): (Change, Option<UploadPart>),
    request: Request<Incoming>,
) -> Answer {
    let (announced, metadata) = (announced_checksum(&request)?, Metadata::from_headers(request.headers())?);
    let mut chunks = Arriving::new(request.into_body(), &key).await?;
    let store = app.jobs.shared.store.clone();
    let checksum = blocking(move || {
        let mut draft = put::begin(&store, &key, part.as_ref())?;
        draft.describe(metadata);
        while let Some(chunk) = chunks.next()? {
            draft.write(&chunk)?;
        }
        put::publish(draft, &peer, &key, announced, change, &Owner::default())
    })
    .await?;
    let mut response = created();
    response.headers_mut().insert(CHECKSUM_HEADER, checksum_value(checksum));
    Ok(response)
}

/// The result of a put whose answer was lost.
pub async fn made(app: &Arc<App>, peer: Peer, key: Key) -> Answer {
    let store = app.jobs.shared.store.clone();
    blocking(move || store.made(&key, peer.put())).await.map(|made| json(&made))
}

pub async fn delete(app: &Arc<App>, key: Key, keep_dirs: bool, only: Option<Checksum>) -> Answer {
    let store = app.jobs.shared.store.clone();
    let names = app.names.clone();
    blocking(move || {
        store.remove(&key, keep_dirs, only)?;
        names.settle(&mut || {});
        Ok(done())
    })
    .await
}

/// The body of a key. A small one is received before the blocking thread starts, which then never waits.
enum Arriving {
    Whole(std::vec::IntoIter<Bytes>),
    Stream(ChunkReader),
}

impl Arriving {
    async fn new(body: Incoming, key: &Key) -> Result<Self> {
        if body.size_hint().upper().is_none_or(|most| most > BLOCK as u64) {
            return Ok(Self::Stream(body::reader(body, BODY_DEADLINE, Role::Server, key.to_string())));
        }
        let mut chunks = Chunks::new(body, BODY_DEADLINE, Role::Server, key.to_string());
        let mut whole = Vec::new();
        while let Some(chunk) = chunks.next().await? {
            whole.push(chunk);
        }
        Ok(Self::Whole(whole.into_iter()))
    }

    fn next(&mut self) -> Result<Option<Bytes>> {
        match self {
            Self::Whole(chunks) => Ok(chunks.next()),
            Self::Stream(chunks) => chunks.next_chunk(),
        }
    }
}

fn created() -> Response<BoxBody> {
    let mut response = done();
    *response.status_mut() = StatusCode::CREATED;
    response
}

fn announced_checksum(request: &Request<Incoming>) -> Result<Option<Checksum>> {
    let Some(value) = request.headers().get(CHECKSUM_HEADER) else {
        return Ok(None);
    };
    let parsed = value.to_str().ok().and_then(|text| text.parse().ok());
    parsed.map(Some).ok_or_else(|| {
        Error::new(ErrorKind::BadRequest, "the header s4-checksum is not 16 hexadecimal digits, a space and a length")
    })
}

pub(super) fn checksum_value(checksum: Checksum) -> HeaderValue {
    HeaderValue::from_str(&checksum.to_string()).expect("digits make a header")
}
