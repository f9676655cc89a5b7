//! `s4 cp -r` from a local tree: one walk feeds a stream of keys to each node.

use super::failures::Failures;
use s4::client::{Client, Puts};
use s4::error::{Error, ErrorKind, ExitStatus, Result};
use s4::key::{Dir, Key};
use s4::placement::NodeId;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use walkdir::WalkDir;

/// Files that wait for a node.
const QUEUE: usize = 1024;
/// Keys that are sent before others have their turn.
const PACK: usize = 512;
/// Exchanges at once.
const AT_ONCE: usize = 16;

/// A file and the key that it becomes.
struct Item {
    path: PathBuf,
    key: Key,
}

/// Copies every file below `src` to its path below `dst`. Every name is checked before anything is sent.
pub async fn tree(client: &Client, src: &Path, dst: Dir) -> Result<ExitStatus> {
    if !src.is_dir() {
        return Err(match src.exists() {
            true => Error::usage(format!("{}: is no directory; leave out -r", src.display())),
            false => Error::new(ErrorKind::NotFound, format!("{}: No such file or directory", src.display())),
        });
    }
    let count = files(src, &dst).try_fold(0_u64, |count, item| item.map(|_| count + 1))?;
    if count == 0 {
        return Err(Error::new(ErrorKind::NotFound, format!("{}: no file in it", src.display())));
    }
    let turns = Arc::new(Semaphore::new(AT_ONCE));
    let mut queues = Vec::new();
    let mut senders = JoinSet::new();
    for node in client.cluster().ids() {
        let (queue, items) = mpsc::channel(QUEUE);
        queues.push(queue);
        senders.spawn(send_all(client.clone(), node, items, turns.clone()));
    }
    let (walked, src) = (client.clone(), src.to_owned());
    let walk = tokio::task::spawn_blocking(move || walk(&src, &dst, &walked, &queues));
    let mut failures = Failures::default();
    while let Some(sent) = senders.join_next().await {
        sent.unwrap_or_else(|e| vec![Error::new(ErrorKind::Io, e.to_string())])
            .into_iter()
            .for_each(|e| failures.add(e));
        if failures.is_lost() {
            return failures.result();
        }
    }
    if let Err(error) = walk.await.unwrap_or_else(|e| Err(Error::new(ErrorKind::Io, e.to_string()))) {
        failures.add(error);
    }
    failures.result()
}

fn walk(src: &Path, dst: &Dir, client: &Client, queues: &[mpsc::Sender<Item>]) -> Result<()> {
    for item in files(src, dst) {
        let item = item?;
        let node = client.cluster().node_of(&item.key);
        // A node that failed has closed its queue and told why.
        let _ = queues[node].blocking_send(item);
    }
    Ok(())
}

/// The regular files below `src`, links followed.
fn files(src: &Path, dst: &Dir) -> impl Iterator<Item = Result<Item>> {
    WalkDir::new(src).follow_links(true).into_iter().filter_map(move |entry| {
        let entry = match entry {
            Ok(entry) => entry,
            Err(error) => return Some(Err(walk_error(&error))),
        };
        let kind = entry.file_type();
        if kind.is_dir() {
            return None;
        }
        if !kind.is_file() {
            return Some(Err(Error::new(
                ErrorKind::BadName,
                format!("{}: is not a regular file", entry.path().display()),
            )));
        }
        let below = entry.path().strip_prefix(src).unwrap_or(entry.path());
        let named = below
            .to_str()
            .ok_or_else(|| Error::new(ErrorKind::BadName, format!("{}: a name is UTF-8", entry.path().display())));
        Some(named.and_then(|below| dst.join(below)).map(|key| Item { path: entry.path().to_owned(), key }))
    })
}

fn walk_error(error: &walkdir::Error) -> Error {
    let path = error.path().unwrap_or(Path::new("")).display().to_string();
    match error.io_error() {
        Some(io) => Error::io(path, io),
        None => Error::new(ErrorKind::Io, format!("{path}: its links go round in a circle")),
    }
}

/// Sends what comes for `node`, pack by pack, until there is no more. Returns what failed.
async fn send_all(client: Client, node: NodeId, mut items: mpsc::Receiver<Item>, turns: Arc<Semaphore>) -> Vec<Error> {
    let mut errors = Vec::new();
    while let Some(first) = items.recv().await {
        let _turn = turns.acquire().await;
        let (sent, answers) = client.put_many(node, None, move |puts| send_pack(puts, first, items)).await;
        let more = answers.failed.saturating_sub(answers.errors.len() as u64);
        errors.extend(answers.errors);
        if more > 0 {
            let name = client.cluster().name(node);
            errors.push(Error::new(ErrorKind::Io, format!("{name}: {more} more keys failed")));
        }
        match sent {
            Ok((rest, unread)) => {
                items = rest;
                errors.extend(unread);
            }
            Err(error) => {
                errors.push(error);
                break;
            }
        }
    }
    errors
}

type Sent = (mpsc::Receiver<Item>, Vec<Error>);

/// Sends `first` and what waits behind it. Never waits for more.
fn send_pack(puts: &mut Puts, first: Item, mut items: mpsc::Receiver<Item>) -> Result<Sent> {
    let mut unread = Vec::new();
    let mut next = Some(first);
    let mut count = 0;
    while let Some(item) = next {
        let shown = item.path.display().to_string();
        match File::open(&item.path).and_then(|file| Ok((file.metadata()?.len(), file))) {
            Ok((len, file)) => unread.extend(puts.put(&item.key, file, len, &shown)?.err()),
            Err(error) => unread.push(Error::io(shown, &error)),
        }
        count += 1;
        next = if count < PACK { items.try_recv().ok() } else { None };
    }
    Ok((items, unread))
}
