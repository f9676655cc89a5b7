//! A connection of frames. It begins as HTTP/1.1, and becomes one of frames by an `Upgrade`. Then threads send and
//! receive with the kernel's `sendfile` and `splice`: HTTP would cost a buffer for each chunk, and a channel to pass
//! it.
//!
//! All operations block, each step at most for the timeout. The exception: a node waits without limit for a client that
//! is alive and does not read. While a client sends small frames, it also receives, so that both ends cannot block each
//! other by sending.

use super::closer::Closer;
use super::frame::{self, Header, Kind, MAX_DATA};
use super::inbox::{Inbox, Parsed, SMALL_BLOCK};
use super::peer::Peer;
use super::pipe::{PIPE, Pipe};
use super::send_error::{SendError, is_of_socket};
use super::{socket, upgrade};
use crate::aligned;
use crate::error::{Error, Result};
use crate::role::Role;
use crate::timeout::{STEP, Timeout};
use bytes::{Buf, Bytes, BytesMut};
use hyper::upgrade::OnUpgrade;
use nix::errno::Errno;
use nix::fcntl::{SpliceFFlags, splice};
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::sendfile::sendfile64;
use nix::sys::socket::{MsgFlags, recv, send};
use nix::sys::time::TimeSpec;
use serde::Serialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use std::fs::File;
use std::io::Write;
use std::net::TcpStream;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::time::{Duration, Instant};

/// Bytes received at a time: few enough to stay in the CPU cache until they are hashed and written.
const BLOCK: usize = 256 * 1024;
/// Bytes of small frames that are buffered before they are sent: more than a small key with its messages.
const GATHERED: usize = 96 * 1024;
/// Bytes from the node that a client buffers while it sends. More bytes stay in the kernel.
const MAX_UNREAD: usize = 4 * MAX_DATA;

/// A received frame.
#[derive(Debug)]
pub enum Incoming<T> {
    Message(T),
    /// A data frame: the length of its payload in bytes. The payload must be received before the next frame.
    Data(usize),
    Stderr(Bytes),
    Error(Error),
}

/// One end of a connection.
pub struct Connection {
    socket: TcpStream,
    inbox: Inbox,
    unsent: Vec<u8>,
    /// Bytes of a data frame that its header has announced and that were not sent.
    missing: usize,
    peer: Peer,
}

impl Connection {
    /// Takes over an upgraded connection. `subject` names the peer in errors.
    pub async fn take(upgrade: OnUpgrade, timeout: impl Into<Timeout>, role: Role, subject: String) -> Result<Self> {
        let mut peer = Peer::new(timeout.into(), role, subject);
        let (socket, early) = upgrade::take(upgrade, &mut peer).await?;
        Ok(Self { socket, inbox: Inbox::new(&early), unsent: Vec::new(), missing: 0, peer })
    }

    /// The name of the peer in errors.
    pub fn subject(&self) -> &str {
        &self.peer.subject
    }

    /// Sets the timeout and the name of the peer, for the next use of the connection.
    pub fn reuse_for(&mut self, timeout: impl Into<Timeout>, subject: String) {
        (self.peer.timeout, self.peer.subject) = (timeout.into(), subject);
    }

    /// Buffers a message. It is sent by [`flush`](Self::flush), or with whatever is sent next.
    pub fn put_message(&mut self, message: &impl Serialize) -> Result<()> {
        let json = serde_json::to_vec(message).expect("a message is plain JSON");
        self.put(Kind::Message, &json)
    }

    pub fn put_error(&mut self, error: &Error) -> Result<()> {
        self.put(Kind::Error, &serde_json::to_vec(error).expect("an error is plain JSON"))
    }

    /// Buffers small data; sends large data at once. `sum` is the checksum of the bytes, or 0.
    pub fn put_data(&mut self, bytes: &[u8], sum: u32) -> Result<()> {
        debug_assert!(bytes.len() <= MAX_DATA);
        self.unsent.extend_from_slice(&Header { kind: Kind::Data, len: bytes.len(), sum }.encode());
        if bytes.len() < SMALL_BLOCK {
            self.unsent.extend_from_slice(bytes);
            return self.flush_if_full();
        }
        self.flush_before_more()?;
        self.send_all(bytes, MsgFlags::empty())
    }

