//! What `s4 cluster` keeps of a cluster on this machine: the cluster file, the secret beside it, and, in a third file beside
//! it, how ssh calls the hosts.

use super::super::local::random_text;
use s4::client::Secret;
use s4::cluster::{self, Address, Cluster};
use s4::error::{Error, ErrorKind, Result, reason};
use s4::file::write_durably;
use serde::{Deserialize, Serialize};
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Bytes of a file of hosts that are read.
const MAX_FILE: u64 = 4 << 20;

/// One node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Member {
    /// What ssh is given: a name of its configuration, or `user@host`.
    pub host: String,
    /// Its line in the cluster file.
    pub address: String,
}

/// How a cluster was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Definition {
    /// The data directory, if not the usual one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<String>,
    /// As ordinary users, also where root could be had.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub as_user: bool,
    /// Options of ssh, as typed after `-o`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ssh: Vec<String>,
    /// In the order of their nodes.
    pub nodes: Vec<Member>,
}

/// The files of one cluster on this machine.
pub struct Files {
    pub conf: PathBuf,
    pub secret: PathBuf,
    pub hosts: PathBuf,
}

impl Files {
    /// Beside the cluster file that is given or usual.
    pub fn find(given: Option<&Path>) -> Result<Self> {
        let conf = std::path::absolute(cluster::conf_path(given)?).map_err(|e| Error::io("the cluster file", &e))?;
        let mut hosts = conf.as_os_str().to_owned();
        hosts.push(".hosts");
        Ok(Self { secret: Secret::beside(&conf), hosts: hosts.into(), conf })
    }

    /// The cluster that was made before, if there is one.
    pub fn definition(&self) -> Result<Option<Definition>> {
        let shown = self.hosts.display();
        let refuse = |why: String| Error::new(ErrorKind::Config, format!("{shown}: {why}"));
        let text = match read_text(&self.hosts) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(refuse(reason(&e))),
        };
        let definition: Definition = serde_json::from_str(&text).map_err(|e| refuse(e.to_string()))?;
        definition.nodes.iter().try_for_each(|node| check_host(&node.host)).map_err(refuse)?;
        cluster_of(&definition.nodes, &self.hosts).map(|_| Some(definition))
    }

    /// The cluster that was made before. Errors: there is none.
    pub fn existing(&self) -> Result<Definition> {
        self.definition()?.ok_or_else(|| {
            let message =
                format!("{}: no such file; 's4 cluster up HOST…' makes a cluster, and it", self.hosts.display());
            Error::new(ErrorKind::Config, message)
        })
    }

    /// Keeps a cluster that is up.
    pub fn keep(&self, definition: &Definition, cluster: &Cluster) -> Result<()> {
        let text = serde_json::to_string_pretty(definition).expect("plain JSON") + "\n";
        let failed = |path: &Path, e: std::io::Error| Error::io(path.display(), &e);
        write_durably(&self.hosts, text.as_bytes()).map_err(|e| failed(&self.hosts, e))?;
        write_durably(&self.conf, conf_text(cluster).as_bytes()).map_err(|e| failed(&self.conf, e))
    }

    /// The secret beside the cluster file, else that of the file `given`, else `theirs`, which hosts have.
    pub fn known_secret(&self, given: Option<&Path>, theirs: Option<String>) -> Result<Option<String>> {
        let ours = self.secret.exists().then(|| Secret::read(&self.secret)).transpose()?;
        match (given.map(Secret::read).transpose()?, ours) {
            (Some(given), Some(ours)) if given.as_text() != ours.as_text() => {
                let message = format!(
                    "{}: the cluster has another secret than the one that is given; to change it, remove this file and \
                     run the same command again: the daemons restart, and jobs that run end",
                    self.secret.display()
                );
                Err(Error::new(ErrorKind::Config, message))
            }
            (_, Some(known)) | (Some(known), None) => Ok(Some(known.as_text().to_owned())),
            (None, None) => Ok(theirs),
        }
    }

    /// The secret that is known, else a new one. It is kept beside the cluster file.
    pub fn secret(&self, given: Option<&Path>, theirs: Option<String>) -> Result<String> {
        let failed = |e: std::io::Error| Error::io(self.secret.display(), &e);
        let text = match self.known_secret(given, theirs)? {
            Some(known) if self.secret.exists() => return Ok(known),
            Some(known) => known,
            None => random_text().map_err(failed)?,
        };
        let draft = self.secret.with_extension("secret.new");
        let _ = std::fs::remove_file(&draft);
        let mut options = std::fs::OpenOptions::new();
        let file = options.write(true).create_new(true).mode(0o600).open(&draft);
        file.and_then(|mut file| std::io::Write::write_all(&mut file, format!("{text}\n").as_bytes()))
            .map_err(failed)?;
        std::fs::rename(&draft, &self.secret).map_err(failed)?;
        Ok(text)
    }

    pub fn forget(&self) -> Result<()> {
        for path in [&self.hosts, &self.conf, &self.secret] {
            match std::fs::remove_file(path) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(Error::io(path.display(), &e)),
                _ => {}
            }
        }
        Ok(())
    }
}

