//! The peer of a connection: checks whether it still waits for its answer.

use crate::store::Requester;
use hyper::header::HeaderMap;
use s4::error::{Error, ErrorKind, Result};
use s4::protocol::{PUT_HEADER, WAITS_HEADER};
use s4::tcp;
use std::fmt::Display;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;

/// A client that waits for an answer. Cloned for each request. Clones share the socket.
#[derive(Clone)]
pub struct Peer {
    /// For the log; `None` if it is not known.
    pub address: Option<SocketAddr>,
    socket: Option<Arc<OwnedFd>>,
    /// How long the client waits for the answer after its last sign of life; `None` without a limit.
    waits: Option<Duration>,
    /// The number of the put, if the client may ask for its result.
    put: Option<u64>,
}

impl Peer {
    pub fn of(stream: &TcpStream, address: SocketAddr) -> Self {
        // Without a descriptor for checks, the peer is assumed to be alive.
        let socket = stream.as_fd().try_clone_to_owned().ok().map(Arc::new);
        Self { address: Some(address), socket, waits: None, put: None }
    }

    /// Adds the data of a request's headers.
    pub fn with_headers(self, headers: &HeaderMap) -> Self {
        let waits = headers.get(WAITS_HEADER).and_then(|value| value.to_str().ok()?.parse().ok());
        let put = headers.get(PUT_HEADER).and_then(|value| value.to_str().ok()?.parse().ok());
        Self { waits: waits.map(Duration::from_millis), put, ..self }
    }

    /// This peer, with the number of a put.
    pub fn with_put(&self, put: Option<u64>) -> Self {
        Self { put, ..self.clone() }
    }

    /// Refuses a request that has been in the socket's buffer for longer than its sender waits, because this daemon was
    /// stopped or overloaded. The sender has reported a timeout already, but its disconnect may not have arrived here.
    pub fn check_waiting(&self) -> Result<()> {
        let state =
            self.socket.as_deref().zip(self.waits).and_then(|(socket, waits)| Some((tcp::info(socket)?, waits)));
        match state {
            Some((state, waits)) if state.silent > waits => {
                let message =
                    format!("it came {:.1} s ago, and its sender waits no longer", state.silent.as_secs_f64());
                Err(Error::new(ErrorKind::Cancelled, message))
            }
            _ => Ok(()),
        }
    }
}

impl Requester for Peer {
    /// Refuses to make `name` if the client has disconnected or timed out: it has reported that the key or directory
    /// does not exist.
    fn check(&self, name: &impl Display) -> Result<()> {
        let Some(state) = self.socket.as_deref().and_then(tcp::info) else { return Ok(()) };
        let reason = if !state.is_established {
            "has hung up"
        } else if self.waits.is_some_and(|waits| state.silent > waits) {
            "waits no longer"
        } else {
            return Ok(());
        };
        Err(Error::new(ErrorKind::Cancelled, format!("{name}: its sender {reason}; nothing was stored")))
    }

    fn timeout(&self) -> Option<Duration> {
        self.waits
    }

    fn put(&self) -> Option<u64> {
        self.put
    }
}
