//! Who is at the other end of a connection, how long it is waited for, and what is said of it when that fails.

use crate::error::{Error, Result};
use crate::side::Side;
use crate::timeout::Timeout;
use nix::errno::Errno;
use std::sync::atomic::{AtomicBool, Ordering};

/// The other end, as this one sees it.
pub struct Peer {
    pub timeout: Timeout,
    /// Which end this is.
    pub side: Side,
    /// Names it in errors.
    pub who: String,
    /// It cannot be told any more what comes next.
    is_lost: AtomicBool,
}

impl Peer {
    pub fn new(timeout: Timeout, side: Side, who: String) -> Self {
        Self { timeout, side, who, is_lost: AtomicBool::new(false) }
    }

    /// True if this end is a node's.
    pub fn is_client(&self) -> bool {
        matches!(self.side, Side::Server)
    }

    pub fn is_lost(&self) -> bool {
        self.is_lost.load(Ordering::Relaxed)
    }

    pub fn set_lost(&self, is_lost: bool) {
        self.is_lost.store(is_lost, Ordering::Relaxed);
    }

    /// The error of a transfer that broke off.
    pub fn broken(&self, cause: &std::io::Error) -> Error {
        self.set_lost(true);
        self.side.broken(&self.who, cause)
    }

    /// The error of a peer that does not say what it should.
    pub fn malformed(&self, why: &str) -> Error {
        self.set_lost(true);
        self.side.malformed(&self.who, why)
    }

    /// What a call on the socket gave; `None` if it is to be made again.
    pub fn tried<T>(&mut self, result: nix::Result<T>) -> Result<Option<T>> {
        match result {
            Ok(done) => Ok(Some(done)),
            Err(Errno::EINTR) => Ok(None),
            // How a socket with a time limit says that it was reached.
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
            // That there is no way, the kernel says of a connection that stood only once nothing was confirmed in its time.
            Io::WouldBlock | Io::TimedOut | Io::HostUnreachable | Io::NetworkUnreachable => {
                self.timeout.end();
                self.side.silent(&self.who, self.timeout.limit())
            }
            _ => self.side.broken(&self.who, &error),
        }
    }
}
