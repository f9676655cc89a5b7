//! Directories that a task's outputs are sent to. Their home is the task's node: it records the receivers, and forgets
//! none of them until everything is sent.

use crate::store::core::Store;
use s4::error::Result;
use s4::key::Dir;
use s4::placement::NodeId;
use std::sync::Arc;

/// Guard of the sender: until it is dropped, the nodes that receive outputs in a directory stay recorded.
pub struct Receivers {
    store: Arc<Store>,
    dir: Dir,
    receivers: Vec<NodeId>,
    is_done: bool,
}

/// Guard of a receiver: until it is dropped, this node answers that it holds the directory. If its copy is empty then,
/// it is removed.
pub struct Receiving {
    store: Arc<Store>,
    dir: Dir,
}

impl Receiving {
    pub fn dir(&self) -> &Dir {
        &self.dir
    }
}

impl Drop for Receiving {
    fn drop(&mut self) {
        self.store.leave_turn(&self.dir);
        self.store.prune_unused(&self.store.dir_path(&self.dir).join("any"));
    }
}

impl Store {
    /// At the home of `dir`: records the nodes that are about to receive outputs in it.
    pub fn begin_sending(self: &Arc<Self>, dir: Dir, receivers: &[NodeId]) -> Result<Receivers> {
        self.dirs.lock().sending.entry(dir.as_str().to_owned()).or_default().count += 1;
        let sending = Receivers { store: self.clone(), dir, receivers: receivers.to_vec(), is_done: false };
        self.enter_all(&sending.dir, receivers)?;
        Ok(sending)
    }

    /// Makes a copy of `dir`, whose home has recorded this node as a holder and sends outputs in it. `is_sending` is
    /// called once this node answers that it holds `dir`. It checks that the sender is still there: a home that has
    /// given up may have forgotten this node.
    pub fn begin_receiving(self: &Arc<Self>, dir: Dir, is_sending: impl FnOnce() -> Result<()>) -> Result<Receiving> {
        self.enter_turn(&dir);
        let receiving = Receiving { store: self.clone(), dir };
        is_sending()?;
        if let Some((parent, _)) = receiving.dir.as_str().rsplit_once('/') {
            self.hold_dir(&Dir::try_from(parent.to_owned())?, None)?;
        }
        self.make_copy(&receiving.dir)?;
        Ok(receiving)
    }
}

impl Receivers {
    /// Everything was sent. Without this call, the receivers are asked after the drop: some may hold nothing.
    pub fn end(mut self) {
        self.is_done = true;
    }
}

impl Drop for Receivers {
    fn drop(&mut self) {
        let mut table = self.store.dirs.lock();
        // An answer of a receiver may be older than its copy.
        table.void_answers(&self.dir, &self.receivers);
        let Some(sending) = table.sending.get_mut(self.dir.as_str()) else { return };
        sending.asked |= !self.is_done;
        sending.count -= 1;
        if sending.count == 0 && table.sending.remove(self.dir.as_str()).is_some_and(|sending| sending.asked) {
            table.left.insert(self.dir.as_str().to_owned());
            drop(table);
            self.store.settle_soon();
        }
    }
}
