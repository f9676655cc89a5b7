//! `s4 cp` of several files, and `s4 cp -r` of trees: one thread walks the tree and fills a queue for each node.

use super::report::{Counts, Report, is_of_lost_node};
use super::walk::{Files, Item, shown};
use crate::commands::warning::skew_text;
use s4::client::{Client, Puts, blocking};
use s4::error::{Error, ErrorKind, ExitStatus, Result};
use s4::error_summary::Errors;
use s4::placement::NodeId;
use std::fs::File;
use std::sync::Arc;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::{JoinError, JoinSet};

/// Files that may wait in a node's queue.
const QUEUE: usize = 1024;
/// Keys that are sent in a row before other connections get their turn.
const PACK: usize = 512;
/// Limit of simultaneous exchanges.
const AT_ONCE: usize = 16;
/// Limit of simultaneous lookups on a node.
const LOOKED_UP: usize = 16;

/// Copies `files`. Checks every name before anything is sent.
pub async fn copy(client: &Client, files: Files, skip_existing: bool) -> Result<ExitStatus> {
    let mut report = Report::start(skip_existing);
    let (surveyed, cluster) = (files.clone(), client.clone());
    let survey = blocking(move || surveyed.survey(&cluster)).await;
    survey.check(&report)?;
    let all = survey.tally.spread().all();
    if all.keys == 0 {
        let sources: Vec<String> = files.roots.iter().map(|root| shown(&root.path)).collect();
        return Err(Error::new(ErrorKind::NotFound, format!("{}: no file in it to copy", sources.join(", "))));
    }
    if let Some((skew, example)) = survey.tally.spread().skew() {
        report.print_above(skew_text(&skew, example));
    }
    let _ = report.counts.all.set((all.keys, all.bytes));
    let mut senders: JoinSet<Errors> = JoinSet::new();
    let queues = start_senders(client, &report.counts, skip_existing, &mut senders);
    let cluster = client.clone();
    let walk = tokio::task::spawn_blocking(move || walk(&files, &cluster, &queues));
    while let Some(sent) = senders.join_next().await {
        report.fail_all(sent.unwrap_or_else(|e| Errors::from(broken(&e))));
        if report.is_lost() {
            return report.finish();
        }
    }
    if let Err(error) = walk.await.unwrap_or_else(|e| Err(broken(&e))) {
        report.fail(error);
    }
    report.finish()
}

fn broken(error: &JoinError) -> Error {
    Error::new(ErrorKind::Io, error.to_string())
}

/// Starts a queue for each node, and the tasks that send its items.
fn start_senders(
    client: &Client,
    counts: &Arc<Counts>,
    skip_existing: bool,
    senders: &mut JoinSet<Errors>,
) -> Vec<mpsc::Sender<Item>> {
    let turns = Arc::new(Semaphore::new(AT_ONCE));
    let mut queues = Vec::new();
    for node in client.cluster().ids() {
        let (queue, mut items) = mpsc::channel(QUEUE);
        queues.push(queue);
        if skip_existing {
            let (new, only_new) = mpsc::channel(QUEUE);
            senders.spawn(pass_new(client.clone(), items, new, counts.clone()));
            items = only_new;
        }
        let sender = Sender { client: client.clone(), node, counts: counts.clone(), turns: turns.clone() };
        senders.spawn(sender.send_all(items));
    }
    queues
}

fn walk(files: &Files, client: &Client, queues: &[mpsc::Sender<Item>]) -> Result<()> {
    for item in files.items() {
        let item = item.map_err(|why| Error::new(ErrorKind::Io, why))?;
        let node = client.cluster().node_of(&item.key);
        // The queue is closed after the node has failed; that error was reported.
        let _ = queues[node].blocking_send(item);
    }
    Ok(())
}

/// Passes on the items that do not exist as keys, possibly in another order.
async fn pass_new(
    client: Client,
    mut items: mpsc::Receiver<Item>,
    new: mpsc::Sender<Item>,
    counts: Arc<Counts>,
) -> Errors {
    let (mut looked_up, mut errors) = (JoinSet::new(), Errors::default());
    loop {
        let found: Option<(Item, Result<bool>)> = tokio::select! {
            item = items.recv(), if looked_up.len() < LOOKED_UP => match item {
                Some(item) => {
                    let client = client.clone();
                    looked_up.spawn(async move {
                        // A directory with this name is no key. The put will fail and report it.
                        let found = client.find_key(&item.key).await;
                        (item, found.map(|found| found.is_some()))
                    });
                    continue;
                }
                None => match looked_up.join_next().await {
                    Some(found) => found.ok(),
                    None => return errors,
                },
            },
            Some(found) = looked_up.join_next() => found.ok(),
        };
        match found {
            Some((item, Ok(true))) => counts.add_existing(item.len),
            Some((item, Ok(false))) => {
                // The sender has failed and reported its error.
                let _ = new.send(item).await;
            }
            // Nothing more can be sent to a node that is lost. Any other error is of this key alone.
            Some((_, Err(error))) => {
                let is_lost = is_of_lost_node(&error);
                errors.add(error);
                if is_lost {
                    return errors;
                }
            }
            None => errors.add(Error::new(ErrorKind::Io, "the lookup of a key has failed")),
        }
    }
}

struct Sender {
    client: Client,
    node: NodeId,
    counts: Arc<Counts>,
    turns: Arc<Semaphore>,
}

impl Sender {
    /// Sends the items of the queue, one batch at a time, until it is closed. Returns the errors.
    async fn send_all(self, mut items: mpsc::Receiver<Item>) -> Errors {
        let mut errors = Errors::default();
        while let Some(first) = items.recv().await {
            let _turn = self.turns.acquire().await;
            let counts = self.counts.copied.clone();
            let send = move |puts: &mut Puts| {
                puts.count_in(counts);
                send_pack(puts, first, items)
            };
            let (sent, answers) = self.client.put_many(self.node, None, send).await;
            errors.append(answers.errors);
            match sent {
                Ok((rest, unread)) => {
                    items = rest;
                    errors.append(unread);
                }
                Err(error) => {
                    errors.add(error);
                    break;
                }
            }
        }
        errors
    }
}

type Sent = (mpsc::Receiver<Item>, Errors);

/// Sends `first` and the items that wait in the queue. Never waits for more.
fn send_pack(puts: &mut Puts, first: Item, mut items: mpsc::Receiver<Item>) -> Result<Sent> {
    let mut unread = Errors::default();
    let mut next = Some(first);
    let mut count = 0;
    while let Some(item) = next {
        let shown = item.path.display().to_string();
        match File::open(&item.path).and_then(|file| Ok((file.metadata()?.len(), file))) {
            Ok((len, file)) => puts.put(&item.key, file, len, &shown)?.unwrap_or_else(|error| unread.add(error)),
            Err(error) => unread.add(Error::io(shown, &error)),
        }
        count += 1;
        next = if count < PACK { items.try_recv().ok() } else { None };
    }
    Ok((items, unread))
}
