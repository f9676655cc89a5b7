//! Outputs for a node of the same machine: sealed here, and linked there.

use super::{Output, Transfers};
use crate::jobs::owner_of;
use crate::store::Store;
use s4::client::blocking;
use s4::error::{Error, ErrorKind, Result};
use s4::placement::NodeId;
use s4::protocol::{HandedOver, Handover, JobId};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

/// Outputs in one exchange: few enough that also a node that syncs each to a slow disk answers in time.
const AT_ONCE: usize = 64;

/// Whether a node links files of this one; unknown until it was asked.
#[derive(Default)]
pub struct Links(Mutex<Option<bool>>);

impl Links {
    fn get(&self) -> Option<bool> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, links: bool) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(links);
    }
}

/// An output that has all of a key but its name.
struct Sealed {
    output: Output,
    handed: HandedOver,
}

impl Transfers {
    /// Has `node` link what it can. Returns how many outputs it did, and which are left to be sent.
    pub(super) async fn hand_over(&self, node: NodeId, job: &JobId, group: Vec<Output>) -> (u64, Result<Vec<Output>>) {
        if !self.is_linked_by(node, job).await {
            return (0, Ok(group));
        }
        let (store, owner) = (self.0.store.clone(), owner_of(job));
        let (mut sealed, mut left) = match blocking(move || seal(&store, owner, group)).await {
            Ok(sealed) => sealed,
            Err(error) => return (0, Err(error)),
        };
        let mut linked = 0;
        while !sealed.is_empty() {
            let rest = sealed.split_off(sealed.len().min(AT_ONCE));
            let outputs = sealed.iter().map(|sealed| sealed.handed.clone()).collect();
            match self.0.client.hand_over(node, job, &Handover { from: self.0.node, outputs }).await {
                Ok(answer) => {
                    linked += answer.published;
                    if let Err(error) = self.first_refusal(node, answer) {
                        return (linked, Err(error));
                    }
                    sealed = rest;
                }
                Err(error) if error.kind() == ErrorKind::BadRequest => {
                    self.no_more_links(node, &error);
                    left.extend(sealed.into_iter().chain(rest).map(|sealed| sealed.output));
                    break;
                }
                Err(error) => return (linked, Err(error)),
            }
        }
        (linked, Ok(left))
    }

    /// True if `node` is on this machine and links this one's files. One that cannot be asked now is asked the next time.
    async fn is_linked_by(&self, node: NodeId, job: &JobId) -> bool {
        let links = &self.0.ways[node].links;
        if let Some(links) = links.get() {
            return links;
        }
        let nothing = Handover { from: self.0.node, outputs: Vec::new() };
        match self.0.client.hand_over(node, job, &nothing).await {
            Ok(_) => links.set(true),
            Err(error) if error.kind() == ErrorKind::BadRequest => self.no_more_links(node, &error),
            Err(_) => {}
        }
        links.get().unwrap_or(false)
    }

    fn no_more_links(&self, node: NodeId, why: &Error) {
        tracing::debug!("outputs are sent: {why}");
        self.0.ways[node].links.set(false);
    }
}

/// Seals what can be; the second are those that cannot.
fn seal(store: &Store, owner: u64, group: Vec<Output>) -> Result<(Vec<Sealed>, Vec<Output>)> {
    let (mut sealed, mut left) = (Vec::new(), Vec::new());
    let tasks = store.tasks_dir();
    for output in group {
        let path = output.path.strip_prefix(&tasks).ok().and_then(Path::to_str).map(str::to_owned);
        match (path, store.seal(&output.path, owner)?) {
            (Some(path), Some(checksum)) => {
                let handed = HandedOver { path, key: output.key.clone(), checksum };
                sealed.push(Sealed { output, handed });
            }
            _ => left.push(output),
        }
    }
    Ok((sealed, left))
}
