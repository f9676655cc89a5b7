//! Starts what is stopped on the hosts that are reached while others are not: a host that is down must not keep the rest
//! down.

use super::definition::Definition;
use super::facts::Facts;
use super::parallel::on_all;
use super::ssh::{Connections, Host};
use super::steps::script;
use crate::commands::console::print_message;
use s4::cluster::Cluster;
use s4::error::{Error, ErrorKind, Result};

/// Errors: some hosts are not reached, and on others a daemon was started. Does nothing if all are reached, or nothing was
/// stopped.
pub fn on_reached(old: &Definition, connections: &Connections, cluster: &Cluster) -> Result<()> {
    let unreached: Vec<_> = old
        .nodes
        .iter()
        .zip(&connections.hosts)
        .filter_map(|(node, host)| Some((node, host.as_ref().err()?)))
        .collect();
    if unreached.is_empty() {
        return Ok(());
    }
    let started = on_all(&connections.hosts, |node, host| {
        let Ok(host) = host else { return false };
        match start(host, node, old, cluster) {
            Ok(false) => false,
            Ok(true) => {
                print_message(format_args!("{}: node {node}: a start", host.name));
                true
            }
            Err(why) => {
                print_message(format_args!("{}: node {node}: {why}", host.name));
                false
            }
        }
    });
    if !started.contains(&true) {
        return Ok(());
    }
    for (node, why) in &unreached {
        print_message(format_args!("{}: {why}", node.host));
    }
    let message = format!(
        "{} of {} hosts are not reached; what was stopped on the others is started, and nothing else was changed",
        unreached.len(),
        old.nodes.len()
    );
    Err(Error::new(ErrorKind::Config, message))
}

/// True if a daemon was started, which only lacked that.
fn start(host: &Host, node: usize, old: &Definition, cluster: &Cluster) -> std::result::Result<bool, String> {
    let data = old.data.as_deref();
    let facts = Facts::of(host, data)?;
    let mark = format!("node {node} of {}", cluster.len());
    if facts.pid.is_some() || facts.nodes != cluster.lines() || facts.held.as_ref() != Some(&mark) {
        return Ok(false);
    }
    let call = format!("start {}", cluster.address(node).port());
    host.run(&script(data, &call)).map(|_| true)
}
