//! The command line of `s4 partition`.

use clap::{ArgGroup, Args, ValueHint};
use std::ffi::OsString;
use std::path::PathBuf;

#[derive(Args)]
#[command(group = ArgGroup::new("by").required(true).args(["buckets", "ranges"]))]
pub struct PartitionArgs {
    /// Split into N files, by the hash (XXH3-64) of the key modulo N
    #[arg(short = 'n', long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub buckets: Option<u32>,
    /// Split by the sorted splitters in FILE: a file's number is that of the splitters not above the key
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub ranges: Option<PathBuf>,
    /// With --ranges: compare numbers, as sort -n does, and not bytes
    #[arg(long, conflicts_with = "buckets")]
    pub numeric: bool,
    /// The fields that are the key, as cut has them: 3, or 1,2, or 2-4 [default: the whole line]
    #[arg(short, long, value_name = "FIELDS")]
    pub key: Option<String>,
    /// The byte between fields [default: TAB; of CSV a comma]
    #[arg(short, long, value_name = "BYTE")]
    pub delimiter: Option<OsString>,
    /// Fields may be in double quotes, with delimiters and newlines in them
    #[arg(long)]
    pub csv: bool,
    /// Write the first line first into each file
    #[arg(long)]
    pub header: bool,
    /// The files' names: {} is the file's number, and a _ ends it
    #[arg(long, value_name = "TEMPLATE", default_value = "{}")]
    pub names: String,
}

pub const PARTITION: &str = "\
Reads stdin, writes files into the current directory, and prints their names. Equal keys of all inputs \
come to files of the same number, which says their node. A file that gets no line is not made.

Examples:
  s4 map-to-n s4://in/ s4://parts/ 's4 partition -n 96 -d, -k3'
  s4 map-to-n --file splitters s4://in/ s4://ranges/ 's4 partition --ranges splitters'
  s4 map-to-n s4://in/ s4://parts/ 's4 partition -n 96 --csv --header -k2 --names {}_orders.csv'";
