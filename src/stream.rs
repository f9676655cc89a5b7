//! Large bodies over the bare connection: HTTP/1.1's `Upgrade` to the protocol `s4-stream`, after which the TCP stream is
//! the body itself, moved by blocking threads with the kernel's own means. HTTP costs a buffer for each chunk and its way
//! through a channel besides.

use crate::aligned;
use crate::error::{Error, Result};
use crate::side::Side;
use crate::timeout::{STEP, Timeout};
use bytes::{Bytes, BytesMut};
use hyper::header::{CONNECTION, HeaderMap, HeaderValue, UPGRADE};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, SpliceFFlags, fcntl, splice};
use nix::sys::sendfile::sendfile64;
use nix::sys::socket::{MsgFlags, recv, send};
use nix::unistd::pipe2;
use std::fs::File;
use std::io::Write;
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

/// As the `Upgrade` header has it.
const PROTOCOL: &str = "s4-stream";

/// A body is worth a connection of its own from this length on, in bytes.
pub const LARGE: u64 = 1 << 20;

/// Bytes received at a time: what stays in the processor's cache until it is hashed and written.
const BLOCK: usize = 256 * 1024;

/// Bytes that one call hands to the kernel at most, so that each makes progress within the deadline.
const SENT_AT_ONCE: u64 = 1 << 20;

/// Bytes that there is room for when an answer is read.
const ANSWER: usize = 1024;

/// Bytes that a pipe is asked to hold: what every user may have.
const PIPE: usize = 1 << 20;

/// The headers that ask for a stream, and that grant one.
pub fn mark(headers: &mut HeaderMap) {
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static(PROTOCOL));
}

/// True if the sender asks for a stream.
pub fn is_wanted(headers: &HeaderMap) -> bool {
    headers.get(UPGRADE).is_some_and(|protocol| protocol.as_bytes().eq_ignore_ascii_case(PROTOCOL.as_bytes()))
}

/// What bytes go through from a socket to a file without a copy in between.
pub struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
}

impl Pipe {
    pub fn new() -> std::io::Result<Self> {
        let (read, write) = pipe2(OFlag::O_CLOEXEC)?;
        // Where the user has no room for so much, it stays as it is.
        let _ = fcntl(&write, FcntlArg::F_SETPIPE_SZ(PIPE as i32));
        Ok(Self { read, write })
    }

