//! The node list: its file, its digest, and the comparison of two lists.

use crate::checksum;
use crate::error::{Error, ErrorKind, Result};
use crate::key::Key;
use crate::placement::{self, NodeId};
use std::fmt;
use std::path::{Path, PathBuf};

/// A node's address as in the cluster file: `host:port`, with an IPv6 host in brackets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    host: String,
    port: u16,
}

impl Address {
    /// Parses `host:port`. Errors: the reason, without the text.
    pub fn parse(line: &str) -> std::result::Result<Self, &'static str> {
        let (host, port) = line.rsplit_once(':').ok_or("it is not host:port")?;
        let port = match port.parse::<u16>() {
            Ok(port) if port > 0 && port.to_string().len() == line.len() - host.len() - 1 => port,
            _ => return Err("the port is not a number from 1 to 65535"),
        };
        let bare = match host.strip_prefix('[') {
            Some(rest) => {
                let bare = rest.strip_suffix(']').ok_or("a bracket is not closed")?;
                bare.parse::<std::net::Ipv6Addr>().map_err(|_| "what is in brackets is not an IPv6 address")?;
                bare
            }
            None if host.contains(':') => return Err("an IPv6 address is written in brackets"),
            None => host,
        };
        let is_host = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_' | ':');
        match !bare.is_empty() && bare.chars().all(is_host) {
            true => Ok(Self { host: bare.to_owned(), port }),
            false => Err("the host is empty or has a character that no host name has"),
        }
    }

    /// The host, without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    pub fn port(&self) -> u16 {
        self.port
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

/// The nodes, in the order of their numbers. Never empty.
#[derive(Debug, Clone)]
pub struct Cluster {
    nodes: Vec<Address>,
}

/// Formats a node for messages: `node 1 (host:port)`.
pub struct NodeName<'a>(NodeId, &'a Address);

impl fmt::Display for NodeName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "node {} ({})", self.0, self.1)
    }
}

impl Cluster {
    /// Reads the cluster file: the first of `given`, `$S4_CONF_PATH` and `~/.s4.conf` that is set.
    pub fn load(given: Option<&Path>) -> Result<Self> {
        let path = conf_path(given)?;
        let shown = path.display();
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                let message = format!("{shown}: no such cluster file; write one host:port a line, or try 's4 local'");
                return Err(Error::new(ErrorKind::Config, message));
            }
            Err(e) if e.kind() == std::io::ErrorKind::InvalidData => {
                return Err(Error::new(ErrorKind::Config, format!("{shown}: not UTF-8 text")));
            }
            Err(e) => {
                return Err(Error::new(ErrorKind::Config, format!("{shown}: {}", crate::error::reason(&e))));
            }
        };
        Self::parse(&text, &path)
    }

    /// Parses the text of the cluster file at `path`. Errors name the path and the line number.
    pub fn parse(text: &str, path: &Path) -> Result<Self> {
        let refuse =
            |line: usize, why: &str| Error::new(ErrorKind::Config, format!("{}:{line}: {why}", path.display()));
        let mut nodes: Vec<Address> = Vec::new();
        for (at, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let node =
                Address::parse(line).map_err(|why| refuse(at + 1, &format!("'{}': {why}", line.escape_debug())))?;
            if let Some(first) = nodes.iter().position(|n| *n == node) {
                return Err(refuse(at + 1, &format!("'{node}' is node {first} already")));
            }
            nodes.push(node);
        }
        match nodes.is_empty() {
            true => Err(refuse(text.lines().count().max(1), "no node in the file; write one host:port a line")),
            false => Ok(Self { nodes }),
        }
    }

    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    pub fn ids(&self) -> std::ops::Range<NodeId> {
        0..self.nodes.len()
    }

    pub fn address(&self, node: NodeId) -> &Address {
        &self.nodes[node]
    }

    pub fn name(&self, node: NodeId) -> NodeName<'_> {
        NodeName(node, &self.nodes[node])
    }

    /// The node that `key` lives on.
    pub fn node_of(&self, key: &Key) -> NodeId {
        placement::node_of(key, self.nodes.len())
    }

    /// The lines of the list, in the form that nodes compare.
    pub fn lines(&self) -> Vec<String> {
        self.nodes.iter().map(Address::to_string).collect()
    }

    /// The digest that nodes compare: XXH3-64 of the lines, each with a newline, as 16 hexadecimal digits.
    pub fn digest(&self) -> String {
        let text: String = self.nodes.iter().map(|node| format!("{node}\n")).collect();
        format!("{:016x}", checksum::hash(text.as_bytes()))
    }

    /// Describes the first node in which this list and `theirs` differ, for a message.
    pub fn first_difference(&self, theirs: &[String]) -> String {
        let ours = self.lines();
        let line = |list: &[String], at: usize| list.get(at).cloned().unwrap_or_else(|| "absent".to_owned());
        let differing = (0..ours.len().max(theirs.len())).find(|&at| ours.get(at) != theirs.get(at));
        match differing {
            Some(at) => format!("node {at} is {} here and {} there", line(&ours, at), line(theirs, at)),
            None => "the lists are equal now; try again".to_owned(),
        }
    }
}

/// The path of the cluster file.
pub fn conf_path(given: Option<&Path>) -> Result<PathBuf> {
    if let Some(path) = given {
        return Ok(path.to_owned());
    }
    if let Some(path) = std::env::var_os("S4_CONF_PATH").filter(|path| !path.is_empty()) {
        return Ok(path.into());
    }
    let home = std::env::var_os("HOME").filter(|home| !home.is_empty());
    home.map(|home| Path::new(&home).join(".s4.conf"))
        .ok_or_else(|| Error::new(ErrorKind::Config, "no cluster file: set S4_CONF_PATH or give --conf-path FILE"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(text: &str) -> Result<Cluster> {
        Cluster::parse(text, Path::new("conf"))
    }

    proptest! {
        #[test]
        fn a_list_reads_as_it_is_shown(text in "((a|b\\.c|\\[::1\\]|127\\.0\\.0\\.1):[1-9]{1,4} ?(\n|\r\n)|#[:a]{0,2}\n|\n){1,5}") {
            if let Ok(cluster) = parse(&text) {
                let again = parse(&cluster.lines().join("\n")).unwrap();
                prop_assert_eq!(again.lines(), cluster.lines());
                prop_assert_eq!(again.digest(), cluster.digest());
                for node in cluster.ids() {
                    prop_assert!(cluster.address(node).port() > 0);
                }
            } else {
                // Any text with nodes that are not repeated is valid here, so an error is one of these two.
                let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
                let mut lines: Vec<&str> = lines.collect();
                let all = lines.len();
                lines.sort_unstable();
                lines.dedup();
                prop_assert!(all == 0 || lines.len() < all, "{text:?}");
            }
        }

        #[test]
        fn any_text_is_a_list_or_an_error_of_one_line(text in "[a:0-9\\[\\]. #\\PC\n\t]{0,24}") {
            if let Err(error) = parse(&text) {
                prop_assert!(!error.to_string().contains(char::is_control), "{error:?}");
            }
        }
    }
}
