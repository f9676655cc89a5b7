//! Finds this daemon's line in the cluster file, and the address to listen on: the line whose address belongs to this
//! machine.

use crate::cluster::{Address, Cluster};
use crate::error::{Error, ErrorKind, Result};
use crate::placement::NodeId;
use nix::ifaddrs::getifaddrs;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};

/// This daemon's line in the cluster file.
pub struct LocalNode {
    pub node: NodeId,
    /// The only address to listen on.
    pub address: SocketAddr,
}

/// Finds this machine's line; with `port`, the line with this port.
pub fn find(cluster: &Cluster, port: Option<u16>) -> Result<LocalNode> {
    let addresses = local_addresses()?;
    let candidates: Vec<NodeId> =
        cluster.ids().filter(|&node| port.is_none_or(|port| cluster.address(node).port() == port)).collect();
    let mut unresolved = None;
    let mut found = Vec::new();
    for node in candidates {
        match local_address(cluster.address(node), &addresses) {
            Ok(Some(address)) => found.push(LocalNode { node, address }),
            Ok(None) => {}
            Err(error) => unresolved = Some((node, error)),
        }
    }
    let of_port = port.map_or(String::new(), |port| format!(" with port {port}"));
    if found.len() > 1 {
        let nodes: Vec<String> = found.iter().map(|local| cluster.name(local.node).to_string()).collect();
        let message =
            format!("several lines{of_port} are this machine's: {}; choose one with --port", nodes.join(", "));
        return Err(Error::new(ErrorKind::Config, message));
    }
    let why = unresolved.map_or(String::new(), |(node, error)| {
        format!("; {} cannot be looked up: {}", cluster.name(node), crate::error::reason(&error))
    });
    let local = found.pop().ok_or_else(|| {
        Error::new(
            ErrorKind::Config,
            format!("no line of the cluster file{of_port} is an address of this machine{why}"),
        )
    })?;
    check_reachable(cluster, &local).map(|()| local)
}

/// The first address of a node that belongs to this machine; preferably one that others can reach.
fn local_address(address: &Address, local: &[IpAddr]) -> std::io::Result<Option<SocketAddr>> {
    let resolved: Vec<SocketAddr> = (address.host(), address.port()).to_socket_addrs()?.collect();
    Ok(first_of(&resolved, local))
}

fn first_of(resolved: &[SocketAddr], local: &[IpAddr]) -> Option<SocketAddr> {
    let reached = resolved.iter().find(|address| !address.ip().is_loopback() && local.contains(&address.ip()));
    reached.or_else(|| resolved.iter().find(|address| address.ip().is_loopback())).copied()
}

/// Refuses a host name that resolves to a loopback address on its own machine only, which many distributions set up.
/// Other nodes would resolve it to another address, on which nothing listens.
fn check_reachable(cluster: &Cluster, local: &LocalNode) -> Result<()> {
    let host = cluster.address(local.node).host();
    let is_meant = host.parse::<IpAddr>().is_ok() || host.eq_ignore_ascii_case("localhost");
    match local.address.ip().is_loopback() && !is_meant {
        false => Ok(()),
        true => Err(Error::new(
            ErrorKind::Config,
            format!(
                "{}: '{host}' is {} here, which no other machine can reach; write its address into the cluster file",
                cluster.name(local.node),
                local.address.ip()
            ),
        )),
    }
}

fn local_addresses() -> Result<Vec<IpAddr>> {
    let interfaces = getifaddrs().map_err(|e| Error::io("cannot list this machine's addresses", &e.into()))?;
    let addresses = interfaces.filter_map(|interface| {
        let address = interface.address?;
        let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
        v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
    });
    Ok(addresses.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_others_reach_comes_first() {
        let all = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<SocketAddr>>();
        let local: Vec<IpAddr> = ["127.0.0.1", "10.0.0.5"].iter().map(|text| text.parse().unwrap()).collect();
        let first = |texts: &[&str]| first_of(&all(texts), &local).map(|address| address.to_string());
        assert_eq!(first(&["127.0.1.1:1", "10.0.0.5:1"]).as_deref(), Some("10.0.0.5:1"));
        assert_eq!(first(&["10.0.0.6:1", "127.0.1.1:1"]).as_deref(), Some("127.0.1.1:1"));
        assert_eq!(first(&["10.0.0.6:1"]), None);
    }
}
