//! The connections with one node that nobody uses at the moment.

use crate::wire::{Connection, IDLE};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Connections that are kept though nobody uses them.
const MOST: usize = 8;
/// How long one is kept that nobody uses: half as long as the node does.
const KEPT: Duration = Duration::from_secs(IDLE.as_secs() / 2);
/// A node that is asked again within this time is worth a connection.
const AGAIN: Duration = Duration::from_millis(100);
/// How long a node is not asked for another after it refused one.
const REFUSED: Duration = Duration::from_secs(10);

/// The connections with one node that nobody uses.
#[derive(Default)]
pub struct Pool(Mutex<State>);

#[derive(Default)]
struct State {
    idle: Vec<Idle>,
    /// When there was none for a thread that could have waited.
    missed: Option<Instant>,
    refused: Option<Instant>,
    /// One is being opened for such threads.
    is_opening: bool,
    /// A task closes those that nobody uses for long.
    is_swept: bool,
}

struct Idle {
    connection: Connection,
    since: Instant,
}

impl Pool {
    pub fn take(&self) -> Option<Connection> {
        let mut state = self.lock();
        while let Some(Idle { connection, since }) = state.idle.pop() {
            if since.elapsed() < KEPT && connection.is_quiet() {
                return Some(connection);
            }
        }
        None
    }

    /// True if it is time to open one for threads that may wait a moment: then the caller is to do so.
    pub fn is_worth_one(&self) -> bool {
        let mut state = self.lock();
        let again = state.missed.replace(Instant::now()).is_some_and(|then| then.elapsed() < AGAIN);
        let refused = state.refused.is_some_and(|then| then.elapsed() < REFUSED);
        again && !refused && !std::mem::replace(&mut state.is_opening, true)
    }

    /// Keeps a connection on which everything is answered. True if the caller is to have a task [sweep](Self::sweep) from now on.
    pub fn keep(&self, connection: Connection) -> bool {
        let mut state = self.lock();
        if state.idle.len() >= MOST || !connection.is_quiet() {
            return false;
        }
        state.idle.push(Idle { connection, since: Instant::now() });
        !std::mem::replace(&mut state.is_swept, true)
    }

    /// Closes those that nobody uses for long, until there are none.
    pub async fn sweep(&self) {
        loop {
            tokio::time::sleep(KEPT).await;
            let mut state = self.lock();
            state.idle.retain(|idle| idle.since.elapsed() < KEPT);
            state.is_swept = !state.idle.is_empty();
            if !state.is_swept {
                return;
            }
        }
    }

    /// What became of one that was [worth it](Self::is_worth_one).
    pub fn note_opened(&self, is_refused: bool) {
        let mut state = self.lock();
        state.is_opening = false;
        if is_refused {
            state.refused = Some(Instant::now());
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
