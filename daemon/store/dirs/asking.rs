//! A home decides whether a directory is still held: it asks the holders, and decides once they have answered.

use super::copies::is_empty;
use crate::store::core::Store;
use crate::store::errors::{failed, failed_io};
use nix::errno::Errno;
use s4::directory::DirRecord;
use s4::error::Result;
use s4::key::Dir;
use s4::placement::NodeId;
use std::collections::BTreeSet;

/// A round of asking the holders of a directory. If it is dropped before [`end`](Self::end), their answers are ignored.
pub struct Asking<'s> {
    store: &'s Store,
    dir: Dir,
    number: u64,
    pub holders: BTreeSet<NodeId>,
}

/// Result of a round.
pub enum Settled {
    /// The directory is removed.
    Gone,
    /// It stays.
    Stays,
    /// A node that let it go has entered again meanwhile, and may have left since: the holders must be asked again.
    Unsure,
}

impl Store {
    /// At the home of `dir`: begins a round of asking its holders. `None` if it does not exist.
    pub fn begin_asking(&self, dir: &Dir) -> Result<Option<Asking<'_>>> {
        self.at_home(dir)?;
        let mut table = self.dirs.lock();
        let path = self.dir_path(dir);
        if !self.has_copy(&path) {
            return self.check_there().map(|()| None);
        }
        let mut holders = DirRecord::read(&path).map_err(|e| self.unreadable(dir, &e))?.holders;
        // Nodes that have left the cluster, or that a damaged record names, cannot be asked.
        holders.retain(|&holder| holder < self.nodes);
        if !is_empty(&path) {
            // It stays in any case.
            holders.clear();
        }
        table.asked += 1;
        let number = table.asked;
        table.asking.entry(dir.as_str().to_owned()).or_default().insert(number, BTreeSet::new());
        Ok(Some(Asking { store: self, dir: dir.clone(), number, holders }))
    }
}

impl Asking<'_> {
    /// Forgets the holders that `let_go`, and removes the directory if no holder is left. A directory made by mkdir
    /// stays, unless `even_made`.
    pub fn end(self, let_go: &[NodeId], even_made: bool) -> Result<Settled> {
        let mut table = self.store.dirs.lock();
        if let Some(sending) = table.sending.get_mut(self.dir.as_str()) {
            sending.asked = true;
            return Ok(Settled::Stays);
        }
        let asking = table.asking.get(self.dir.as_str()).and_then(|asking| asking.get(&self.number));
        let entered = |node: &NodeId| asking.is_some_and(|entered| entered.contains(node));
        if let_go.iter().any(entered) {
            return Ok(Settled::Unsure);
        }
        let path = self.store.dir_path(&self.dir);
        if !self.store.has_copy(&path) {
            return Ok(Settled::Gone);
        }
        let mut rest = DirRecord::default();
        self.store.update(&self.dir, |record| {
            let before = record.holders.len();
            let_go.iter().for_each(|node| _ = record.holders.remove(node));
            // Nodes that have left the cluster, or that a damaged record names.
            record.holders.retain(|&holder| holder < self.store.nodes);
            rest = record.clone();
            record.holders.len() != before
        })?;
        if !rest.holders.is_empty() || (rest.made && !even_made) {
            return Ok(Settled::Stays);
        }
        let removed = self.store.remove_copy(&path);
        drop(table);
        match removed {
            // One that mkdir made comes back by itself if its removal is lost; others are asked about after a kill.
            Ok(()) if even_made => {
                self.store.sync_above(&path).map_err(|e| failed_io(&self.dir, &e)).map(|()| Settled::Gone)
            }
            Ok(()) | Err(Errno::ENOENT) => Ok(Settled::Gone),
            Err(Errno::ENOTEMPTY) => Ok(Settled::Stays),
            Err(errno) => Err(failed(&self.dir, errno)),
        }
    }
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        let mut table = self.store.dirs.lock();
        if let Some(asking) = table.asking.get_mut(self.dir.as_str()) {
            asking.remove(&self.number);
            if asking.is_empty() {
                table.asking.remove(self.dir.as_str());
            }
        }
    }
}
