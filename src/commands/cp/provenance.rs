//! `s4 cp -r --provenance`: copies the provenance of a tree's keys in a file at the top of the tree, so that another
//! cluster can import it. The file contains commands and environment variables of jobs, so only its owner may read it.

use super::draft::Draft;
use super::exclude::Exclude;
use super::sources::{Keys, Source, What};
use crate::commands::console::print_message;
use s4::client::{Client, MAX_GIVEN};
use s4::error::{Error, ErrorKind, Result};
use s4::key::Dir;
use s4::protocol::Provenance;
use serde::{Deserialize, Serialize};
use std::fs::{File, Permissions};
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use tokio::task::JoinSet;

/// The name of the file.
pub const FILE: &str = ".s4-provenance";
const MODE: u32 = 0o600;
/// Limit of simultaneous requests.
const AT_ONCE: usize = 16;

/// A line of the file.
#[derive(Serialize, Deserialize)]
struct Line {
    /// The path below the top of the tree.
    path: String,
    #[serde(flatten)]
    found: Provenance,
}

/// The path of the file for `source` if that is copied to `dst`: at the top of the copied tree. Errors: an earlier copy
/// has left such a file.
pub fn place(source: &Source, dst: &Path) -> Result<PathBuf> {
    let path = dst.join(source.name()).join(FILE);
    match path.symlink_metadata() {
        Ok(_) => Err(taken(&path)),
        Err(_) => Ok(path),
    }
}

fn taken(path: &Path) -> Error {
    let message = "an earlier copy has left it, and it is not replaced; delete it, or copy to another directory";
    Error::new(ErrorKind::AlreadyExists, format!("{}: {message}", path.display()))
}

/// Writes the file at `path` for the keys of `source`, which were copied.
pub async fn save(client: &Client, source: Source, path: &Path, exclude: &Exclude) -> Result<()> {
    let failed = |e: std::io::Error| Error::io(path.display(), &e);
    let draft = Draft::beside(path)?;
    draft.file().set_permissions(Permissions::from_mode(MODE)).map_err(failed)?;
    let mut out = BufWriter::new(draft);
    let source = match source.what {
        What::Below(dir) => Source::whole(dir),
        What::Key(_) => source,
    };
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
            let draft = out.into_inner().map_err(|e| failed(e.into_error()))?;
            return if draft.keep_new(path)? { Ok(()) } else { Err(taken(path)) };
        };
        let (client, below) = (client.clone(), key.below().to_owned());
        asked.spawn(
            async move { client.provenance(&key.key, MAX_GIVEN).await.map(|found| Line { path: below, found }) },
        );
    }
}

/// Sets the provenance of the keys below `dst`, to which the tree at `top` was copied, from its file. After all keys
/// were tried, returns the first error.
pub async fn restore(client: &Client, top: &Path, dst: &Dir, exclude: &Exclude) -> Result<()> {
    let path = top.join(FILE);
    let failed = |e: std::io::Error| Error::io(path.display(), &e);
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            print_message(format_args!(
                "{}: there is no such file, so nothing is known of what made the keys",
                path.display()
            ));
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
    for (number, line) in BufReader::new(file).split(b'\n').enumerate() {
        let line: Line = match serde_json::from_slice(&line.map_err(failed)?) {
            Ok(line) => line,
            Err(e) => {
                let message = format!("{}: line {} is damaged, and left out: {e}", path.display(), number + 1);
                match first {
                    Ok(()) => first = Err(Error::new(ErrorKind::Io, message)),
                    Err(_) => print_message(message),
                }
                continue;
            }
        };
        if exclude.leaves_out(&line.path) {
            continue;
        }
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
