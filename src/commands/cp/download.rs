//! `s4 cp -r` to a local tree, and `s4 cp` of several keys. Many keys are fetched in one exchange, from all nodes at
//! the same time.

use super::draft::Draft;
use super::exclude::Exclude;
use super::file::get_draft;
use super::report::{Counts, Report, is_of_lost_node};
use super::sources::{Counting, Keys, Source};
use bytes::BytesMut;
use s4::client::{Client, Fetched, FetchedItem, TRIES, blocking};
use s4::error::{Error, ErrorKind, ExitStatus, Result};
use s4::key::Key;
use s4::placement::NodeId;
use std::collections::{BTreeMap, VecDeque};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::task::JoinSet;

/// Limit of simultaneous exchanges.
const AT_ONCE: usize = 8;
/// Keys per request.
const PACK_KEYS: usize = 256;
/// A request is sent when it has keys of this many bytes, so that large keys are fetched in parallel.
const PACK_BYTES: u64 = 64 << 20;

/// Copies the keys of `sources` to their paths below `dst`.
pub async fn copy(
    client: &Client,
    sources: Vec<Source>,
    dst: &Path,
    exclude: &Exclude,
    skip_existing: bool,
) -> Result<ExitStatus> {
    if dst.exists() && !dst.is_dir() {
        return Err(Error::new(ErrorKind::Io, format!("{}: is no directory, and cannot take a tree", dst.display())));
    }
    let report = Report::start(skip_existing);
    let _counting = Counting::start(client, &sources, exclude, &report);
    let mut keys = Keys::new(client, sources, exclude.clone());
    let target = Arc::new(Target { skip_existing, counts: report.counts.clone(), ended: AtomicBool::new(false) });
    let mut fetches = Fetches { client: client.clone(), target, running: JoinSet::new(), report };
    let mut waiting: BTreeMap<NodeId, (Vec<Wanted>, u64)> = BTreeMap::new();
    while !fetches.report.is_lost() {
        let found = match keys.next().await {
            Ok(Some(found)) => found,
            Ok(None) => break,
            Err(error) => {
                fetches.report.fail(error);
                continue;
            }
        };
        let wanted = Wanted { path: dst.join(found.below()), key: found.key };
        if skip_existing && wanted.path.symlink_metadata().is_ok() && !wanted.path.is_dir() {
            fetches.report.counts.add_existing(found.size);
            continue;
        }
        let node = client.cluster().node_of(&wanted.key);
        let (pack, bytes) = waiting.entry(node).or_default();
        pack.push(wanted);
        *bytes += found.size;
        if pack.len() >= PACK_KEYS || *bytes >= PACK_BYTES {
            fetches.start(node, std::mem::take(pack)).await;
            *bytes = 0;
        }
    }
    for (node, (pack, _)) in waiting {
        if !fetches.report.is_lost() {
            fetches.start(node, pack).await;
        }
    }
    fetches.finish().await
}

/// A key and the path of its file.
struct Wanted {
    key: Key,
    path: PathBuf,
}

/// The destination, and the counters.
struct Target {
    /// If a file of the name exists now, it is left as it is.
    skip_existing: bool,
    counts: Arc<Counts>,
    /// No more keys are wanted; incomplete ones are dropped.
    ended: AtomicBool,
}

impl Target {
    fn keep(&self, draft: Draft, path: &Path) -> Result<()> {
        let kept = match self.skip_existing {
            true => draft.keep_new(path)?,
            false => draft.keep(path).map(|()| true)?,
        };
        match kept {
            true => self.counts.add_key(),
            false => self.counts.add_existing(0),
        }
        Ok(())
    }
}

struct Fetches {
    client: Client,
    target: Arc<Target>,
    running: JoinSet<Vec<Error>>,
    report: Report,
}

impl Fetches {
    /// Starts to fetch keys, once fewer than [`AT_ONCE`] exchanges are running.
    async fn start(&mut self, node: NodeId, keys: Vec<Wanted>) {
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
        self.report.finish()
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
            self.report.fail(error);
        }
        self.target.ended.store(self.report.is_lost(), Ordering::Relaxed);
    }
}

/// Fetches keys of `node`. If the connection breaks, fetches again from the first missing key. Returns the errors.
async fn fetch(client: &Client, node: NodeId, wanted: Vec<Wanted>, target: &Arc<Target>) -> Vec<Error> {
    let (mut errors, mut tries) = (Vec::new(), TRIES);
    let mut wanted = VecDeque::from(wanted);
    loop {
        let keys: Vec<Key> = wanted.iter().map(|wanted| wanted.key.clone()).collect();
        let pack = match client.get_many(node, &keys).await {
            Ok(pack) => pack,
            Err(error) => {
                errors.push(error);
                return errors;
            }
        };
        let (to, still) = (target.clone(), wanted);
        let (left, came, mut failed) = blocking(move || receive(pack, still, &to)).await;
        wanted = left;
        tries = if came { TRIES } else { tries - 1 };
        let is_again = failed.pop_if(|last| last.is_of_broken_connection() && tries > 0).is_some();
        for error in &failed {
            // Mark the node, so that the next request does not wait for a silent node again.
            let _ = client.noting::<()>(node, Err(error.clone()));
        }
        errors.extend(failed);
        if !is_again {
            return errors;
        }
        if !came && let Some(Wanted { key, path }) = wanted.pop_front() {
            // This key may be why the connection broke. If it is fetched alone, its node can report the reason.
            let got = match get_draft(client, &key, &path).await {
                Ok(draft) => target.keep(draft, &path),
                Err(error) => Err(error),
            };
            let is_lost = got.as_ref().is_err_and(is_of_lost_node);
            errors.extend(got.err());
            if is_lost {
                return errors;
            }
        }
        if wanted.is_empty() {
            return errors;
        }
    }
}

/// Writes keys to files; they arrive in the order of `wanted`. Returns the keys that did not arrive, whether any did,
/// and the errors.
fn receive(mut pack: Fetched, mut wanted: VecDeque<Wanted>, target: &Target) -> (VecDeque<Wanted>, bool, Vec<Error>) {
    let (mut errors, mut came, mut buffer) = (Vec::new(), false, BytesMut::new());
    let mut open: Option<Result<Draft>> = None;
    while !target.ended.load(Ordering::Relaxed) {
        match pack.next_item(&mut buffer) {
            Ok(Some(FetchedItem::Begin(_))) => {
                open = wanted.front().map(|wanted| Draft::beside(&wanted.path));
            }
            Ok(Some(FetchedItem::Piece(bytes))) => {
                target.counts.add_bytes(bytes.len() as u64);
                if let (Some(draft), Some(Wanted { path, .. })) = (&mut open, wanted.front())
                    && let Ok(file) = draft
                    && let Err(error) = file.write_all(&bytes)
                {
                    *draft = Err(Error::io(path.display(), &error));
                }
            }
            Ok(Some(FetchedItem::Whole)) => {
                came = true;
                if let (Some(draft), Some(Wanted { path, .. })) = (open.take(), wanted.pop_front()) {
                    errors.extend(draft.and_then(|draft| target.keep(draft, &path)).err());
                }
            }
            Ok(Some(FetchedItem::Failed(error))) => {
                came = true;
                open = None;
                wanted.pop_front();
                errors.push(error);
            }
            Ok(None) => {
                pack.finish();
                break;
            }
            Err(error) => {
                errors.push(error);
                break;
            }
        }
    }
    (wanted, came, errors)
}
