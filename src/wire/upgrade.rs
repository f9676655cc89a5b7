//! The `Upgrade` of HTTP/1.1, by which a connection of HTTP becomes one of frames.

use super::peer::Peer;
use crate::error::Result;
use crate::role::Role;
use crate::timeout::STEP;
use bytes::Bytes;
use hyper::header::{CONNECTION, HeaderMap, HeaderValue, UPGRADE};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use std::net::TcpStream;
use std::time::Duration;

/// The value of the `Upgrade` header.
const PROTOCOL: &str = "s4-frames";

/// The headers that ask for a connection of frames, and that grant one.
pub fn mark(headers: &mut HeaderMap) {
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static(PROTOCOL));
}

/// True if the sender asks for a connection of frames.
pub fn is_wanted(headers: &HeaderMap) -> bool {
    headers.get(UPGRADE).is_some_and(|protocol| protocol.as_bytes().eq_ignore_ascii_case(PROTOCOL.as_bytes()))
}

/// The socket of an upgraded connection, in blocking mode, and the bytes that were received together with the HTTP
/// head.
pub(super) async fn take(upgrade: OnUpgrade, peer: &mut Peer) -> Result<(TcpStream, Bytes)> {
    let upgraded = match peer.timeout.run_while(upgrade, || false).await {
        Some(Ok(upgraded)) => upgraded,
        Some(Err(error)) => return Err(peer.role.broken(&peer.subject, &error)),
        None => return Err(peer.role.silent(&peer.subject, peer.timeout.limit())),
    };
    let parts = upgraded
        .downcast::<TokioIo<tokio::net::TcpStream>>()
        .map_err(|_| peer.broken(&std::io::Error::other("the connection is no socket")))?;
    let blocking = || -> std::io::Result<TcpStream> {
        let socket = parts.io.into_inner().into_std()?;
        socket.set_nonblocking(false)?;
        socket.set_read_timeout(Some(STEP))?;
        // A node has no write timeout: a client that does not read for a while may be busy, and TCP keepalives find a
        // dead one.
        socket.set_write_timeout(matches!(peer.role, Role::Client).then_some(STEP))?;
        Ok(socket)
    };
    Ok((blocking().map_err(|e| peer.broken(&e))?, parts.read_buf))
}

/// Waits until the socket is readable, at most for `limit`; false if it is not. The future may be dropped.
pub(super) async fn idle(socket: &TcpStream, limit: Duration) -> std::io::Result<bool> {
    /// Sets the socket back to blocking mode, which all of its handles share.
    struct Blocking<'s>(&'s TcpStream);
    impl Drop for Blocking<'_> {
        fn drop(&mut self) {
            // If this fails, the next use of the socket fails.
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
