//! Keepalives while the thread of a connection does other work.

use super::connection::Connection;
use super::frame::{self, Kind};
use nix::sys::socket::{MsgFlags, send};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

/// Does `work`, which may take long, such as writing to a slow disk. Meanwhile another thread sends a keepalive to the
/// peer once in each `period`.
pub fn keep_alive<T>(connection: &mut Connection, period: Duration, work: impl FnOnce() -> T) -> T {
    let (socket, (done, is_done)) = (connection.raw_socket(), mpsc::channel::<()>());
    let mut alive = Vec::new();
    frame::encode(Kind::Alive, &[], &mut alive);
    let send_keepalives = move || {
        while is_done.recv_timeout(period) == Err(RecvTimeoutError::Timeout) {
            let flags = MsgFlags::MSG_NOSIGNAL;
            // If the socket is full, earlier keepalives are still in its buffer.
            match send(socket, &alive, flags | MsgFlags::MSG_DONTWAIT) {
                Ok(sent) if sent == alive.len() => {}
                // A frame must not be cut: send the rest of it.
                Ok(sent) if send(socket, &alive[sent..], flags).is_ok() => {}
                _ => break,
            }
        }
    };
    std::thread::scope(|scope| {
        // If no thread can be started, there are no keepalives.
        let _ = std::thread::Builder::new().spawn_scoped(scope, send_keepalives);
        let worked = work();
        drop(done);
        worked
    })
}
