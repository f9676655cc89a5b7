//! Uploads in parts. The parts come as puts.

use super::data::Data;
use super::{Answer, done, json, on_store, parse};
use crate::app::App;
use crate::peer::Peer;
use hyper::Request as HttpRequest;
use hyper::body::Incoming;
use s4::error::Result;
use s4::key::{Key, Prefix};
use s4::protocol::{Change, CompletedPart, HEARTBEAT, Metadata, UploadId};
use s4::wire::{Response, keep_alive};
use serde_json::json;
use std::sync::Arc;

/// The most bytes of the list of parts of a completion.
const MAX_LIST: usize = 1 << 20;

pub async fn create(app: &Arc<App>, key: Key, request: HttpRequest<Incoming>) -> Answer {
    let metadata = Metadata::from_headers(request.headers())?;
    on_store(app, move |store| store.create_upload(&key, metadata)).await.map(|id| json(&json!({ "id": id })))
}

pub async fn list(app: &Arc<App>, prefix: Prefix, after: (String, String)) -> Answer {
    on_store(app, move |store| store.list_uploads(&prefix, (&after.0, &after.1))).await.map(|found| json(&found))
}

pub async fn list_parts(app: &Arc<App>, key: Key, id: UploadId, after: u32) -> Answer {
    on_store(app, move |store| store.list_parts(&key, &id, after)).await.map(|found| json(&found))
}

pub async fn abort(app: &Arc<App>, peer: Peer, key: Key, id: UploadId) -> Answer {
    on_store(app, move |store| store.abort_upload(&peer, &key, &id)).await.map(|()| done())
}

/// Joins the parts whose list follows as `data`.
pub fn complete(app: &App, peer: &Peer, data: &mut Data, key: &Key, id: &UploadId, change: Change) -> Result<Response> {
    let parts: Vec<CompletedPart> = parse(&data.whole(MAX_LIST)?)?;
    let store = &app.jobs.shared.store;
    let completed = keep_alive(data.connection, HEARTBEAT, || store.complete_upload(peer, key, id, &parts, change));
    completed.map(Response::Completed)
}