    /// Appends the `len` bytes that are in the pipe to `file`.
    fn empty_into(&self, file: &File, len: usize) -> std::io::Result<()> {
        let mut left = len;
        while left > 0 {
            match splice(&self.read, None, file, None, left, SpliceFFlags::empty()) {
                Ok(0) => return Err(std::io::ErrorKind::WriteZero.into()),
                Ok(n) => left -= n,
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }
}

/// A connection that carries one body. Everything here blocks, each step for the timeout at the most; only a node waits
/// without limit for a client that lives and does not read.
pub struct Stream {
    socket: TcpStream,
    /// What came together with the head.
    early: Bytes,
    /// Used again and again, as long as each chunk is let go before the next is asked for.
    buffer: BytesMut,
    timeout: Timeout,
    side: Side,
    who: String,
}

impl Stream {
    /// Takes over an upgraded connection. `who` names the peer in errors.
    pub async fn take(upgrade: OnUpgrade, timeout: impl Into<Timeout>, side: Side, who: String) -> Result<Self> {
        let mut timeout = timeout.into();
        let upgraded = match timeout.run_while(upgrade, || false).await {
            Some(Ok(upgraded)) => upgraded,
            Some(Err(error)) => return Err(side.broken(&who, &error)),
            None => return Err(side.silent(&who, timeout.limit())),
        };
        let parts = upgraded
            .downcast::<TokioIo<tokio::net::TcpStream>>()
            .map_err(|_| side.broken(&who, &std::io::Error::other("the connection is no socket")))?;
        let blocking = || -> std::io::Result<TcpStream> {
            let socket = parts.io.into_inner().into_std()?;
            socket.set_nonblocking(false)?;
            socket.set_read_timeout(Some(STEP))?;
            // A client that does not read for a while has a consumer that is busy; a dead one is found by keepalives.
            socket.set_write_timeout(matches!(side, Side::Client).then_some(STEP))?;
            Ok(socket)
        };
        let socket = blocking().map_err(|e| side.broken(&who, &e))?;
        Ok(Self { socket, early: parts.read_buf, buffer: BytesMut::new(), timeout, side, who })
    }

    /// The socket, what came on it together with the head, this side, and who the peer is.
    pub(crate) fn into_parts(self) -> (TcpStream, Bytes, Side, String) {
        (self.socket, self.early, self.side, self.who)
    }

    /// The next bytes, or `None` once the peer sends no more.
    pub fn next_chunk(&mut self) -> Result<Option<Bytes>> {
        if !self.early.is_empty() {
            return Ok(Some(std::mem::take(&mut self.early)));
        }
        let mut buffer = std::mem::take(&mut self.buffer);
        aligned::reserve(&mut buffer, BLOCK);
        let received = self.receive(&mut buffer, BLOCK)?;
        let chunk = buffer.split().freeze();
        self.buffer = buffer;
        Ok((received > 0).then_some(chunk))
    }

    /// Fills `buffer`. Errors: the peer sends no more.
    pub fn receive_exact(&mut self, buffer: &mut [u8]) -> Result<()> {
        let early = self.early.split_to(buffer.len().min(self.early.len()));
        buffer[..early.len()].copy_from_slice(&early);
        let mut filled = early.len();
        self.timeout.begin();
        while filled < buffer.len() {
            let received = recv(self.socket.as_raw_fd(), &mut buffer[filled..], MsgFlags::empty());
            match self.tried(received)? {
                Some(0) => return Err(self.broken(&std::io::ErrorKind::UnexpectedEof.into())),
                n => filled += n.unwrap_or(0),
            }
        }
        self.timeout.hear();
        Ok(())
    }

    /// Appends the next `len` bytes to `buffer`. Errors: the peer sends no more.
    pub fn receive_onto(&mut self, buffer: &mut BytesMut, len: usize) -> Result<()> {
        let early = self.early.split_to(len.min(self.early.len()));
        buffer.extend_from_slice(&early);
        let mut left = len - early.len();
        buffer.reserve(left);
        while left > 0 {
            left -= match self.receive(buffer, left)? {
                0 => return Err(self.broken(&std::io::ErrorKind::UnexpectedEof.into())),
                n => n,
            };
        }
        Ok(())
    }

    /// Appends at most `most` bytes to `buffer`, which has room for them; 0 once there are no more.
    fn receive(&mut self, buffer: &mut BytesMut, most: usize) -> Result<usize> {
        let spare = buffer.spare_capacity_mut();
        let room = spare.len().min(most);
        self.timeout.begin();
        let received = loop {
            // SAFETY: the buffer has room for as many bytes as are told, and the socket is open.
            let n = unsafe { libc::recv(self.socket.as_raw_fd(), spare.as_mut_ptr().cast(), room, 0) };
            if let Some(n) = self.tried(Errno::result(n))? {
                break n as usize;
            }
        };
        self.timeout.hear();
        // SAFETY: the kernel has just written so many bytes behind those that were there.
        unsafe { buffer.set_len(buffer.len() + received) };
        Ok(received)
    }

    /// Another handle on the connection, to send with while this one receives.
    pub fn clone_to_send(&self) -> Result<Self> {
        let socket = self.socket.try_clone().map_err(|e| self.failed(&e))?;
        let (early, buffer, who) = (Bytes::new(), BytesMut::new(), self.who.clone());
        Ok(Self { socket, early, buffer, timeout: self.timeout.clone(), side: self.side, who })
    }

    pub fn send(&mut self, bytes: &[u8]) -> Result<()> {
        self.send_flagged(bytes, MsgFlags::MSG_NOSIGNAL)
    }

    /// The same of bytes that others follow at once, with which they then go.
    pub fn send_more(&mut self, bytes: &[u8]) -> Result<()> {
        self.send_flagged(bytes, MsgFlags::from_bits_retain(libc::MSG_MORE) | MsgFlags::MSG_NOSIGNAL)
    }

    fn send_flagged(&mut self, bytes: &[u8], flags: MsgFlags) -> Result<()> {
        let mut sent = 0;
        self.timeout.begin();
        while sent < bytes.len() {
            let taken = send(self.socket.as_raw_fd(), &bytes[sent..], flags);
            if let Some(n) = self.tried(taken)? {
                sent += n;
                self.timeout.begin();
            }
        }
        Ok(())
    }

    /// True once the peer has said something, or has closed.
    pub fn is_answered(&self) -> bool {
        let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
        !self.early.is_empty() || recv(self.socket.as_raw_fd(), &mut [0], flags) != Err(Errno::EAGAIN)
    }

    /// `len` bytes of `file` from `offset`, which never come into this process. Errors: the file ends before.
    pub fn send_file(&mut self, file: &File, offset: u64, len: u64) -> Result<()> {
        let (mut position, end) = (offset as i64, offset + len);
        self.timeout.begin();
        while (position as u64) < end {
            let most = (end - position as u64).min(SENT_AT_ONCE) as usize;
            // Of the disk: no socket says so.
            let sent = match sendfile64(&self.socket, file, Some(&mut position), most) {
                Err(Errno::EIO) => return Err(Error::io(&self.who, &Errno::EIO.into())),
                sent => sent,
            };
            match self.tried(sent)? {
                Some(0) => return Err(self.broken(&std::io::Error::other("the file became shorter"))),
                Some(_) => self.timeout.begin(),
                None => {}
            }
        }
        Ok(())
    }

    /// Appends the next `most` bytes to `file`, or as many of them as the pipe takes. They never come into this process. `what`
    /// names the file in errors. Returns how many. Errors: the peer sends no more; the file takes no more.
    pub fn receive_into(&mut self, file: &File, most: u64, pipe: &Pipe, what: &str) -> Result<u64> {
        let unwritable = |e: std::io::Error| Error::io(what, &e);
        if !self.early.is_empty() {
            let early = self.early.split_to(self.early.len().min(most as usize));
            return (&*file).write_all(&early).map(|()| early.len() as u64).map_err(unwritable);
        }
        let mut n = 0;
        self.timeout.begin();
        while (n as u64) < most {
            let left = (most - n as u64).min(PIPE as u64) as usize;
            match splice(&self.socket, None, &pipe.write, None, left, SpliceFFlags::SPLICE_F_NONBLOCK) {
                Ok(0) => return Err(self.broken(&std::io::ErrorKind::UnexpectedEof.into())),
                Ok(more) => n += more,
                // The pipe may be full before: it counts pieces, each up to a page. Or nothing more has come yet.
                Err(Errno::EAGAIN) if n > 0 => break,
                failed => drop(self.tried(failed)?),
            }
        }
        pipe.empty_into(file, n).map(|()| n as u64).map_err(unwritable)
    }

    /// Throws away what the peer still sends, `most` bytes and so long at the most, after it was told that no more is wanted.
    pub fn drain(&mut self, most: u64, patience: Duration) -> Result<()> {
        let (mut left, mut block, began) = (most, BytesMut::with_capacity(BLOCK), Instant::now());
        self.socket.shutdown(Shutdown::Write).map_err(|e| self.failed(&e))?;
        while left > 0 && began.elapsed() < patience {
            block.clear();
            match self.receive(&mut block, left.min(BLOCK as u64) as usize)? {
                0 => break,
                n => left -= n as u64,
            }
        }
        Ok(())
    }

    /// Breaks the connection off, under whoever uses another handle on it.
    pub fn close(&self) {
        // One that is broken off already needs no more.
        let _ = self.socket.shutdown(Shutdown::Both);
    }

    /// Lets what is here already be read, and then no more.
    pub fn close_reading(&self) {
        // One that is broken off already needs no more.
        let _ = self.socket.shutdown(Shutdown::Read);
    }

    /// The error of a transfer that broke off.
    pub fn broken(&self, cause: &std::io::Error) -> Error {
        self.side.broken(&self.who, cause)
    }

    /// Who the peer is, for errors.
    pub fn who(&self) -> &str {
        &self.who
    }

    /// All that the peer still sends, at most `most` bytes, each of which may take so long, or as long as any.
    pub fn rest(&mut self, most: u64, limit: Option<Duration>) -> Result<Vec<u8>> {
        self.timeout = limit.map_or_else(|| self.timeout.clone(), |limit| self.timeout.with_limit(limit));
        let mut rest = BytesMut::from(&self.early[..]);
        while (rest.len() as u64) < most {
            rest.reserve(ANSWER);
            let left = usize::try_from(most).map_or(usize::MAX, |most| most - rest.len());
            if self.receive(&mut rest, left)? == 0 {
                break;
            }
        }
        Ok(rest.into())
    }

    /// What a call on the socket gave; `None` if it is to be made again.
    fn tried<T>(&mut self, result: nix::Result<T>) -> Result<Option<T>> {
        match result {
            Ok(done) => Ok(Some(done)),
            Err(Errno::EINTR) => Ok(None),
            // How a socket with a time limit says that it was reached.
            Err(Errno::EAGAIN) if !self.timeout.is_over() => Ok(None),
            Err(errno) => Err(self.failed(&errno.into())),
        }
    }

    fn failed(&self, error: &std::io::Error) -> Error {
        use std::io::ErrorKind as Io;
        match error.kind() {
            // That there is no way, the kernel says of a connection that stood only once nothing was confirmed in its time.
            Io::WouldBlock | Io::TimedOut | Io::HostUnreachable | Io::NetworkUnreachable => {
                self.timeout.end();
                self.side.silent(&self.who, self.timeout.limit())
            }
            _ => self.side.broken(&self.who, error),
        }
    }
}