    /// Buffers all bytes of a small key, so that they are sent together with the messages before and after them.
    pub fn put_small_data(&mut self, bytes: &[u8]) -> Result<()> {
        match bytes.is_empty() {
            true => Ok(()),
            false => self.put(Kind::Data, bytes),
        }
    }

    /// Buffers a frame of any other kind.
    pub fn put(&mut self, kind: Kind, payload: &[u8]) -> Result<()> {
        frame::encode(kind, payload, &mut self.unsent);
        self.flush_if_full()
    }

    fn flush_if_full(&mut self) -> Result<()> {
        if self.unsent.len() < GATHERED { Ok(()) } else { self.flush() }
    }

    /// Sends the buffered frames.
    pub fn flush(&mut self) -> Result<()> {
        self.flush_with(MsgFlags::empty())
    }

    /// Sends the buffered frames. More bytes follow at once, so the kernel may send all of them together.
    fn flush_before_more(&mut self) -> Result<()> {
        self.flush_with(MsgFlags::from_bits_retain(libc::MSG_MORE))
    }

    fn flush_with(&mut self, flags: MsgFlags) -> Result<()> {
        let mut unsent = std::mem::take(&mut self.unsent);
        let sent = self.send_all(&unsent, flags);
        unsent.clear();
        self.unsent = unsent;
        sent
    }

    /// Sends a keepalive.
    pub fn send_alive(&mut self) -> Result<()> {
        self.put(Kind::Alive, &[])?;
        self.flush()
    }

    /// Sends `len` bytes of `file` from `offset` as one data frame, without copying them into this process. If the file
    /// is too short or cannot be read, the connection is useless, unless [`fill_up`](Self::fill_up) follows.
    pub fn send_file(&mut self, file: &File, offset: u64, len: usize, sum: u32) -> std::result::Result<(), SendError> {
        self.unsent.extend_from_slice(&Header { kind: Kind::Data, len, sum }.encode());
        self.flush_before_more()?;
        let (mut position, end) = (offset as i64, offset + len as u64);
        self.peer.timeout.begin();
        while (position as u64) < end {
            let left = (end - position as u64) as usize;
            self.missing = left;
            let unreadable = match sendfile64(&self.socket, file, Some(&mut position), left) {
                Ok(0) => std::io::Error::other("the file became shorter"),
                Err(errno) if !is_of_socket(errno) => errno.into(),
                sent => {
                    if self.peer.tried(sent)?.is_some() {
                        self.peer.timeout.begin();
                    }
                    continue;
                }
            };
            self.peer.set_lost(true);
            return Err(SendError::File(unreadable));
        }
        self.missing = 0;
        Ok(())
    }

    /// True if the peer waits for the rest of a data frame, so that no other frame can be sent.
    pub fn is_cut_off(&self) -> bool {
        self.missing > 0
    }

    /// Sends zeros for the bytes that could not be read from a file, so that an error frame can follow. Only for data
    /// with a checksum: the zeros do not match it.
    pub fn fill_up(&mut self) -> Result<()> {
        let zeros = vec![0; std::mem::take(&mut self.missing)];
        self.peer.set_lost(false);
        self.send_all(&zeros, MsgFlags::empty())
    }

    fn send_all(&mut self, mut bytes: &[u8], flags: MsgFlags) -> Result<()> {
        let flags = flags | MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
        self.peer.timeout.begin();
        while !bytes.is_empty() {
            match send(self.socket.as_raw_fd(), bytes, flags) {
                Ok(n) => {
                    bytes.advance(n);
                    self.peer.timeout.begin();
                }
                Err(Errno::EAGAIN) => self.wait_to_send()?,
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(self.peer.failed(errno)),
            }
        }
        Ok(())
    }

