//! The command line of `s4 local`.

use super::text::examples;
use clap::{Args, ValueHint};
use std::path::PathBuf;

#[derive(Args)]
#[command(long_about = LOCAL_LONG, after_help = LOCAL, after_long_help = examples(LOCAL))]
pub struct LocalArgs {
    /// How many nodes [default: 3, or as many as DIR has]
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub nodes: Option<u16>,
    /// Where the nodes keep their data and logs
    #[arg(long, value_name = "DIR", default_value = "./s4-local", value_hint = ValueHint::DirPath)]
    pub dir: PathBuf,
    /// Mount the cluster there too
    #[arg(long, value_name = "DIR", conflicts_with = "stop", value_hint = ValueHint::DirPath)]
    pub mount: Option<PathBuf>,
    /// Serve the cluster as S3 too, and print the lines that point clients of S3 at it
    ///
    /// This starts 's4-s3 serve', see s4-s3(1), on a free port. It ends with the nodes.
    #[arg(long, conflicts_with = "stop")]
    pub s3: bool,
    /// Return once the nodes are healthy
    #[arg(long, conflicts_with = "stop")]
    pub detach: bool,
    /// Stop the nodes of DIR, and take away the cluster's mounts; the data stays
    ///
    /// These are all mounts of the cluster on this machine.
    #[arg(long)]
    pub stop: bool,
    /// Commands of maps that run at once on each node [default: the number of CPUs + 2, divided by the nodes]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub jobs: Option<u16>,
}

const LOCAL_LONG: &str = "\
Run a cluster on this machine, on free ports of the loopback address. This prints the line that points the shell at the cluster, and \
stays until Ctrl-C. A directory that has a cluster already is brought up again, with its keys.

The cluster has a cluster file of its own, DIR/s4.conf, and node N has its data in DIR/node-N and its log in DIR/node-N.log. The \
daemons require a secret, which is in DIR/s4.conf.secret; with --secret, it is the secret of that file.";

const LOCAL: &str = "\
Prints the line that points the shell at the cluster, and stays until Ctrl-C.

Example: until Ctrl-C
  s4 local -n 3

Examples: in the background
  eval \"$(s4 local --detach)\"; s4 health; s4 local --stop
  eval \"$(s4 local --s3 --detach)\"; aws s3 ls; s4 local --stop";
