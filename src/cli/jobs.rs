//! The command line of jobs: the three maps, and the commands for existing jobs.

use super::text::examples;
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
    ///
    /// Without it, no task starts after a failure.
    #[arg(long)]
    pub keep_going: bool,
    /// Kill a task's command after this many seconds
    ///
    /// All its processes are killed, and the task has failed.
    #[arg(long, value_name = "SECONDS", value_parser = parse_seconds)]
    pub timeout: Option<Duration>,
    /// Run a command that failed up to N times again
    ///
    /// Without it, a task that failed once has failed.
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    pub retries: u32,
    /// Exit statuses that mean success [default: 0]
    ///
    /// With '0,1', a 'grep' may find nothing.
    #[arg(long, value_name = "STATUS,…", value_delimiter = ',')]
    pub ok_exit: Vec<u8>,
    /// Run only the tasks that have no current output, made by the same command from the inputs of now
    ///
    /// An output is current if it exists and was made by the same recipe (kind, CMD, files, variables and exit statuses)
    /// from the inputs as they are now. Each output carries what made it, and no other record counts. Other outputs of this
    /// map are removed before their task runs again. Outputs of another recipe, or that no map made, are refused and left
    /// as they are. A task of map-to-n that printed no names runs again.
    #[arg(long, group = "rerun")]
    pub resume: bool,
    /// Like --resume, also where another command made the outputs; remove outputs whose inputs are gone
    ///
    /// Outputs are made again or removed only if a map from this INDIR to this OUTDIR made them. The result is that of one
    /// clean run. All outputs that maps from this INDIR made in this OUTDIR count as this map's, so two maps that stay side
    /// by side need two directories. An output is replaced once the new command has succeeded. A script of maps that runs
    /// again with --update does only what has changed.
    #[arg(long, group = "rerun")]
    pub update: bool,
    /// Keep whatever outputs exist, and run the tasks that have none
    ///
    /// The outputs of a task of map-to-n are one unit: if some are missing, the task runs again and replaces the others.
    #[arg(long, group = "rerun")]
    pub missing: bool,
    /// Name the outputs of a 1:1 map: {/} is the input's basename, {/.} without its extension, {} and {.} its path below INDIR
    ///
    /// '{}' is the path with the extension, '{.}' without it. An output is on the node that its name says. If two inputs have
    /// one output, the map is refused before anything runs.
    #[arg(long, value_name = "TEMPLATE", value_parser = NameTemplate::parse)]
    pub to_name: Option<NameTemplate>,
    /// Take what is there of an INDIR that another job has not finished
    ///
    /// That job runs, failed or was cancelled. Without this option, such an INDIR is refused.
    #[arg(long)]
    pub partial: bool,
    /// Put a local file into every task's directory; may be repeated
    ///
    /// It has its basename there, and stays executable if it is. If a command of map-to-n prints the name of the file, as
    /// 'ls' does, the file is an output only if the command wrote to it. A node that has a file of the same content is not
    /// sent it again.
    #[arg(long = "file", value_name = "PATH", value_hint = ValueHint::FilePath)]
    pub files: Vec<PathBuf>,
    /// Set a variable for the commands; may be repeated
    ///
    /// Variables that s4 itself sets are refused.
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
    ///
    /// The id is alone on stdout.
    #[arg(long, conflicts_with_all = ["dry_run", "try_key", "json"])]
    pub detach: bool,
    /// Print the tasks, keys and bytes of each node, and run nothing
    ///
    /// With --resume, --update or --missing, also the tasks that were done before. A warning names a node that would have
    /// more than twice its fair share. With --json, the event 'planned' is printed instead.
    #[arg(long, conflicts_with = "try_key")]
    pub dry_run: bool,
    /// Run the command on one key, by default the first, show what it prints and how long it takes, and keep nothing
    ///
    /// stdout and stderr are passed through; then come the exit status, the time, and an estimate for the whole map. The exit
    /// status is the command's, or 128 + the number of the signal that ended it.
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
    /// Report failures only
    #[arg(long, conflicts_with = "json")]
    pub quiet: bool,
    /// Print events on stdout, a JSON object a line
    ///
    /// They are described in s4(1), and by 's4 help events'.
    #[arg(long)]
    pub json: bool,
}

pub const MAP_LONG: &str = "\
Run CMD for each key below INDIR, with the key as stdin. Its stdout becomes the key of the same path below OUTDIR, on the same node.

s4(1) and 's4 help maps' describe what INDIR may be, how commands are run, what is in their environment, and jobs: 's4 wait', 's4 jobs', \
's4 logs' and 's4 cancel'. 's4 map-to-n' and 's4 map-from-n' are the other maps.";

pub const MAP: &str = "\
The command reads the key on stdin; its stdout is the output. In its environment are filename (the \
key's basename), S4_KEY, S4_JOB, S4_TASK, S4_NODE and S4_NODES.

Examples:
  s4 map s4://in/ s4://cols/ 'cut -d, -f10,16'
  s4 map --ok-exit 0,1 s4://in/ s4://hits/ 'grep JFK'   # no hit is fine
  s4 map --file clean.py s4://in/ s4://clean/ ./clean.py
  s4 map --to-name '{/.}.gz' s4://in/ s4://packed/ gzip
  s4 map s4://in/ s4://cols/ 'cut -d, -f10,16' --try
  s4 map --try=s4://in/flights.csv s4://in/ s4://cols/ 'cut -d, -f10,16'";

