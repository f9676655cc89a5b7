//! The command lines of `s4 eval` and `s4 run`.

use super::text::examples;
use clap::{Args, ValueHint};
use std::ffi::OsString;
use std::path::PathBuf;

#[derive(Args)]
#[command(long_about = EVAL_LONG, after_help = EVAL, after_long_help = examples(EVAL))]
pub struct EvalArgs {
    /// The key that the command reads
    #[arg(value_name = "KEY")]
    pub key: String,
    /// The command, for bash
    #[arg(value_name = "CMD")]
    pub cmd: OsString,
    /// Put a local file into the command's directory; may be repeated
    #[arg(long = "file", value_name = "PATH", value_hint = ValueHint::FilePath)]
    pub files: Vec<PathBuf>,
}

const EVAL_LONG: &str = "\
Run CMD on the node of KEY, with the key as stdin, and print what it prints, as it comes. CMD is run as the commands of maps are: see \
's4 help maps'. The exit status is the command's own, or 128 + the number of the signal that ended it.";

const EVAL: &str = "\
The exit status is the command's own.

Examples:
  s4 eval s4://in/flights.csv 'cut -d, -f10 | sort | uniq -c'
  s4 eval --file count.py s4://in/flights.csv ./count.py";

#[derive(Args)]
#[command(long_about = RUN_LONG, after_help = RUN, after_long_help = examples(RUN))]
pub struct RunArgs {
    /// The command, for bash
    #[arg(value_name = "CMD")]
    pub cmd: OsString,
    /// Put a local file into the command's directory; may be repeated
    #[arg(long = "file", value_name = "PATH", value_hint = ValueHint::FilePath)]
    pub files: Vec<PathBuf>,
}

const RUN_LONG: &str = "\
Run CMD on every node, as the commands of maps are run, with an empty stdin, and print what it prints: each line with 'node N:' before \
it, stdout on stdout and stderr on stderr. A line longer than 64 KiB is broken. In the command's environment are S4_NODE and S4_NODES.

The exit status is 1 if the command failed on any node, or if a node is down; each of them is named. Ctrl-C ends the command \
everywhere.";

const RUN: &str = "\
In the command's environment are S4_NODE and S4_NODES. The exit status is 1 if it failed on any node.

Examples:
  s4 run uptime
  s4 run 'df -h . | tail -1'
  s4 run --file setup.sh 'bash setup.sh'";
