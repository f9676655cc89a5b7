//! The definition of the command line: it gives the parser, the help texts and the completions.

mod cluster;
mod jobs;
mod partition;
mod s3;
mod scrub;
pub mod topics;

pub use cluster::{
    ClusterArgs, ClusterCommand, DestroyArgs, DownArgs, ResizeArgs, SshArgs, StatusArgs, UpArgs, UpgradeArgs,
};
pub use jobs::{CancelArgs, JobsArgs, LogsArgs, MapArgs, ShowArgs, WaitArgs};
pub use partition::PartitionArgs;
pub use s3::S3Args;
pub use scrub::ScrubArgs;

use clap::{Args, Parser, Subcommand, ValueEnum, ValueHint};
use s4::size::parse_size;
use s4::time::parse_seconds;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

/// Write-once keys on a cluster of plain machines, and ordinary commands run next to them.
#[derive(Parser)]
#[command(name = "s4", version, max_term_width = 100, after_help = TRY)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

const TRY: &str = "\
Example: a cluster on this machine, in one command
  s4 local -n 3

More: s4 help maps, s4 help names, s4 help environment, s4 help exit";

#[derive(Args)]
pub struct Global {
    /// The cluster file [default: $S4_CONF_PATH, else ~/.s4.conf]
    #[arg(short, long, global = true, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub conf_path: Option<PathBuf>,
    /// How long a node may be silent, in seconds
    #[arg(long, global = true, value_name = "SECONDS", env = "S4_DEADLINE", default_value = "10", value_parser = parse_seconds)]
    pub deadline: Duration,
    /// The file of the shared secret, where the daemons require one
    #[arg(long, global = true, value_name = "FILE", env = "S4_SECRET_PATH", hide_env_values = true, value_hint = ValueHint::FilePath)]
    pub secret: Option<PathBuf>,
}

// A command's options are built only if it is the one that runs: the program takes 2 ms, and building all options would
// show.
#[derive(Subcommand)]
#[command(defer = true)]
pub enum Command {
    /// Copy files and keys; with -r trees of them
    #[command(after_help = CP)]
    Cp(CpArgs),
    /// List buckets, directories and keys
    #[command(after_help = LS)]
    Ls(LsArgs),
    /// Delete a key; with -r every key that begins with PREFIX
    #[command(after_help = RM)]
    Rm(RmArgs),
    /// Run a command on the key's node with the key as stdin, and print what it prints
    #[command(after_help = EVAL)]
    Eval(EvalArgs),
    /// Run a command on every node, and print what it prints, each line marked with its node
    #[command(after_help = RUN)]
    Run(RunArgs),
    /// 1:1 map: each key of INDIR becomes a key of OUTDIR, on the same node
    #[command(after_help = jobs::MAP)]
    Map(MapArgs),
    /// 1:n map, the shuffle: files that the command writes and names go to the nodes that their names say
    #[command(after_help = jobs::MAP_TO_N)]
    MapToN(MapArgs),
    /// n:1 map, the merge: the keys of one name become one key
    #[command(after_help = jobs::MAP_FROM_N)]
    MapFromN(MapArgs),
    /// Split stdin's lines into files by the hash or range of a field: a filter for map-to-n
    #[command(after_help = partition::PARTITION)]
    Partition(PartitionArgs),
    /// List the jobs that the nodes know, running and past
    #[command(after_help = jobs::JOBS)]
    Jobs(JobsArgs),
    /// Follow a job to its end
    #[command(after_help = jobs::WAIT)]
    Wait(WaitArgs),
    /// Print what a job's commands wrote to stderr
    #[command(after_help = jobs::LOGS)]
    Logs(LogsArgs),
    /// End a job: kill its commands and start no more
    #[command(after_help = jobs::CANCEL)]
    Cancel(CancelArgs),
    /// Tell what made a key: its map, command and inputs
    #[command(after_help = WHY)]
    Why(WhyArgs),
    /// Ask every node how it is
    #[command(after_help = HEALTH)]
    Health(HealthArgs),
    /// Compare every key on the disks with its checksum
    #[command(after_help = scrub::SCRUB)]
    Scrub(ScrubArgs),
    /// Watch nodes and jobs, live
    #[command(after_help = TOP)]
    Top(TopArgs),
    /// Print the nodes and their numbers
    #[command(after_help = CONFIG)]
    Config(ConfigArgs),
    /// Show the whole cluster as a directory
    #[command(after_help = MOUNT)]
    Mount(MountArgs),
    /// Take a mount away
    #[command(after_help = UMOUNT)]
    Umount(UmountArgs),
    /// Run a cluster on this machine
    #[command(after_help = LOCAL)]
    Local(LocalArgs),
    /// Run a cluster on hosts that ssh reaches, and resize any cluster
    #[command(after_help = cluster::CLUSTER)]
    Cluster(ClusterArgs),
    /// Print completions for a shell
    #[command(after_help = COMPLETIONS)]
    Completions(CompletionsArgs),
    /// Print what may follow the words, for the completion scripts
    #[command(hide = true)]
    Complete(CompleteArgs),
}

