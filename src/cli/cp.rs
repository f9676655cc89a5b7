//! The command line of `s4 cp`.

use super::s3::S3Args;
use super::text::examples;
use clap::{Args, ValueHint};
use s4::size::parse_size;

#[derive(Args)]
#[command(long_about = CP_LONG, after_help = CP, after_long_help = examples(CP))]
pub struct CpArgs {
    /// Local paths, - for stdin, or s4://bucket/key; several to a DST that ends in /; with -r also s3://bucket/prefix/
    #[arg(value_name = "SRC", required = true, value_hint = ValueHint::AnyPath)]
    pub src: Vec<String>,
    /// A local path, - for stdout, or s4://bucket/key; one that ends in / keeps the basename
    #[arg(value_name = "DST", value_hint = ValueHint::AnyPath)]
    pub dst: String,
    /// Copy all that is below a directory
    ///
    /// Many keys are copied at once. Links in a local tree are followed.
    #[arg(short, long)]
    pub recursive: bool,
    /// Leave out what exists at the destination, whatever its bytes, and say how many
    #[arg(long)]
    pub skip_existing: bool,
    /// Leave out what matches: a GLOB with a / is compared with the path below SRC, any other with each basename
    ///
    /// A directory that matches is left out with all that is in it. '*', '?' and '[...]' match no /; '**' between slashes
    /// matches any directories. May be repeated.
    #[arg(long, value_name = "GLOB")]
    pub exclude: Vec<String>,
    /// With -r, between a tree and the cluster: take along what made the keys, in the file .s4-provenance
    ///
    /// The file is at the top of the tree. It has the commands of the maps with the values of --env, so only its owner may
    /// read it (mode 0600). A file that exists is not replaced. The other cluster knows what made the keys too, and a map
    /// there continues with --update. The copy has one SRC.
    #[arg(long)]
    pub provenance: bool,
    /// Cut one file, or stdin, into keys of at most SIZE (64M, 1GiB) at line ends: DST/0000_NAME, 0001_NAME and so on
    #[arg(long, value_name = "SIZE", value_parser = parse_piece, conflicts_with_all = ["recursive", "exclude", "provenance"])]
    pub split: Option<u64>,
    /// With --split: repeat the first line in each key
    ///
    /// The line counts as part of the key's size.
    #[arg(long, requires = "split")]
    pub header: bool,
    /// With --split: unpack what gzip or zstd has packed
    ///
    /// gzip(1) or zstd(1) unpacks it. Input that is cut off or damaged is an error, and the last, partial key is not made.
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

const CP_LONG: &str = "\
Copy files into the cluster, keys out of it, or keys to keys. A source or destination is a local path, '-' for stdin or stdout, \
or begins with s4://. A destination that ends in / keeps the basename, and so does a local directory. Several sources, all local or \
all in the cluster, need such a destination, and each keeps its basename, with -r directories too; to '-', they are written one \
after the other. A key that exists is an error and is left as it was; a local file is replaced once the new one is complete.

With -r and one source, what is below the source comes directly below the destination; only s4://bucket/dir copied to '.' becomes \
the directory dir here, and a bucket becomes the directories in it. To '-', all keys are written to stdout in the byte order of their \
whole names.

With -r or several sources, all names are checked first. If files cannot be keys (whitespace, control characters, not UTF-8, too \
long, not a regular file), the first 20 and the number of the others are reported, and nothing is copied. On a terminal, stderr shows \
progress, and counts at the end. A warning says if most keys would be on few nodes because of the numbers that their names begin with.

From key to key, the bytes go through this machine, and each key is published in one step, as any other. A directory is not copied \
into itself.

A copy with -r between s3://bucket/prefix/ and s4://dir/ is a job: every node copies the objects whose keys are on it, over its own \
connection to S3. 's4 wait', 's4 jobs', 's4 logs' and 's4 cancel' handle it as a map. An object that cannot be copied stops no \
other; all failed objects are reported at the end, with exit status 1. An object or key that exists at the destination counts as done \
if it has the same bytes, else as failed. docs/s3.md describes how bytes are verified, where credentials come from, and how a copy \
continues.

With --split, one file, or stdin ('-'), is cut at line ends into keys of at most SIZE bytes, and several are sent at once: \
dir/0000_NAME, 0001_NAME and so on, so that they go round the nodes; two to ten keys for each CPU of the cluster keep all CPUs busy. A destination without the last / gives them another name. \
The numbers have at least four digits, all as many as the last one needs, and six for stdin and packed input, whose length is not \
known. A line longer than SIZE is a key of its own; in stdin and packed input, a line longer than 1 MiB always begins a key. An empty \
input is one empty key. After a failure, the message says which keys exist; the same command on the same input with --skip-existing \
makes the others. A key that exists and has another length than its piece is an error.";

const CP: &str = "\
Examples:
  s4 cp flights.csv s4://in/            # as s4://in/flights.csv
  s4 cp *.csv s4://in/2013/
  s4 cp -r flights/ s4://in/            # every file of the tree
  s4 cp -r --skip-existing --exclude '*.tmp' flights/ s4://in/
  s4 cp s4://in/flights.csv - | head
  s4 cp -r s4://out/ results
  s4 cp -r s4://out/ s4://kept/
  s4 cp -r s3://bucket/2024/ s4://in/   # every node copies its share
  s4 cp -r s4://out/ s3://bucket/out/
  s4 cp --split 64M --header big.csv s4://in/
  s4 cp --split 64M --decompress big.csv.gz s4://in/";
