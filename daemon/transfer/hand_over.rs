//! Outputs for a node of the same machine: sealed here, and linked there.

use super::{Output, Transfers};
use crate::jobs::Job;
use crate::store::Store;
use s4::attribute::Mark;
use s4::client::blocking;
use s4::error::{Error, ErrorKind, Result};
use s4::placement::NodeId;
use s4::protocol::{Delivery, HandedOver, Handover};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Outputs and bytes in one exchange: few enough that also a node that syncs each to a slow disk answers in time.
const AT_ONCE: usize = 64;
const BYTES_AT_ONCE: u64 = 64 << 20;
/// A node that links nothing is asked again after this.
const ASKED_AGAIN: Duration = Duration::from_secs(60);

/// Guards whether a node links files of this one, and when it said so; nothing until it was asked.
#[derive(Default)]
pub struct Links(Mutex<Option<(bool, Instant)>>);

impl Links {
    fn known(&self) -> Option<bool> {
        let said = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        said.filter(|(links, at)| *links || at.elapsed() < ASKED_AGAIN).map(|(links, _)| links)
    }

    fn note(&self, links: bool) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((links, Instant::now()));
    }
}

impl Transfers {
    /// Has `node` link what it can. Returns how many outputs it did, and which are left to be sent.
    pub(super) async fn hand_over(
        &self,
        node: NodeId,
        job: &Job,
        delivery: &Delivery,
        group: Vec<Output>,
    ) -> (u64, Result<Vec<Output>>) {
        let (mut linked, mut left) = (0, Vec::new());
        let mut waiting = group.into_iter().peekable();
        while waiting.peek().is_some() {
            match self.is_linked_by(node, delivery).await {
                Ok(true) => {}
                Ok(false) => {
                    left.extend(waiting);
                    break;
                }
                Err(error) => return (linked, Err(error)),
            }
            let mut bytes = 0;
            let part = std::iter::from_fn(|| {
                let output = waiting.next_if(|output| bytes == 0 || bytes + output.len <= BYTES_AT_ONCE)?;
                bytes += output.len;
                Some(output)
            });
            let part = part.take(AT_ONCE).collect();
            let (published, unlinked) = self.hand_over_part(node, job, delivery, (part, bytes)).await;
            linked += published;
            match unlinked {
                Ok(unlinked) => left.extend(unlinked),
                Err(error) => return (linked, Err(error)),
            }
        }
        (linked, Ok(left))
    }

    /// The same of a few outputs, and of how many bytes they have together.
    async fn hand_over_part(
        &self,
        node: NodeId,
        job: &Job,
        delivery: &Delivery,
        (part, bytes): (Vec<Output>, u64),
    ) -> (u64, Result<Vec<Output>>) {
        let (store, mark) = (self.0.store.clone(), job.mark(delivery.inputs, delivery.outputs));
        let (outputs, sealed, mut left) = match blocking(move || seal(&store, mark, part)).await {
            Ok(sealed) => sealed,
            Err(error) => return (0, Err(error)),
        };
        if outputs.is_empty() {
            return (0, Ok(left));
        }
        // The node may have to write all of it to the disk before it answers.
        match self.0.client.patient(bytes).hand_over(node, delivery, &self.handover(outputs)).await {
            Ok(answer) => (answer.published, self.first_refusal(node, answer).map(|()| left)),
            Err(error) if error.kind() == ErrorKind::BadRequest => {
                self.no_links(node, &error);
                left.extend(sealed);
                (0, Ok(left))
            }
            Err(error) => (0, Err(error)),
        }
    }

    fn handover(&self, outputs: Vec<HandedOver>) -> Handover {
        Handover { from: self.0.node, token: self.0.store.token().to_owned(), outputs }
    }

    /// True if `node` is on this machine and links this one's files.
    async fn is_linked_by(&self, node: NodeId, delivery: &Delivery) -> Result<bool> {
        if let Some(links) = self.0.ways[node].links.known() {
            return Ok(links);
        }
        match self.0.client.hand_over(node, delivery, &self.handover(Vec::new())).await {
            Ok(_) => {
                self.0.ways[node].links.note(true);
                Ok(true)
            }
            Err(error) if error.kind() == ErrorKind::BadRequest => {
                self.no_links(node, &error);
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    fn no_links(&self, node: NodeId, why: &Error) {
        tracing::debug!("outputs are sent: {why}");
        self.0.ways[node].links.note(false);
    }
}

/// Seals what can be. Returns what is told of those outputs, themselves, and the others.
fn seal(store: &Store, mark: Mark, part: Vec<Output>) -> Result<(Vec<HandedOver>, Vec<Output>, Vec<Output>)> {
    let (mut told, mut sealed, mut left) = (Vec::new(), Vec::new(), Vec::new());
    let tasks = store.tasks_dir();
    for output in part {
        let path = output.path.strip_prefix(&tasks).ok().and_then(Path::to_str).map(str::to_owned);
        let (file, is_itself) = output.open_whole()?;
        let path = path.filter(|_| is_itself);
        let as_key = if path.is_some() { store.seal(&file, &output.key, mark)? } else { None };
        match (path, as_key) {
            (Some(path), Some(as_key)) => {
                let key = output.key.clone();
                told.push(HandedOver { path, inode: as_key.inode, key, checksum: as_key.checksum });
                sealed.push(output);
            }
            _ => left.push(output),
        }
    }
    Ok((told, sealed, left))
}
