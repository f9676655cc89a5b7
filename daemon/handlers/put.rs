//! A key that is received over a connection.

use super::data::{Data, Next};
use crate::app::App;
use crate::jobs::owner::Owner;
use crate::peer::Peer;
use crate::store::{Draft, Receiving, Store};
use bytes::Bytes;
use s4::checksum::Checksum;
use s4::error::{Error, Result};
use s4::hasher::Sums;
use s4::key::Key;
use s4::protocol::{Change, HEARTBEAT, UploadPart};
use s4::wire::{Pipe, Put, PutEnd, Request, Response, SMALL, keep_alive};
use std::io::Write;
use std::sync::Arc;

/// Bytes that are received before they are hashed: the size of a pipe. With fewer, sender and receiver spend their time
/// waking each other; with more, they wait for each other.
const AT_ONCE: usize = 1024 * 1024;

/// Publishes the key of `put`, which follows as `data`. A job's output is accepted only while the job runs. `receiving` is kept
/// from one output to the next.
pub fn serve(
    app: &App,
    peer: &Peer,
    data: &mut Data,
    put: Put,
    owner: &Owner,
    receiving: &mut Option<Receiving>,
) -> Result<Response> {
    let store = &app.jobs.shared.store;
    owner.enter(store, peer, &put.key, receiving)?;
    let mut first = Bytes::new();
    let mut next = data.next()?;
    if let Next::Piece(len) = next
        && len <= SMALL
    {
        first = data.connection.receive_small()?;
        next = data.next()?;
    }
    match next {
        Next::End(end) => put_whole(store, owner, peer, put, end_of(data, end)?, &first)?,
        Next::Piece(_) => put_stream(store, owner, peer, put, &first, data)?,
    }
    Ok(Response::Stored)
}

fn end_of(data: &Data, end: Request) -> Result<PutEnd> {
    match end {
        Request::PutEnd(end) => Ok(end),
        _ => Err(data.connection.malformed("the end of a key has no checksum")),
    }
}

/// Publishes a small key whose bytes are all here.
fn put_whole(store: &Store, owner: &Owner, peer: &Peer, put: Put, end: PutEnd, bytes: &[u8]) -> Result<()> {
    let mut draft = owner.marked(match &put.part {
        Some(part) => store.draft_part(&put.key, part)?,
        None => store.draft_small(&put.key, bytes.len())?,
    });
    draft.describe(put.metadata);
    draft.write(bytes)?;
    publish(draft, peer, &put.key, Some(end.checksum), end.change, owner).map(drop)
}

/// Publishes a key whose bytes have all come, if they match the announced checksum.
pub fn publish(
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

/// Begins a key, or a part of an upload of it.
pub fn begin<'s>(store: &'s Store, key: &Key, part: Option<&UploadPart>) -> Result<Draft<'s>> {
    part.map_or_else(|| store.draft(key), |part| store.draft_part(key, part))
}

/// Receives a key; `first` are the bytes that are here already. A key that cannot be published is refused at once.
fn put_stream(store: &Arc<Store>, owner: &Owner, peer: &Peer, put: Put, first: &[u8], data: &mut Data) -> Result<()> {
    let Put { key, metadata, part, .. } = &put;
    let mut draft = owner.marked(begin(store, key, part.as_ref())?);
    draft.describe(metadata.clone());
    let (end, found): (PutEnd, Sums) = draft.fill(|file, progress| {
        let what = key.to_string();
        let pipe = Pipe::new().map_err(|e| Error::io(key, &e))?;
        let mut received = first.len();
        { file }.write_all(first).map_err(|e| Error::io(key, &e))?;
        progress(received as u64)?;
        loop {
            while data.connection.data_left() > 0 {
                // File systems store whole, aligned blocks contiguously.
                let most = AT_ONCE - received % AT_ONCE;
                received += data.connection.receive_into_file(file, most, &pipe, &what)?;
                progress(received as u64)?;
            }
            if let Next::End(end) = data.next()? {
                return end_of(data, end);
            }
        }
    })?;
    end.checksum.verify_sent(found.checksum, key)?;
    keep_alive(data.connection, HEARTBEAT, || owner.publish(|| draft.publish_hashed(peer, &found, end.change)))
}
