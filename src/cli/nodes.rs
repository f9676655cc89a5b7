//! The command lines of `s4 health`, `s4 top` and `s4 config`.

use super::text::examples;
use clap::Args;

#[derive(Args)]
#[command(long_about = HEALTH_LONG, after_help = HEALTH, after_long_help = examples(HEALTH))]
pub struct HealthArgs {
    /// Print a JSON object a line
    ///
    /// It has 'state' ('healthy', 'full', 'failing', 'down' or 'refuses'), 'why' it is not healthy, the version, the disk's
    /// bytes and 'clock_offset_ms'.
    #[arg(long)]
    pub json: bool,
}

const HEALTH_LONG: &str = "\
Ask every node for its state. This takes less than 2 seconds, also if nodes are down. A node's version is shown if it is not this \
program's, and its clock if it differs from this machine's by more than a second. The exit status is 1 if any node is not healthy.";

const HEALTH: &str = "\
Answers within 2 seconds, also for nodes that are down; exit status 1 if any is not healthy.

Examples:
  s4 health
  s4 health --json | jq -r 'select(.state != \"healthy\").address'";

#[derive(Args)]
#[command(long_about = TOP_LONG, after_help = TOP, after_long_help = examples(TOP))]
pub struct TopArgs {
    /// Print one snapshot as plain text, as it is also done where stdout is no terminal
    #[arg(long)]
    pub once: bool,
}

const TOP_LONG: &str = "\
Watch nodes and jobs, live, until 'q', Esc or Ctrl-C. Arrows select a node, and after Tab a job; Enter opens its page; 'l' shows the \
stderr of a job's commands, 'c' cancels the job; 's' sorts the nodes by another column; Esc goes back. CPU, disk and network are those \
of the whole machine. A node that does not answer is shown as down.";

const TOP: &str = "\
Keys: arrows select a node, after Tab a job; Enter opens it; l shows the stderr of a job's commands, c cancels the job; \
s sorts the nodes by another column; Esc goes back, q ends.

Examples:
  s4 top
  s4 top --once | head -1";

#[derive(Args)]
#[command(after_help = CONFIG)]
pub struct ConfigArgs {
    /// Print the digest of the node list, which every request carries
    #[arg(long)]
    pub digest: bool,
}

const CONFIG: &str = "\
Example:
  s4 config";
