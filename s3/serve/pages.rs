//! Listings that are open between two pages. A page ends in the middle of a listing, and the next one continues it
//! instead of starting another. A page that finds none open starts a listing at its point, so that nothing depends on
//! this cache.

use super::scan::{Query, Scan};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// The most open listings. Each has a connection to every node.
const MAX_PAGES: usize = 32;
/// How long a listing stays open. What it has read ahead is at most this old when it is shown.
const KEPT: Duration = Duration::from_secs(10);

/// Open listings, the oldest first. Clones share them.
#[derive(Clone, Default)]
pub struct Pages(Arc<Mutex<VecDeque<Open>>>);

struct Open {
    query: Query,
    scan: Scan,
    since: Instant,
}

impl Pages {
    /// The open listing that continues with `query`.
    pub fn take(&self, query: &Query) -> Option<Scan> {
        let mut open = self.current();
        let at = open.iter().position(|open| open.query == *query)?;
        open.remove(at).map(|open| open.scan)
    }

    /// Keeps a listing that continues with `query`.
    pub fn keep(&self, query: Query, scan: Scan) {
        let mut open = self.current();
        if open.len() == MAX_PAGES {
            open.pop_front();
        }
        open.push_back(Open { query, scan, since: Instant::now() });
        drop(open);
        let pages = self.clone();
        // If no other listing comes, this one is closed in time nevertheless.
        tokio::spawn(async move {
            tokio::time::sleep(KEPT).await;
            drop(pages.current());
        });
    }

    /// The listings that are not too old.
    fn current(&self) -> MutexGuard<'_, VecDeque<Open>> {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|open| open.since.elapsed() < KEPT);
        open
    }
}
