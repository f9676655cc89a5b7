//! Questions to a socket that neither send nor receive.

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::socket::{MsgFlags, recv};
use nix::sys::time::TimeSpec;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::Duration;

const PEEK: MsgFlags = MsgFlags::MSG_PEEK.union(MsgFlags::MSG_DONTWAIT);

/// True if `wanted` becomes true of the socket within `limit`; false if not, or if `other` becomes readable before.
pub fn wait(socket: &impl AsFd, wanted: PollFlags, limit: Duration, other: Option<BorrowedFd>) -> bool {
    let asked = PollFd::new(socket.as_fd(), wanted);
    let mut asked = [asked, PollFd::new(other.unwrap_or(socket.as_fd()), PollFlags::POLLIN)];
    let asked = &mut asked[..if other.is_some() { 2 } else { 1 }];
    match ppoll(asked, Some(TimeSpec::from_duration(limit)), None) {
        Ok(0) => false,
        // The next receive reports an error of the socket.
        Ok(_) => asked[0].any() != Some(false),
        Err(_) => !limit.is_zero(),
    }
}

/// True if bytes, the end or an error wait to be received.
pub fn has_input(socket: &impl AsRawFd) -> bool {
    recv(socket.as_raw_fd(), &mut [0], PEEK) != Err(Errno::EAGAIN)
}

/// True if the peer has closed the connection.
pub fn is_closed(socket: &impl AsRawFd) -> bool {
    !matches!(recv(socket.as_raw_fd(), &mut [0], PEEK), Ok(1..) | Err(Errno::EAGAIN | Errno::EINTR))
}
