//! Requests of mounts and other nodes about names: lookup, directories, renames, attributes.

use super::keys::checksum_value;
use super::{Answer, done, json, on_store, parse};
use crate::app::App;
use crate::names::Names;
use crate::peer::Peer;
use crate::store::{Requester, Store};
use s4::client::blocking;
use s4::error::{Error, ErrorKind, Result};
use s4::key::{Dir, Key};
use s4::placement::NodeId;
use s4::protocol::{CHECKSUM_HEADER, Change, Entered};
use std::sync::Arc;

/// Looks up a name whose home is this node.
pub async fn stat(app: &Arc<App>, path: Dir) -> Answer {
    on_names(app, move |names| names.look_up(&path)).await.map(|stat| json(&stat))
}

pub async fn usage(app: &Arc<App>) -> Answer {
    on_store(app, Store::usage).await.map(|usage| json(&usage))
}

pub async fn adopt(app: &Arc<App>, peer: Peer, key: Key, body: Vec<u8>) -> Answer {
    let handoff = parse(&body)?;
    let checksum = on_store(app, move |store| store.adopt(&peer, &key, &handoff)).await?;
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

pub async fn make_dir(app: &Arc<App>, peer: Peer, dir: Dir, body: Vec<u8>) -> Answer {
    let change = if body.is_empty() { Change::default() } else { parse(&body)? };
    peer.check(&dir)?;
    on_names(app, move |names| names.make_dir(&dir, change)).await.map(|()| done())
}

pub async fn holds_dir(app: &Arc<App>, dir: Dir) -> Answer {
    on_store(app, move |store| store.holds_dir(&dir)).await.map(|held| json(&held))
}

pub async fn change_dir(app: &Arc<App>, dir: Dir, body: Vec<u8>) -> Answer {
    let change = parse(&body)?;
    on_store(app, move |store| store.change_dir(&dir, change)).await.map(|()| done())
}

pub async fn remove_dir(app: &Arc<App>, dir: Dir, once_empty: bool) -> Answer {
    let remove = if once_empty { Names::release_dir } else { Names::remove_dir };
    on_names(app, move |names| remove(names, &dir)).await.map(|()| done())
}

/// Records that a node is about to hold something in directories whose home is this node.
pub async fn enter(app: &Arc<App>, peer: Peer, body: Vec<u8>) -> Answer {
    let Entered { node, dirs } = parse(&body)?;
    // A killed node holds nothing.
    dirs.first().map_or(Ok(()), |dir| peer.check(dir))?;
    if !app.cluster.ids().contains(&node) {
        return Err(Error::new(ErrorKind::BadRequest, format!("there is no node {node}")));
    }
    on_names(app, move |names| names.enter(&dirs, node)).await.map(|()| done())
}

/// Another node has deleted the last entry of directories whose home is this node.
pub async fn left(app: &Arc<App>, body: Vec<u8>) -> Answer {
    let dirs = parse(&body)?;
    on_names(app, move |names| {
        names.settle_own(dirs, &mut || {});
        names.settle(&mut || {});
        Ok(done())
    })
    .await
}

/// Answers the home of directories whether this node holds something in them.
pub async fn let_go(app: &Arc<App>, body: Vec<u8>) -> Answer {
    let dirs: Vec<Dir> = parse(&body)?;
    on_names(app, move |names| names.let_go(&dirs)).await.map(|held| json(&held))
}

/// A node was killed, so it may no longer hold what is recorded here.
pub fn audit(app: &Arc<App>, node: NodeId) -> Answer {
    let names = app.names.clone();
    tokio::task::spawn_blocking(move || names.audit(node));
    Ok(done())
}

async fn on_names<T: Send + 'static>(
    app: &Arc<App>,
    work: impl FnOnce(&Names) -> Result<T> + Send + 'static,
) -> Result<T> {
    let names = app.names.clone();
    blocking(move || work(&names)).await
}