    /// Waits until the socket accepts more bytes. A client meanwhile buffers what the node sends.
    fn wait_to_send(&mut self) -> Result<()> {
        let is_client = !self.peer.is_client();
        let reads = is_client && self.inbox.len() < MAX_UNREAD;
        let wanted = PollFlags::POLLOUT | if reads { PollFlags::POLLIN } else { PollFlags::empty() };
        let mut socket = [PollFd::new(self.socket.as_fd(), wanted)];
        match ppoll(&mut socket, Some(TimeSpec::from_duration(STEP)), None) {
            Ok(0) if is_client && self.peer.timeout.is_over() => Err(self.peer.failed(Errno::EAGAIN)),
            Ok(0) | Err(_) => Ok(()),
            Ok(_) => match socket[0].revents() {
                Some(found) if reads && found.contains(PollFlags::POLLIN) && !found.contains(PollFlags::POLLOUT) => {
                    let received = self.receive(MsgFlags::MSG_DONTWAIT);
                    self.received_some(received)
                }
                // The next send reports an error of the socket.
                _ => Ok(()),
            },
        }
    }

    /// The next frame that is not a keepalive. Sends the buffered frames before it waits. If a frame is already here,
    /// nothing is sent, so that more can be buffered.
    pub fn receive_next<T: DeserializeOwned>(&mut self) -> Result<Incoming<T>> {
        self.peer.timeout.begin();
        loop {
            if let Some(incoming) = self.parse()? {
                self.peer.timeout.note_alive();
                return Ok(incoming);
            }
            // Sending nothing would restart the timeout.
            if !self.unsent.is_empty() {
                self.flush()?;
            }
            let received = self.receive(MsgFlags::empty());
            self.received_some(received)?;
        }
    }

    /// The next frame that is not a keepalive; `None` if none has come by `until`, or if `other` becomes readable
    /// before. Then this may be called again.
    pub fn receive_until<T: DeserializeOwned>(
        &mut self,
        until: Instant,
        other: Option<BorrowedFd>,
    ) -> Result<Option<Incoming<T>>> {
        loop {
            if let Some(incoming) = self.parse()? {
                self.peer.timeout.note_alive();
                return Ok(Some(incoming));
            }
            self.send_some()?;
            let wanted =
                if self.unsent.is_empty() { PollFlags::POLLIN } else { PollFlags::POLLIN | PollFlags::POLLOUT };
            if !socket::wait(&self.socket, wanted, until.saturating_duration_since(Instant::now()), other) {
                return Ok(None);
            }
            match self.receive(MsgFlags::MSG_DONTWAIT) {
                Err(Errno::EAGAIN) => {}
                received => self.received_some(received)?,
            }
        }
    }

    /// Sends as much of the buffered frames as the socket accepts at once.
    pub fn send_some(&mut self) -> Result<()> {
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        while !self.unsent.is_empty() {
            match send(self.socket.as_raw_fd(), &self.unsent, flags) {
                Ok(n) => drop(self.unsent.drain(..n)),
                Err(Errno::EAGAIN) => break,
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(self.peer.failed(errno)),
            }
        }
        Ok(())
    }

    /// The error that the peer reports on a connection that has failed, if it comes within `limit`. Sends nothing more.
    pub fn receive_reason(&mut self, limit: Duration) -> Option<Error> {
        match self.receive_last::<IgnoredAny>(Instant::now() + limit) {
            Some(Incoming::Error(error)) => Some(error),
            _ => None,
        }
    }

    /// The next frame of a connection that has failed, if it comes by `until`. Sends nothing more.
    pub fn receive_last<T: DeserializeOwned>(&mut self, until: Instant) -> Option<Incoming<T>> {
        self.unsent.clear();
        self.receive_until(until, None).ok().flatten()
    }

    /// True if bytes or the end of the connection come within `limit`; false if not, or if `other` becomes readable.
    pub fn wait_to_receive(&self, limit: Duration, other: Option<BorrowedFd>) -> bool {
        socket::wait(&self.socket, PollFlags::POLLIN, limit, other)
    }

    /// True if received bytes are not parsed yet.
    pub fn has_unparsed(&self) -> bool {
        !self.inbox.is_empty()
    }

