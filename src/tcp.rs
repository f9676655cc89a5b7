//! TCP: options that detect dead peers, and the kernel's information about a connection.

use nix::sys::socket::{setsockopt, sockopt};
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

/// Seconds of silence before a keepalive, seconds between keepalives, and unanswered keepalives before the peer counts
/// as dead. A peer that is alive but does not read answers them.
const KEEPALIVE: (u32, u32, u32) = (15, 5, 3);

/// Sets options that detect dead peers and send small answers at once. If they cannot be set, the connection still
/// works.
///
/// `TCP_USER_TIMEOUT` is not set: it would also end connections with a peer that is alive and does not read, which
/// clients are allowed to do.
pub fn set_options(socket: &impl AsFd) {
    let results = [
        setsockopt(socket, sockopt::TcpNoDelay, &true),
        setsockopt(socket, sockopt::KeepAlive, &true),
        setsockopt(socket, sockopt::TcpKeepIdle, &KEEPALIVE.0),
        setsockopt(socket, sockopt::TcpKeepInterval, &KEEPALIVE.1),
        setsockopt(socket, sockopt::TcpKeepCount, &KEEPALIVE.2),
    ];
    for error in results.into_iter().filter_map(Result::err) {
        tracing::debug!("a socket option: {error}");
    }
}

/// The fields of the kernel's `struct tcp_info` that are used here; see tcp(7), `TCP_INFO`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Info {
    /// Neither end has closed the connection.
    pub is_established: bool,
    /// The kernel is retransmitting, or probing a full receive window, without an answer.
    pub is_unanswered: bool,
    /// There are bytes to be sent or acknowledged.
    pub has_unsent: bool,
    /// Bytes that the peer has acknowledged.
    pub acknowledged: u64,
    /// Time since anything came from the peer: bytes or acknowledgements.
    pub silent: Duration,
}

/// From the kernel's `net/tcp_states.h`.
const ESTABLISHED: u8 = 1;
/// Length of the structure up to the last field that is used.
const LEN: usize = 148;

/// `None` if the kernel provides less than Linux 4.6 does.
pub fn info(socket: &impl AsRawFd) -> Option<Info> {
    let mut info = [0u8; LEN];
    let mut len = info.len() as libc::socklen_t;
    // SAFETY: the descriptor is open, and the buffer has the length that is passed.
    let got = unsafe {
        let (level, name) = (libc::IPPROTO_TCP, libc::TCP_INFO);
        libc::getsockopt(socket.as_raw_fd(), level, name, info.as_mut_ptr().cast::<libc::c_void>(), &mut len)
    };
    if got != 0 || len as usize != LEN {
        return None;
    }
    let number = |at: usize| u32::from_ne_bytes([info[at], info[at + 1], info[at + 2], info[at + 3]]);
    let (unacknowledged, unsent) = (number(24), number(144));
    let (low, high) = (number(120), number(124));
    let acknowledged = if cfg!(target_endian = "little") { (low, high) } else { (high, low) };
    Some(Info {
        is_established: info[0] == ESTABLISHED,
        is_unanswered: info[2] > 0 || info[3] > 0,
        has_unsent: unacknowledged > 0 || unsent > 0,
        acknowledged: u64::from(acknowledged.1) << 32 | u64::from(acknowledged.0),
        silent: Duration::from_millis(number(52).min(number(56)).into()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn the_kernel_reports_what_the_peer_has_acknowledged() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut far, _) = listener.accept().unwrap();
        near.write_all(&[7; 1000]).unwrap();
        far.read_exact(&mut [0; 1000]).unwrap();
        far.write_all(b"x").unwrap();
        near.read_exact(&mut [0]).unwrap();
        let state = info(&near).unwrap();
        assert!(state.silent < Duration::from_secs(5), "{state:?}");
        assert_eq!((state.is_established, state.is_unanswered, state.has_unsent), (true, false, false));
        // The SYN is counted too.
        assert!((1000..=1001).contains(&state.acknowledged), "{state:?}");
        near.set_nonblocking(true).unwrap();
        while near.write(&[7; 65536]).is_ok() {}
        assert!(info(&near).unwrap().has_unsent);
        drop(far);
    }
}
