//! Accepts connections until the shutdown, which is graceful: requests in progress may finish.

use crate::app::App;
use crate::connections::CHECK_INTERVAL;
use crate::jobs::process;
use crate::peer::Peer;
use crate::request_log::Origin;
use crate::routes;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use s4::client::blocking;
use s4::error::{Error, ErrorKind};
use s4::tcp;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::Instant;

/// How long a connection may take to send a request's head. Longer than clients keep an idle connection.
const HEAD_DEADLINE: Duration = Duration::from_secs(75);
/// Headers of a request: those that the door of S3 takes as metadata of a key, and our own.
const MAX_HEADERS: usize = 192;
/// Limit of bytes of a request's head, and of bytes that are read ahead of a body.
const MAX_BUFFER: usize = 256 * 1024;
/// The same for a connection on which only urgent requests are served.
const EXTRA_DEADLINE: Duration = Duration::from_secs(2);
/// How long requests in progress may continue after the shutdown began.
const GRACE: Duration = Duration::from_secs(3);
/// With fewer connections than this, and nothing to send, memory is given back.
const FEW: usize = 64;
/// How long killed commands may take to clean up.
const CLEANUP: Duration = Duration::from_secs(5);

/// Serves until `shutdown` resolves. Returns its value when nothing of this daemon runs any more.
pub async fn run<T>(listener: TcpListener, app: Arc<App>, shutdown: impl Future<Output = T>) -> T {
    // Each connection has a receiver: the value true asks it to end, and it drops the receiver when it has ended.
    let ending = watch::Sender::new(false);
    let mut shutdown = std::pin::pin!(shutdown);
    let maintenance = tokio::spawn(maintain(app.clone()));
    let reason = loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            reason = &mut shutdown => break reason,
        };
        match accepted {
            Ok((stream, address)) => serve_connection(stream, address, &app, ending.subscribe()),
            Err(error) => {
                // Most likely the process is out of descriptors; connections that end will release some.
                let reason = Error::io("cannot accept", &error);
                app.requests.refused(Origin::now(None), &"a connection", &reason);
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    };
    drop(listener);
    end(app, ending).await;
    maintenance.abort();
    reason
}

fn serve_connection(stream: TcpStream, address: SocketAddr, app: &Arc<App>, mut ending: watch::Receiver<bool>) {
    tcp::set_options(&stream);
    // Too many connections: this one is closed at once.
    let Some(connected) = app.connections.enter(&stream).map(Arc::new) else {
        return app.requests.refused(Origin::now(Some(address)), &"a connection", &app.crowded());
    };
    let (app, peer, is_extra) = (app.clone(), Peer::of(&stream, address), connected.is_extra);
    let served = app.clone();
    let service = service_fn(move |mut request: Request<Incoming>| {
        // If the request upgrades the connection, the upgraded stream keeps the entry.
        request.extensions_mut().insert(connected.clone());
        routes::serve(served.clone(), peer.clone(), request, is_extra)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(if is_extra { EXTRA_DEADLINE } else { HEAD_DEADLINE })
        .keep_alive(!is_extra)
        // A request is executed even if its sender has closed its side since, in particular a cancel.
        .half_close(true)
        .max_headers(MAX_HEADERS)
        .max_buf_size(MAX_BUFFER)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    tokio::spawn(async move {
        let mut connection = std::pin::pin!(connection);
        let must_end = async {
            // An error means that the daemon has ended.
            let _ = ending.wait_for(|ending| *ending).await;
        };
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = must_end => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            // What is no HTTP is refused by hyper.
            match error.is_parse() {
                true => {
                    let reason = Error::new(ErrorKind::BadRequest, error.to_string());
                    app.requests.refused(Origin::now(Some(address)), &"a request", &reason);
                }
                false => tracing::debug!("the connection from {address} ended: {error}"),
            }
        }
        drop(ending);
    });
}

/// Checks all connections at intervals, and gives memory back when the daemon becomes idle.
async fn maintain(app: Arc<App>) {
    let mut is_trimmed = false;
    loop {
        tokio::time::sleep(CHECK_INTERVAL).await;
        app.connections.check(&app.in_flight);
        app.requests.report();
        let is_calm = app.in_flight.is_idle() && app.jobs.shared.running.count() == 0 && app.connections.count() < FEW;
        if is_calm && !is_trimmed {
            blocking(s4::limits::give_back_memory).await;
        }
        is_trimmed = is_calm;
    }
}

/// Waits for a moment for what is running, then kills it and everything that commands have left.
async fn end(app: Arc<App>, ending: watch::Sender<bool>) {
    let (jobs, running) = (app.jobs.clone(), app.jobs.shared.running.clone());
    let (upgrades, log) = (app.upgrades.clone(), app.requests.clone());
    let under_way = move || jobs.running() + jobs.shared.running.count() + upgrades.count();
    tracing::info!("going down, {} commands run", app.jobs.shared.running.count());
    app.jobs.close();
    app.upgrades.end();
    let finished = async {
        ending.send_replace(true);
        ending.closed().await;
        until_none(&under_way).await;
    };
    let in_time = tokio::time::timeout(GRACE, finished).await.is_ok();
    blocking(move || {
        let shared = &app.jobs.shared;
        if !in_time {
            app.upgrades.close();
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
    log.report_all();
}

async fn until_none(count: impl Fn() -> usize) {
    let began = Instant::now();
    while count() > 0 {
        tokio::time::sleep(Duration::from_millis(if began.elapsed().as_millis() < 100 { 1 } else { 20 })).await;
    }
}
