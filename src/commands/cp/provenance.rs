//! `s4 cp -r --provenance`: what made the keys of a tree goes with it, in a file at its top, so that another cluster knows it too.

use super::exclude::Exclude;
use super::sources::{Keys, Source};
use crate::commands::console::say;
use s4::client::Client;
use s4::error::{Error, ErrorKind, Result};
use s4::key::Dir;
use s4::protocol::Provenance;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::Path;
use tokio::task::JoinSet;

/// The file's name.
pub const FILE: &str = ".s4-provenance";
/// Keys that are asked for at once.
const AT_ONCE: usize = 16;

/// A line of the file.
#[derive(Serialize, Deserialize)]
struct Line {
    /// Below the top of the tree.
    path: String,
    #[serde(flatten)]
    found: Provenance,
}

/// Writes the file for the keys of `source`, which have been copied below `dst`.
pub async fn save(client: &Client, source: Source, dst: &Path, exclude: &Exclude) -> Result<()> {
    let path = dst.join(FILE);
    let failed = |e: std::io::Error| Error::io(path.display(), &e);
    let mut out = BufWriter::new(File::create(&path).map_err(failed)?);
    let mut keys = Keys::new(client, vec![source], exclude.clone());
    let mut asked: JoinSet<Result<Line>> = JoinSet::new();
    loop {
        let next = keys.next().await?;
        while asked.len() >= if next.is_some() { AT_ONCE } else { 1 } {
            let line = asked.join_next().await.transpose().map_err(|e| Error::new(ErrorKind::Io, e.to_string()))?;
            match line.transpose()? {
                Some(line) if line.found.mark.is_some() => {
                    let json = serde_json::to_string(&line).map_err(|e| Error::io(path.display(), &e.into()))?;
                    writeln!(out, "{json}").map_err(failed)?;
                }
                _ => {}
            }
        }
        let Some(key) = next else {
            return out.flush().map_err(failed);
        };
        let (client, below) = (client.clone(), key.below().to_owned());
        asked.spawn(
            async move { client.provenance(&key.key, usize::MAX).await.map(|found| Line { path: below, found }) },
        );
    }
}

/// Gives the keys below `dst`, to which the tree at `top` has been copied, what its file says. Returns an error for the first key that does
/// not take it, after the others.
pub async fn restore(client: &Client, top: &Path, dst: &Dir) -> Result<()> {
    let path = top.join(FILE);
    let failed = |e: std::io::Error| Error::io(path.display(), &e);
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            say(format_args!("{}: there is no such file, so nothing is known of what made the keys", path.display()));
            return Ok(());
        }
        Err(e) => return Err(failed(e)),
    };
    let mut given: JoinSet<Result<()>> = JoinSet::new();
    let mut first = Ok(());
    let joined = |ended: Option<std::result::Result<Result<()>, tokio::task::JoinError>>| match ended {
        Some(Ok(given)) => given,
        Some(Err(e)) => Err(Error::new(ErrorKind::Io, e.to_string())),
        None => Ok(()),
    };
    for (number, line) in BufReader::new(file).lines().enumerate() {
        let line: Line = serde_json::from_str(&line.map_err(failed)?).map_err(|e| {
            Error::new(ErrorKind::Io, format!("{}: line {} is damaged: {e}", path.display(), number + 1))
        })?;
        let (client, key) = (client.clone(), dst.join(&line.path)?);
        while given.len() >= AT_ONCE {
            first = first.and(joined(given.join_next().await));
        }
        given.spawn(async move { client.give_provenance(&key, &line.found).await });
    }
    while !given.is_empty() {
        first = first.and(joined(given.join_next().await));
    }
    first
}
