//! Ports for daemons that are started without one.

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::TcpListener;

/// Below are the ports of well-known services.
const LOWEST: u16 = 10_000;
/// As many must there be to choose from.
const ENOUGH: u16 = 1_000;

/// Listens on a free port of 127.0.0.1, which a daemon may take over when this listener is closed, and again when it is
/// restarted.
///
/// A port that the kernel chooses is of the range that outgoing connections get theirs from (`ip_local_port_range` in
/// ip(7)), and any of them may have it when the daemon wants it. These are from below that range, looked for from a random
/// one on, so that two who look at the same time hardly find the same.
pub fn free() -> io::Result<TcpListener> {
    let end = outgoing_from().unwrap_or(0);
    if end < LOWEST + ENOUGH {
        return TcpListener::bind(("127.0.0.1", 0));
    }
    let first = LOWEST + (RandomState::new().hash_one(()) % u64::from(end - LOWEST)) as u16;
    let found = (first..end).chain(LOWEST..first).find_map(|port| TcpListener::bind(("127.0.0.1", port)).ok());
    found.map_or_else(|| TcpListener::bind(("127.0.0.1", 0)), Ok)
}

/// The lowest port of outgoing connections.
fn outgoing_from() -> Option<u16> {
    let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").ok()?;
    range.split_ascii_whitespace().next()?.parse().ok()
}
