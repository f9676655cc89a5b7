//! Accepts connections until the shutdown, which is graceful: requests in progress may finish.

use super::edge::Edge;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use nix::sys::socket::{setsockopt, sockopt};
use s4::tcp;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

/// Simultaneous connections. Each may need two threads and a megabyte.
const MAX_CONNECTIONS: usize = 1024;
/// How long a connection may take to send a request's head; also how long it may be idle.
const HEAD_DEADLINE: Duration = Duration::from_secs(75);
/// Headers of a request: as many as Amazon allows metadata for, and those of the protocol.
const MAX_HEADERS: usize = 128;
/// Limit of bytes of a request's head, and of bytes that are read ahead of a body.
const MAX_BUFFER: usize = 128 * 1024;
/// A client that reads nothing for this long is disconnected: it may work on what it has read.
const UNREAD: Duration = Duration::from_secs(300);
/// How long requests in progress may continue after the shutdown began.
const GRACE: Duration = Duration::from_secs(10);

/// Serves until `shutdown` resolves.
pub async fn run(listener: TcpListener, edge: Arc<Edge>, shutdown: impl Future<Output = ()>) {
    // Each connection has a receiver: the value true asks it to end, and it drops the receiver when it has ended.
    let ending = watch::Sender::new(false);
    let connections = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut shutdown => break,
        };
        match accepted {
            Ok((stream, _)) => match connections.clone().try_acquire_owned() {
                Ok(permit) => serve_connection(stream, edge.clone(), ending.subscribe(), permit),
                // Too many connections: this one is closed at once.
                Err(_) => tracing::warn!("more than {MAX_CONNECTIONS} connections: one is refused"),
            },
            Err(error) => {
                // Most likely the process is out of descriptors; connections that end will release some.
                tracing::warn!("cannot accept a connection: {error}");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
    drop(listener);
    let finished = async {
        ending.send_replace(true);
        ending.closed().await;
    };
    if tokio::time::timeout(GRACE, finished).await.is_err() {
        tracing::warn!("requests did not end within {} s and are cut off", GRACE.as_secs());
    }
}

fn serve_connection(
    stream: TcpStream,
    edge: Arc<Edge>,
    mut ending: watch::Receiver<bool>,
    permit: OwnedSemaphorePermit,
) {
    tcp::set_options(&stream);
    if let Err(error) = setsockopt(&stream, sockopt::TcpUserTimeout, &(UNREAD.as_millis() as u32)) {
        tracing::debug!("a socket option: {error}");
    }
    let service = service_fn(move |request: Request<Incoming>| {
        let edge = edge.clone();
        async move { edge.answer(request).await.map_err(|e| std::io::Error::other(s3s::StdError::from(e))) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_DEADLINE)
        .max_headers(MAX_HEADERS)
        .max_buf_size(MAX_BUFFER)
        .serve_connection(TokioIo::new(stream), service);
    tokio::spawn(async move {
        let mut connection = std::pin::pin!(connection);
        let must_end = async {
            // An error means that the door has ended.
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
            tracing::debug!("a connection ended: {error}");
        }
        drop((ending, permit));
    });
}
