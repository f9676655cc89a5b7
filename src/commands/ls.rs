//! `s4 ls`

use super::absence::nothing_found;
use crate::cli::LsArgs;
use s4::client::Client;
use s4::error::{Error, ErrorKind, ExitStatus, Result};
use s4::key::Prefix;
use s4::protocol::Entry;
use s4::time;
use std::io::{BufWriter, Write};

pub async fn run(client: &Client, args: LsArgs) -> Result<ExitStatus> {
    let prefix = Prefix::parse_url(args.prefix.as_deref().unwrap_or("s4://"))?;
    let mut listing = client.list(&prefix, args.recursive).await?;
    let mut out = BufWriter::new(std::io::stdout().lock());
    let mut found = false;
    while let Some(entry) = listing.next().await? {
        found = true;
        write_entry(&mut out, &entry, shown_from(&prefix, args.recursive)).map_err(|e| Error::io("stdout", &e))?;
    }
    out.flush().map_err(|e| Error::io("stdout", &e))?;
    match found {
        true => Ok(ExitStatus::Done),
        false => {
            let error = Error::new(ErrorKind::NotFound, format!("{prefix}: nothing found"));
            Err(nothing_found(client, prefix.as_str(), error).await)
        }
    }
}

/// How many bytes of each path the prefix says already: its directory, or with `-r` its bucket.
fn shown_from(prefix: &Prefix, recursive: bool) -> usize {
    let (dir, _) = prefix.split();
    let said = match recursive {
        true => dir.split('/').next().unwrap_or(""),
        false => dir,
    };
    if said.is_empty() { 0 } else { said.len() + 1 }
}

fn write_entry(out: &mut impl Write, entry: &Entry, from: usize) -> std::io::Result<()> {
    match entry {
        Entry::Key { path, size, mtime, .. } => {
            let (date, clock) = time::utc(mtime.div_euclid(1_000_000_000));
            writeln!(out, "{date} {clock} {size:>10} {}", &path[from..])
        }
        // A bucket, as the reference shows it.
        Entry::Dir { path, .. } if path.find('/') == Some(path.len() - 1) => {
            writeln!(out, "{}", path.trim_end_matches('/'))
        }
        Entry::Dir { path, .. } => writeln!(out, "{:>30} {}", "PRE", &path[from..]),
    }
}