#[derive(Args)]
pub struct CpArgs {
    /// Local paths, - for stdin, or s4://bucket/key; several to a DST that ends in /; with -r also s3://bucket/prefix/
    #[arg(value_name = "SRC", required = true, value_hint = ValueHint::AnyPath)]
    pub src: Vec<String>,
    /// A local path, - for stdout, or s4://bucket/key; one that ends in / keeps the basename
    #[arg(value_name = "DST", value_hint = ValueHint::AnyPath)]
    pub dst: String,
    /// Copy all that is below a directory
    #[arg(short, long)]
    pub recursive: bool,
    /// Leave out what exists at the destination, whatever its bytes, and say how many
    #[arg(long)]
    pub skip_existing: bool,
    /// Leave out what matches: a GLOB with a / is compared with the path below SRC, any other with each basename
    #[arg(long, value_name = "GLOB")]
    pub exclude: Vec<String>,
    /// With -r, between a tree and the cluster: take along what made the keys, in the file .s4-provenance
    #[arg(long)]
    pub provenance: bool,
    /// Cut one file, or stdin, into keys of at most SIZE (64M, 1GiB) at line ends: DST/0000_NAME, 0001_NAME and so on
    #[arg(long, value_name = "SIZE", value_parser = parse_piece, conflicts_with_all = ["recursive", "exclude", "provenance"])]
    pub split: Option<u64>,
    /// With --split: repeat the first line in each key
    #[arg(long, requires = "split")]
    pub header: bool,
    /// With --split: unpack what gzip or zstd has packed
    #[arg(long, requires = "split")]
    pub decompress: bool,
    #[command(flatten)]
    pub s3: S3Args,
}

fn parse_piece(text: &str) -> Result<u64, String> {
    match parse_size(text)? {
        0 => Err("no key has room for a line".to_owned()),
        size => Ok(size),
    }
}

const CP: &str = "\
Examples:
  s4 cp flights.csv s4://in/            # as s4://in/flights.csv
  s4 cp *.csv s4://in/
  s4 cp -r flights/ s4://in/            # every file of the tree
  s4 cp -r --skip-existing --exclude '*.tmp' flights/ s4://in/
  s4 cp s4://in/flights.csv - | head
  s4 cp -r s4://out/ results
  s4 cp -r s4://out/ s4://kept/
  s4 cp -r s3://bucket/2024/ s4://in/   # a job: every node copies its share
  s4 cp -r s4://out/ s3://bucket/out/
  s4 cp --split 64M --header big.csv s4://in/
  s4 cp --split 64M --decompress big.csv.gz s4://in/";

#[derive(Args)]
pub struct LsArgs {
    /// The beginning of names, as s4://bucket/dir/na; all buckets without it
    #[arg(value_name = "PREFIX")]
    pub prefix: Option<String>,
    /// List every key that begins with PREFIX, and not only up to the next /
    #[arg(short, long)]
    pub recursive: bool,
    /// Print sizes as 1.2K, 3.4M and so on
    #[arg(long)]
    pub human: bool,
    /// Print at the end how many keys, bytes and directories there are
    #[arg(long)]
    pub total: bool,
}

const LS: &str = "\
Prints date, time (UTC), size and name, or bare names of buckets. Nothing found is exit status 1.

Examples:
  s4 ls
  s4 ls s4://in/
  s4 ls -r s4://in/2013
  s4 ls -r --human --total s4://in/";

#[derive(Args)]
pub struct WhyArgs {
    /// The key, as s4://bucket/key
    #[arg(value_name = "KEY")]
    pub key: String,
    /// Go on to the inputs, and back to the keys that no map made
    #[arg(short, long)]
    pub recursive: bool,
    /// Show all inputs, not only the first 20 of a key
    #[arg(long)]
    pub all: bool,
    /// Print a JSON object a line
    #[arg(long)]
    pub json: bool,
}

const WHY: &str = "\
An input is shown as the task read it, with what has become of it: changed since, or gone.

Examples:
  s4 why s4://merged/002
  s4 why -r s4://merged/002
  s4 why -r --all --json s4://merged/002 | jq -r 'select(.made | not).key'";

#[derive(Args)]
pub struct RmArgs {
    /// A key, or with -r the beginning of keys
    #[arg(value_name = "PREFIX")]
    pub prefix: String,
    /// Delete every key that begins with PREFIX: s4://step means the buckets step1, step2 …
    #[arg(short, long)]
    pub recursive: bool,
    /// Print the keys that would be deleted, and delete nothing
    #[arg(long)]
    pub dry_run: bool,
}

