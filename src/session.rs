//! Small exchanges, one after another, over a connection that a thread at either end waits on. Through HTTP each exchange wakes
//! several threads, one by another, which takes most of the time of a small key.
//!
//! The connection is one that HTTP has handed over, see [`stream`](crate::stream). A message is two lengths, 4 bytes
//! little-endian each, then so many bytes of JSON, and so many of a key. The client sends a [`Question`], the node a [`Reply`].

use crate::checksum::Checksum;
use crate::error::{Error, Result};
use crate::key::{Dir, Key};
use crate::protocol::{Change, Stat};
use crate::side::Side;
use crate::stream::Stream;
use bytes::{Buf, Bytes, BytesMut};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::socket::{MsgFlags, recv, send};
use nix::sys::time::TimeSpec;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::net::TcpStream;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::{Duration, Instant};

/// The most bytes of a key in one message: what a socket mostly takes at once.
pub const MAX_BYTES: usize = 64 * 1024;
/// The longest JSON in one, in bytes.
const MAX_JSON: usize = 64 * 1024;

/// A node ends a session in which nothing is asked for so long, or a question takes so long to come.
pub const IDLE: Duration = Duration::from_secs(10);

const HEADER: usize = 8;

/// What is asked.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case")]
pub enum Question {
    /// What `path` (`bucket/dir/name`) is, of which the node is the home.
    Stat { path: Dir },
    /// To make `key` of the message's bytes, which have `checksum`; it is born with `change`. `put` is what is asked about where the
    /// answer is lost.
    Put {
        key: Key,
        checksum: Checksum,
        #[serde(default)]
        change: Change,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        put: Option<u64>,
    },
}

/// What is answered.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "snake_case")]
pub enum Reply {
    Stat {
        stat: Stat,
    },
    /// The key is published.
    Stored,
    Failed {
        error: Error,
    },
}

/// One end of a session.
pub struct Session {
    socket: TcpStream,
    unsent: Bytes,
    received: BytesMut,
    side: Side,
    who: String,
}

impl Session {
    /// Over a stream that was granted for it.
    pub fn new(stream: Stream) -> Self {
        let (socket, early, side, who) = stream.into_parts();
        // Where it cannot be set, it is asked for more often.
        let _ = socket.set_read_timeout(Some(IDLE));
        Self { socket, unsent: Bytes::new(), received: BytesMut::from(&early[..]), side, who }
    }

    /// Sends a message, as far as the socket takes it at once; [`hear`](Self::hear) sends the rest.
    pub fn say(&mut self, message: &impl Serialize, bytes: &[u8]) {
        let json = serde_json::to_vec(message).expect("a message is plain JSON");
        let lengths = [json.len() as u32, bytes.len() as u32].map(u32::to_le_bytes);
        self.unsent = [&lengths.concat(), &json[..], bytes].concat().into();
        // What goes wrong here goes wrong there once more.
        let _ = self.send();
    }

    /// Sends what was said, and returns the next message with the bytes in it; `None` if it has not come by `until`, or if
    /// `other` has something to read before: then this may be called again. Errors: the peer has closed; what it says is malformed.
    pub fn hear<T: DeserializeOwned>(
        &mut self,
        until: Instant,
        other: Option<BorrowedFd>,
    ) -> Result<Option<(T, Bytes)>> {
        loop {
            if let Some((json, bytes)) = self.take()? {
                let message = serde_json::from_slice(&json).map_err(|e| self.malformed(&e.to_string()))?;
                return Ok(Some((message, bytes)));
            }
            let waits_for = if self.unsent.is_empty() { PollFlags::POLLIN } else { PollFlags::POLLOUT };
            if !self.wait(waits_for, until, other) {
                return Ok(None);
            }
            let done = if self.unsent.is_empty() { self.receive(MsgFlags::MSG_DONTWAIT) } else { self.send() };
            self.go_on(done)?;
        }
    }

