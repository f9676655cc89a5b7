//! Copies one key to a local file.

use super::draft::Draft;
use s4::client::Client;
use s4::error::{Error, Result};
use s4::key::Key;
use std::path::Path;

/// The size of a pipe, so that writing rarely blocks.
pub const HERE: u64 = 64 * 1024;

/// Copies a key to a file that has no name yet.
pub async fn get_draft(client: &Client, key: &Key, path: &Path) -> Result<Draft> {
    let draft = Draft::beside(path)?;
    let sink = draft.file().try_clone().map_err(|e| Error::io(path.display(), &e))?;
    client.get(key, sink, &path.display().to_string(), HERE).await?;
    Ok(draft)
}

/// Copies a key to a file, which gets its name when it is complete.
pub async fn get_file(client: &Client, key: &Key, path: &Path) -> Result<()> {
    get_draft(client, key, path).await?.keep(path)
}