const RM: &str = "\
Says on stderr what it has deleted.

Examples:
  s4 rm s4://in/flights.csv
  s4 rm -r --dry-run s4://step
  s4 rm -r s4://step";

#[derive(Args)]
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

const EVAL: &str = "\
The exit status is the command's own.

Examples:
  s4 eval s4://in/flights.csv 'cut -d, -f10 | sort | uniq -c'
  s4 eval --file count.py s4://in/flights.csv ./count.py";

#[derive(Args)]
pub struct RunArgs {
    /// The command, for bash
    #[arg(value_name = "CMD")]
    pub cmd: OsString,
    /// Put a local file into the command's directory; may be repeated
    #[arg(long = "file", value_name = "PATH", value_hint = ValueHint::FilePath)]
    pub files: Vec<PathBuf>,
}

const RUN: &str = "\
In the command's environment are S4_NODE and S4_NODES. The exit status is 1 if it failed on any node.

Examples:
  s4 run uptime
  s4 run 'df -h . | tail -1'
  s4 run --file setup.sh 'bash setup.sh'";

#[derive(Args)]
pub struct HealthArgs {
    /// Print a JSON object a line
    #[arg(long)]
    pub json: bool,
}

const HEALTH: &str = "\
Answers within 2 seconds, also for nodes that are down; exit status 1 if any is.

Examples:
  s4 health
  s4 health --json | jq -r 'select(.state != \"healthy\").address'";

#[derive(Args)]
pub struct TopArgs {
    /// Print one snapshot as plain text, as it is also done where stdout is no terminal
    #[arg(long)]
    pub once: bool,
}

const TOP: &str = "\
Keys: arrows select a node, after Tab a job; Enter opens it; l shows the stderr of a job's commands, c cancels the job; \
s sorts the nodes by another column; Esc goes back, q ends.

Examples:
  s4 top
  s4 top --once | head -1";

#[derive(Args)]
pub struct ConfigArgs {
    /// Print the digest of the node list, which every request carries
    #[arg(long)]
    pub digest: bool,
}

const CONFIG: &str = "\
Example:
  s4 config";

#[derive(Args)]
pub struct MountArgs {
    /// Where to mount
    #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub dir: PathBuf,
    /// Options of s4-mount, which does the work; 's4-mount --help' tells them
    #[arg(value_name = "MOUNT OPTIONS", trailing_var_arg = true, allow_hyphen_values = true)]
    pub options: Vec<OsString>,
}

const MOUNT: &str = "\
Runs s4-mount, which stays until it is ended with Ctrl-C or the directory is unmounted.

Examples:
  s4 mount /s4
  s4 mount /s4 --background
  s4 umount /s4";

#[derive(Args)]
pub struct UmountArgs {
    /// Where the cluster is mounted
    #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub dir: PathBuf,
    /// Unmount also while it is in use: who has files open goes on until they are closed
    #[arg(short, long)]
    pub lazy: bool,
}

const UMOUNT: &str = "\
Takes a mount away, also that of an s4-mount that was killed, and returns once all that was closed in it is published; it fails \
if that could not be, or takes longer than 65 seconds. It waits for no s4-mount in another network namespace.

Example:
  s4 umount /s4";

#[derive(Args)]
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
    #[arg(long, conflicts_with = "stop")]
    pub s3: bool,
    /// Return once the nodes are healthy
    #[arg(long, conflicts_with = "stop")]
    pub detach: bool,
    /// Stop the nodes of DIR, and take away the cluster's mounts; the data stays
    #[arg(long)]
    pub stop: bool,
    /// Commands of maps that run at once on each node [default: the number of CPUs + 2, divided by the nodes]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub jobs: Option<u16>,
}

const LOCAL: &str = "\
Prints the line that points the shell at the cluster, and stays until Ctrl-C.

Examples:
  s4 local -n 3
  eval \"$(s4 local --detach)\"; s4 health; s4 local --stop
  eval \"$(s4 local --s3 --detach)\"; aws s3 ls; s4 local --stop";

#[derive(Args)]
pub struct CompleteArgs {
    /// The subcommand, and the word that is being typed
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub words: Vec<String>,
}

#[derive(Args)]
pub struct CompletionsArgs {
    #[arg(value_name = "SHELL")]
    pub shell: Shell,
}

#[derive(Clone, Copy, ValueEnum)]
pub enum Shell {
    Bash,
    Zsh,
    Fish,
}

const COMPLETIONS: &str = "\
Example:
  s4 completions bash > /etc/bash_completion.d/s4";

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }
}
