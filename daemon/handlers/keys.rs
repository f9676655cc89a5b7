//! One key: get, put, delete.

use super::{Answer, done, json};
use crate::app::{App, BODY_DEADLINE};
use crate::jobs::owner::Owner;
use crate::peer::Peer;
use crate::store::{Asker, Draft, Opened, Part, Range, Store};
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderValue};
use hyper::{Request, Response, StatusCode};
use s4::blocks::LEAF;
use s4::body::{self, BoxBody, ChunkReader, ChunkSender, Chunks, Side};
use s4::checksum::{BLOCK, Checksum, Sums};
use s4::client::blocking;
use s4::error::{Error, ErrorKind, Result};
use s4::key::Key;
use s4::protocol::{CHECKSUM_HEADER, Change, Delivery, SUMS_HEADER};
use s4::stream::{self, Pipe, Stream};
use s4::summed;
use s4::upload::Arrival;
use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

/// How long a part of a key waits for room in memory: those who do not read are cut off by then.
const ROOM: Duration = Duration::from_secs(20);

/// What a key is to be besides its bytes.
pub struct Born {
    pub change: Change,
    /// The task that it is an output of.
    pub delivery: Option<Delivery>,
}

/// A key: a small one at once, a large one over a stream to who asks for one.
pub async fn get(app: &Arc<App>, key: Key, request: Request<Incoming>) -> Answer {
    let store = app.jobs.shared.store.clone();
    let (opened, small, key) = match store.read_at_once(&key, BLOCK as u64) {
        Some((opened, small)) => (opened, small, key),
        None => {
            let read = blocking(move || {
                let mut opened = store.open_key(&key)?;
                let small = match opened.checksum.len <= BLOCK as u64 {
                    true => Some(read_whole(&store, &mut opened, &key)?),
                    false => None,
                };
                Ok::<_, Error>((opened, small, key))
            });
            read.await?
        }
    };
    let checksum = opened.checksum;
    if checksum.len >= stream::LARGE && stream::is_wanted(request.headers()) {
        let (file, store, name) = (opened.file, app.jobs.shared.store.clone(), key.clone());
        return Ok(grant(app, checksum, &key, request, move |mut stream: Stream| {
            let sent = stream.send_file(&file, 0, checksum.len);
            sent.inspect_err(|error| note_unreadable(&store, &name, error))
        }));
    }
    let content = match small {
        Some(bytes) => body::full(bytes),
        None => {
            let ((sender, body), store) = (app.channel(), app.jobs.shared.store.clone());
            tokio::task::spawn_blocking(move || send_file(&store, opened, &key, &sender));
            body.boxed_unsync()
        }
    };
    let mut response = Response::new(content);
    let headers = response.headers_mut();
    headers.insert(CONTENT_LENGTH, HeaderValue::from(checksum.len));
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(CHECKSUM_HEADER, checksum_value(checksum));
    Ok(response)
}

/// A key over a stream, from the leaf on that holds byte `offset`, with sums.
pub async fn rest(app: &Arc<App>, key: Key, checksum: Checksum, offset: u64, request: Request<Incoming>) -> Answer {
    if !stream::is_wanted(request.headers()) {
        return Err(Error::new(ErrorKind::BadRequest, "this route answers with a stream, and none is asked for"));
    }
    let store = app.jobs.shared.store.clone();
    let (held, key) = blocking(move || store.held_file(&key, checksum).map(|held| (held, key))).await?;
    let (store, name) = (app.jobs.shared.store.clone(), key.clone());
    Ok(grant(app, checksum, &name, request, move |mut stream| {
        let first = (offset / LEAF) as usize;
        let sent = summed::send(&mut stream, &held.file, checksum.len, first, |leaf| store.leaf_sum(&held, &key, leaf));
        sent.inspect_err(|error| note_unreadable(&store, &key, error))
    }))
}

fn grant(
    app: &App,
    checksum: Checksum,
    key: &Key,
    request: Request<Incoming>,
    send: impl FnOnce(Stream) -> Result<()> + Send + 'static,
) -> Response<BoxBody> {
    let mut response = app.streams.grant(request, BODY_DEADLINE, key.to_string(), send);
    response.headers_mut().insert(CHECKSUM_HEADER, checksum_value(checksum));
    response
}

/// A part of a key, with the checksum of just these bytes, and the sums of its leaves as they were recorded.
pub async fn range(app: &Arc<App>, key: Key, range: Range) -> Answer {
    let store = app.jobs.shared.store.clone();
    let read = range.read();
    // All of that is in memory at first, and what was asked for until it is read.
    let room = app.in_flight.share((read.end - read.start) as usize);
    let Ok(Some(mut share)) = tokio::time::timeout(ROOM, room).await else {
        return Err(Error::new(ErrorKind::Busy, format!("{key}: too many bytes wait for peers that do not read them")));
    };
    let (Part { bytes, sums }, checksum) = blocking(move || {
        let part = store.read_range(&key, &range)?;
        let checksum = Checksum::of(&part.bytes);
        Ok::<_, Error>((part, checksum))
    })
    .await?;
    share.cut_to(bytes.len());
    let mut response = Response::new(body::full(share.hold(bytes.into())));
    response.headers_mut().insert(CHECKSUM_HEADER, checksum_value(checksum));
    if let Some(sums) = sums {
        let text: String = sums.iter().map(|sum| format!("{sum:08x}")).collect();
        response.headers_mut().insert(SUMS_HEADER, HeaderValue::from_str(&text).expect("digits make a header"));
    }
    Ok(response)
}

