//! The command lines of `s4 ls`, `s4 rm` and `s4 why`.

use super::text::examples;
use clap::Args;

#[derive(Args)]
#[command(long_about = LS_LONG, after_help = LS, after_long_help = examples(LS))]
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
    ///
    /// Without PREFIX, also how many buckets.
    #[arg(long)]
    pub total: bool,
}

const LS_LONG: &str = "\
List the keys and directories whose names begin with PREFIX, up to the next /; without PREFIX, the buckets. A line has date, time \
(UTC), size in bytes and name; a directory has 'PRE' in place of these, and a bucket is its bare name. Lines are sorted by name. If \
nothing is found, the exit status is 1.";

const LS: &str = "\
Prints date, time (UTC), size and name, or bare names of buckets. Nothing found is exit status 1.

Examples:
  s4 ls
  s4 ls s4://in/
  s4 ls -r s4://in/flights_2013
  s4 ls -r --human --total s4://in/";

#[derive(Args)]
#[command(long_about = RM_LONG, after_help = RM, after_long_help = examples(RM))]
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

const RM_LONG: &str = "\
Delete one key. With -r, delete every key that begins with PREFIX: s4://step means the buckets step1, step2 and so on. Empty \
directories are removed too. Nothing found is success.

stderr says how many keys and bytes were deleted, and how many buckets were removed with them.";

const RM: &str = "\
Says on stderr what it has deleted.

Examples:
  s4 rm s4://in/flights.csv
  s4 rm -r --dry-run s4://step
  s4 rm -r s4://step";

#[derive(Args)]
#[command(long_about = WHY_LONG, after_help = WHY, after_long_help = examples(WHY))]
pub struct WhyArgs {
    /// The key, as s4://bucket/key
    #[arg(value_name = "KEY")]
    pub key: String,
    /// Go on to the inputs, and back to the keys that no map made
    ///
    /// An input that has changed since is not followed.
    #[arg(short, long)]
    pub recursive: bool,
    /// Show all inputs, not only the first 20 of a key
    #[arg(long)]
    pub all: bool,
    /// Print a JSON object a line
    ///
    /// There is one for each key: 'key', 'node', 'bytes', 'xxh3', 'modified' (milliseconds since 1970), and whether a map
    /// 'made' it. A key that a map made also has 'recipe' (a digest), 'outputs' (how many its task had), 'job',
    /// 'input_count' and 'inputs'. Each input has 'key', 'bytes', 'xxh3', and without -r what it is 'now': 'same',
    /// 'changed', 'gone' or 'unknown'.
    #[arg(long)]
    pub json: bool,
}

const WHY_LONG: &str = "\
Report what made KEY: the map, its job, files and variables, and the inputs with their lengths and checksums as the task read them. \
An input that is not what it was is marked as changed since, or gone. With -r, report the tree of keys behind it, back to those that \
no map made.";

const WHY: &str = "\
An input is shown as the task read it, with what has become of it: changed since, or gone.

Examples:
  s4 why s4://merged/002
  s4 why -r s4://merged/002
  s4 why -r --all --json s4://merged/002 |
      jq -r 'select(.made | not).key'";
