//! Connections to nodes. A daemon that restarts refuses them for a moment, in which whatever was to be sent waits: nothing of it has
//! reached anybody yet.

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

/// Between two tries to connect.
const AGAIN: Duration = Duration::from_millis(25);

/// Makes connections. Clones share what is known of the nodes.
#[derive(Clone)]
pub(super) struct Connector {
    /// How long a daemon may take to restart.
    restart: Duration,
    /// How long bytes that were sent may stay unconfirmed. Then the kernel drops them, so that they reach nobody later.
    unconfirmed: Duration,
    /// Guards the nodes that have refused connections for longer than a restart takes: they are not waited for.
    down: Arc<Mutex<HashSet<Authority>>>,
}

impl Connector {
    pub fn new(restart: Duration, unconfirmed: Duration) -> Self {
        Self { restart, unconfirmed, down: Arc::default() }
    }

    async fn connect(self, uri: Uri) -> Result<TokioIo<TcpStream>> {
        let node = uri.authority().ok_or_else(|| Error::other("the address has no host"))?;
        let until = Instant::now() + if self.down().contains(node) { Duration::ZERO } else { self.restart };
        loop {
            match TcpStream::connect(node.as_str()).await {
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
                    tokio::time::sleep(AGAIN).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// A socket that does not take them still serves.
    fn set_options(&self, socket: &TcpStream) {
        tcp::set_options(socket);
        let unconfirmed = u32::try_from(self.unconfirmed.as_millis()).unwrap_or(u32::MAX);
        if let Err(error) = setsockopt(socket, sockopt::TcpUserTimeout, &unconfirmed) {
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
