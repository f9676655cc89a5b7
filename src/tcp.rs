//! What the kernel knows of a TCP connection, and how soon it finds out that a peer is gone.

use nix::sys::socket::{setsockopt, sockopt};
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

/// Seconds of silence after which a peer is asked whether it lives, seconds between the questions, and how many of them
/// may stay without an answer. A peer that only does not read lives.
const KEEPALIVE: (u32, u32, u32) = (15, 5, 3);

/// Options that find dead peers and keep small answers quick. A connection that does not take them still serves.
///
/// `TCP_USER_TIMEOUT` is none of them: it also ends connections with a peer that lives and does not read, as clients of a node may.
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

/// The kernel's `struct tcp_info`, as far as it is looked at here; see tcp(7), `TCP_INFO`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Info {
    /// Neither end has closed it.
    pub is_established: bool,
    /// What was sent is sent again, or a question for room, and no answer comes.
    pub is_unanswered: bool,
    /// Something is still to be sent, or to be acknowledged.
    pub has_unsent: bool,
    /// Bytes that the peer has acknowledged.
    pub acknowledged: u64,
    /// Since anything came from the peer: bytes, or that it has what was sent to it.
    pub silent: Duration,
}

/// From the kernel's `net/tcp_states.h`.
const ESTABLISHED: u8 = 1;
/// Bytes of the structure up to the last field that is looked at.
const LEN: usize = 148;

/// `None` if the kernel tells nothing, or less than Linux 4.6 does.
pub fn info(socket: &impl AsRawFd) -> Option<Info> {
    let mut told = [0u8; LEN];
    let mut len = told.len() as libc::socklen_t;
    // SAFETY: the descriptor is open, and the buffer has as many bytes as are told.
    let got = unsafe {
        let (level, name) = (libc::IPPROTO_TCP, libc::TCP_INFO);
        libc::getsockopt(socket.as_raw_fd(), level, name, told.as_mut_ptr().cast::<libc::c_void>(), &mut len)
    };
    if got != 0 || len as usize != LEN {
        return None;
    }
    let number = |at: usize| u32::from_ne_bytes([told[at], told[at + 1], told[at + 2], told[at + 3]]);
    let (unacknowledged, unsent) = (number(24), number(144));
    let (low, high) = (number(120), number(124));
    let acknowledged = if cfg!(target_endian = "little") { (low, high) } else { (high, low) };
    Some(Info {
        is_established: told[0] == ESTABLISHED,
        is_unanswered: told[2] > 0 || told[3] > 0,
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
    fn the_kernel_tells_how_far_the_peer_is() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut far, _) = listener.accept().unwrap();
        near.write_all(&[7; 1000]).unwrap();
        far.read_exact(&mut [0; 1000]).unwrap();
        far.write_all(b"x").unwrap();
        near.read_exact(&mut [0]).unwrap();
        let told = info(&near).unwrap();
        assert!(told.silent < Duration::from_secs(5), "{told:?}");
        assert_eq!((told.is_established, told.is_unanswered, told.has_unsent), (true, false, false));
        // The SYN counts too.
        assert!((1000..=1001).contains(&told.acknowledged), "{told:?}");
        near.set_nonblocking(true).unwrap();
        while near.write(&[7; 65536]).is_ok() {}
        assert!(info(&near).unwrap().has_unsent);
        drop(far);
    }
}
