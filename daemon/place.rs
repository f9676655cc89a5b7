//! Which line of the cluster file is this daemon's: the one whose address is this machine's.

use nix::ifaddrs::getifaddrs;
use s4::cluster::{Address, Cluster};
use s4::error::{Error, ErrorKind, Result};
use s4::placement::NodeId;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};

/// A daemon's place in the cluster.
pub struct Place {
    pub node: NodeId,
    /// The only address that it listens on.
    pub address: SocketAddr,
}

/// Finds this machine's line, among those of `port` if it is given.
pub fn find(cluster: &Cluster, port: Option<u16>) -> Result<Place> {
    let local = local_addresses()?;
    let candidates: Vec<NodeId> =
        cluster.ids().filter(|&node| port.is_none_or(|port| cluster.address(node).port() == port)).collect();
    let mut unresolved = None;
    let mut places = Vec::new();
    for node in candidates {
        match local_address(cluster.address(node), &local) {
            Ok(Some(address)) => places.push(Place { node, address }),
            Ok(None) => {}
            Err(error) => unresolved = Some((node, error)),
        }
    }
    let of_port = port.map_or(String::new(), |port| format!(" with port {port}"));
    if places.len() > 1 {
        let nodes: Vec<String> = places.iter().map(|place| cluster.name(place.node).to_string()).collect();
        let message =
            format!("several lines{of_port} are this machine's: {}; choose one with --port", nodes.join(", "));
        return Err(Error::new(ErrorKind::Config, message));
    }
    let why = unresolved.map_or(String::new(), |(node, error)| {
        format!("; {} cannot be looked up: {}", cluster.name(node), s4::error::reason(&error))
    });
    places.pop().ok_or_else(|| {
        Error::new(
            ErrorKind::Config,
            format!("no line of the cluster file{of_port} is an address of this machine{why}"),
        )
    })
}

/// The first address of a node that is this machine's.
fn local_address(address: &Address, local: &[IpAddr]) -> std::io::Result<Option<SocketAddr>> {
    let mut resolved = (address.host(), address.port()).to_socket_addrs()?;
    Ok(resolved.find(|address| address.ip().is_loopback() || local.contains(&address.ip())))
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