    /// The next message's JSON, whatever it says, and the bytes in it, after what was said is sent. Errors: the peer has closed; the
    /// message is too long; it takes longer than [`IDLE`] to begin, or from its beginning to its end.
    pub fn listen(&mut self) -> Result<(Bytes, Bytes)> {
        while !self.unsent.is_empty() {
            let far = Instant::now() + IDLE;
            let done = if self.wait(PollFlags::POLLOUT, far, None) { self.send() } else { Err(Errno::ETIMEDOUT) };
            self.go_on(done)?;
        }
        let mut began = None;
        loop {
            if let Some(message) = self.take()? {
                return Ok(message);
            }
            // One call, which waits for [`IDLE`].
            match self.receive(MsgFlags::empty()) {
                Err(Errno::EAGAIN) => return Err(self.broken(Errno::ETIMEDOUT)),
                done => self.go_on(done)?,
            }
            if began.get_or_insert_with(Instant::now).elapsed() > IDLE {
                return Err(self.broken(Errno::ETIMEDOUT));
            }
        }
    }

    fn go_on(&self, done: nix::Result<()>) -> Result<()> {
        match done {
            Ok(()) | Err(Errno::EINTR | Errno::EAGAIN) => Ok(()),
            Err(errno) => Err(self.broken(errno)),
        }
    }

    /// True if the peer has said nothing and not closed.
    pub fn is_quiet(&self) -> bool {
        let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
        self.received.is_empty()
            && self.unsent.is_empty()
            && recv(self.socket.as_raw_fd(), &mut [0], flags) == Err(Errno::EAGAIN)
    }

    /// Who the peer is, for errors.
    pub fn who(&self) -> &str {
        &self.who
    }

    /// The JSON and the bytes of a message that is here whole.
    fn take(&mut self) -> Result<Option<(Bytes, Bytes)>> {
        let Some(&[a, b, c, d, e, f, g, h]) = self.received.first_chunk::<HEADER>() else { return Ok(None) };
        let (json, bytes) = (u32::from_le_bytes([a, b, c, d]) as usize, u32::from_le_bytes([e, f, g, h]) as usize);
        if json > MAX_JSON || bytes > MAX_BYTES {
            return Err(self.malformed("a message is too long"));
        }
        if self.received.len() < HEADER + json + bytes {
            return Ok(None);
        }
        self.received.advance(HEADER);
        Ok(Some((self.received.split_to(json).freeze(), self.received.split_to(bytes).freeze())))
    }

    fn send(&mut self) -> nix::Result<()> {
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        let sent = send(self.socket.as_raw_fd(), &self.unsent, flags)?;
        self.unsent.advance(sent);
        Ok(())
    }

    fn receive(&mut self, flags: MsgFlags) -> nix::Result<()> {
        let mut block = [0; 16 * 1024];
        match recv(self.socket.as_raw_fd(), &mut block, flags)? {
            0 => Err(Errno::ECONNRESET),
            n => {
                self.received.extend_from_slice(&block[..n]);
                Ok(())
            }
        }
    }

    /// False if nothing happens by `until`, or `other` can be read.
    fn wait(&self, flags: PollFlags, until: Instant, other: Option<BorrowedFd>) -> bool {
        let left = until.saturating_duration_since(Instant::now());
        let asked = PollFd::new(self.socket.as_fd(), flags);
        let mut asked = [asked, PollFd::new(other.unwrap_or(self.socket.as_fd()), PollFlags::POLLIN)];
        let asked = &mut asked[..if other.is_some() { 2 } else { 1 }];
        match ppoll(asked, Some(TimeSpec::from_duration(left)), None) {
            Ok(0) => false,
            // An error of the socket comes again at the next try to send or to receive.
            Ok(_) => asked[0].any() != Some(false),
            Err(_) => !left.is_zero(),
        }
    }

    fn broken(&self, errno: Errno) -> Error {
        self.side.broken(&self.who, &std::io::Error::from(errno))
    }

    fn malformed(&self, why: &str) -> Error {
        self.side.broken(&self.who, &std::io::Error::other(why.to_owned()))
    }
}
