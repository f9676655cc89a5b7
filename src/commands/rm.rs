//! `s4 rm`

use super::console::say;
use super::format::{counted, size_text};
use crate::cli::RmArgs;
use s4::client::Client;
use s4::error::{Error, ErrorKind, ExitStatus, Result};
use s4::key::{Dir, Key, Prefix};
use s4::protocol::{Entry, Stat};
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
    let len = match client.look_up(&Dir::try_from(key.as_str().to_owned())?).await? {
        Stat::Key(stat) => Some(stat.checksum.len),
        Stat::Dir { .. } | Stat::Absent => None,
    };
    match (dry_run, len) {
        (false, _) => client.delete(key).await?,
        (true, Some(_)) => writeln!(std::io::stdout(), "{key}").map_err(|e| Error::io("stdout", &e))?,
        (true, None) => return Err(Error::new(ErrorKind::NotFound, format!("{key}: no such key"))),
    }
    tell(dry_run, Load { keys: 1, bytes: len.unwrap_or(0) }, 0);
    Ok(ExitStatus::Done)
}

async fn remove_all(client: &Client, prefix: &Prefix) -> Result<ExitStatus> {
    let answers = client
        .on_every_node(|client, node| {
            let prefix = prefix.clone();
            async move { client.delete_prefix(node, &prefix).await }
        })
        .await;
    let (mut deleted, mut touched) = (Load::default(), BTreeSet::new());
    for (load, buckets) in answers.iter().flatten() {
        deleted.keys += load.keys;
        deleted.bytes = deleted.bytes.saturating_add(load.bytes);
        touched.extend(buckets);
    }
    // A silent node is not waited for once more.
    let gone = match answers.iter().all(Result::is_ok) && !touched.is_empty() {
        true => {
            let left = buckets(client, prefix).await?;
            touched.iter().filter(|bucket| !left.contains(bucket.as_str())).count()
        }
        false => 0,
    };
    // A failure that left all as it was has nothing else to say.
    if deleted.keys > 0 || answers.iter().all(Result::is_ok) {
        tell(false, deleted, gone);
    }
    // Nothing found is success: scripts begin so.
    client.all_or_blame(answers).await.map(|_| ExitStatus::Done)
}

/// The buckets in which keys are that begin with `prefix`, or may be.
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

/// Prints what would be deleted.
async fn list_all(client: &Client, prefix: &Prefix) -> Result<ExitStatus> {
    let mut listing = client.list(prefix, true).await?;
    let mut found = Load::default();
    let mut out = BufWriter::new(std::io::stdout().lock());
    while let Some(entry) = listing.next().await? {
        if let Entry::Key { path, size, .. } = entry {
            writeln!(out, "s4://{path}").map_err(|e| Error::io("stdout", &e))?;
            found = Load { keys: found.keys + 1, bytes: found.bytes.saturating_add(size) };
        }
    }
    out.flush().map_err(|e| Error::io("stdout", &e))?;
    // Of a directory's bucket, others may stay.
    let whole = if prefix.as_str().contains('/') { 0 } else { buckets(client, prefix).await?.len() };
    tell(true, found, whole);
    Ok(ExitStatus::Done)
}

fn tell(dry_run: bool, load: Load, buckets: usize) {
    let verb = if dry_run { "would delete" } else { "deleted" };
    let buckets = match buckets {
        0 => String::new(),
        buckets => format!(", {}", counted(buckets as u64, "bucket")),
    };
    say(format_args!("{verb} {}, {}{buckets}", counted(load.keys, "key"), size_text(load.bytes)));
}
