//! `s4 partition`

use crate::cli::PartitionArgs;
use s4::error::{Error, ExitStatus, Result};
use s4::partition::{Buckets, Format, KeyFields, Names, Options, partition};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

pub fn run(args: &PartitionArgs) -> Result<ExitStatus> {
    let key = args.key.as_deref().map_or_else(|| Ok(KeyFields::all()), KeyFields::parse)?;
    let delimiter = delimiter(args.delimiter.as_deref(), args.csv)?;
    let names = Names::parse(&args.names)?;
    let buckets = match &args.ranges {
        Some(file) => Buckets::load(file, args.numeric)?,
        None => Buckets::Hash(args.buckets.unwrap_or(1).into()),
    };
    let format = Format { delimiter, csv: args.csv, header: args.header };
    s4::limits::raise_descriptors();
    // The library's lock on stdin has a buffer that is not needed here.
    let input = super::console::unbuffered(std::io::stdin())?;
    partition(Options { format, key, buckets, names, dir: PathBuf::new() }, input, &mut std::io::stdout())?;
    Ok(ExitStatus::Done)
}

/// The byte between fields, as typed by the user.
fn delimiter(typed: Option<&OsStr>, csv: bool) -> Result<u8> {
    let wrong = |why: &str| Error::usage(format!("-d {}: {why}", typed.unwrap_or_default().to_string_lossy()));
    match (typed.map(OsStr::as_bytes), csv) {
        (None, false) => Ok(b'\t'),
        (None, true) => Ok(b','),
        (Some(b"\\t"), _) => Ok(b'\t'),
        (Some([b'\n']), _) => Err(wrong("a newline ends a line, and cannot be between its fields")),
        (Some([b'"']), true) => Err(wrong("with --csv a quote is no delimiter")),
        (Some([byte]), _) => Ok(*byte),
        _ => Err(wrong("a delimiter is one byte, or \\t")),
    }
}
