//! `s4 cp`

mod download;
mod draft;
mod upload;

use super::console::{say, unbuffered};
use crate::cli::CpArgs;
use draft::Draft;
use s4::client::Client;
use s4::error::{Error, ErrorKind, ExitStatus, Result};
use s4::key::{self, Dir, Key};
use s4::protocol::Change;
use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};

/// No more than a pipe holds, so that to write it seldom waits.
const SMALL: u64 = 64 * 1024;

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
        client.get(key, unbuffered(std::io::stdout())?, "stdout", SMALL).await?;
        return Ok(ExitStatus::Done);
    }
    let path = target_path(key, dst);
    match std::fs::metadata(&path) {
        // A pipe or device takes the bytes as they come.
        Ok(found) if !found.is_file() => {
            let sink = OpenOptions::new().write(true).open(&path).map_err(|e| Error::io(path.display(), &e))?;
            client.get(key, sink, &path.display().to_string(), SMALL).await?;
        }
        _ => {
            get_file(client, key, &path).await?;
        }
    }
    Ok(ExitStatus::Done)
}

/// Copies a key to a file, which appears only when it is whole.
async fn get_file(client: &Client, key: &Key, path: &Path) -> Result<()> {
    let draft = Draft::beside(path)?;
    let sink = draft.file().try_clone().map_err(|e| Error::io(path.display(), &e))?;
    client.get(key, sink, &path.display().to_string(), SMALL).await?;
    draft.keep(path)
}

/// The file that `dst` means; a directory keeps the key's basename.
fn target_path(key: &Key, dst: &str) -> PathBuf {
    let path = Path::new(dst);
    match dst.ends_with('/') || path.is_dir() {
        true => path.join(key.basename()),
        false => path.to_owned(),
    }
}

fn is_of_lost_node(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Deadline | ErrorKind::Unreachable)
}

/// Errors of many keys: each told at once on stderr, and the first kept for the exit status.
#[derive(Default)]
struct Failures(Option<Error>);

impl Failures {
    fn add(&mut self, error: Error) {
        match &mut self.0 {
            None => self.0 = Some(error),
            Some(_) => say(error),
        }
    }

    /// True once a node is lost: without it the copy cannot become whole, so it ends now and not when all else is copied.
    fn is_lost(&self) -> bool {
        self.0.as_ref().is_some_and(is_of_lost_node)
    }

    fn result(self) -> Result<ExitStatus> {
        match self.0 {
            None => Ok(ExitStatus::Done),
            Some(first) => Err(first),
        }
    }
}
