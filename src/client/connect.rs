//! Opens connections to nodes. A daemon that restarts refuses connections for a moment; until then, connecting is
//! retried. This is safe, since no request was sent yet.

use super::proxy::Proxy;
use crate::tcp;
use hyper::Uri;
use hyper::http::uri::Authority;
use hyper_util::rt::TokioIo;
use nix::sys::socket::{setsockopt, sockopt};
use std::collections::HashSet;
use std::future::Future;
use std::io::{Error, ErrorKind, Result};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::Instant;
use tower_service::Service;

/// The pause between two attempts to connect.
const RETRY: Duration = Duration::from_millis(25);

/// Opens connections. Clones share the state of the nodes.
#[derive(Clone)]
pub(super) struct Connector {
    /// How long a daemon may take to restart.
    restart: Duration,
    /// How long sent bytes may stay unacknowledged. Then the kernel closes the connection, so that they cannot arrive
    /// later.
    unacknowledged: Duration,
    /// Guards the nodes that have refused connections for longer than a restart takes: connecting to them is not
    /// retried.
    down: Arc<Mutex<HashSet<Authority>>>,
    proxy: Option<Proxy>,
}

impl Connector {
    pub fn new(restart: Duration, unacknowledged: Duration, proxy: Option<Proxy>) -> Self {
        Self { restart, unacknowledged, down: Arc::default(), proxy }
    }

    async fn connect(self, uri: Uri) -> Result<TokioIo<TcpStream>> {
        let node = uri.authority().ok_or_else(|| Error::other("the address has no host"))?;
        let until = Instant::now() + if self.down().contains(node) { Duration::ZERO } else { self.restart };
        loop {
            match self.connect_once(node).await {
                Ok(socket) => {
                    self.down().remove(node);
                    self.set_options(&socket);
                    return Ok(TokioIo::new(socket));
                }
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
                    if Instant::now() >= until {
                        self.down().insert(node.clone());
                        return Err(error);
                    }
                    tokio::time::sleep(RETRY).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn connect_once(&self, node: &Authority) -> Result<TcpStream> {
        let host = node.host().trim_start_matches('[').trim_end_matches(']');
        match (self.proxy.as_ref().filter(|proxy| proxy.is_for(host)), node.port_u16()) {
            (Some(proxy), Some(port)) => proxy.connect(host, port).await,
            _ => TcpStream::connect(node.as_str()).await,
        }
    }

    /// Errors are ignored: the socket works without the options.
    fn set_options(&self, socket: &TcpStream) {
        tcp::set_options(socket);
        let unacknowledged = u32::try_from(self.unacknowledged.as_millis()).unwrap_or(u32::MAX);
        if let Err(error) = setsockopt(socket, sockopt::TcpUserTimeout, &unacknowledged) {
            tracing::debug!("a socket option: {error}");
        }
    }

    fn down(&self) -> MutexGuard<'_, HashSet<Authority>> {
        self.down.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Service<Uri> for Connector {
    type Response = TokioIo<TcpStream>;
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        Box::pin(self.clone().connect(uri))
    }
}
