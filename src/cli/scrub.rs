//! The definition of `s4 scrub`.

use super::text::examples;
use clap::Args;
use s4::placement::NodeId;
use s4::size::parse_size;

#[derive(Args)]
#[command(long_about = SCRUB_LONG, after_help = SCRUB, after_long_help = examples(SCRUB))]
pub struct ScrubArgs {
    /// Check only this node; may be repeated
    #[arg(long = "node", value_name = "N")]
    pub nodes: Vec<NodeId>,
    /// Bytes that each node reads in a second: a number, or with K, M, G
    #[arg(long, value_name = "SIZE", default_value = "100M", value_parser = parse_rate)]
    pub rate: u64,
    /// Go on where the last scrub was interrupted; nodes that it has finished are not read again
    #[arg(long)]
    pub resume: bool,
    /// Delete files that belong on another node, and so are no keys
    #[arg(long)]
    pub remove_strays: bool,
}

fn parse_rate(text: &str) -> Result<u64, String> {
    match parse_size(text)? {
        0 => Err("nothing is read at that rate".to_owned()),
        rate => Ok(rate),
    }
}

const SCRUB_LONG: &str = "\
Every node reads its keys and compares them with their checksums. A line on stdout names the node and the key of each file that is \
damaged, has no checksum, belongs on another node, or cannot be read; the exit status is 1 if there is any. A key that is deleted \
meanwhile is not reported.

A scrub ends with its client; --resume continues it. A file that belongs on another node, where somebody has copied it by hand, is \
no key, and no other command deletes it alone: --remove-strays does.";

const SCRUB: &str = "\
Prints a line for each file that is not a whole key: damaged, without a checksum, on the wrong node, or not readable. \
The exit status is 1 if there is any.

Examples:
  s4 scrub
  s4 scrub --node 2 --rate 1G
  s4 scrub --resume";
