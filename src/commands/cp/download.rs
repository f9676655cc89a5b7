//! `s4 cp -r` to a local tree: keys come many in one exchange, from all nodes at once.

use super::draft::Draft;
use super::failures::{Failures, is_of_lost_node};
use super::file::{HERE, get_file};
use crate::commands::console::unbuffered;
use bytes::BytesMut;
use s4::client::{Client, Fetched, FetchedItem, TRIES, blocking};
use s4::error::{Error, ErrorKind, ExitStatus, Result};
use s4::key::{Dir, Key, Prefix};
use s4::placement::NodeId;
use s4::protocol::Entry;
use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::task::JoinSet;

/// Exchanges at once.
const AT_ONCE: usize = 8;
/// Keys that are asked for together.
const PACK_KEYS: usize = 256;
/// Bytes of keys after which a pack is asked for, so that large keys come side by side.
const PACK_BYTES: u64 = 64 << 20;

/// Writes every key below `src` to stdout, in the order of their names.
pub async fn print(client: &Client, src: &Dir) -> Result<ExitStatus> {
    let mut listing = client.list(&Prefix::below(src), true).await?;
    let mut found = false;
    while let Some(entry) = listing.next().await? {
        if let Entry::Key { path, .. } = entry {
            found = true;
            client.get(&Key::parse(&path)?, unbuffered(std::io::stdout())?, "stdout", HERE).await?;
        }
    }
    match found {
        true => Ok(ExitStatus::Done),
        false => Err(nothing_found(src)),
    }
}

fn nothing_found(src: &Dir) -> Error {
    Error::new(ErrorKind::NotFound, format!("{src}: nothing found"))
}

/// Copies every key below `src` to its path below `dst`. Here, in `.`, a directory keeps its name, and a bucket does not.
pub async fn tree(client: &Client, src: &Dir, dst: &Path) -> Result<ExitStatus> {
    if dst.exists() && !dst.is_dir() {
        return Err(Error::new(ErrorKind::Io, format!("{}: is no directory, and cannot take a tree", dst.display())));
    }
    let mut listing = client.list(&Prefix::below(src), true).await?;
    let from = match (dst == Path::new("."), src.as_str().rfind('/')) {
        (true, Some(slash)) => slash + 1,
        _ => src.as_str().len() + 1,
    };
    let target = Arc::new(Target { from, dst: dst.to_owned(), ended: AtomicBool::new(false) });
    let mut fetches =
        Fetches { client: client.clone(), target, running: JoinSet::new(), failures: Failures::default() };
    let mut waiting: BTreeMap<NodeId, (Vec<Key>, u64)> = BTreeMap::new();
    let mut found = false;
    while !fetches.failures.is_lost()
        && let Some(entry) = listing.next().await?
    {
        let Entry::Key { path, size, .. } = entry else {
            continue;
        };
        found = true;
        let key = Key::parse(&path)?;
        let node = client.cluster().node_of(&key);
        let (keys, bytes) = waiting.entry(node).or_default();
        keys.push(key);
        *bytes += size;
        if keys.len() >= PACK_KEYS || *bytes >= PACK_BYTES {
            fetches.start(node, std::mem::take(keys)).await;
            *bytes = 0;
        }
    }
    if !found {
        return Err(nothing_found(src));
    }
    for (node, (keys, _)) in waiting {
        if !fetches.failures.is_lost() {
            fetches.start(node, keys).await;
        }
    }
    fetches.finish().await
}

/// Where keys go.
struct Target {
    /// Bytes of each path that the source's directory takes.
    from: usize,
    dst: PathBuf,
    /// No more is wanted: what has not come whole is let go.
    ended: AtomicBool,
}

impl Target {
    fn path(&self, key: &Key) -> PathBuf {
        self.dst.join(&key.as_str()[self.from..])
    }
}

struct Fetches {
    client: Client,
    target: Arc<Target>,
    running: JoinSet<Vec<Error>>,
    failures: Failures,
}

