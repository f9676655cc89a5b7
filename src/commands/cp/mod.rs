//! `s4 cp`

mod download;
mod draft;
mod failures;
mod file;
mod upload;

use super::console::unbuffered;
use crate::cli::CpArgs;
use file::{HERE, get_file};
use s4::client::Client;
use s4::error::{Error, ExitStatus, Result};
use s4::key::{self, Dir, Key};
use s4::protocol::Change;
use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};

pub async fn run(client: &Client, args: CpArgs) -> Result<ExitStatus> {
    let CpArgs { src, dst, recursive } = args;
    match (key::is_url(&src), key::is_url(&dst), recursive) {
        (false, true, false) => put(client, &src, &dst).await,
        (false, true, true) => upload::tree(client, Path::new(&src), Dir::parse_url(&dst)?).await,
        (true, false, false) => get(client, &Key::parse_url(&src)?, &dst).await,
        (true, false, true) if dst == "-" => download::print(client, &Dir::parse_url(&src)?).await,
        (true, false, true) => download::tree(client, &Dir::parse_url(&src)?, Path::new(&dst)).await,
        (true, true, _) => Err(Error::usage("both SRC and DST are in the cluster; a 1:1 map with 'cat' copies there")),
        (false, false, _) => Err(Error::usage("neither SRC nor DST begins with s4://")),
    }
}

async fn put(client: &Client, src: &str, dst: &str) -> Result<ExitStatus> {
    let key = target_key(src, dst)?;
    if src == "-" {
        client.put(&key, unbuffered(std::io::stdin())?, "stdin", Change::default()).await?;
        return Ok(ExitStatus::Done);
    }
    let failed = |e: std::io::Error| Error::io(src, &e);
    let file = File::open(src).map_err(failed)?;
    let found = file.metadata().map_err(failed)?;
    if found.is_dir() {
        return Err(Error::usage(format!("{src}: is a directory; -r copies those")));
    }
    client.put_file(&key, file, found.len(), src).await?;
    Ok(ExitStatus::Done)
}

/// The key that `dst` means; one that ends in `/` keeps the basename of `src`.
fn target_key(src: &str, dst: &str) -> Result<Key> {
    if !dst.ends_with('/') {
        return Key::parse_url(dst);
    }
    if src == "-" {
        return Err(Error::usage(format!("{dst}: stdin has no name to keep; name the key")));
    }
    let basename = Path::new(src).file_name().and_then(|name| name.to_str());
    let basename = basename.ok_or_else(|| Error::usage(format!("{src}: it has no basename to keep")))?;
    Dir::parse_url(dst)?.join(basename)
}

async fn get(client: &Client, key: &Key, dst: &str) -> Result<ExitStatus> {
    if dst == "-" {
        client.get(key, unbuffered(std::io::stdout())?, "stdout", HERE).await?;
        return Ok(ExitStatus::Done);
    }
    let path = target_path(key, dst);
    match std::fs::metadata(&path) {
        // A pipe or device takes the bytes as they come.
        Ok(found) if !found.is_file() => {
            let sink = OpenOptions::new().write(true).open(&path).map_err(|e| Error::io(path.display(), &e))?;
            client.get(key, sink, &path.display().to_string(), HERE).await?;
        }
        _ => {
            get_file(client, key, &path).await?;
        }
    }
    Ok(ExitStatus::Done)
}

/// The file that `dst` means; a directory keeps the key's basename.
fn target_path(key: &Key, dst: &str) -> PathBuf {
    let path = Path::new(dst);
    match dst.ends_with('/') || path.is_dir() {
        true => path.join(key.basename()),
        false => path.to_owned(),
    }
}
