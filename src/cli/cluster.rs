//! The command line of `s4 cluster`.

use clap::{Args, Subcommand, ValueHint};
use s4::time::parse_seconds;
use std::time::Duration;

#[derive(Args)]
pub struct ClusterArgs {
    #[command(subcommand)]
    pub command: ClusterCommand,
}

#[derive(Subcommand)]
pub enum ClusterCommand {
    /// Make a cluster of hosts that ssh reaches, or bring it to what is asked for
    #[command(after_help = UP)]
    Up(UpArgs),
    /// Show every node: state, version, uptime, disk and clock
    #[command(after_help = STATUS)]
    Status(StatusArgs),
    /// Replace the programs, node by node, while clients and mounts go on
    #[command(after_help = UPGRADE)]
    Upgrade(UpgradeArgs),
    /// Add nodes to the end of the node list, or take them from there, and move the keys
    #[command(after_help = RESIZE)]
    Resize(ResizeArgs),
    /// Stop the daemons; the keys stay
    #[command(after_help = DOWN)]
    Down(DownArgs),
    /// Remove the cluster with all its keys
    #[command(after_help = DESTROY)]
    Destroy(DestroyArgs),
    /// Try on a host whether it can be a node; 's4 cluster up' runs this
    #[command(hide = true)]
    Probe,
}

pub const CLUSTER: &str = "\
Hosts are reached by your own ssh, with its configuration, agent and jump hosts. On each, the daemon runs as root's systemd or yours
runs it; without systemd, as a process.

Examples:
  s4 cluster up node0 node1 node2
  s4 cluster status
  s4 cluster destroy --yes";

#[derive(Args)]
pub struct SshArgs {
    /// An option for ssh, as ssh_config(5) has it; may be repeated
    #[arg(short = 'o', long, value_name = "OPTION")]
    pub ssh_option: Vec<String>,
}

#[derive(Args)]
pub struct UpArgs {
    /// Hosts as ssh knows them, in the order of their nodes, or one file with a host a line, each possibly followed by its
    /// address; without them, those of before
    #[arg(value_name = "HOST|FILE", value_hint = ValueHint::AnyPath)]
    pub hosts: Vec<String>,
    /// Where the keys are on each host [default: /srv/s4/data, or ~/.local/share/s4/data for an ordinary user]
    #[arg(long, value_name = "DIR", value_parser = parse_data)]
    pub data: Option<String>,
    /// The port of each node whose address has none
    #[arg(long, value_name = "PORT", default_value_t = 8080, value_parser = clap::value_parser!(u16).range(1..))]
    pub port: u16,
    /// Run the daemons as the users that ssh logs in, also where these may become root
    #[arg(long)]
    pub as_user: bool,
    /// Give up the keys of a host whose data directory is gone; may be repeated
    #[arg(long, value_name = "HOST")]
    pub replace: Vec<String>,
    /// Check the hosts, and print what would be done
    #[arg(long)]
    pub dry_run: bool,
    #[command(flatten)]
    pub ssh: SshArgs,
}

fn parse_data(text: &str) -> Result<String, String> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+".contains(c);
    match text.starts_with('/')
        && text.chars().all(is_plain)
        && !text.split('/').any(|part| part == "..")
        && text.len() > 1
    {
        true => Ok(text.trim_end_matches('/').to_owned()),
        false => Err("not an absolute path of letters, digits and ._-+/".to_owned()),
    }
}

pub const UP: &str = "\
Checks every host before anything is changed; run again, it changes only what differs. Prints the line that points the shell at the
cluster.

Examples:
  s4 cluster up node0 node1 node2
  s4 cluster up --dry-run hosts.txt
  s4 cluster up -o ProxyJump=gate --data /mnt/nvme/s4 node0 node1
  eval \"$(s4 cluster up)\"; s4 health";

#[derive(Args)]
pub struct StatusArgs {
    /// Print a JSON object a line
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub ssh: SshArgs,
}

pub const STATUS: &str = "\
The exit status is 1 if any node is not healthy.

Example:
  s4 cluster status";

#[derive(Args)]
pub struct UpgradeArgs {
    /// How long to wait for running jobs, in seconds
    #[arg(long, value_name = "SECONDS", default_value = "600", value_parser = parse_seconds)]
    pub wait: Duration,
    #[command(flatten)]
    pub ssh: SshArgs,
}

pub const UPGRADE: &str = "\
Installs the programs that lie beside this one.

Example:
  s4 cluster upgrade";

#[derive(Args)]
pub struct ResizeArgs {
    /// The hosts of all nodes, as for 'up'; of a cluster that 'up' did not make, the cluster file with the new list
    #[arg(value_name = "HOST|FILE|NEWCONF", required = true, value_hint = ValueHint::AnyPath)]
    pub new: Vec<String>,
    #[command(flatten)]
    pub ssh: SshArgs,
}

pub const RESIZE: &str = "\
Until it is done, the cluster serves nothing else. If it is interrupted, the same command goes on. Where 'up' did not make the
cluster, new nodes must run before, with NEWCONF and empty data directories.

Examples: from 3 to 5 nodes
  s4 cluster resize node0 node1 node2 node3 node4
  s4 -c s4.conf cluster resize new.conf";

#[derive(Args)]
pub struct DownArgs {
    #[command(flatten)]
    pub ssh: SshArgs,
}

pub const DOWN: &str = "\
's4 cluster up' starts them again.

Example:
  s4 cluster down";

#[derive(Args)]
pub struct DestroyArgs {
    /// Do it: the keys are lost
    #[arg(long)]
    pub yes: bool,
    #[command(flatten)]
    pub ssh: SshArgs,
}

pub const DESTROY: &str = "\
Example:
  s4 cluster destroy --yes";
