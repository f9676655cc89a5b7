//! The command line of jobs: the three maps, and the commands for existing jobs.

use clap::{Args, ValueHint};
use s4::protocol::NameTemplate;
use s4::protocol::Rerun;
use s4::size::parse_size;
use s4::time::parse_seconds;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

#[derive(Args)]
pub struct MapArgs {
    /// The directory of the inputs; its parts may hold *, ? and […]
    #[arg(value_name = "INDIR")]
    pub indir: String,
    /// The directory of the outputs
    #[arg(value_name = "OUTDIR")]
    pub outdir: String,
    /// The command, for bash
    #[arg(value_name = "CMD")]
    pub cmd: OsString,
    /// Go on with the other tasks after one has failed
    #[arg(long)]
    pub keep_going: bool,
    /// Kill a task's command after this many seconds
    #[arg(long, value_name = "SECONDS", value_parser = parse_seconds)]
    pub timeout: Option<Duration>,
    /// Run a command that failed up to N times again
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    pub retries: u32,
    /// Exit statuses that mean success [default: 0]
    #[arg(long, value_name = "STATUS,…", value_delimiter = ',')]
    pub ok_exit: Vec<u8>,
    /// Run only the tasks that have no current output, made by the same command from the inputs of now
    #[arg(long, group = "rerun")]
    pub resume: bool,
    /// The same, also where another command made the outputs; remove outputs whose inputs are gone
    #[arg(long, group = "rerun")]
    pub update: bool,
    /// Keep whatever outputs exist, and run the tasks that have none
    #[arg(long, group = "rerun")]
    pub missing: bool,
    /// Name the outputs of a 1:1 map: {/} is the input's basename, {/.} without its extension, {} and {.} its path below INDIR
    #[arg(long, value_name = "TEMPLATE", value_parser = NameTemplate::parse)]
    pub to_name: Option<NameTemplate>,
    /// Take what is there of an INDIR that another job has not finished
    #[arg(long)]
    pub partial: bool,
    /// Put a local file into every task's directory; may be repeated
    #[arg(long = "file", value_name = "PATH", value_hint = ValueHint::FilePath)]
    pub files: Vec<PathBuf>,
    /// Set a variable for the commands; may be repeated
    #[arg(long, value_name = "NAME=VALUE", value_parser = parse_env)]
    pub env: Vec<(String, String)>,
    /// Memory that a task may use: bytes, or with K, M, G or T
    #[arg(long, value_name = "SIZE", value_parser = parse_memory)]
    pub memory: Option<u64>,
    /// CPUs that a task may use, as 0.5 or 2
    #[arg(long, value_name = "N", value_parser = parse_cpus)]
    pub cpus: Option<f64>,
    /// Commands of this map that run at once on each node, at most as many as the node allows
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub jobs: Option<u16>,
    /// Print the job's id once it has been started everywhere, and return
    #[arg(long, conflicts_with_all = ["dry_run", "try_key", "json"])]
    pub detach: bool,
    /// Print the tasks, keys and bytes of each node, and run nothing
    #[arg(long, conflicts_with = "try_key")]
    pub dry_run: bool,
    /// Run the command on one key, by default the first, show what it prints and how long it takes, and keep nothing
    #[arg(long = "try", value_name = "KEY", num_args = 0..=1, require_equals = true, conflicts_with = "json")]
    pub try_key: Option<Option<String>>,
    #[command(flatten)]
    pub show: ShowArgs,
}

impl MapArgs {
    pub fn rerun(&self) -> Rerun {
        match (self.resume, self.update, self.missing) {
            (true, ..) => Rerun::Resume,
            (_, true, _) => Rerun::Update,
            (.., true) => Rerun::Missing,
            _ => Rerun::Refuse,
        }
    }
}

// How to show a job that is being followed. Not a doc comment: clap would show it in the help.
#[derive(Args)]
pub struct ShowArgs {
    /// Tell of failures only
    #[arg(long, conflicts_with = "json")]
    pub quiet: bool,
    /// Print events on stdout, a JSON object a line
    #[arg(long)]
    pub json: bool,
}

pub const MAP: &str = "\
The command reads the key on stdin; its stdout is the output. In its environment are filename (the \
key's basename), S4_KEY, S4_JOB, S4_TASK, S4_NODE and S4_NODES.

