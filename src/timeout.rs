//! Timeouts of peers. Only time in which this process was running counts: if the process was stopped or the machine
//! suspended, the peer is not late. All timeouts of one node share its [`Liveness`]: once one of them finds the node
//! silent, the others end too.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// The longest single wait. If a wait lasts much longer, this process was not running.
pub const STEP: Duration = Duration::from_millis(250);

/// Whether a node is alive, for all timeouts of the node. Clones share it.
#[derive(Clone)]
pub struct Liveness(Arc<State>);

struct State {
    /// Incremented whenever bytes of the node arrive, over any connection.
    heard: AtomicU64,
    /// If the node was found silent: for how long, and when it was found. `None` once something arrives.
    silent: watch::Sender<Option<(Duration, Instant)>>,
    /// True while a task probes the node.
    asked: AtomicBool,
}

impl Default for Liveness {
    fn default() -> Self {
        Self(Arc::new(State {
            heard: AtomicU64::new(0),
            silent: watch::Sender::new(None),
            asked: AtomicBool::new(false),
        }))
    }
}

impl Liveness {
    /// Records that something of the node has arrived.
    pub fn note_alive(&self) {
        self.0.heard.fetch_add(1, Ordering::Relaxed);
        if self.0.silent.borrow().is_some() {
            self.0.silent.send_replace(None);
        }
    }

    /// True if the node was found silent for `limit`, and nothing has arrived since.
    pub fn is_silent(&self, limit: Duration) -> bool {
        self.0.silent.borrow().is_some_and(|(silent, _)| silent >= limit)
    }

    /// True if it is silent, and there was time for a probe to be answered.
    fn is_surely_silent(&self, limit: Duration) -> bool {
        self.0.silent.borrow().is_some_and(|(silent, found)| silent >= limit && found.elapsed() >= STEP)
    }

    /// Resolves once the node is not silent.
    pub async fn until_alive(&self) {
        // It cannot fail: `self` holds the sender.
        let _ = self.0.silent.subscribe().wait_for(Option::is_none).await;
    }

    /// True for one caller at a time, which then asks the node [until it is alive](Self::until_alive), and then passes
    /// `false`.
    pub fn set_asked(&self, asked: bool) -> bool {
        self.0.asked.swap(asked, Ordering::Relaxed) != asked
    }

    fn heard(&self) -> u64 {
        self.0.heard.load(Ordering::Relaxed)
    }

    fn note_silence(&self, limit: Duration) {
        self.0.silent.send_if_modified(|silent| {
            let longer = silent.is_none_or(|(known, _)| known < limit);
            if longer {
                *silent = Some((limit, Instant::now()));
            }
            longer
        });
    }
}

/// A timeout of a peer. It restarts whenever the peer does something.
#[derive(Clone)]
pub struct Timeout {
    limit: Duration,
    waited: Duration,
    /// The start of the time that is not yet in `waited`.
    since: Instant,
    node: Option<Liveness>,
    /// The count of `Liveness` when the wait began.
    heard: u64,
}

impl Timeout {
    /// A timeout of a peer without a shared state.
    pub fn new(limit: Duration) -> Self {
        Self { limit, waited: Duration::ZERO, since: Instant::now(), node: None, heard: 0 }
    }

    /// A timeout of a node. It also ends when another timeout has found the node silent.
    pub fn of(node: &Liveness, limit: Duration) -> Self {
        Self { node: Some(node.clone()), heard: node.heard(), ..Self::new(limit) }
    }

    pub fn limit(&self) -> Duration {
        self.limit
    }

    /// Restarts the wait.
    pub fn begin(&mut self) {
        (self.waited, self.since) = (Duration::ZERO, Instant::now());
        self.heard = self.node.as_ref().map_or(0, Liveness::heard);
    }

    /// Records that something of the peer has arrived, and restarts the wait.
    pub fn note_alive(&mut self) {
        self.node.iter().for_each(Liveness::note_alive);
        self.begin();
    }

    /// The length of the next single wait.
    pub fn step(&self) -> Duration {
        self.left().clamp(Duration::from_millis(1), STEP)
    }

