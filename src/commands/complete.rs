//! The candidates that shell completion requests while a user types: names and job ids.

use crate::cli::CompleteArgs;
use s4::client::Client;
use s4::error::{Error, ExitStatus, Result};
use s4::key::Prefix;
use std::io::{BufWriter, Write};

/// Limit of candidates: users do not read more, and a directory may contain a million names.
const OFFERED: usize = 1000;

/// Prints the candidates for the last word, one per line.
pub async fn run(client: &Client, args: &CompleteArgs) -> Result<ExitStatus> {
    let (word, command) = match &*args.words {
        [command, .., word] => (word.as_str(), command.as_str()),
        [] | [_] => return Ok(ExitStatus::Done),
    };
    let candidates = match command {
        _ if word.starts_with("s4://") => names(client, word).await?,
        "wait" | "logs" | "cancel" if !word.starts_with('-') => ids(client, word).await,
        _ => Vec::new(),
    };
    let mut out = BufWriter::new(std::io::stdout().lock());
    let mut written = candidates.iter().try_for_each(|candidate| writeln!(out, "{candidate}"));
    written = written.and_then(|()| out.flush());
    written.map(|()| ExitStatus::Done).map_err(|e| Error::io("stdout", &e))
}

/// Keys and directories; a directory ends in `/`.
async fn names(client: &Client, word: &str) -> Result<Vec<String>> {
    let prefix = Prefix::parse_url(word)?;
    let mut listing = client.list(&prefix, false).await?;
    let mut names = Vec::new();
    while names.len() < OFFERED
        && let Some(entry) = listing.next().await?
    {
        names.push(format!("s4://{}", entry.path()));
    }
    Ok(names)
}

/// Job ids, newest first, and then `last`.
async fn ids(client: &Client, word: &str) -> Vec<String> {
    let (jobs, _) = client.all_jobs().await;
    let ids = jobs.into_keys().rev().map(String::from);
    ids.chain(["last".to_owned()]).filter(|id| id.starts_with(word)).collect()
}
