//! Who is at the other end of a connection.

use crate::store::Asker;
use hyper::header::HeaderMap;
use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{MsgFlags, recv};
use s4::error::{Error, ErrorKind, Result};
use s4::protocol::{HOLDER_HEADER, Holder};
use std::fmt::Display;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;
use tokio::net::TcpStream;

/// A client that waits for an answer, with each of its requests. Clones share it.
#[derive(Clone)]
pub struct Peer {
    socket: Option<Arc<OwnedFd>>,
    holder: Option<Holder>,
}

impl Peer {
    pub fn of(stream: &TcpStream) -> Self {
        // Without a descriptor to look at it, it is taken to be there.
        Self { socket: stream.as_fd().try_clone_to_owned().ok().map(Arc::new), holder: None }
    }

    /// The same, as a request's headers tell of it.
    pub fn asking(self, headers: &HeaderMap) -> Self {
        let holder = headers.get(HOLDER_HEADER).and_then(|value| value.to_str().ok()?.parse().ok());
        Self { holder, ..self }
    }
}

impl Asker for Peer {
    /// Refuses to make `name` for one that has hung up: it has told its user that there is no such key or directory.
    fn check(&self, name: &impl Display) -> Result<()> {
        let Some(socket) = &self.socket else { return Ok(()) };
        match recv(socket.as_raw_fd(), &mut [0], MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT) {
            Ok(1..) | Err(Errno::EAGAIN | Errno::EINTR) => Ok(()),
            // This daemon is ending, and reads no more questions; see `Streams::end`.
            Ok(0) if is_connected(socket) => Ok(()),
            Ok(0) | Err(_) => {
                Err(Error::new(ErrorKind::Cancelled, format!("{name}: its sender has hung up; nothing was stored")))
            }
        }
    }

    fn holder(&self) -> Option<Holder> {
        self.holder
    }
}

/// Of a connection that neither end has closed; from the kernel's `net/tcp_states.h`.
const ESTABLISHED: u8 = 1;

/// True if neither end of the connection has closed it; see tcp(7), `TCP_INFO`.
fn is_connected(socket: &OwnedFd) -> bool {
    let mut state = [0u8; 1];
    let mut len = state.len() as libc::socklen_t;
    // The state is the first byte, and the kernel writes as much as there is room for.
    // SAFETY: the descriptor is open, and the buffer has as many bytes as are told.
    let got = unsafe {
        let (level, name) = (libc::IPPROTO_TCP, libc::TCP_INFO);
        libc::getsockopt(socket.as_raw_fd(), level, name, state.as_mut_ptr().cast::<libc::c_void>(), &mut len)
    };
    got == 0 && len == 1 && state == [ESTABLISHED]
}
