//! Sends a key over a connection: the whole key, or the leaves of a part of it.

use crate::app::App;
use crate::store::{Opened, Store};
use s4::blocks::{LEAF, leaves_of};
use s4::error::{Error, ErrorKind, Result};
use s4::key::Key;
use s4::wire::frame::MAX_DATA;
use s4::wire::parts;
use s4::wire::{Connection, Part, Response, SMALL, SendError};
use std::io::Read;

/// Sends the key's head and data; returns the response that follows them.
pub fn serve(app: &App, connection: &mut Connection, key: &Key, part: Option<Part>) -> Result<Response> {
    let store = &app.jobs.shared.store;
    let sent = match part {
        Some(part) => send_part(store, connection, key, &part),
        None => send_whole(store, connection, key),
    };
    sent.map(|()| Response::End)
}

fn send_whole(store: &Store, connection: &mut Connection, key: &Key) -> Result<()> {
    let (opened, small) = open(store, key, SMALL as u64)?;
    let checksum = opened.checksum;
    connection.put_message(&Response::Key(checksum))?;
    if let Some(bytes) = small {
        return connection.put_data(&bytes, checksum.xxh3 as u32);
    }
    let mut sent = 0;
    while sent < checksum.len {
        let len = (checksum.len - sent).min(MAX_DATA as u64) as usize;
        // The receiver of a whole key verifies it as a whole.
        connection.send_file(&opened.file, sent, len, 0).map_err(|error| failed(store, key, error))?;
        sent += len as u64;
    }
    Ok(())
}

fn send_part(store: &Store, connection: &mut Connection, key: &Key, part: &Part) -> Result<()> {
    let cached = store.open_part(key, part)?;
    let total = part.checksum.len;
    let first = part.offset.min(total);
    let end = part.len.map_or(total, |len| first.saturating_add(len).min(total));
    let leaves = if first < end { (first / LEAF) as usize..leaves_of(end) } else { 0..0 };
    connection.put_message(&Response::Key(part.checksum))?;
    let sent = parts::send(connection, &cached.file, total, leaves, |leaf| store.leaf_sum(&cached, key, leaf));
    sent.map_err(|error| failed(store, key, error))
}

/// A read error is counted and logged, so that it shows in the node's health.
fn failed(store: &Store, key: &Key, error: SendError) -> Error {
    match error {
        SendError::File(error) => store.unreadable(key, &error),
        SendError::Other(error) => error,
    }
}

/// Opens a key, and reads its bytes if it is `small`.
pub fn open(store: &Store, key: &Key, small: u64) -> Result<(Opened, Option<Vec<u8>>)> {
    if let Some(opened) = store.read_at_once(key, small) {
        return Ok(opened);
    }
    let mut opened = store.open_key(key)?;
    let bytes = match opened.checksum.len <= small {
        true => Some(read_whole(store, &mut opened, key)?),
        false => None,
    };
    Ok((opened, bytes))
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
