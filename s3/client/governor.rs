//! How many requests are under way at a time. Where the server answers that it is busy, they are halved; as it answers,
//! they grow again, one for each full round of answers.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// After a cut, answers to requests that were sent before it cut no more.
const SETTLE: Duration = Duration::from_millis(500);

pub struct Governor {
    most: f64,
    state: Mutex<State>,
    freed: Notify,
}

/// Guards the number of requests that may run, and that run.
struct State {
    limit: f64,
    running: usize,
    cut: Option<Instant>,
}

/// The right to send one request.
pub struct Permit(Arc<Governor>);

impl Governor {
    pub fn new(most: usize) -> Arc<Self> {
        let most = most.max(1) as f64;
        let state = Mutex::new(State { limit: most, running: 0, cut: None });
        Arc::new(Self { most, state, freed: Notify::new() })
    }

    pub async fn enter(self: &Arc<Self>) -> Permit {
        loop {
            let freed = self.freed.notified();
            {
                let mut state = self.lock();
                if state.running < (state.limit as usize).max(1) {
                    state.running += 1;
                    return Permit(self.clone());
                }
            }
            freed.await;
        }
    }

    /// The server was busy.
    pub fn slow_down(&self) {
        let mut state = self.lock();
        if state.cut.is_none_or(|cut| cut.elapsed() >= SETTLE) {
            state.limit = (state.limit / 2.0).max(1.0);
            state.cut = Some(Instant::now());
        }
    }

    /// The server has answered well.
    pub fn speed_up(&self) {
        let mut state = self.lock();
        state.limit = (state.limit + 1.0 / state.limit).min(self.most);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let free = {
            let mut state = self.0.lock();
            state.running -= 1;
            (state.limit as usize).saturating_sub(state.running)
        };
        // The limit may have grown: two of those that wait may go.
        (0..free.min(2)).for_each(|_| self.0.freed.notify_one());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_halved_by_a_busy_server_and_grow_again() {
        let governor = Governor::new(16);
        governor.slow_down();
        governor.slow_down();
        assert_eq!(governor.lock().limit, 8.0, "one burst of answers cuts once");
        for _ in 0..200 {
            governor.speed_up();
        }
        assert_eq!(governor.lock().limit, 16.0);
        for _ in 0..10 {
            governor.lock().cut = None;
            governor.slow_down();
        }
        assert_eq!(governor.lock().limit, 1.0, "one always goes");
    }
}
