//! A pool of idle connections to one node. It never opens a connection itself; it says when one should be opened for
//! threads that may wait a moment.

use crate::wire::{Connection, IDLE};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The most idle connections.
const MAX_IDLE: usize = 8;
/// How long an idle connection is kept: half as long as the node keeps it.
const IDLE_TIMEOUT: Duration = Duration::from_secs(IDLE.as_secs() / 2);
/// A connection is opened if a second request to the node comes within this time.
const BUSY: Duration = Duration::from_millis(100);
/// How long no connection is opened after the node has refused one.
const REFUSED: Duration = Duration::from_secs(10);

/// The idle connections to one node.
#[derive(Default)]
pub struct Pool(Mutex<State>);

#[derive(Default)]
struct State {
    idle: Vec<Idle>,
    /// When a thread that may wait last found no idle connection.
    missed: Option<Instant>,
    refused: Option<Instant>,
    /// True while a connection is being opened for such threads.
    is_opening: bool,
    /// True while a task closes connections that are idle for too long.
    is_sweeping: bool,
}

struct Idle {
    connection: Connection,
    since: Instant,
}

impl Pool {
    /// An idle connection, and how long it has been idle.
    pub fn take(&self) -> Option<(Connection, Duration)> {
        let mut state = self.lock();
        while let Some(Idle { connection, since }) = state.idle.pop() {
            let idle = since.elapsed();
            if idle < IDLE_TIMEOUT && connection.is_quiet() {
                return Some((connection, idle));
            }
        }
        None
    }

    /// Records that a thread which may wait a moment found no connection. True if the caller should open one.
    pub fn should_open(&self) -> bool {
        let mut state = self.lock();
        let again = state.missed.replace(Instant::now()).is_some_and(|then| then.elapsed() < BUSY);
        let refused = state.refused.is_some_and(|then| then.elapsed() < REFUSED);
        again && !refused && !std::mem::replace(&mut state.is_opening, true)
    }

    /// Keeps a connection whose requests are all answered. True if the caller must start a task that
    /// [sweeps](Self::sweep).
    pub fn keep(&self, connection: Connection) -> bool {
        let mut state = self.lock();
        if state.idle.len() >= MAX_IDLE || !connection.is_quiet() {
            return false;
        }
        state.idle.push(Idle { connection, since: Instant::now() });
        !std::mem::replace(&mut state.is_sweeping, true)
    }

    /// Closes connections that are idle for too long, until none is left.
    pub async fn sweep(&self) {
        loop {
            tokio::time::sleep(IDLE_TIMEOUT).await;
            let mut state = self.lock();
            state.idle.retain(|idle| idle.since.elapsed() < IDLE_TIMEOUT);
            state.is_sweeping = !state.idle.is_empty();
            if !state.is_sweeping {
                return;
            }
        }
    }

    /// What became of one that was [worth it](Self::should_open).
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
