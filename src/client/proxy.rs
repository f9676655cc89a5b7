//! A SOCKS5 proxy, such as `ssh -D` makes, for clusters whose ports are closed to this machine. It is taken from the
//! environment, by the variables that other programs use.

use crate::cluster::Address;
use crate::error::{Error, ErrorKind, Result};
use percent_encoding::percent_decode_str;
use std::io;
use std::net::{IpAddr, ToSocketAddrs};
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio_socks::tcp::Socks5Stream;
use tokio_socks::{Error as SocksError, TargetAddr};

/// A proxy, and the nodes that are reached without it.
#[derive(Clone)]
pub struct Proxy(Arc<Parts>);

struct Parts {
    address: Address,
    /// User and password.
    user: Option<(String, String)>,
    /// The proxy looks names up: `socks5h`.
    looks_up: bool,
    /// Hosts, domains and `*`, as in `NO_PROXY`.
    except: Vec<String>,
}

impl Proxy {
    /// The proxy that `ALL_PROXY` and `NO_PROXY` ask for, or their names in lower case. Proxies that are not SOCKS5 are for
    /// other programs.
    pub fn from_environment() -> Result<Option<Self>> {
        let value =
            |names: [&str; 2]| names.into_iter().find_map(|name| std::env::var(name).ok().filter(|v| !v.is_empty()));
        match value(["ALL_PROXY", "all_proxy"]) {
            Some(proxy) => Self::parse(&proxy, &value(["NO_PROXY", "no_proxy"]).unwrap_or_default()),
            None => Ok(None),
        }
    }

    fn parse(text: &str, except: &str) -> Result<Option<Self>> {
        let refuse = |why: &str| {
            // The text may hold a password.
            Error::new(ErrorKind::Config, format!("ALL_PROXY: {why}; write socks5h://HOST:PORT"))
        };
        let (looks_up, rest) = match text.split_once("://") {
            Some(("socks5h", rest)) => (true, rest),
            Some(("socks5", rest)) => (false, rest),
            _ => return Ok(None),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (user, host) = match rest.rsplit_once('@') {
            Some((user, host)) => (Some(user), host),
            None => (None, rest),
        };
        let user = user.map(|user| {
            let (name, password) = user.split_once(':').unwrap_or((user, ""));
            let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
            (decoded(name), decoded(password))
        });
        if user.iter().flat_map(|(name, password)| [name, password]).any(|part| part.is_empty() || part.len() > 255) {
            return Err(refuse("user and password have 1 to 255 bytes each"));
        }
        let address = match Address::parse(host) {
            Ok(address) => address,
            Err(why) => return Err(refuse(why)),
        };
        let except = except.split(',').map(|entry| entry.trim().to_ascii_lowercase()).filter(|entry| !entry.is_empty());
        Ok(Some(Self(Arc::new(Parts { address, user, looks_up, except: except.collect() }))))
    }

    /// True if the connections to `node` go through the proxy. A loopback address means this machine, and not the proxy's.
    pub fn is_for(&self, node: &str) -> bool {
        let host = node.to_ascii_lowercase();
        let is_local = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
        let matches = |entry: &String| {
            let domain = entry.trim_start_matches('.');
            entry == "*" || host == domain || host.strip_suffix(domain).is_some_and(|front| front.ends_with('.'))
        };
        !is_local && !self.0.except.iter().any(matches)
    }

    /// A connection to a node through the proxy.
    pub(super) async fn connect(&self, host: &str, port: u16) -> io::Result<TcpStream> {
        let Parts { address, user, looks_up, .. } = &*self.0;
        let to_proxy = TcpStream::connect((address.host(), address.port())).await;
        // Never as a refusal, which would be the node's.
        let socket = to_proxy.map_err(|e| self.failed(crate::error::reason(&e)))?;
        let target = self.target(host, port, *looks_up)?;
        let connected = match user {
            Some((user, password)) => {
                Socks5Stream::connect_with_password_and_socket(socket, target, user, password).await
            }
            None => Socks5Stream::connect_with_socket(socket, target).await,
        };
        match connected {
            Ok(stream) => Ok(stream.into_inner()),
            Err(SocksError::ConnectionRefused) => Err(io::ErrorKind::ConnectionRefused.into()),
            Err(error) => Err(self.failed(error)),
        }
    }

    /// How the proxy is told of the node.
    fn target(&self, host: &str, port: u16, looks_up: bool) -> io::Result<TargetAddr<'static>> {
        match host.parse::<IpAddr>() {
            Ok(address) => Ok(TargetAddr::Ip((address, port).into())),
            Err(_) if looks_up => Ok(TargetAddr::Domain(host.to_owned().into(), port)),
            Err(_) => {
                let found = (host, port).to_socket_addrs()?.next();
                found.map(TargetAddr::Ip).ok_or_else(|| io::ErrorKind::NotFound.into())
            }
        }
    }

    fn failed(&self, why: impl std::fmt::Display) -> io::Error {
        io::Error::other(format!("the proxy {}: {why}", self.0.address))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxy(text: &str, except: &str) -> Option<Proxy> {
        Proxy::parse(text, except).unwrap()
    }

    #[test]
    fn only_socks5_is_taken() {
        assert!(proxy("http://proxy:3128", "").is_none());
        assert!(proxy("proxy:3128", "").is_none());
        let taken = proxy("socks5h://us%40er:pass@[::1]:1080/", "").unwrap();
        assert_eq!(taken.0.user, Some(("us@er".to_owned(), "pass".to_owned())));
        assert_eq!((taken.0.address.host(), taken.0.address.port(), taken.0.looks_up), ("::1", 1080, true));
        assert!(!proxy("socks5://localhost:1080", "").unwrap().0.looks_up);
    }

    #[test]
    fn what_is_wrong_is_refused_without_the_password() {
        for text in
            ["socks5h://", "socks5h://host", "socks5h://a:secret@host", "socks5h://a:secret@host:0", "socks5://:@h:1"]
        {
            let error = Proxy::parse(text, "").map(|_| ()).unwrap_err().to_string();
            assert!(error.starts_with("ALL_PROXY: ") && !error.contains("secret"), "{text}: {error}");
        }
    }

    #[test]
    fn this_machine_and_what_is_excepted_need_no_proxy() {
        let proxy = proxy("socks5h://localhost:1080", "node1, .inner.example ,10.0.0.9").unwrap();
        for host in
            ["127.0.0.1", "::1", "LocalHost", "node1", "a.node1", "inner.example", "x.INNER.example", "10.0.0.9"]
        {
            assert!(!proxy.is_for(host), "{host}");
        }
        for host in ["10.0.0.1", "node10", "outerinner.example", "110.0.0.9"] {
            assert!(proxy.is_for(host), "{host}");
        }
        assert!(!super::tests::proxy("socks5h://localhost:1080", "*").unwrap().is_for("10.0.0.1"));
    }
}
