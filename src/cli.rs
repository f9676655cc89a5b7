//! The definition of the command line: it gives the parser, the help texts and the completions.

mod cluster;
mod cp;
mod jobs;
mod keys;
mod local;
mod mount;
mod nodes;
mod partition;
mod run;
mod s3;
mod scrub;
mod text;
pub mod topics;

pub use cluster::{
    ClusterArgs, ClusterCommand, DestroyArgs, DownArgs, ResizeArgs, SshArgs, StatusArgs, UpArgs, UpgradeArgs,
};
pub use cp::CpArgs;
pub use jobs::{CancelArgs, JobsArgs, LogsArgs, MapArgs, ShowArgs, WaitArgs};
pub use keys::{LsArgs, RmArgs, WhyArgs};
pub use local::LocalArgs;
pub use mount::{MountArgs, UmountArgs};
pub use nodes::{ConfigArgs, HealthArgs, TopArgs};
pub use partition::PartitionArgs;
pub use run::{EvalArgs, RunArgs};
pub use scrub::ScrubArgs;

use clap::{Args, Parser, Subcommand, ValueEnum, ValueHint};
use s4::time::parse_seconds;
use std::path::PathBuf;
use std::time::Duration;

/// Write-once keys on a cluster of plain machines, and ordinary commands run next to them.
///
/// s4 is a client of a cluster of s4-server(8) daemons. Each of them keeps keys: write-once files, named s4://bucket/dir/name. A
/// key is on exactly one node, and its basename alone says which.
///
/// Data goes to stdout, everything else to stderr. A failure is one line that names the key or node.
///
/// 's4 COMMAND -h' describes a command shortly, 's4 COMMAND --help' at length. 's4 help', followed by names, maps, events,
/// environment, files or exit, prints a section of this page.
#[derive(Parser)]
#[command(name = "s4", version, max_term_width = 100, after_help = TRY, after_long_help = TRY_LONG)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

const TRY: &str = "\
Example: a cluster on this machine, in one command
  s4 local -n 3

More: s4 help maps, s4 help names, s4 help environment, s4 help exit, s4 help events, s4 help files";

const TRY_LONG: &str = "\
Example: a cluster on this machine
  eval \"$(s4 local --detach)\"
  s4 health
  s4 local --stop

Example: copy, list, look
  s4 cp -r flights/ s4://in/
  s4 ls s4://in/
  s4 cp s4://in/flights_2013-01.csv - | head
  s4 eval s4://in/flights_2013-01.csv 'cut -d, -f14 | sort | uniq -c'

Example: the mean of a column for each value of another
  s4 map s4://in/ s4://delays/ \\
      'cut -d, -f9,10 | grep -v -e NA -e carrier'
  s4 map-to-n s4://delays/ s4://carriers/ 'awk -F, \"{ print > \\$2 }\"; ls'
  s4 map-from-n s4://carriers/ s4://means/ \\
      'xargs -d \"\\n\" cat | awk -F, \"{ s += \\$1 } END { print s / NR }\"'
  s4 cp -r s4://means/ means

More: s4 help maps, s4 help names, s4 help environment, s4 help exit, s4 help events, s4 help files";

#[derive(Args)]
pub struct Global {
    /// The cluster file [default: $S4_CONF_PATH, else ~/.s4.conf]
    ///
    /// 's4 local' has a cluster file of its own.
    #[arg(short, long, global = true, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub conf_path: Option<PathBuf>,
    /// How long a node may be silent, in seconds
    #[arg(long, global = true, value_name = "SECONDS", env = "S4_DEADLINE", default_value = "10", value_parser = parse_seconds)]
    pub deadline: Duration,
    /// The file of the shared secret, where the daemons require one
    ///
    /// Without this option and S4_SECRET_PATH, it is the cluster file's name with .secret appended, if there is such a file. The
    /// daemons that 's4 local' starts require the secret.
    #[arg(long, global = true, value_name = "FILE", env = "S4_SECRET_PATH", hide_env_values = true, value_hint = ValueHint::FilePath)]
    pub secret: Option<PathBuf>,
}

