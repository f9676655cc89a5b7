//! The errors of a transfer. Client and server use different kinds for the same failure. The cause is described in
//! words of s4, whatever library has reported it.

use crate::error::{Error, ErrorKind, reason};
use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::time::Duration;

/// Which end of a transfer this process is, by which the kinds of its errors are chosen.
#[derive(Clone, Copy)]
pub enum Role {
    Client,
    Server,
}

impl Role {
    /// The error of a transfer with `who` that broke.
    pub fn broken(self, who: &str, error: &(dyn StdError + 'static)) -> Error {
        let kind = match self {
            Self::Client => ErrorKind::Unreachable,
            Self::Server => ErrorKind::BadRequest,
        };
        let cause = cause(error);
        let broken = Error::new(kind, format!("{who}: the transfer broke off: {cause}"));
        if cause == Cause::Closed { broken.of_broken_connection() } else { broken }
    }

    /// The error of a violation of the protocol by `who`.
    pub fn malformed(self, who: &str, why: &str) -> Error {
        let kind = match self {
            Self::Client => ErrorKind::Unreachable,
            Self::Server => ErrorKind::BadRequest,
        };
        Error::new(kind, format!("{who}: malformed message: {why}"))
    }

    /// The error if `who` has neither sent nor received anything within `deadline`.
    pub fn silent(self, who: &str, deadline: Duration) -> Error {
        let kind = match self {
            Self::Client => ErrorKind::Deadline,
            Self::Server => ErrorKind::RequestTimeout,
        };
        Error::new(kind, format!("{who}: silent for {} s in a transfer", deadline.as_secs_f64()))
    }
}

/// Why a connection or a transfer has failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cause {
    /// No process listens at the address.
    Refused,
    /// The peer or its machine has closed the connection.
    Closed,
    /// Sent bytes were not acknowledged in time.
    Silent,
    /// There is no route to the peer.
    NoWay,
    /// The host name in the address cannot be resolved.
    NoName,
    /// The received bytes are not HTTP.
    NotHttp,
    /// Another error of the system or of s4, with its text.
    Other(String),
}

impl Cause {
    pub fn is_silence(&self) -> bool {
        *self == Self::Silent
    }

    fn of_system(error: &io::Error) -> Self {
        use io::ErrorKind as Io;
        match error.kind() {
            Io::ConnectionRefused => Self::Refused,
            Io::ConnectionReset | Io::ConnectionAborted | Io::BrokenPipe | Io::NotConnected | Io::UnexpectedEof => {
                Self::Closed
            }
            Io::TimedOut | Io::WouldBlock => Self::Silent,
            Io::HostUnreachable | Io::NetworkUnreachable | Io::NetworkDown => Self::NoWay,
            // Libraries report bytes that they cannot parse by these kinds, without an errno.
            Io::InvalidData | Io::InvalidInput if error.raw_os_error().is_none() => Self::NotHttp,
            _ if error.to_string().contains("lookup address") => Self::NoName,
            _ => Self::Other(reason(error)),
        }
    }

    fn of_http(error: &hyper::Error) -> Self {
        match error {
            error if error.is_timeout() => Self::Silent,
            error if error.is_parse() || error.is_parse_too_large() || error.is_parse_status() => Self::NotHttp,
            _ => Self::Closed,
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Refused => "it refuses connections; is its daemon running?",
            Self::Closed => "the connection was closed",
            Self::Silent => "nothing was heard of it",
            Self::NoWay => "there is no way to its address",
            Self::NoName => "its name has no address",
            Self::NotHttp => "it does not answer as a node does; is it s4?",
            Self::Other(text) => text,
        })
    }
}

/// The cause of an error of a library: the innermost error in its chain of sources that has a known type.
pub fn cause(error: &(dyn StdError + 'static)) -> Cause {
    let mut found = None;
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(system) = error.downcast_ref::<io::Error>() {
            found = Some(Cause::of_system(system));
        } else if let Some(http) = error.downcast_ref::<hyper::Error>() {
            found = Some(Cause::of_http(http));
        } else if let Some(own) = error.downcast_ref::<Error>() {
            found = Some(Cause::Other(own.to_string()));
        }
        next = error.source();
    }
    found.unwrap_or(Cause::Closed)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An error of a library, with nothing but a source.
    #[derive(Debug)]
    struct Library(io::Error);

    impl fmt::Display for Library {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("words of a library")
        }
    }

    impl StdError for Library {
        fn source(&self) -> Option<&(dyn StdError + 'static)> {
            Some(&self.0)
        }
    }

    fn shown(error: io::Error) -> String {
        Role::Client.broken("node 1 (a:1)", &Library(error)).to_string()
    }

    #[test]
    fn each_error_of_the_network_has_words_of_ours() {
        let system = |errno| shown(io::Error::from_raw_os_error(errno));
        let rows = [
            (system(libc::ECONNREFUSED), "it refuses connections; is its daemon running?"),
            (system(libc::ECONNRESET), "the connection was closed"),
            (system(libc::EPIPE), "the connection was closed"),
            (system(libc::ETIMEDOUT), "nothing was heard of it"),
            (system(libc::EHOSTUNREACH), "there is no way to its address"),
            (system(libc::ENETUNREACH), "there is no way to its address"),
            (system(libc::EIO), "Input/output error"),
            (
                shown(io::Error::new(io::ErrorKind::UnexpectedEof, "unexpected EOF during chunk size line")),
                "the connection was closed",
            ),
            (
                shown(io::Error::new(io::ErrorKind::InvalidInput, "Invalid chunk size line: Invalid Size")),
                "it does not answer as a node does; is it s4?",
            ),
            (shown(io::Error::new(io::ErrorKind::TimedOut, "deadline has elapsed")), "nothing was heard of it"),
            (
                shown(io::Error::other("failed to lookup address information: Name or service not known")),
                "its name has no address",
            ),
        ];
        for (said, cause) in rows {
            assert_eq!(said, format!("node 1 (a:1): the transfer broke off: {cause}"));
        }
    }

    #[test]
    fn an_error_of_ours_says_what_it_says() {
        let own = Error::new(ErrorKind::Checksum, "b/k: the file became shorter");
        assert_eq!(cause(&own).to_string(), "b/k: the file became shorter");
    }
}