    /// True if the peer has sent something that was not received or parsed yet, or has closed the connection.
    pub fn is_answered(&self) -> bool {
        self.has_unparsed() || socket::has_input(&self.socket)
    }

    /// True if no bytes are pending in either direction.
    pub fn is_quiet(&self) -> bool {
        self.data_left() == 0 && self.unsent.is_empty() && !self.is_answered()
    }

    /// True if the peer has closed the connection.
    pub fn is_closed(&self) -> bool {
        socket::is_closed(&self.socket)
    }

    /// The next frame in the inbox that is not a keepalive. It must be complete, except for the payload of data.
    fn parse<T: DeserializeOwned>(&mut self) -> Result<Option<Incoming<T>>> {
        while let Some(parsed) = self.inbox.parse().map_err(|e| self.malformed(&e.to_string()))? {
            return Ok(Some(match parsed {
                Parsed::Data(len) => Incoming::Data(len),
                Parsed::Frame(Kind::Message, payload) => Incoming::Message(self.json(&payload)?),
                Parsed::Frame(Kind::Error, payload) => Incoming::Error(self.json(&payload)?),
                Parsed::Frame(Kind::Stderr, payload) => Incoming::Stderr(payload),
                Parsed::Frame(Kind::Alive | Kind::Data, _) => {
                    self.peer.timeout.note_alive();
                    continue;
                }
            }));
        }
        Ok(None)
    }

    fn json<T: DeserializeOwned>(&self, payload: &[u8]) -> Result<T> {
        serde_json::from_slice(payload).map_err(|e| self.malformed(&e.to_string()))
    }

    /// Bytes of the current data frame that are not received yet.
    pub fn data_left(&self) -> usize {
        self.inbox.data_left()
    }

    /// The next bytes of the data frame, as they come. `buffer` is reused once the last piece is dropped. The checksum
    /// of the frame is not compared: the receiver of a whole key compares the checksum of the key.
    pub fn receive_piece(&mut self, buffer: &mut BytesMut) -> Result<Bytes> {
        if !self.inbox.is_empty() {
            return Ok(self.inbox.take_data(BLOCK));
        }
        aligned::reserve(buffer, BLOCK);
        let received = self.receive_into_buffer(buffer, self.data_left().min(BLOCK))?;
        self.inbox.note_data(received);
        Ok(buffer.split().freeze())
    }

    /// Receives the whole payload of the data frame. Appends it to `first` up to a length of `most`, and the rest to
    /// `rest`, which is empty. True if the payload matches its checksum.
    pub fn receive_data(&mut self, first: &mut BytesMut, most: usize, rest: &mut BytesMut) -> Result<bool> {
        let Some(header) = self.inbox.data() else { return Ok(true) };
        let (begin, left) = (first.len(), self.data_left());
        let here = left.min(most.saturating_sub(begin));
        self.receive_exactly(first, here)?;
        if here < left {
            aligned::reserve(rest, left - here);
            self.receive_exactly(rest, left - here)?;
        }
        Ok(header.verify_parts([&first[begin..], &rest[..left - here]]).is_ok())
    }

    /// The whole payload of the data frame, compared with its checksum if it has one.
    pub fn receive_small(&mut self) -> Result<Bytes> {
        let (mut bytes, header) = (BytesMut::new(), self.inbox.data());
        self.receive_exactly(&mut bytes, self.data_left())?;
        let verified = header.map_or(Ok(()), |header| header.verify(&bytes));
        verified.map(|()| bytes.freeze()).map_err(|e| self.malformed(&e.to_string()))
    }

    fn receive_exactly(&mut self, buffer: &mut BytesMut, len: usize) -> Result<()> {
        let early = self.inbox.take_data(len);
        buffer.extend_from_slice(&early);
        let mut left = len - early.len();
        buffer.reserve(left);
        while left > 0 {
            let received = self.receive_into_buffer(buffer, left)?;
            self.inbox.note_data(received);
            left -= received;
        }
        Ok(())
    }

