//! Signs of life while the thread of a connection does something else.

use super::connection::Connection;
use super::frame::{self, Kind};
use nix::sys::socket::{MsgFlags, send};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

/// Does `work` while the peer gets signs of life: it may take long, as to write much to a slow disk.
pub fn keep_alive<T>(connection: &mut Connection, period: Duration, work: impl FnOnce() -> T) -> T {
    let (socket, (done, is_done)) = (connection.raw_socket(), mpsc::channel::<()>());
    let mut alive = Vec::new();
    frame::encode(Kind::Alive, &[], &mut alive);
    let beat = move || {
        while is_done.recv_timeout(period) == Err(RecvTimeoutError::Timeout) {
            let flags = MsgFlags::MSG_NOSIGNAL;
            // One that has no room has not heard the last one either.
            match send(socket, &alive, flags | MsgFlags::MSG_DONTWAIT) {
                Ok(sent) if sent == alive.len() => {}
                // A frame that has begun is ended.
                Ok(sent) if send(socket, &alive[sent..], flags).is_ok() => {}
                _ => break,
            }
        }
    };
    std::thread::scope(|scope| {
        // Without a thread there are no signs of life.
        let _ = std::thread::Builder::new().spawn_scoped(scope, beat);
        let worked = work();
        drop(done);
        worked
    })
}
