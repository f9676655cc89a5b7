//! What a mount asks besides keys' bytes: what a name is, directories, renames, attributes.

use super::keys::checksum_value;
use super::{Answer, done, json, parse};
use crate::app::App;
use crate::peer::Peer;
use crate::store::Store;
use s4::client::blocking;
use s4::error::Result;
use s4::key::{Dir, Key};
use s4::protocol::{Book, CHECKSUM_HEADER, Holder};
use std::sync::Arc;

/// What a name is; with a lease, if a holder asks for one with its book.
pub async fn stat(app: &Arc<App>, path: Dir, asks: Option<(Holder, Book)>) -> Answer {
    on_store(app, move |store| store.tell(&path, asks)).await.map(|told| json(&told))
}

pub async fn usage(app: &Arc<App>) -> Answer {
    on_store(app, Store::usage).await.map(|usage| json(&usage))
}

pub async fn adopt(app: &Arc<App>, peer: Peer, key: Key, body: Vec<u8>) -> Answer {
    let adoption = parse(&body)?;
    let checksum = on_store(app, move |store| store.adopt(&peer, &key, &adoption)).await?;
    let mut response = done();
    response.headers_mut().insert(CHECKSUM_HEADER, checksum_value(checksum));
    Ok(response)
}

pub async fn change(app: &Arc<App>, key: Key, body: Vec<u8>) -> Answer {
    let change = parse(&body)?;
    on_store(app, move |store| store.change(&key, change)).await.map(|()| done())
}

pub async fn rename(app: &Arc<App>, peer: Peer, from: Key, to: Key) -> Answer {
    on_store(app, move |store| store.rename(&peer, &from, &to)).await.map(|()| done())
}

pub async fn make_dir(app: &Arc<App>, peer: Peer, dir: Dir) -> Answer {
    on_store(app, move |store| store.make_dir(&peer, &dir)).await.map(|()| done())
}

pub async fn holds_keys(app: &Arc<App>, dir: Dir) -> Answer {
    on_store(app, move |store| store.holds_keys(&dir)).await.map(|holds| json(&holds))
}

pub async fn remove_dir(app: &Arc<App>, dir: Dir) -> Answer {
    on_store(app, move |store| store.remove_dir(&dir)).await.map(|()| done())
}

async fn on_store<T: Send + 'static>(
    app: &Arc<App>,
    work: impl FnOnce(&Store) -> Result<T> + Send + 'static,
) -> Result<T> {
    let store = app.jobs.shared.store.clone();
    blocking(move || work(&store)).await
}
