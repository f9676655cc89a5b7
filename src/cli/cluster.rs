//! The command line of `s4 cluster`.

use super::text::examples;
use clap::{Args, Subcommand, ValueHint};
use s4::time::parse_seconds;
use std::time::Duration;

#[derive(Args)]
#[command(long_about = CLUSTER_LONG, after_help = CLUSTER, after_long_help = examples(CLUSTER))]
pub struct ClusterArgs {
    #[command(subcommand)]
    pub command: ClusterCommand,
}

// Deferred: the long descriptions, which are at the arguments, would be replaced by none.
#[derive(Subcommand)]
#[command(defer = true)]
pub enum ClusterCommand {
    /// Make a cluster of hosts that ssh reaches, or bring it to what is asked for
    Up(UpArgs),
    /// Show every node: state, version, uptime, disk and clock
    Status(StatusArgs),
    /// Replace the programs, node by node, while clients and mounts go on
    Upgrade(UpgradeArgs),
    /// Add nodes to the end of the node list, or take them from there, and move the keys
    Resize(ResizeArgs),
    /// Stop the daemons; the keys stay
    Down(DownArgs),
    /// Remove the cluster with all its keys
    Destroy(DestroyArgs),
    /// Try on a host whether it can be a node; 's4 cluster up' runs this
    #[command(hide = true)]
    Probe,
}

const CLUSTER_LONG: &str = "\
Make a cluster of hosts that ssh reaches, and look after it; resize any cluster. Hosts are reached by your own ssh(1), with its \
configuration, agent and jump hosts, and without passwords. How ssh calls them is kept beside the cluster file, in ~/.s4.conf.hosts.

As root, or where sudo(8) needs no password, the daemons run as the user 's4', else as the user that ssh logs in: by systemd or, where \
there is none, as processes, which do not survive a boot.";

const CLUSTER: &str = "\
Hosts are reached by your own ssh, with its configuration, agent and jump hosts. On each, the daemon runs as root's systemd or yours
runs it; without systemd, as a process.

Examples:
  s4 cluster up node0 node1 node2
  s4 cluster status
  s4 cluster destroy --yes";

#[derive(Args, Default)]
pub struct SshArgs {
    /// An option for ssh, as ssh_config(5) has it; may be repeated
    ///
    /// An example is '-o ProxyJump=gate'. Those of the last 'up' that had any are kept, and the later commands use them too.
    #[arg(short = 'o', long, value_name = "OPTION")]
    pub ssh_option: Vec<String>,
}