pub const MAP_TO_N_LONG: &str = "\
Run CMD for each key below INDIR, with the key as stdin. It writes files in its directory and prints their names, one a line. Each \
file becomes OUTDIR/<basename of the key>/<basename of the file>, on the node that its name says. Two inputs of one basename are \
refused. A warning at the end says if most outputs are on few nodes because of the numbers that their names begin with.

's4 partition' splits lines into such files, and 's4 map-from-n' merges the outputs. s4(1) and 's4 help maps' describe what INDIR may \
be, how commands are run, what is in their environment, and jobs.";

pub const MAP_TO_N: &str = "\
The command reads the key on stdin, writes files in its directory, and prints their names. Each becomes \
OUTDIR/<key's basename>/<file's basename>: the number that it begins with is its node.

Example: lines with the same first column come to files of the same name
  s4 map-to-n s4://in/ s4://parts/ 's4 partition -n 96 -d, -k1'";

pub const MAP_FROM_N_LONG: &str = "\
Run CMD once for each merge name of the keys below INDIR: the number before the first _, as written ('002' of '002_a'), or else the \
whole basename. Its stdin is the local paths of all keys of that name, one a line, sorted. Its stdout becomes OUTDIR/<merge name>, \
with the suffix that all of the keys share.

The keys are often outputs of 's4 map-to-n'. s4(1) and 's4 help maps' describe what INDIR may be, how commands are run, what is in \
their environment, and jobs.";

pub const MAP_FROM_N: &str = "\
One task for each merge name: the number before _, or else the basename. The command reads the local paths \
of all its inputs on stdin, one a line; its stdout is the output.

Example:
  s4 map-from-n s4://parts/ s4://merged/ 'xargs -d \"\\n\" cat'";

#[derive(Args)]
#[command(long_about = JOBS_LONG, after_help = JOBS, after_long_help = examples(JOBS))]
pub struct JobsArgs {
    /// Print a JSON object a line
    ///
    /// There is one for each job, with the fields of the event 'ended', which s4(1) describes, and with 'started' and
    /// 'ended' in milliseconds since 1970.
    #[arg(long)]
    pub json: bool,
}

const JOBS_LONG: &str = "\
List the jobs that the nodes know, running and past, the newest last: id, kind, state, tasks done of all, tasks failed, start (UTC), \
duration, and the map itself. On a terminal, a line is cut to its width.

A node that does not answer is reported on stderr, and the exit status is 1 then; a job that is done on the others is 'unknown'.";

const JOBS: &str = "\
The newest comes last. Nodes that do not answer are reported on stderr, and the exit status is 1 then; a job that is done on \
the others is unknown.

Examples:
  s4 jobs
  s4 jobs --json | tail -1";

#[derive(Args)]
#[command(long_about = WAIT_LONG, after_help = WAIT, after_long_help = examples(WAIT))]
pub struct WaitArgs {
    /// The job's id, any beginning or end of it that no other job has, or last: the newest job
    #[arg(value_name = "ID")]
    pub id: String,
    #[command(flatten)]
    pub show: ShowArgs,
}

const WAIT_LONG: &str = "\
Follow a job to its end, with the display, the summary and the exit status of the map itself. A job that has ended is reported at \
once. Ctrl-C ends the watching and leaves the job alone.";

const WAIT: &str = "\
Shows what the map itself would show, and exits as it would. Ctrl-C ends the watching, not the job.

Example:
  id=$(s4 map --detach s4://in/ s4://out/ sort); s4 wait $id";

#[derive(Args)]
#[command(long_about = LOGS_LONG, after_help = LOGS, after_long_help = examples(LOGS))]
pub struct LogsArgs {
    /// The job's id, any beginning or end of it that no other job has, or last: the newest job
    #[arg(value_name = "ID")]
    pub id: String,
    /// The task of this input alone; of an n:1 map, of the first of its inputs
    #[arg(value_name = "KEY")]
    pub key: Option<String>,
    /// The failed tasks alone: key, node, reason, and the end of the stderr of each
    ///
    /// The end is the last 4,096 bytes.
    #[arg(long, conflicts_with = "key")]
    pub failed: bool,
}

const LOGS_LONG: &str = "\
Print the whole stderr of the task whose input is KEY, byte for byte; of an n:1 map, the task whose first input is KEY. Without KEY, \
print the stderr of every task, each under a line '==> KEY <=='.";

const LOGS: &str = "\
Without KEY, each task's stderr comes under a line ==> KEY <==.

Examples:
  s4 logs last
  s4 logs last --failed
  s4 logs last s4://in/flights.csv";

#[derive(Args)]
#[command(long_about = CANCEL_LONG, after_help = CANCEL, after_long_help = examples(CANCEL))]
pub struct CancelArgs {
    /// The job's id, any beginning or end of it that no other job has, or last: the newest job
    #[arg(value_name = "ID")]
    pub id: String,
}

const CANCEL_LONG: &str = "\
Kill a job's commands on all nodes, with all their processes, and start no more. 's4 cancel' returns once no process of the job is \
left. What the job has published stays.";

const CANCEL: &str = "\
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
