//! The peer of a connection: its name in errors, the timeout for it, and the errors when it fails.

use crate::error::{Error, Result};
use crate::role::Role;
use crate::timeout::Timeout;
use nix::errno::Errno;
use std::sync::atomic::{AtomicBool, Ordering};

/// The other end of a connection.
pub struct Peer {
    pub timeout: Timeout,
    /// Whether this end is the client or the server.
    pub role: Role,
    /// Names it in errors.
    pub subject: String,
    /// True once the position in the stream of frames is unknown, so that the connection is useless.
    is_lost: AtomicBool,
}

impl Peer {
    pub fn new(timeout: Timeout, role: Role, subject: String) -> Self {
        Self { timeout, role, subject, is_lost: AtomicBool::new(false) }
    }

    /// True if the peer is a client, which means that this end is a node.
    pub fn is_client(&self) -> bool {
        matches!(self.role, Role::Server)
    }

    pub fn is_lost(&self) -> bool {
        self.is_lost.load(Ordering::Relaxed)
    }

    pub fn set_lost(&self, is_lost: bool) {
        self.is_lost.store(is_lost, Ordering::Relaxed);
    }

    /// The error of a broken transfer.
    pub fn broken(&self, cause: &std::io::Error) -> Error {
        self.set_lost(true);
        self.role.broken(&self.subject, cause)
    }

    /// The error of a peer that violates the protocol.
    pub fn malformed(&self, why: &str) -> Error {
        self.set_lost(true);
        self.role.malformed(&self.subject, why)
    }

    /// The result of a call on the socket; `None` if the call must be repeated.
    pub fn tried<T>(&mut self, result: nix::Result<T>) -> Result<Option<T>> {
        match result {
            Ok(done) => Ok(Some(done)),
            Err(Errno::EINTR) => Ok(None),
            // The error when the time limit of the socket is reached.
            Err(Errno::EAGAIN) if !self.timeout.is_over() => Ok(None),
            Err(errno) => Err(self.failed(errno)),
        }
    }

    /// The error of a socket.
    pub fn failed(&self, errno: Errno) -> Error {
        use std::io::ErrorKind as Io;
        self.set_lost(true);
        let error = std::io::Error::from(errno);
        match error.kind() {
            // On an established connection, the kernel reports an unreachable host only after nothing was acknowledged
            // in time.
            Io::WouldBlock | Io::TimedOut | Io::HostUnreachable | Io::NetworkUnreachable => {
                self.timeout.end();
                self.role.silent(&self.subject, self.timeout.limit())
            }
            _ => self.role.broken(&self.subject, &error),
        }
    }
}
