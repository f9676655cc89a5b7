//! Frames: the protocol between the programs of s4 where plain HTTP would be too slow. They are sent over a connection
//! that begins as HTTP and is upgraded.
//!
//! A client sends `POST /v1/connect` with `Upgrade: s4-frames`, and may put its first [`Request`] into a header. After
//! the upgrade it sends requests. The node answers each with one [`Response`] or one error, in the order of the
//! requests. The data of a key, or the streams of a command, come between request and response. Only this module parses
//! frames: `frame` has their format, `message` the requests and responses, [`Connection`] the socket, and [`parts`] the
//! data of a part of a key. What a request does is left to the daemon, and when it is sent to `client`.

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
mod socket;
mod upgrade;

pub use closer::Closer;
pub use connection::{Connection, Incoming};
pub use frame::Kind;
pub use keepalive::keep_alive;
pub use message::{CommandEnd, Part, Put, PutEnd, Request, Response};
pub use pipe::Pipe;
pub use send_error::SendError;
pub use upgrade::{is_wanted, mark};

use std::time::Duration;

/// A node closes a connection after this time without a request. Clients keep an unused one for half of this time.
pub const IDLE: Duration = Duration::from_secs(10);

/// The longest key that is sent in one message, in bytes: what a socket usually accepts at once.
pub const SMALL: usize = 64 * 1024;

/// The shortest key for which opening a connection pays, in bytes.
pub const LARGE: u64 = 1 << 20;

/// The HTTP header that may carry the first request, as JSON.
pub const REQUEST_HEADER: &str = "s4-request";