/// The cluster file of a cluster.
pub fn conf_text(cluster: &Cluster) -> String {
    format!("# By 's4 cluster': the nodes, from number 0.\n{}\n", cluster.lines().join("\n"))
}

/// The list of these nodes. Errors name `path`.
pub fn cluster_of(nodes: &[Member], path: &Path) -> Result<Cluster> {
    let text: String = nodes.iter().map(|node| format!("{}\n", node.address)).collect();
    Cluster::parse(&text, path)
}

/// A host as typed: what ssh is given, and the address of its node if it is not that by which ssh reaches it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Given {
    pub host: String,
    pub address: Option<String>,
}

/// Hosts as typed: names, or one file with a name a line, and possibly an address, which gets the port of its host if it has
/// none.
pub fn given(args: &[String], port_for: impl Fn(&str) -> u16) -> Result<Vec<Given>> {
    let hosts = match args {
        [file] if Path::new(file).is_file() => {
            let refuse = |why: String| Error::new(ErrorKind::Config, format!("{file}: {why}"));
            let text = read_text(Path::new(file)).map_err(|e| refuse(reason(&e)))?;
            parse_file(&text, port_for)
                .map_err(|(line, why)| Error::new(ErrorKind::Config, format!("{file}:{line}: {why}")))?
        }
        hosts => {
            hosts.iter().try_for_each(|host| check_host(host)).map_err(Error::usage)?;
            hosts.iter().map(|host| Given { host: host.clone(), address: None }).collect()
        }
    };
    let mut names: Vec<&str> = hosts.iter().map(|given| given.host.as_str()).collect();
    names.sort_unstable();
    match names.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(Error::usage(format!("the host '{}' is there twice", pair[0]))),
        None => Ok(hosts),
    }
}

fn parse_file(text: &str, port_for: impl Fn(&str) -> u16) -> std::result::Result<Vec<Given>, (usize, String)> {
    let mut hosts = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let failed = |why: String| (number + 1, why);
        let mut words = line.split('#').next().unwrap_or("").split_whitespace();
        let Some(host) = words.next() else { continue };
        check_host(host).map_err(failed)?;
        let address = words.next().map(|word| address(word, port_for(host))).transpose().map_err(failed)?;
        if words.next().is_some() {
            return Err(failed("more than a host and its address".to_owned()));
        }
        hosts.push(Given { host: host.to_owned(), address });
    }
    match hosts.is_empty() {
        true => Err((1, "no host in the file; write one a line".to_owned())),
        false => Ok(hosts),
    }
}

/// A line of the cluster file from a host, with or without a port.
pub fn address(text: &str, port: u16) -> std::result::Result<String, String> {
    let with_port = match text.parse::<std::net::IpAddr>() {
        Ok(std::net::IpAddr::V6(_)) => format!("[{text}]:{port}"),
        _ if text.ends_with(']') || !text.contains(':') => format!("{text}:{port}"),
        _ => text.to_owned(),
    };
    Address::parse(&with_port)
        .map(|address| address.to_string())
        .map_err(|why| format!("'{}': {why}", text.escape_debug()))
}

fn check_host(host: &str) -> std::result::Result<(), String> {
    let why = match host {
        "" => "it is empty",
        _ if host.starts_with('-') => "it begins with -",
        _ if host.contains(|c: char| c.is_whitespace() || c.is_control() || "'\"\\".contains(c)) => {
            "it has whitespace, a quote or a backslash"
        }
        _ => return Ok(()),
    };
    Err(format!("'{}' is no host: {why}", host.escape_debug()))
}

fn read_text(path: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    std::fs::File::open(path)?.take(MAX_FILE).read_to_string(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_hosts_has_a_host_a_line_and_possibly_an_address() {
        let hosts =
            parse_file("# ours\nnode0\n\nalice@node1 10.0.0.2 # the second\nnode2 [fd00::3]:81\n", |_| 80).unwrap();
        let shown: Vec<_> = hosts.iter().map(|given| (given.host.as_str(), given.address.as_deref())).collect();
        assert_eq!(shown, [("node0", None), ("alice@node1", Some("10.0.0.2:80")), ("node2", Some("[fd00::3]:81"))]);
        assert_eq!(parse_file("a b c", |_| 80).unwrap_err().0, 1);
        assert_eq!(parse_file("a\n-oProxyCommand=x", |_| 80).unwrap_err().0, 2);
        assert_eq!(parse_file("\n", |_| 80).unwrap_err().0, 1);
    }

    #[test]
    fn an_address_gets_the_port_that_it_lacks() {
        assert_eq!(address("node1", 80).unwrap(), "node1:80");
        assert_eq!(address("node1:81", 80).unwrap(), "node1:81");
        assert_eq!(address("fd00::1", 80).unwrap(), "[fd00::1]:80");
        assert!(address("node1:x", 80).is_err());
    }
}
