//! Handlers: each takes a typed request and returns the response. Work on files, hashing and commands is done on
//! blocking threads.

mod commands;
pub mod connection;
mod data;
mod get;
pub mod jobs;
pub mod keys;
pub mod lists;
pub mod monitoring;
pub mod provenance;
mod put;
pub mod resize;
pub mod scrub;
pub mod tree;
pub mod uploads;

use crate::app::App;
use crate::store::Store;
use bytes::Bytes;
use hyper::Response;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use s4::body::{self, BoxBody, ChunkSender, Disconnected};
use s4::client::blocking;
use s4::error::{Error, ErrorKind, Result};
use s4::protocol::{Event, HEARTBEAT, Health, PROTOCOL, version};
use s4::time::now_milliseconds;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::sync::Arc;
use std::time::Instant;

pub type Answer = Result<Response<BoxBody>>;

/// A JSON response.
pub fn json(value: &impl Serialize) -> Response<BoxBody> {
    let text = serde_json::to_vec(value).expect("answers are plain JSON");
    let mut response = Response::new(body::full(text));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// Parses a JSON body.
fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T> {
    serde_json::from_slice(body).map_err(|e| Error::new(ErrorKind::BadRequest, format!("malformed body: {e}")))
}

fn done() -> Response<BoxBody> {
    Response::new(body::empty())
}

/// Does blocking work on this node's store.
async fn on_store<T: Send + 'static>(
    app: &Arc<App>,
    work: impl FnOnce(&Store) -> Result<T> + Send + 'static,
) -> Result<T> {
    let store = app.jobs.shared.store.clone();
    blocking(move || work(&store)).await
}

pub async fn health(app: &Arc<App>) -> Answer {
    let app = app.clone();
    blocking(move || health_now(&app)).await.map(|health| json(&health))
}

/// The health of this node. Blocks: probes the disk.
pub fn health_now(app: &App) -> Result<Health> {
    let shared = &app.jobs.shared;
    shared.store.check_there()?;
    Ok(Health {
        node: app.node,
        version: version().to_owned(),
        total_bytes: shared.store.total_bytes()?,
        free_bytes: shared.store.free_bytes()?,
        reserve_bytes: shared.store.reserve_bytes(),
        data: shared.store.root().to_owned(),
        token: shared.store.token().to_owned(),
        running_tasks: shared.running.count() as u64,
        trouble: shared.store.trouble(),
        lost_keys: shared.store.lost_keys(),
        uptime_seconds: app.started.elapsed().as_secs(),
        protocol: PROTOCOL,
        clock_ms: now_milliseconds(),
    })
}

/// Sends events, one per line.
struct EventSender(ChunkSender);

impl EventSender {
    fn line(event: &Event) -> Bytes {
        let mut line = serde_json::to_vec(event).expect("events are plain JSON");
        line.push(b'\n');
        line.into()
    }

    /// Blocks while the client does not read.
    fn send(&self, event: &Event) -> std::result::Result<(), Disconnected> {
        self.0.send(Self::line(event))
    }

    async fn send_async(&self, event: &Event) -> std::result::Result<(), Disconnected> {
        self.0.send_async(Self::line(event)).await
    }
}

/// A timer that fires once per heartbeat.
struct Pulse(Instant);

impl Pulse {
    fn new() -> Self {
        Self(Instant::now())
    }

    fn is_due(&mut self) -> bool {
        let due = self.0.elapsed() >= HEARTBEAT;
        if due {
            self.0 = Instant::now();
        }
        due
    }
}
