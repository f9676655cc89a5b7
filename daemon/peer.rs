//! Who is at the other end of a connection, and whether it still waits for its answer.

use crate::store::Requester;
use hyper::header::HeaderMap;
use s4::error::{Error, ErrorKind, Result};
use s4::protocol::{PUT_HEADER, WAITS_HEADER};
use s4::tcp;
use std::fmt::Display;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;

/// A client that waits for an answer, with each of its requests. Clones share it.
#[derive(Clone)]
pub struct Peer {
    socket: Option<Arc<OwnedFd>>,
    /// How long it waits for the answer after its last sign of life; for ever, where it does not say.
    waits: Option<Duration>,
    /// What it puts, if it may ask what became of that.
    put: Option<u64>,
}

impl Peer {
    pub fn of(stream: &TcpStream) -> Self {
        // Without a descriptor to look at it, it is taken to be there.
        Self { socket: stream.as_fd().try_clone_to_owned().ok().map(Arc::new), waits: None, put: None }
    }

    /// The same, as a request's headers tell of it.
    pub fn asking(self, headers: &HeaderMap) -> Self {
        let waits = headers.get(WAITS_HEADER).and_then(|value| value.to_str().ok()?.parse().ok());
        let put = headers.get(PUT_HEADER).and_then(|value| value.to_str().ok()?.parse().ok());
        Self { waits: waits.map(Duration::from_millis), put, ..self }
    }

    /// The same, for one put.
    pub fn putting(&self, put: Option<u64>) -> Self {
        Self { put, ..self.clone() }
    }

    /// Refuses a request that has lain here for longer than its sender waits, while this daemon did not run or had too much to do. The
    /// sender has said by now that there was no answer; its own end may not have reached us.
    pub fn is_waiting(&self) -> Result<()> {
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
    /// Refuses to make `name` for one that has hung up, or waits no longer: it has told its user that there is no such key or
    /// directory.
    fn check(&self, name: &impl Display) -> Result<()> {
        let Some(state) = self.socket.as_deref().and_then(tcp::info) else { return Ok(()) };
        let gone = if !state.is_established {
            "has hung up"
        } else if self.waits.is_some_and(|waits| state.silent > waits) {
            "waits no longer"
        } else {
            return Ok(());
        };
        Err(Error::new(ErrorKind::Cancelled, format!("{name}: its sender {gone}; nothing was stored")))
    }

    fn timeout(&self) -> Option<Duration> {
        self.waits
    }

    fn put(&self) -> Option<u64> {
        self.put
    }
}