Examples:
  s4 map s4://in/ s4://cols/ 'cut -d, -f10,16'
  s4 map --ok-exit 0,1 s4://in/ s4://hits/ 'grep JFK'    # no hit is no failure
  s4 map --file clean.py s4://in/ s4://clean/ ./clean.py
  s4 map --to-name '{/.}.gz' s4://in/ s4://packed/ gzip
  s4 map s4://in/ s4://cols/ 'cut -d, -f10,16' --try
  s4 map --try=s4://in/flights.csv s4://in/ s4://cols/ 'cut -d, -f10,16'";

pub const MAP_TO_N: &str = "\
The command reads the key on stdin, writes files in its directory, and prints their names. Each becomes \
OUTDIR/<key's basename>/<file's basename>: the number that it begins with is its node.

Example: lines with the same first column come to files of the same name
  s4 map-to-n s4://in/ s4://parts/ 's4 partition -n 96 -d, -k1'";

pub const MAP_FROM_N: &str = "\
One task for each merge name: the number before _, or else the basename. The command reads the local paths \
of all its inputs on stdin, one a line; its stdout is the output.

Example:
  s4 map-from-n s4://parts/ s4://merged/ 'xargs -d \"\\n\" cat'";

#[derive(Args)]
pub struct JobsArgs {
    /// Print a JSON object a line
    #[arg(long)]
    pub json: bool,
}

pub const JOBS: &str = "\
The newest comes last. Nodes that do not answer are told on stderr, and the exit status is 1 then; a job that is done on \
the others is unknown.

Examples:
  s4 jobs
  s4 jobs --json | tail -1";

#[derive(Args)]
pub struct WaitArgs {
    /// The job's id, any beginning or end of it that no other job has, or last
    #[arg(value_name = "ID")]
    pub id: String,
    #[command(flatten)]
    pub show: ShowArgs,
}

pub const WAIT: &str = "\
Shows what the map itself would show, and exits as it would. Ctrl-C ends the watching, not the job.

Example:
  id=$(s4 map --detach s4://in/ s4://out/ sort); s4 wait $id";

#[derive(Args)]
pub struct LogsArgs {
    /// The job's id, any beginning or end of it that no other job has, or last
    #[arg(value_name = "ID")]
    pub id: String,
    /// The task of this input alone; of an n:1 map, of the first of its inputs
    #[arg(value_name = "KEY")]
    pub key: Option<String>,
    /// The failed tasks alone: key, node, reason, and the end of the stderr of each
    #[arg(long, conflicts_with = "key")]
    pub failed: bool,
}

pub const LOGS: &str = "\
Without KEY, each task's stderr comes under a line ==> KEY <==.

Examples:
  s4 logs 3fa2c1
  s4 logs last --failed
  s4 logs 3fa2c1 s4://in/flights.csv";

#[derive(Args)]
pub struct CancelArgs {
    /// The job's id, any beginning or end of it that no other job has, or last
    #[arg(value_name = "ID")]
    pub id: String,
}

pub const CANCEL: &str = "\
Returns once no process of the job is left. What it has published stays.

Example:
  s4 cancel last";

fn parse_env(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("it is not NAME=VALUE")?;
    let starts = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    if !starts || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
        return Err("a name is letters, digits and _, and begins with no digit".to_owned());
    }
    match name.starts_with("S4_") || ["filename", "LC_ALL"].contains(&name) {
        true => Err(format!("{name} is set by s4 itself")),
        false => Ok((name.to_owned(), value.to_owned())),
    }
}

fn parse_memory(text: &str) -> Result<u64, String> {
    match parse_size(text)? {
        0 => Err("no command runs without memory".to_owned()),
        size => Ok(size),
    }
}

fn parse_cpus(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(cpus) if cpus > 0.0 && cpus <= 1e6 => Ok(cpus),
        _ => Err("not a number of CPUs above 0".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_a_shell_takes_are_variables() {
        assert_eq!(parse_env("_a1=x=y"), Ok(("_a1".to_owned(), "x=y".to_owned())));
        assert_eq!(parse_env("A="), Ok(("A".to_owned(), String::new())));
        for wrong in ["A", "=x", "1a=x", "a-b=x", "ä=x", "S4_JOB=x", "filename=x", "LC_ALL=C"] {
            assert!(parse_env(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn cpus_are_above_zero() {
        assert_eq!(parse_cpus("0.5"), Ok(0.5));
        for wrong in ["0", "-1", "NaN", "inf", "", "two"] {
            assert!(parse_cpus(wrong).is_err(), "{wrong}");
        }
    }
}
