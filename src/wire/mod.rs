//! What crosses the wire between our own programs where plain HTTP would cost too much: frames, over a connection that HTTP hands over.
//!
//! A client asks `POST /v1/connect` with `Upgrade: s4-frames`, and may send its first [`Request`] along in a header. From then on it sends
//! requests, and the node answers each by one [`Response`] or an error, in their order. Data of a key, or the streams of a command, stand
//! between the two. This is the only place that parses them: `frame` the format, `message` what is said, [`Connection`] the socket,
//! [`parts`] the data of a part of a key.

mod closer;
mod connection;
pub mod frame;
mod inbox;
mod keepalive;
mod message;
pub mod parts;
mod peer;
mod pipe;
mod send_error;
mod upgrade;

pub use closer::Closer;
pub use connection::{Connection, Incoming};
pub use frame::Kind;
pub use keepalive::keep_alive;
pub use message::{CommandEnd, Part, PutEnd, Request, Response};
pub use pipe::Pipe;
pub use send_error::SendError;
pub use upgrade::{is_wanted, mark};

use std::time::Duration;

/// A node ends a connection over which nothing is asked for so long. Clients keep one that they do not use for half as long.
pub const IDLE: Duration = Duration::from_secs(10);

/// A key of at most so many bytes goes in one message: what a socket mostly takes at once.
pub const SMALL: usize = 64 * 1024;

/// A key of so many bytes or more is worth a connection.
pub const LARGE: u64 = 1 << 20;

/// The header in which the first request may come, JSON.
pub const REQUEST_HEADER: &str = "s4-request";
