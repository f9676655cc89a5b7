//! `s4 rm`

use super::console::print_message;
use super::format::{counted, size_text};
use crate::cli::RmArgs;
use s4::client::Client;
use s4::error::{Error, ErrorKind, ExitStatus, Result};
use s4::key::{Key, Prefix};
use s4::protocol::{Entry, MAX_BUCKETS};
use s4::skew::Load;
use std::collections::BTreeSet;
use std::io::{BufWriter, Write};

pub async fn run(client: &Client, args: RmArgs) -> Result<ExitStatus> {
    if !args.recursive {
        return remove_one(client, &Key::parse_url(&args.prefix)?, args.dry_run).await;
    }
    let prefix = Prefix::parse_url(&args.prefix)?;
    if prefix.as_str().is_empty() {
        return Err(Error::usage("s4:// begins every key; name at least the beginning of a bucket"));
    }
    match args.dry_run {
        true => list_all(client, &prefix).await,
        false => remove_all(client, &prefix).await,
    }
}

async fn remove_one(client: &Client, key: &Key, dry_run: bool) -> Result<ExitStatus> {
    let found = client.find_key(key).await;
    // The length is for the summary only: a key that cannot be read can be deleted.
    let found = if dry_run { found? } else { found.ok().flatten() };
    let len = found.map(|found| found.checksum.len);
    match (dry_run, len) {
        (false, _) => client.delete(key).await?,
        (true, Some(_)) => writeln!(std::io::stdout(), "{key}").map_err(|e| Error::io("stdout", &e))?,
        (true, None) => return Err(Error::new(ErrorKind::NotFound, format!("{key}: no such key"))),
    }
    tell(dry_run, Load::of_key(len.unwrap_or(0)), &Buckets::Known(0));
    Ok(ExitStatus::Done)
}

async fn remove_all(client: &Client, prefix: &Prefix) -> Result<ExitStatus> {
    let answers = client
        .on_every_node(|client, node| {
            let prefix = prefix.clone();
            async move { client.delete_prefix(node, &prefix).await }
        })
        .await;
    let (mut deleted, mut touched, mut is_all) = (Load::default(), BTreeSet::new(), true);
    for (load, buckets) in answers.iter().flatten() {
        is_all &= buckets.len() < MAX_BUCKETS;
        deleted += *load;
        touched.extend(buckets);
    }
    // If a node was silent, do not wait for it again.
    let removed = match answers.iter().all(Result::is_ok) && !touched.is_empty() {
        true => match buckets(client, prefix).await {
            Ok(left) => {
                let removed = touched.iter().filter(|bucket| !left.contains(bucket.as_str())).count();
                if is_all { Buckets::Known(removed) } else { Buckets::AtLeast(removed) }
            }
            Err(error) => Buckets::Unknown(error),
        },
        false => Buckets::Known(0),
    };
    // If nothing was deleted, the error says everything.
    match (deleted.keys, answers.iter().all(Result::is_ok)) {
        (0, true) => print_message(format_args!("deleted 0 keys: none begins with {prefix}")),
        (0, false) => {}
        _ => tell(false, deleted, &removed),
    }
    // Nothing to delete is success: scripts begin with `rm -r` of what they will make.
    client.all_or_blame(answers).await.map(|_| ExitStatus::Done)
}

/// The buckets that contain keys beginning with `prefix`, or may contain some.
async fn buckets(client: &Client, prefix: &Prefix) -> Result<BTreeSet<String>> {
    let (start, rest) =
        prefix.as_str().split_once('/').map_or((prefix.as_str(), None), |(start, rest)| (start, Some(rest)));
    let mut listing = client.list(&Prefix::parse(start)?, false).await?;
    let mut names = BTreeSet::new();
    while let Some(entry) = listing.next().await? {
        let name = entry.path().trim_end_matches('/');
        if rest.is_none() || name == start {
            names.insert(name.to_owned());
        }
    }
    Ok(names)
}

/// Prints the keys that would be deleted.
async fn list_all(client: &Client, prefix: &Prefix) -> Result<ExitStatus> {
    let mut listing = client.list(prefix, true).await?;
    let mut found = Load::default();
    let mut out = BufWriter::new(std::io::stdout().lock());
    while let Some(entry) = listing.next().await? {
        if let Entry::Key { path, size, .. } = entry {
            writeln!(out, "s4://{path}").map_err(|e| Error::io("stdout", &e))?;
            found += Load::of_key(size);
        }
    }
    out.flush().map_err(|e| Error::io("stdout", &e))?;
    // A prefix with a directory may leave other keys in its bucket, so no bucket counts as removed.
    let whole = if prefix.as_str().contains('/') { 0 } else { buckets(client, prefix).await?.len() };
    tell(true, found, &Buckets::Known(whole));
    Ok(ExitStatus::Done)
}

/// The number of buckets that were removed together with their keys.
enum Buckets {
    Known(usize),
    /// A node has named as many as it may.
    AtLeast(usize),
    /// The remaining buckets could not be listed.
    Unknown(Error),
}

fn tell(dry_run: bool, load: Load, buckets: &Buckets) {
    print_message(format_args!("{}", summary(dry_run, load, buckets)));
}

fn summary(dry_run: bool, load: Load, buckets: &Buckets) -> String {
    let verb = if dry_run { "would delete" } else { "deleted" };
    let buckets = match buckets {
        Buckets::Known(0) => String::new(),
        Buckets::Known(buckets) => format!(", {}", counted(*buckets as u64, "bucket")),
        Buckets::AtLeast(buckets) => format!(", at least {}", counted(*buckets as u64, "bucket")),
        Buckets::Unknown(error) => format!("; which buckets are gone is not known: {error}"),
    };
    format!("{verb} {}, {}{buckets}", counted(load.keys, "key"), size_text(load.bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_deleted_is_told_though_buckets_are_not_known() {
        let told = |buckets| summary(false, Load { keys: 3, bytes: 30 }, &buckets);
        assert_eq!(told(Buckets::Known(0)), "deleted 3 keys, 30B");
        assert_eq!(told(Buckets::Known(1)), "deleted 3 keys, 30B, 1 bucket");
        assert_eq!(told(Buckets::AtLeast(1000)), "deleted 3 keys, 30B, at least 1000 buckets");
        let error = Error::new(ErrorKind::Unreachable, "node1: no answer");
        assert_eq!(
            told(Buckets::Unknown(error)),
            "deleted 3 keys, 30B; which buckets are gone is not known: node1: no answer"
        );
    }
}
