//! How HTTP/1.1 hands a connection over, by its `Upgrade`.

use super::peer::Peer;
use crate::error::Result;
use crate::side::Side;
use crate::timeout::STEP;
use bytes::Bytes;
use hyper::header::{CONNECTION, HeaderMap, HeaderValue, UPGRADE};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use std::net::TcpStream;
use std::time::Duration;

/// As the `Upgrade` header has it.
const PROTOCOL: &str = "s4-frames";

/// The headers that ask for a connection of frames, and that grant one.
pub fn mark(headers: &mut HeaderMap) {
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static(PROTOCOL));
}

/// True if the sender asks for one.
pub fn is_wanted(headers: &HeaderMap) -> bool {
    headers.get(UPGRADE).is_some_and(|protocol| protocol.as_bytes().eq_ignore_ascii_case(PROTOCOL.as_bytes()))
}

/// The socket of an upgraded connection, for threads, and what came together with the head.
pub(super) async fn take(upgrade: OnUpgrade, peer: &mut Peer) -> Result<(TcpStream, Bytes)> {
    let upgraded = match peer.timeout.run_while(upgrade, || false).await {
        Some(Ok(upgraded)) => upgraded,
        Some(Err(error)) => return Err(peer.side.broken(&peer.who, &error)),
        None => return Err(peer.side.silent(&peer.who, peer.timeout.limit())),
    };
    let parts = upgraded
        .downcast::<TokioIo<tokio::net::TcpStream>>()
        .map_err(|_| peer.broken(&std::io::Error::other("the connection is no socket")))?;
    let blocking = || -> std::io::Result<TcpStream> {
        let socket = parts.io.into_inner().into_std()?;
        socket.set_nonblocking(false)?;
        socket.set_read_timeout(Some(STEP))?;
        // A client that does not read for a while has a consumer that is busy; a dead one is found by keepalives.
        socket.set_write_timeout(matches!(peer.side, Side::Client).then_some(STEP))?;
        Ok(socket)
    };
    Ok((blocking().map_err(|e| peer.broken(&e))?, parts.read_buf))
}

/// Waits until there is something to read, or for `limit`: false then. The wait may be broken off.
pub(super) async fn idle(socket: &TcpStream, limit: Duration) -> std::io::Result<bool> {
    /// All handles are of one socket, which is to block again for threads.
    struct Blocking<'s>(&'s TcpStream);
    impl Drop for Blocking<'_> {
        fn drop(&mut self) {
            // One that cannot ends at its next use.
            let _ = self.0.set_nonblocking(false);
        }
    }
    let other = socket.try_clone()?;
    let _blocking = Blocking(socket);
    other.set_nonblocking(true)?;
    let other = tokio::net::TcpStream::from_std(other)?;
    match tokio::time::timeout(limit, other.readable()).await {
        Ok(ready) => ready.map(|()| true),
        Err(_) => Ok(false),
    }
}
