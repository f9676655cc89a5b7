//! The connections of this daemon: how many there may be, and which of them are cut off.
//!
//! A peer that lives may read as slowly as it likes, as long as others are not kept out. One that is gone is found by the kernel's
//! keepalives where nothing is to be sent, and here where something is: the kernel by itself would go on for a quarter of an hour.

use nix::sys::socket::{Shutdown, shutdown};
use s4::budget::MemoryBudget;
use s4::{limits, tcp};
use std::collections::HashMap;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::net::TcpStream;

/// Connections at once; fewer where the limit of descriptors is low. Each may need a thread, of which the runtime has more.
const MOST: usize = 2048;
/// Descriptors that a connection may need.
const DESCRIPTORS: usize = 5;
/// More of them, for those who ask how the node is.
const RESERVE: usize = 64;

/// Between two looks at all of them.
pub const LOOK: Duration = Duration::from_secs(5);
/// A peer that does not even acknowledge for this long is gone.
const GONE: Duration = Duration::from_secs(25);
/// A peer that reads nothing for this long is cut off if others are kept out.
const PATIENCE: Duration = Duration::from_secs(10);
/// And for this long in any case.
const LONGEST: Duration = Duration::from_secs(3600);

/// All of them. Clones share it.
#[derive(Clone)]
pub struct Connections(Arc<Inner>);

struct Inner {
    most: usize,
    /// Guards what is known of each, by a number of its own.
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

/// What was seen of a connection, and since when it is so.
struct Seen {
    acknowledged: u64,
    /// When the peer took something, or nothing was there for it.
    read: Instant,
    /// When it was last known to be there.
    answered: Instant,
}

/// A connection's place among the others; dropped, it is free.
pub struct Connected {
    connections: Connections,
    number: u64,
    /// Only there for questions about the node.
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

    /// Takes notice of what is so now. True if the peer is to be cut off.
    fn look(&mut self, told: tcp::Info, now: Instant, patience: Duration) -> bool {
        if !told.is_unanswered {
            self.answered = now;
        }
        if !told.has_unsent || told.acknowledged != self.acknowledged {
            (self.acknowledged, self.read) = (told.acknowledged, now);
        }
        now - self.answered >= GONE || now - self.read >= patience
    }
}

impl Connections {
    pub fn new() -> Self {
        let most = MOST.min(limits::descriptors() / DESCRIPTORS);
        Self(Arc::new(Inner { most, table: Mutex::default() }))
    }

    /// A place for one more; `None` if there is none.
    pub fn enter(&self, stream: &TcpStream) -> Option<Connected> {
        // Without a descriptor to look at it, it is not served.
        let socket = stream.as_fd().try_clone_to_owned().ok()?;
        let mut table = self.lock();
        let taken = table.known.len();
        if taken >= self.0.most + RESERVE {
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

    /// Cuts off those who are gone, and who keep others out; `budget` is for what waits for all of them.
    pub fn look(&self, budget: &MemoryBudget) {
        let mut table = self.lock();
        let others_wait = table.known.len() >= self.0.most || budget.is_short();
        let (now, patience) = (Instant::now(), if others_wait { PATIENCE } else { LONGEST });
        for Known { socket, seen } in table.known.values_mut() {
            if tcp::info(socket).is_some_and(|told| seen.look(told, now, patience)) {
                // One that has just ended by itself needs no more.
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

    fn told(acknowledged: u64, is_unanswered: bool) -> tcp::Info {
        tcp::Info { is_established: true, is_unanswered, has_unsent: true, acknowledged, silent: Duration::ZERO }
    }

    #[test]
    fn who_is_gone_is_cut_off_and_who_reads_slowly_is_not() {
        let began = Instant::now();
        let at = |seconds| began + Duration::from_secs(seconds);
        let mut gone = Seen::new(began);
        let cut = (0..20).find(|&look| gone.look(told(1, true), at(5 * look), LONGEST));
        assert_eq!(cut, Some(5), "after 25 s");
        let mut slow = Seen::new(began);
        assert!((0..1000).all(|look| !slow.look(told(look, look % 2 == 0), at(5 * look), PATIENCE)));
        let mut stopped = Seen::new(began);
        assert!(
            (0..600).all(|look| !stopped.look(told(1, false), at(5 * look), LONGEST)),
            "nobody waits for its place"
        );
        assert!(stopped.look(told(1, false), at(3000), PATIENCE));
        let mut idle = Seen::new(began);
        assert!((0..1000).all(|look| !idle.look(
            tcp::Info { has_unsent: false, ..told(1, false) },
            at(60 * look),
            PATIENCE
        )));
    }
}
