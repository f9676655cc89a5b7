//! Connections in, until told to stop; then a graceful end.

use crate::app::App;
use crate::jobs::process;
use crate::peer::Peer;
use crate::routes;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use nix::sys::socket::{setsockopt, sockopt};
use s4::client::blocking;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::Instant;

/// How long a connection may take to send a request's head; longer than our clients keep an idle one.
const HEAD_DEADLINE: Duration = Duration::from_secs(75);
const MAX_HEADERS: usize = 64;
/// Bounds the head of a request, and what is read ahead of a body.
const MAX_BUFFER: usize = 256 * 1024;
/// Seconds of silence after which a peer is asked whether it lives, seconds between the questions, and how many of them
/// may stay without an answer. A peer that only does not read lives.
const KEEPALIVE: (u32, u32, u32) = (15, 5, 3);
/// What is under way may go on for this long after the daemon was told to end.
const GRACE: Duration = Duration::from_secs(3);
/// What was killed has this long to clean up.
const CLEANUP: Duration = Duration::from_secs(5);

/// Serves until `shutdown` resolves, and returns when nothing of this daemon runs any more.
pub async fn run(listener: TcpListener, app: Arc<App>, shutdown: impl Future<Output = ()>) {
    // Each connection has a receiver: they are told to end, and are gone when there is none left.
    let ending = watch::Sender::new(false);
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut shutdown => break,
        };
        match accepted {
            Ok((stream, _)) => serve_connection(stream, &app, ending.subscribe()),
            Err(error) => {
                // Out of descriptors, most likely: those under way will give some back.
                tracing::warn!("cannot accept a connection: {error}");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
    drop(listener);
    end(app, ending).await;
}

fn serve_connection(stream: TcpStream, app: &Arc<App>, mut ending: watch::Receiver<bool>) {
    set_options(&stream);
    let (app, peer) = (app.clone(), Peer::of(&stream));
    let service = service_fn(move |request| routes::serve(app.clone(), peer.clone(), request));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_DEADLINE)
        // A request counts also when its sender has hung up since: a cancel, above all.
        .half_close(true)
        .max_headers(MAX_HEADERS)
        .max_buf_size(MAX_BUFFER)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    tokio::spawn(async move {
        let mut connection = std::pin::pin!(connection);
        let told = async {
            // An error would mean that the daemon has ended.
            let _ = ending.wait_for(|ending| *ending).await;
        };
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = told => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            tracing::debug!("a connection ended: {error}");
        }
        drop(ending);
    });
}

/// Options that find dead peers and keep small answers quick. A socket that does not take them still serves.
fn set_options(stream: &TcpStream) {
    let results = [
        stream.set_nodelay(true),
        setsockopt(stream, sockopt::KeepAlive, &true).map_err(Into::into),
        setsockopt(stream, sockopt::TcpKeepIdle, &KEEPALIVE.0).map_err(Into::into),
        setsockopt(stream, sockopt::TcpKeepInterval, &KEEPALIVE.1).map_err(Into::into),
        setsockopt(stream, sockopt::TcpKeepCount, &KEEPALIVE.2).map_err(Into::into),
    ];
    for error in results.into_iter().filter_map(Result::err) {
        tracing::debug!("a socket option: {error}");
    }
}

/// Lets what runs finish for a moment, then kills it, and whatever any command has left behind.
async fn end(app: Arc<App>, ending: watch::Sender<bool>) {
    let (jobs, running) = (app.jobs.clone(), app.jobs.shared.running.clone());
    let (streams, sessions) = (app.streams.clone(), app.sessions.clone());
    let under_way = move || jobs.running() + jobs.shared.running.count() + streams.count() + sessions.count();
    tracing::info!("going down, {} commands run", app.jobs.shared.running.count());
    app.jobs.close();
    app.sessions.end();
    let finished = async {
        ending.send_replace(true);
        ending.closed().await;
        until_none(&under_way).await;
    };
    let in_time = tokio::time::timeout(GRACE, finished).await.is_ok();
    blocking(move || {
        let shared = &app.jobs.shared;
        if !in_time {
            app.streams.close();
            app.sessions.close();
            app.jobs.interrupt();
            shared.running.kill_all();
        }
        process::kill_tree(&shared.store.tasks_dir());
        process::kill_tree(&shared.store.idle_dirs());
    })
    .await;
    let cleaned = tokio::time::timeout(CLEANUP, until_none(&under_way)).await;
    blocking(move || running.clear()).await;
    if cleaned.is_err() {
        tracing::warn!("{} jobs, commands and transfers do not end", under_way());
    }
}

async fn until_none(count: impl Fn() -> usize) {
    let began = Instant::now();
    while count() > 0 {
        tokio::time::sleep(Duration::from_millis(if began.elapsed().as_millis() < 100 { 1 } else { 20 })).await;
    }
}