#[derive(Args)]
#[command(long_about = UP_LONG, after_help = UP, after_long_help = examples(UP))]
pub struct UpArgs {
    /// Hosts as ssh knows them, in the order of their nodes, or one file with a host a line, each possibly followed by its
    /// address; without them, those of before
    ///
    /// The address is that by which the other hosts reach the host, with or without a port. Without it, it is the address by
    /// which ssh reaches the host.
    #[arg(value_name = "HOST|FILE", value_hint = ValueHint::AnyPath)]
    pub hosts: Vec<String>,
    /// Where the keys are on each host [default: /srv/s4/data, or ~/.local/share/s4/data for an ordinary user]
    #[arg(long, value_name = "DIR", value_parser = parse_data)]
    pub data: Option<String>,
    /// The port of each node whose address has none [default: that of before, or 8080]
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub port: Option<u16>,
    /// Run the daemons as the users that ssh logs in, who must not be root, also where these may become root
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

const UP_LONG: &str = "\
Make a cluster of hosts that ssh reaches. The order of the hosts is the order of the nodes.

Every host is checked before anything is changed: architecture, kernel, tools, limits, file system, free space, clock, the port, and \
whether each host reaches each other. Each problem is a line that names its host. Then programs, cluster file and secret are \
installed, and the daemons start. When all nodes are healthy, the line that points the shell at the cluster is printed.

If it is run again, with the same hosts or none, it changes only what differs, and starts what is down. A host that is replaced by \
another takes its place in the list; without the data directory of the old host, it needs --replace. 's4 cluster resize' is for more \
or fewer nodes. Another order is refused: number and order of the nodes say where keys are.";

const UP: &str = "\
Checks every host before anything is changed; run again, it changes only what differs. Prints the line that points the shell at the
cluster.

Examples:
  s4 cluster up --dry-run hosts.txt
  s4 cluster up node0 node1 node2
  eval \"$(s4 cluster up)\"; s4 health

Example: through a jump host
  s4 cluster up -o ProxyJump=gate --data /mnt/nvme/s4 node0 node1";

#[derive(Args)]
#[command(after_help = STATUS)]
pub struct StatusArgs {
    /// Print a JSON object a line
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub ssh: SshArgs,
}

const STATUS: &str = "\
The exit status is 1 if any node is not healthy.

Example:
  s4 cluster status";

#[derive(Args)]
#[command(long_about = UPGRADE_LONG, after_help = UPGRADE, after_long_help = examples(UPGRADE))]
pub struct UpgradeArgs {
    /// How long to wait for running jobs, in seconds
    #[arg(long, value_name = "SECONDS", default_value = "600", value_parser = parse_seconds)]
    pub wait: Duration,
    /// Print which programs each host would get
    #[arg(long)]
    pub dry_run: bool,
    #[command(flatten)]
    pub ssh: SshArgs,
}

const UPGRADE_LONG: &str = "\
Install the programs that are beside this one, node by node: the next node when all are healthy again. Clients and mounts continue. \
Running jobs are waited for first. Programs of another protocol are refused while the nodes run.";

const UPGRADE: &str = "\
Installs the programs that lie beside this one.

Example:
  s4 cluster upgrade";

#[derive(Args)]
#[command(long_about = RESIZE_LONG, after_help = RESIZE, after_long_help = examples(RESIZE))]
pub struct ResizeArgs {
    /// The hosts of all nodes, as for 'up'; of a cluster that 'up' did not make, the cluster file with the new list
    #[arg(value_name = "HOST|FILE|NEWCONF", required = true, value_hint = ValueHint::AnyPath)]
    pub new: Vec<String>,
    /// Check hosts and nodes, and print what would be done and moved
    #[arg(long)]
    pub dry_run: bool,
    #[command(flatten)]
    pub ssh: SshArgs,
}

const RESIZE_LONG: &str = "\
Add nodes at the end of the node list, or take them from there. For a cluster that 's4 cluster up' has made, give the hosts of all \
nodes, as for 'up': new hosts are installed, and what was installed on hosts that are left out is removed. For any other cluster, give a \
cluster file with the new list, NEWCONF; --conf-path is the one that the cluster has. New nodes must run before, with NEWCONF and \
empty data directories.

The nodes move the keys and directories that are elsewhere by the new list. Until that is done, the cluster serves nothing else. After \
an interruption, the same command continues. Then every daemon has the new list in its cluster file, the old list is refused, and the \
daemons of nodes that were taken away have ended.

A resize is refused while a job runs, and while keys that would be moved are uploaded in parts.";

const RESIZE: &str = "\
Until it is done, the cluster serves nothing else. If it is interrupted, the same command goes on. Where 'up' did not make the
cluster, new nodes must run before, with NEWCONF and empty data directories.

Examples: from 3 to 5 nodes
  s4 cluster resize --dry-run node0 node1 node2 node3 node4
  s4 cluster resize node0 node1 node2 node3 node4
  s4 -c s4.conf cluster resize new.conf";

#[derive(Args)]
#[command(after_help = DOWN)]
pub struct DownArgs {
    #[command(flatten)]
    pub ssh: SshArgs,
}

const DOWN: &str = "\
's4 cluster up' starts them again.

Example:
  s4 cluster down";

#[derive(Args)]
#[command(long_about = DESTROY_LONG, after_help = DESTROY)]
pub struct DestroyArgs {
    /// Do it: the keys are lost
    #[arg(long)]
    pub yes: bool,
    #[command(flatten)]
    pub ssh: SshArgs,
}

const DESTROY_LONG: &str = "\
Stop the daemons and remove all that 's4 cluster up' has made: keys, programs, configuration and the user 's4'.";

const DESTROY: &str = "\
Example:
  s4 cluster destroy --yes";
