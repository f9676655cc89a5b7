//! Notices when an input of a running n:1 task loses its name. Its command opens the inputs by their paths, next to the
//! verification of their checksums. If another key got the name in between, the two would read different keys.

use s4::key::Key;
use s4::pattern::Pattern;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

/// The inputs that are watched, and the names that are being taken away.
#[derive(Default)]
pub(super) struct Watches(Mutex<State>);

#[derive(Default)]
struct State {
    watched: Vec<Arc<Inputs>>,
    leaving: Vec<Key>,
}

/// The inputs of one task: the keys of this merge name in the directory.
struct Inputs {
    indir: Pattern,
    merge_name: String,
    /// The first of them that lost its name.
    gone: OnceLock<Key>,
}

impl Inputs {
    fn note(&self, leaving: &Key) {
        if leaving.merge_name() == self.merge_name && self.indir.matches(leaving) {
            self.gone.get_or_init(|| leaving.clone());
        }
    }
}

/// Watches the inputs of a task until dropped.
pub struct Watch<'s> {
    watches: &'s Watches,
    inputs: Arc<Inputs>,
}

impl Watch<'_> {
    /// An input that lost its name since the watch began.
    pub fn gone(&self) -> Option<&Key> {
        self.inputs.gone.get()
    }
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        self.watches.lock().watched.retain(|inputs| !Arc::ptr_eq(inputs, &self.inputs));
    }
}

/// A name that is taken away. Must be created before that happens, and dropped after it.
pub(super) struct Leaving<'s> {
    watches: &'s Watches,
    key: Option<Key>,
}

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        let mut state = self.watches.lock();
        if let Some(at) = state.leaving.iter().position(|key| Some(key) == self.key.as_ref()) {
            state.leaving.swap_remove(at);
        }
    }
}

impl Watches {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Watches the keys of a merge name in `indir`.
    pub fn watch(&self, indir: &Pattern, merge_name: &str) -> Watch<'_> {
        let inputs = Inputs { indir: indir.clone(), merge_name: merge_name.to_owned(), gone: OnceLock::new() };
        let inputs = Arc::new(inputs);
        let mut state = self.lock();
        // A removal that has begun may still be ahead.
        state.leaving.iter().for_each(|leaving| inputs.note(leaving));
        state.watched.push(inputs.clone());
        Watch { watches: self, inputs }
    }

    /// Reports that `key` is about to lose its name; `None` for a file that is no key.
    pub fn leaving(&self, key: Option<Key>) -> Leaving<'_> {
        if let Some(key) = &key {
            let mut state = self.lock();
            state.watched.iter().for_each(|inputs| inputs.note(key));
            state.leaving.push(key.clone());
        }
        Leaving { watches: self, key }
    }
}