    /// Appends the next bytes of the data frame to `file`, at most `most` and what the pipe holds, without copying them
    /// into this process. Returns their number. `what` names the file in errors. Errors: writing to the file fails.
    pub fn receive_into_file(&mut self, file: &File, most: usize, pipe: &Pipe, what: &str) -> Result<usize> {
        let unwritable = |e: std::io::Error| Error::io(what, &e);
        let most = most.min(self.data_left());
        if !self.inbox.is_empty() {
            let early = self.inbox.take_data(most);
            (&*file).write_all(&early).map_err(unwritable)?;
            return Ok(early.len());
        }
        let mut n = 0;
        self.peer.timeout.begin();
        while n < most {
            let left = (most - n).min(PIPE);
            match splice(&self.socket, None, &pipe.write, None, left, SpliceFFlags::SPLICE_F_NONBLOCK) {
                Ok(0) => return Err(self.broken(&std::io::ErrorKind::UnexpectedEof.into())),
                Ok(more) => n += more,
                // The pipe is full, which may happen early since each piece takes a whole page; or no more bytes have
                // come yet.
                Err(Errno::EAGAIN) if n > 0 => break,
                failed => drop(self.peer.tried(failed)?),
            }
        }
        self.peer.timeout.note_alive();
        // Counted before the write, since the bytes are received even if they cannot be written.
        self.inbox.note_data(n);
        pipe.empty_into(file, n).map_err(unwritable)?;
        Ok(n)
    }

    /// Receives once into the inbox; if large data is expected, no more than a header.
    fn receive(&mut self, flags: MsgFlags) -> nix::Result<usize> {
        let mut block = [0; SMALL_BLOCK];
        let n = recv(self.socket.as_raw_fd(), &mut block[..self.inbox.wanted()], flags)?;
        self.inbox.append(&block[..n]);
        Ok(n)
    }

    fn received_some(&mut self, received: nix::Result<usize>) -> Result<()> {
        match self.peer.tried(received)? {
            Some(0) => Err(self.broken(&std::io::ErrorKind::UnexpectedEof.into())),
            Some(_) => {
                self.peer.timeout.note_alive();
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Appends between one and `most` bytes to `buffer`, which has room for them.
    fn receive_into_buffer(&mut self, buffer: &mut BytesMut, most: usize) -> Result<usize> {
        let spare = buffer.spare_capacity_mut();
        let room = spare.len().min(most);
        self.peer.timeout.begin();
        let received = loop {
            // SAFETY: the buffer has room for `room` bytes, and the socket is open.
            let n = unsafe { libc::recv(self.socket.as_raw_fd(), spare.as_mut_ptr().cast(), room, 0) };
            if let Some(n) = self.peer.tried(Errno::result(n))? {
                break n as usize;
            }
        };
        if received == 0 {
            return Err(self.broken(&std::io::ErrorKind::UnexpectedEof.into()));
        }
        self.peer.timeout.note_alive();
        // SAFETY: the kernel has just written `received` bytes after the initialised ones.
        unsafe { buffer.set_len(buffer.len() + received) };
        Ok(received)
    }

    /// The socket, for keepalives while this thread does other work.
    pub(super) fn raw_socket(&self) -> RawFd {
        self.socket.as_raw_fd()
    }

    /// A handle that closes the connection while another thread uses it.
    pub fn closer(&self) -> Result<Closer> {
        self.socket.try_clone().map(Closer).map_err(|e| self.broken(&e))
    }

    /// Waits, without blocking a thread, until the peer sends something or closes the connection, at most for `limit`;
    /// false if it does neither. The future may be dropped.
    pub async fn idle(&self, limit: Duration) -> std::io::Result<bool> {
        upgrade::idle(&self.socket, limit).await
    }

    /// The error of a broken transfer.
    pub fn broken(&self, cause: &std::io::Error) -> Error {
        self.peer.broken(cause)
    }

    /// The error of a peer that violates the protocol.
    pub fn malformed(&self, why: &str) -> Error {
        self.peer.malformed(why)
    }

    /// True once the connection is useless: after `broken` or `malformed`, or after a file could not be sent.
    pub fn is_lost(&self) -> bool {
        self.peer.is_lost()
    }
}