// A command's options are built only if it is the one that runs: the program takes 2 ms, and building all options would
// show.
#[derive(Subcommand)]
#[command(defer = true)]
pub enum Command {
    /// Copy files and keys; with -r trees of them
    Cp(CpArgs),
    /// List buckets, directories and keys
    Ls(LsArgs),
    /// Delete a key; with -r every key that begins with PREFIX
    Rm(RmArgs),
    /// Run a command on the key's node with the key as stdin, and print what it prints
    Eval(EvalArgs),
    /// Run a command on every node, and print what it prints, each line marked with its node
    Run(RunArgs),
    /// 1:1 map: each key of INDIR becomes a key of OUTDIR, on the same node
    #[command(long_about = jobs::MAP_LONG, after_help = jobs::MAP, after_long_help = text::examples(jobs::MAP))]
    Map(MapArgs),
    /// 1:n map, the shuffle: files that the command writes and names go to the nodes that their names say
    #[command(long_about = jobs::MAP_TO_N_LONG, after_help = jobs::MAP_TO_N, after_long_help = text::examples(jobs::MAP_TO_N))]
    MapToN(MapArgs),
    /// n:1 map, the merge: the keys of one name become one key
    #[command(long_about = jobs::MAP_FROM_N_LONG, after_help = jobs::MAP_FROM_N, after_long_help = text::examples(jobs::MAP_FROM_N))]
    MapFromN(MapArgs),
    /// Split stdin's lines into files by the hash or range of a field: a filter for map-to-n
    Partition(PartitionArgs),
    /// List the jobs that the nodes know, running and past
    Jobs(JobsArgs),
    /// Follow a job to its end
    Wait(WaitArgs),
    /// Print what a job's commands wrote to stderr
    Logs(LogsArgs),
    /// End a job: kill its commands and start no more
    Cancel(CancelArgs),
    /// Report what made a key: its map, command and inputs
    Why(WhyArgs),
    /// Ask every node for its state
    Health(HealthArgs),
    /// Compare every key on the disks with its checksum
    Scrub(ScrubArgs),
    /// Watch nodes and jobs, live
    Top(TopArgs),
    /// Print the nodes and their numbers
    Config(ConfigArgs),
    /// Show the whole cluster as a directory
    Mount(MountArgs),
    /// Take a mount away
    Umount(UmountArgs),
    /// Run a cluster on this machine
    Local(LocalArgs),
    /// Run a cluster on hosts that ssh reaches, and resize any cluster
    Cluster(ClusterArgs),
    /// Print completions for a shell
    Completions(CompletionsArgs),
    /// Print what may follow the words, for the completion scripts
    #[command(hide = true)]
    Complete(CompleteArgs),
}

#[derive(Args)]
pub struct CompleteArgs {
    /// The subcommand, and the word that is being typed
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub words: Vec<String>,
}

#[derive(Args)]
#[command(long_about = COMPLETIONS_LONG, after_help = COMPLETIONS)]
pub struct CompletionsArgs {
    /// The shell
    #[arg(value_name = "SHELL")]
    pub shell: Shell,
}

#[derive(Clone, Copy, ValueEnum)]
pub enum Shell {
    Bash,
    Zsh,
    Fish,
}

const COMPLETIONS_LONG: &str = "\
Print completions for a shell: of commands and options, of names in the cluster that begin with s4://, and of job ids.";

const COMPLETIONS: &str = "\
Example:
  s4 completions bash > /etc/bash_completion.d/s4";

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;
    use s4_manual::{Page, Subcommands, check, check_no_others, render, subcommands};

    /// A subcommand without a page of its own, and the page about its subject.
    const ON_OTHER_PAGES: [(&str, &str); 1] = [("mount", "s4-mount(8)")];
    /// The pages of other programs.
    const OF_OTHERS: [&str; 3] = ["s4-mount.8", "s4-s3.1", "s4-server.8"];

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn man_pages_are_as_defined() {
        let mut command = Cli::command();
        command.build();
        let sections = topics::TOPICS.map(|(name, text)| (if name == "exit" { "exit status" } else { name }, text));
        let subcommands_pages = Subcommands::Elsewhere { except: &ON_OTHER_PAGES };
        let see_also = ["s4-server(8)", "s4-mount(8)", "s4-s3(1)", "bash(1)", "xargs(1)"];
        let of_s4 = Page {
            section: 1,
            sections: &sections,
            see_also: &see_also,
            subcommands: subcommands_pages,
            ..Page::default()
        };
        check("s4.1", &render(&command, &of_s4));
        let mut names: Vec<String> = OF_OTHERS.iter().chain(&["s4.1"]).map(|name| (*name).to_owned()).collect();
        let page_of = |name: &str| match ON_OTHER_PAGES.iter().find(|(other, _)| *other == name) {
            Some((_, page)) => (*page).to_owned(),
            None => format!("s4-{name}(1)"),
        };
        for sub in subcommands(&command).filter(|sub| ON_OTHER_PAGES.iter().all(|(name, _)| *name != sub.get_name())) {
            let others = subcommands(&command).map(|other| other.get_name()).filter(|name| *name != sub.get_name());
            let others: Vec<(String, String)> = others.map(|name| (format!("s4 {name}"), page_of(name))).collect();
            let page =
                Page { section: 1, see_also: &["s4(1)"], others: &others, global: Some("s4(1)"), ..Page::default() };
            names.push(format!("s4-{}.1", sub.get_name()));
            check(names.last().expect("one"), &render(sub, &page));
        }
        check_no_others(&names);
    }
}