impl Fetches {
    /// Starts to fetch a pack, once fewer than [`AT_ONCE`] are under way.
    async fn start(&mut self, node: NodeId, keys: Vec<Key>) {
        if keys.is_empty() {
            return;
        }
        while self.running.len() >= AT_ONCE {
            self.await_one().await;
        }
        let (client, target) = (self.client.clone(), self.target.clone());
        self.running.spawn(async move { fetch(&client, node, keys, &target).await });
    }

    async fn finish(mut self) -> Result<ExitStatus> {
        while !self.running.is_empty() {
            self.await_one().await;
        }
        self.failures.result()
    }

    async fn await_one(&mut self) {
        let errors = match self.running.join_next().await {
            Some(Ok(errors)) => errors,
            Some(Err(error)) => vec![Error::new(ErrorKind::Io, error.to_string())],
            None => return,
        };
        if self.target.ended.load(Ordering::Relaxed) {
            return;
        }
        for error in errors {
            self.failures.add(error);
        }
        self.target.ended.store(self.failures.is_lost(), Ordering::Relaxed);
    }
}

/// Fetches keys of `node`, again from the first that has not come where the connection breaks off. Returns what failed.
async fn fetch(client: &Client, node: NodeId, mut keys: Vec<Key>, target: &Arc<Target>) -> Vec<Error> {
    let (mut errors, mut tries) = (Vec::new(), TRIES);
    loop {
        let pack = match client.get_many(node, &keys).await {
            Ok(pack) => pack,
            Err(error) => {
                errors.push(error);
                return errors;
            }
        };
        let to = target.clone();
        let (came, mut failed) = blocking(move || receive(pack, &to)).await;
        tries = if came > 0 { TRIES } else { tries - 1 };
        let is_again = failed.pop_if(|last| last.is_of_broken_connection() && tries > 0).is_some();
        for error in &failed {
            // A node that was found silent is not waited for by the next pack.
            let _ = client.noting::<()>(node, Err(error.clone()));
        }
        errors.extend(failed);
        if !is_again {
            return errors;
        }
        keys.drain(..came);
        if came == 0 {
            // It may be what breaks off: alone, its node can say why.
            let key = keys.remove(0);
            let failed = get_file(client, &key, &target.path(&key)).await.err();
            let is_lost = failed.as_ref().is_some_and(is_of_lost_node);
            errors.extend(failed);
            if is_lost || keys.is_empty() {
                return errors;
            }
        }
    }
}

/// Writes the keys of a pack; returns how many have come, and what failed.
fn receive(mut pack: Fetched, target: &Target) -> (usize, Vec<Error>) {
    let (mut errors, mut came, mut buffer) = (Vec::new(), 0, BytesMut::new());
    let mut open: Option<(PathBuf, Result<Draft>)> = None;
    while !target.ended.load(Ordering::Relaxed) {
        match pack.next_item(&mut buffer) {
            Ok(Some(FetchedItem::Begin(key))) => {
                let path = target.path(&key);
                let draft = Draft::beside(&path);
                open = Some((path, draft));
            }
            Ok(Some(FetchedItem::Piece(bytes))) => {
                if let Some((path, draft)) = &mut open
                    && let Ok(file) = draft
                    && let Err(error) = file.write_all(&bytes)
                {
                    *draft = Err(Error::io(path.display(), &error));
                }
            }
            Ok(Some(FetchedItem::Whole)) => {
                came += 1;
                if let Some((path, draft)) = open.take() {
                    errors.extend(draft.and_then(|draft| draft.keep(&path)).err());
                }
            }
            Ok(Some(FetchedItem::Failed(error))) => {
                came += 1;
                open = None;
                errors.push(error);
            }
            Ok(None) => {
                pack.finish();
                return (came, errors);
            }
            Err(error) => {
                errors.push(error);
                return (came, errors);
            }
        }
    }
    (came, errors)
}
