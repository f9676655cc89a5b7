//! A pool of values that a thread creates in advance, so that taking one need not wait for its creation.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How many values are created in advance, and how few must be left before the pool is refilled. Refilling is rare,
/// since waking the thread costs time.
const FULL: usize = 12;
const LOW: usize = 4;

/// The pause after a value could not be created.
const FAILED: Duration = Duration::from_secs(1);

/// A pool of `T`. Its thread ends when it is dropped.
pub struct Pool<T>(Arc<Shelf<T>>);

struct Shelf<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
}

/// Guards the ready values, and the orders to the thread.
struct State<T> {
    ready: Vec<T>,
    wanted: bool,
    ended: bool,
    failed: Option<Instant>,
}

impl<T: Send + 'static> Pool<T> {
    /// An empty pool. `make` creates a value, if it can.
    pub fn new(name: &str, make: impl FnMut() -> Option<T> + Send + 'static) -> Self {
        let state = State { ready: Vec::with_capacity(FULL), wanted: false, ended: false, failed: None };
        let shelf = Arc::new(Shelf { state: Mutex::new(state), changed: Condvar::new() });
        let kept = shelf.clone();
        // Without a thread the pool stays empty.
        let _ = std::thread::Builder::new().name(name.to_owned()).spawn(move || kept.fill(make));
        Self(shelf)
    }

    /// Takes a value. `None` if there is none: then more are being created, if they can.
    pub fn take(&self) -> Option<T> {
        let mut state = self.0.lock();
        let taken = state.ready.pop();
        let may_be_made = state.failed.is_none_or(|at| at.elapsed() > FAILED);
        if state.ready.len() <= LOW && !state.wanted && may_be_made {
            state.wanted = true;
            self.0.changed.notify_one();
        }
        taken
    }
}

impl<T> Drop for Pool<T> {
    fn drop(&mut self) {
        self.0.lock().ended = true;
        self.0.changed.notify_one();
    }
}

impl<T> Shelf<T> {
    /// The loop of the thread.
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
            state.failed = if made.is_some() { None } else { Some(Instant::now()) };
            state.wanted = made.is_some() && state.ready.len() + 1 < FULL;
            state.ready.extend(made);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn more_are_made_when_few_are_left() {
        let (tell, made) = mpsc::channel();
        let mut number = 0;
        let pool = Pool::new("test", move || {
            number += 1;
            tell.send(number).ok()?;
            Some(number)
        });
        assert_eq!(pool.take(), None, "none was wanted before");
        assert_eq!(made.iter().take(FULL).max(), Some(FULL));
        // The value is put into the pool after `make` has reported it.
        let mut taken: Vec<usize> = std::iter::repeat_with(|| pool.take()).flatten().take(FULL).collect();
        assert!(made.recv().is_ok_and(|next| next > FULL), "it was wanted again");
        taken.sort_unstable();
        taken.dedup();
        assert_eq!(taken.len(), FULL, "each is given to one");
        drop(pool);
        // Ends with the thread, which may create some more first.
        assert!(made.iter().count() <= 2 * FULL);
    }

    #[test]
    fn what_cannot_be_made_is_not_tried_at_each_question() {
        let (tell, tried) = mpsc::channel();
        let pool = Pool::<()>::new("test", move || {
            let _ = tell.send(());
            None
        });
        assert_eq!(pool.take(), None);
        tried.recv().unwrap();
        while pool.0.lock().wanted {
            std::thread::yield_now();
        }
        assert_eq!(pool.take(), None);
        assert!(!pool.0.lock().wanted);
    }
}
