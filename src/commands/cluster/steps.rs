//! What all steps share: the script, the connections with all hosts, and how failures of some hosts are told.

use super::definition::{Definition, Member};
use super::ssh::{Connections, Host, Ssh, quoted};
use crate::cli::SshArgs;
use crate::commands::console::print_message;
use s4::error::{Error, ErrorKind, Result};

/// The script that calls a function on a host.
pub fn script(data: Option<&str>, call: &str) -> String {
    format!("data={}\n{}\n{call}\n", quoted(data.unwrap_or("")), include_str!("host.sh"))
}

/// Connects with hosts of the cluster. What is typed now comes before the options that it was made with.
pub fn connect(args: &SshArgs, cluster: &Definition, hosts: &[&str]) -> Result<Connections> {
    let ssh = Ssh { options: [&args.ssh_option[..], &cluster.ssh].concat(), as_user: cluster.as_user };
    ssh.connect(hosts).map_err(|e| Error::io("the directory of ssh's sockets", &e))
}

/// The hosts, if all are reached. Errors name those that are not.
pub fn all_of(connections: &Connections, nodes: &[&str]) -> Result<()> {
    let problems = nodes.iter().zip(&connections.hosts);
    let problems: Vec<(usize, String)> =
        problems.enumerate().filter_map(|(node, (_, host))| Some((node, host.as_ref().err()?.clone()))).collect();
    refuse(&problems, nodes)
}

/// Prints the problems, each with its host. Errors if there are any.
pub fn refuse(problems: &[(usize, String)], hosts: &[&str]) -> Result<()> {
    for (node, why) in problems {
        print_message(format_args!("{}: {why}", hosts[*node]));
    }
    let mut troubled: Vec<usize> = problems.iter().map(|(node, _)| *node).collect();
    troubled.dedup();
    match troubled.len() {
        0 => Ok(()),
        some => {
            let message = format!("{some} of {} hosts cannot be used as they are; nothing was changed", hosts.len());
            Err(Error::new(ErrorKind::Config, message))
        }
    }
}

/// Does one step on hosts, and prints those that fail.
pub fn step(name: &str, results: Vec<(&str, std::result::Result<(), String>)>) -> Result<()> {
    let all = results.len();
    let failed: Vec<(&str, String)> =
        results.into_iter().filter_map(|(host, result)| Some((host, result.err()?))).collect();
    for (host, why) in &failed {
        print_message(format_args!("{host}: {why}"));
    }
    match failed.len() {
        0 => Ok(()),
        some => Err(Error::new(
            ErrorKind::Config,
            format!("{name} failed on {some} of {all} hosts; mend them, and run it again"),
        )),
    }
}

pub fn names(nodes: &[Member]) -> Vec<&str> {
    nodes.iter().map(|node| node.host.as_str()).collect()
}

/// The connected hosts, in the order of their nodes. All are there.
pub fn hosts(connections: &Connections) -> Vec<&Host> {
    connections.hosts.iter().flatten().collect()
}