/// Has the log and the node's health tell of a key that the disk did not give: the stream cannot say so.
fn note_unreadable(store: &Store, key: &Key, error: &Error) {
    if error.kind() == ErrorKind::Io {
        store.unreadable(key, &std::io::Error::from_raw_os_error(nix::libc::EIO));
    }
}

fn read_whole(store: &Store, opened: &mut Opened, key: &Key) -> Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(opened.checksum.len as usize);
    let limited = (&mut opened.file).take(opened.checksum.len).read_to_end(&mut bytes);
    limited.map_err(|e| store.unreadable(key, &e))?;
    match bytes.len() as u64 == opened.checksum.len {
        true => Ok(bytes),
        false => Err(Error::new(ErrorKind::Checksum, format!("{key}: checksum error: the file became shorter"))),
    }
}

/// Sends as many bytes as were announced. A file that ends early breaks the body off.
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

/// Takes the body as the key. A checksum in the header is compared before anything is published. A job's output is taken only
/// while the job goes on.
pub async fn put(app: &Arc<App>, peer: Peer, key: Key, born: Born, request: Request<Incoming>) -> Answer {
    let owner = app.jobs.owner(born.delivery.as_ref())?;
    if stream::is_wanted(request.headers()) {
        if born.change != Change::default() || request.headers().contains_key(CHECKSUM_HEADER) {
            let message =
                "an upload says at its end what the key is to be: neither mode nor mtime nor s4-checksum before";
            return Err(Error::new(ErrorKind::BadRequest, message));
        }
        return put_stream(app, peer, key, owner, request).await;
    }
    let announced = announced_checksum(&request)?;
    let mut chunks = Arriving::new(request.into_body(), &key).await?;
    let store = app.jobs.shared.store.clone();
    let checksum = blocking(move || {
        let mut receiving = None;
        owner.enter(&store, &peer, &key, &mut receiving)?;
        let mut draft = owner.marked(store.draft(&key)?);
        while let Some(chunk) = chunks.next()? {
            draft.write(&chunk)?;
        }
        publish(draft, &peer, &key, announced, born.change, &owner)
    })
    .await?;
    let mut response = created();
    response.headers_mut().insert(CHECKSUM_HEADER, checksum_value(checksum));
    Ok(response)
}

/// Takes a small key that is here whole. Blocks.
pub fn put_whole(
    store: &Store,
    peer: &Peer,
    key: &Key,
    checksum: Checksum,
    change: Change,
    bytes: &[u8],
) -> Result<()> {
    let mut draft = store.draft_small(key, bytes.len())?;
    draft.write(bytes)?;
    publish(draft, peer, key, Some(checksum), change, &Owner::default()).map(drop)
}

/// Publishes a key whose bytes have all come, if they are what was announced.
fn publish(
    draft: Draft,
    peer: &Peer,
    key: &Key,
    announced: Option<Checksum>,
    change: Change,
    owner: &Owner,
) -> Result<Checksum> {
    let found = draft.checksum();
    announced.map_or(Ok(()), |announced| announced.verify_sent(found, key))?;
    owner.publish(|| draft.publish_for(peer, change)).map(|()| found)
}

/// Takes the key over a stream. One that cannot be is refused before any byte is sent.
async fn put_stream(app: &Arc<App>, peer: Peer, key: Key, owner: Owner, request: Request<Incoming>) -> Answer {
    let store = app.jobs.shared.store.clone();
    let (store, key) = blocking(move || store.check_free(&key).map(|()| (store, key))).await?;
    let (what, pipe) = (key.to_string(), Pipe::new().map_err(|e| Error::io(&key, &e))?);
    let take = move |stream| {
        let mut arrival = Arrival::new(stream, pipe);
        // Until the key is published.
        let mut receiving = None;
        let entered = owner.enter(&store, &peer, &key, &mut receiving);
        let taken =
            entered.and_then(|()| receive(&store, &key, &owner, &mut arrival)).and_then(|(draft, sums, change)| {
                arrival.publish(|| owner.publish(|| draft.publish_hashed(&peer, &sums, change)))
            });
        arrival.answer(&taken)
    };
    Ok(app.streams.grant(request, BODY_DEADLINE, what, take))
}

fn receive<'s>(store: &'s Store, key: &Key, owner: &Owner, arrival: &mut Arrival) -> Result<(Draft<'s>, Sums, Change)> {
    let mut draft = owner.marked(store.draft(key)?);
    let what = key.to_string();
    let (ending, found) = draft.fill(|file, progress| arrival.receive(file, &what, progress))?;
    ending.checksum.verify_sent(found.checksum, key)?;
    Ok((draft, found, ending.change))
}

/// What a client asks whose put was not answered.
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

/// A key's body: a small one is here whole, so that the blocking thread waits for nothing.
enum Arriving {
    Whole(std::vec::IntoIter<Bytes>),
    Stream(ChunkReader),
}

impl Arriving {
    async fn new(body: Incoming, key: &Key) -> Result<Self> {
        if body.size_hint().upper().is_none_or(|most| most > BLOCK as u64) {
            return Ok(Self::Stream(body::reader(body, BODY_DEADLINE, Side::Server, key.to_string())));
        }
        let mut chunks = Chunks::new(body, BODY_DEADLINE, Side::Server, key.to_string());
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
