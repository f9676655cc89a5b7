//! The connections of this daemon: how many are allowed, and which are closed.
//!
//! A peer may read as slowly as it likes while nobody else is refused because of it. A dead peer is found by the
//! kernel's keepalives if there is nothing to send to it, and by this module otherwise: the kernel alone would
//! retransmit for 15 minutes.

use nix::sys::socket::{Shutdown, shutdown};
use s4::budget::MemoryBudget;
use s4::{limits, tcp};
use std::collections::HashMap;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::net::TcpStream;

/// Limit of connections; lower if the limit of descriptors is low. Each connection may need a thread, and the runtime
/// allows more.
const MAX_CONNECTIONS: usize = 2048;
/// Descriptors that a connection may need.
const DESCRIPTORS: usize = 5;
/// Additional connections, which are served only for urgent requests, such as health.
const MAX_EXTRA: usize = 64;

/// The interval between two checks of all connections.
pub const CHECK_INTERVAL: Duration = Duration::from_secs(5);
/// A peer that acknowledges nothing for this long is dead.
const MAX_UNANSWERED: Duration = Duration::from_secs(25);
/// A peer that reads nothing for this long is disconnected if connections are short.
const MAX_UNREAD_IF_SHORT: Duration = Duration::from_secs(10);
/// A peer that reads nothing for this long is always disconnected.
const MAX_UNREAD: Duration = Duration::from_secs(3600);

/// The table of connections. Clones share it.
#[derive(Clone)]
pub struct Connections(Arc<Inner>);

struct Inner {
    most: usize,
    /// Guards the state of each connection, by a number of its own.
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    next: u64,
    known: HashMap<u64, Known>,
}

struct Known {
    socket: OwnedFd,
    seen: Seen,
}

/// The observed state of a connection.
struct Seen {
    acknowledged: u64,
    /// When the peer last read something, or there was nothing to send.
    read: Instant,
    /// When the peer last answered.
    answered: Instant,
}

/// An entry in the table of connections. Dropping it removes the entry.
pub struct Connected {
    connections: Connections,
    number: u64,
    /// True if only urgent requests are served.
    pub is_extra: bool,
}

impl Drop for Connected {
    fn drop(&mut self) {
        self.connections.lock().known.remove(&self.number);
    }
}

impl Seen {
    fn new(now: Instant) -> Self {
        Self { acknowledged: 0, read: now, answered: now }
    }

    /// Updates the state. True if the peer must be disconnected.
    fn update(&mut self, info: tcp::Info, now: Instant, max_unread: Duration) -> bool {
        if !info.is_unanswered {
            self.answered = now;
        }
        if !info.has_unsent || info.acknowledged != self.acknowledged {
            (self.acknowledged, self.read) = (info.acknowledged, now);
        }
        now - self.answered >= MAX_UNANSWERED || now - self.read >= max_unread
    }
}

impl Connections {
    pub fn new() -> Self {
        let most = MAX_CONNECTIONS.min(limits::descriptors() / DESCRIPTORS);
        Self(Arc::new(Inner { most, table: Mutex::default() }))
    }

    /// Adds a connection to the table; `None` if there are too many.
    pub fn enter(&self, stream: &TcpStream) -> Option<Connected> {
        // Without a descriptor for checks, the connection is not served.
        let socket = stream.as_fd().try_clone_to_owned().ok()?;
        let mut table = self.lock();
        let taken = table.known.len();
        if taken >= self.0.most + MAX_EXTRA {
            return None;
        }
        table.next += 1;
        let number = table.next;
        table.known.insert(number, Known { socket, seen: Seen::new(Instant::now()) });
        Some(Connected { connections: self.clone(), number, is_extra: taken >= self.0.most })
    }

    pub fn count(&self) -> usize {
        self.lock().known.len()
    }

    /// Disconnects dead peers, and slow ones if connections or memory are short. `budget` is for the bytes that wait
    /// for all peers.
    pub fn check(&self, budget: &MemoryBudget) {
        let mut table = self.lock();
        let is_short = table.known.len() >= self.0.most || budget.is_short();
        let (now, max_unread) = (Instant::now(), if is_short { MAX_UNREAD_IF_SHORT } else { MAX_UNREAD });
        for Known { socket, seen } in table.known.values_mut() {
            if tcp::info(socket).is_some_and(|info| seen.update(info, now, max_unread)) {
                // This fails if the connection has just ended.
                let _ = shutdown(socket.as_raw_fd(), Shutdown::Both);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.0.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(acknowledged: u64, is_unanswered: bool) -> tcp::Info {
        tcp::Info { is_established: true, is_unanswered, has_unsent: true, acknowledged, silent: Duration::ZERO }
    }

    #[test]
    fn a_dead_peer_is_disconnected_and_a_slow_reader_is_not() {
        let began = Instant::now();
        let at = |seconds| began + Duration::from_secs(seconds);
        let mut gone = Seen::new(began);
        let cut = (0..20).find(|&look| gone.update(info(1, true), at(5 * look), MAX_UNREAD));
        assert_eq!(cut, Some(5), "after 25 s");
        let mut slow = Seen::new(began);
        assert!((0..1000).all(|look| !slow.update(info(look, look % 2 == 0), at(5 * look), MAX_UNREAD_IF_SHORT)));
        let mut stopped = Seen::new(began);
        assert!(
            (0..600).all(|look| !stopped.update(info(1, false), at(5 * look), MAX_UNREAD)),
            "connections are not short"
        );
        assert!(stopped.update(info(1, false), at(3000), MAX_UNREAD_IF_SHORT));
        let mut idle = Seen::new(began);
        assert!((0..1000).all(|look| !idle.update(
            tcp::Info { has_unsent: false, ..info(1, false) },
            at(60 * look),
            MAX_UNREAD_IF_SHORT
        )));
    }
}
