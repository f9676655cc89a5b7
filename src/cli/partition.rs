//! The command line of `s4 partition`.

use super::text::examples;
use clap::{ArgGroup, Args, ValueHint};
use std::ffi::OsString;
use std::path::PathBuf;

#[derive(Args)]
#[command(long_about = PARTITION_LONG, after_help = PARTITION, after_long_help = examples(PARTITION))]
#[command(group = ArgGroup::new("by").required(true).args(["buckets", "ranges"]))]
pub struct PartitionArgs {
    /// Split into N files, by the hash (XXH3-64) of the key modulo N
    ///
    /// They are numbered from 0. N is at most 100000.
    #[arg(short = 'n', long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub buckets: Option<u32>,
    /// Split by the sorted splitters in FILE: a file's number is that of the splitters not above the key
    ///
    /// FILE has one splitter a line. The splitters that are less than the key of a line or equal to it are counted: every
    /// key of a file is less than every key of the next file. A FILE that is not sorted is refused with the number of the line.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub ranges: Option<PathBuf>,
    /// With --ranges: compare numbers, as sort -n does, and not bytes
    ///
    /// What is no number is 0. Without it, bytes are compared, as 'sort' does with LC_ALL=C.
    #[arg(long, conflicts_with = "buckets")]
    pub numeric: bool,
    /// The fields that are the key, as cut has them: 3, or 1,2, or 2-4 [default: the whole line]
    ///
    /// '3-' is possible too. Other than in cut(1), '2,1' is not '1,2'. A field that a line does not have is empty. Several
    /// fields are joined, for -n by TAB, whatever -d says, and for --ranges by the delimiter.
    #[arg(short, long, value_name = "FIELDS")]
    pub key: Option<String>,
    /// The byte between fields [default: TAB; of CSV a comma]
    ///
    /// '\t' is TAB.
    #[arg(short, long, value_name = "BYTE")]
    pub delimiter: Option<OsString>,
    /// Fields may be in double quotes, with delimiters and newlines in them
    ///
    /// In a quoted field, '""' is a quote. The key is the text without its quotes, and without the CR of a line that ends in
    /// CR LF. Rows are written as they came.
    #[arg(long)]
    pub csv: bool,
    /// Write the first line first into each file
    ///
    /// It is no data.
    #[arg(long)]
    pub header: bool,
    /// The files' names: {} is the file's number, and a _ ends it
    ///
    /// '{}' is alone, or followed by _ and any text.
    #[arg(long, value_name = "TEMPLATE", default_value = "{}")]
    pub names: String,
}

const PARTITION_LONG: &str = "\
Split the lines of stdin into files in the current directory by a key, and print the names of the files, one a line: a command for \
's4 map-to-n'. It needs no cluster.

A file is named by its number, padded with zeros, so that it goes to node number modulo nodes, and equal keys of all inputs meet in \
's4 map-from-n'. A file that would get no line is not made; one that exists is an error, and a failure leaves no files. Lines may hold \
any bytes and be of any length; a key must end within the first 64 MiB of its line. Buffers take at most 64 MiB, however many files \
there are. A last line without a newline gets one.";

const PARTITION: &str = "\
Reads stdin, writes files into the current directory, and prints their names. Equal keys of all inputs \
come to files of the same number, which says their node. A file that gets no line is not made.

Examples:
  s4 map-to-n s4://in/ s4://parts/ 's4 partition -n 96 -d, -k3'
  s4 map-to-n --file splitters s4://in/ s4://ranges/ \\
      's4 partition --ranges splitters'
  s4 map-to-n s4://in/ s4://orders/ \\
      's4 partition -n 96 --csv --header -k2 --names {}_orders.csv'";