    pub fn left(&self) -> Duration {
        self.limit.saturating_sub(self.waited)
    }

    /// Counts a single wait in which nothing happened. True if the timeout has passed.
    pub fn is_over(&mut self) -> bool {
        let now = Instant::now();
        let passed = now.saturating_duration_since(self.since);
        self.since = now;
        self.count(passed)
    }

    fn count(&mut self, passed: Duration) -> bool {
        // A longer wait is a pause of this process. Bytes that arrived during the pause are read first.
        self.waited += passed.min(2 * STEP);
        if self.left().is_zero() {
            self.end();
            return true;
        }
        self.node.as_ref().is_some_and(|node| node.is_surely_silent(self.limit))
    }

    /// The timeout has passed, by this count or by the kernel's. The node is silent if nothing has arrived over other
    /// connections either.
    pub fn end(&self) {
        if let Some(node) = &self.node
            && node.heard() == self.heard
        {
            node.note_silence(self.limit);
        }
    }

    /// Awaits `work`; `None` after the timeout.
    pub async fn run<F: Future>(mut self, work: F) -> Option<F::Output> {
        self.run_while(work, || false).await
    }

    /// Awaits `work`; `None` after the timeout, which restarts as long as there is `progress`.
    pub async fn run_while<F: Future>(&mut self, work: F, mut progress: impl FnMut() -> bool) -> Option<F::Output> {
        self.begin();
        let mut work = std::pin::pin!(work);
        loop {
            match tokio::time::timeout(self.step(), &mut work).await {
                Ok(output) => return Some(output),
                Err(_) if progress() => self.begin(),
                Err(_) if self.is_over() => return None,
                Err(_) => {}
            }
        }
    }
}

impl From<Duration> for Timeout {
    fn from(limit: Duration) -> Self {
        Self::new(limit)
    }
}

/// Awaits `work`; `None` if it takes longer than `limit`.
pub async fn within<F: Future>(limit: Duration, work: F) -> Option<F::Output> {
    Timeout::new(limit).run(work).await
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(3);

    #[test]
    fn a_silence_is_over_after_the_limit() {
        let mut timeout = Timeout::new(LIMIT);
        let steps = (1..).find(|_| timeout.count(STEP)).unwrap();
        assert_eq!(STEP * steps, LIMIT);
    }

    #[test]
    fn an_own_pause_does_not_count() {
        let mut timeout = Timeout::new(LIMIT);
        assert!(!timeout.count(Duration::from_secs(3600)), "the process was stopped for an hour");
        assert!(timeout.left() >= LIMIT - 2 * STEP);
    }

    #[test]
    fn what_one_wait_finds_all_know_until_the_node_is_heard() {
        let node = Liveness::default();
        let (mut first, mut second) = (Timeout::of(&node, LIMIT), Timeout::of(&node, LIMIT));
        assert!(!second.count(STEP));
        while !first.count(STEP) {}
        assert!(node.is_silent(LIMIT) && !second.count(STEP), "it is asked first whether it answers");
        while !node.is_surely_silent(LIMIT) {
            std::thread::yield_now();
        }
        assert!(second.count(STEP));
        assert!(!node.is_silent(2 * LIMIT), "a longer timeout is not over");
        second.note_alive();
        assert!(!node.is_silent(LIMIT) && !second.count(STEP));
    }

    #[test]
    fn a_node_that_speaks_elsewhere_is_not_silent() {
        let node = Liveness::default();
        let (mut waiting, mut other) = (Timeout::of(&node, LIMIT), Timeout::of(&node, LIMIT));
        other.note_alive();
        while !waiting.count(STEP) {}
        assert!(!node.is_silent(LIMIT), "only this answer does not come");
    }

    #[tokio::test]
    async fn progress_extends_the_wait() {
        let mut left = 3;
        let mut timeout = Timeout::new(STEP);
        let ended = timeout.run_while(std::future::pending::<()>(), || {
            left -= 1;
            left >= 0
        });
        assert_eq!(ended.await, None);
        assert_eq!(left, -1);
    }
}
