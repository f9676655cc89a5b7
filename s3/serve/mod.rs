//! `s4-s3 serve`, the door: shows a cluster as S3. The crate s3s parses requests, verifies signatures and writes
//! answers; `edge` is in front of it, and `door` behind it.
//!
//! - `server` accepts connections; `edge` refuses browsers, and keeps the memory that a body needs small (`frames`);
//!   `auth` knows the secret key
//! - `door` has a method for each request of S3; the modules `buckets`, `get`, `put`, `copy`, `uploads`, `delete` and `list` do the
//!   work, through the client library only
//! - `names`: buckets and keys of S3 as names of the cluster; `attributes`: ETags, times and conditions; `reader`: the
//!   body of a put, verified; `failure`: errors of the cluster as errors of S3
//!
//! The door has no state besides open listings (`pages`, of `scan`).

mod attributes;
mod auth;
mod buckets;
mod copy;
mod delete;
mod door;
mod edge;
mod failure;
mod frames;
mod get;
mod list;
mod names;
mod pages;
mod put;
mod reader;
mod scan;
mod server;
mod uploads;

use crate::cli::{Global, ServeArgs};
use auth::AnyId;
use copy::Copies;
use door::Door;
use edge::Edge;
use names::AnyBucket;
use s3s::config::{S3Config, StaticConfigProvider};
use s3s::service::S3ServiceBuilder;
use s4::error::{Error, Result};
use std::io::{IsTerminal, Write};
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// The largest XML body of a request: a thousand keys to delete.
const MAX_XML: usize = 4 << 20;

/// Serves until SIGTERM or Ctrl-C.
pub async fn run(global: &Global, args: &ServeArgs) -> Result<()> {
    start_log();
    let (client, secret) = global.client()?;
    let failed = |e: std::io::Error| Error::io(format!("{}: cannot listen", args.listen), &e);
    let listener = TcpListener::bind(args.listen).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    let shutdown = shutdown_signal()?;

    let mut names: Vec<String> =
        client.cluster().ids().map(|node| client.cluster().address(node).host().into()).collect();
    names.extend(args.hosts.iter().cloned());
    let door = Door::new(client);
    let mut service = S3ServiceBuilder::new(door.clone());
    service.set_route(Copies(door));
    service.set_auth(AnyId::new(secret.as_ref()));
    service.set_validation(AnyBucket);
    let mut config = S3Config::default();
    config.xml_max_body_size = MAX_XML;
    service.set_config(Arc::new(StaticConfigProvider::new(Arc::new(config))));

    // Whoever started the door may read the port that it has got.
    writeln!(std::io::stdout(), "s4-s3: serving S3 on http://{address}").map_err(|e| Error::io("stdout", &e))?;
    server::run(listener, Arc::new(Edge::new(service.build(), names)), shutdown).await;
    Ok(())
}

/// Logs only what this program says: s3s would log each refused request, with its headers.
fn start_log() {
    let colours = std::io::stderr().is_terminal();
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(colours).with_target(false);
    let ours = Targets::new().with_target("s4_s3", LevelFilter::INFO).with_target("s4", LevelFilter::INFO);
    tracing_subscriber::registry().with(lines.with_filter(ours)).init();
}

/// Resolves when the door is to end.
fn shutdown_signal() -> Result<impl Future<Output = ()>> {
    let failed = |e: std::io::Error| Error::io("cannot wait for signals", &e);
    let (mut terminate, mut interrupt) =
        (signal(SignalKind::terminate()).map_err(failed)?, signal(SignalKind::interrupt()).map_err(failed)?);
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}
