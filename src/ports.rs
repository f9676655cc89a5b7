//! Chooses ports for daemons that are started without one.

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::TcpListener;

/// Lower ports may belong to well-known services.
const LOWEST: u16 = 10_000;
/// The minimal number of ports to choose from.
const ENOUGH: u16 = 1_000;

/// Listens on a free port of 127.0.0.1. When the listener is closed, a daemon can use the port, now and after a
/// restart.
///
/// A port that the kernel chooses is from the range for outgoing connections (`ip_local_port_range` in ip(7)), and an
/// outgoing connection may take it before the daemon does. So this chooses from the ports below that range. The search
/// begins at a random port, so that two simultaneous searches rarely find the same port.
pub fn free() -> io::Result<TcpListener> {
    let end = outgoing_from().unwrap_or(0);
    if end < LOWEST + ENOUGH {
        return TcpListener::bind(("127.0.0.1", 0));
    }
    let first = LOWEST + (RandomState::new().hash_one(()) % u64::from(end - LOWEST)) as u16;
    let found = (first..end).chain(LOWEST..first).find_map(|port| TcpListener::bind(("127.0.0.1", port)).ok());
    found.map_or_else(|| TcpListener::bind(("127.0.0.1", 0)), Ok)
}

/// The lowest port for outgoing connections.
fn outgoing_from() -> Option<u16> {
    let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").ok()?;
    range.split_ascii_whitespace().next()?.parse().ok()
}
