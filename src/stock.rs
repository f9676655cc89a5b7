//! Things that are made ahead, on a thread of their own, so that whoever wants one need not wait while it is made.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// How many are made ahead, and how many may be left when more are made: seldom, since to wake the thread costs too.
const FULL: usize = 12;
const LOW: usize = 4;

/// A stock of `T`. Its thread ends with it.
pub struct Stock<T>(Arc<Shelf<T>>);

struct Shelf<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
}

/// Guards what is ready, and what the thread is to do.
struct State<T> {
    ready: Vec<T>,
    wanted: bool,
    ended: bool,
}

impl<T: Send + 'static> Stock<T> {
    /// An empty one. `make` makes one more, where it can.
    pub fn new(name: &str, make: impl FnMut() -> Option<T> + Send + 'static) -> Self {
        let state = State { ready: Vec::with_capacity(FULL), wanted: false, ended: false };
        let shelf = Arc::new(Shelf { state: Mutex::new(state), changed: Condvar::new() });
        let kept = shelf.clone();
        // Without a thread the stock stays empty.
        let _ = std::thread::Builder::new().name(name.to_owned()).spawn(move || kept.fill(make));
        Self(shelf)
    }

    /// One of those made ahead. `None` if there is none: more are on their way then.
    pub fn take(&self) -> Option<T> {
        let mut state = self.0.lock();
        let taken = state.ready.pop();
        if state.ready.len() <= LOW && !state.wanted {
            state.wanted = true;
            self.0.changed.notify_one();
        }
        taken
    }
}

impl<T> Drop for Stock<T> {
    fn drop(&mut self) {
        self.0.lock().ended = true;
        self.0.changed.notify_one();
    }
}

impl<T> Shelf<T> {
    /// What the thread does.
    fn fill(&self, mut make: impl FnMut() -> Option<T>) {
        let mut state = self.lock();
        while !state.ended {
            if !state.wanted {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            drop(state);
            let made = make();
            state = self.lock();
            state.wanted = made.is_some() && state.ready.len() + 1 < FULL;
            state.ready.extend(made);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
