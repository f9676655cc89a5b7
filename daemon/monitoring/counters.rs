//! Counters since the daemon's start.

use s4::protocol::Fault;
use std::sync::atomic::{AtomicU64, Ordering};

/// Counters of ended tasks.
#[derive(Default)]
pub struct TaskCounts {
    done: AtomicU64,
    failed: AtomicU64,
}

impl TaskCounts {
    pub fn add_done(&self) {
        self.done.fetch_add(1, Ordering::Relaxed);
    }

    pub fn add_failed(&self) {
        self.failed.fetch_add(1, Ordering::Relaxed);
    }

    pub fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    pub fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }
}

/// Counters of what scrubs have read and found.
#[derive(Default)]
pub struct ScrubCounts {
    keys: AtomicU64,
    bytes: AtomicU64,
    findings: [AtomicU64; Fault::ALL.len()],
}

impl ScrubCounts {
    pub fn add_bytes(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub fn add_key(&self, fault: Option<Fault>) {
        self.keys.fetch_add(1, Ordering::Relaxed);
        if let Some(fault) = fault {
            self.findings[fault as usize].fetch_add(1, Ordering::Relaxed);
        }
    }

    pub fn keys(&self) -> u64 {
        self.keys.load(Ordering::Relaxed)
    }

    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    pub fn findings(&self) -> impl Iterator<Item = (Fault, u64)> {
        Fault::ALL.into_iter().map(|fault| (fault, self.findings[fault as usize].load(Ordering::Relaxed)))
    }
}

/// The kinds of request that are counted separately: the first part of the path below `/v1/`.
const KINDS: [&str; 18] = [
    "health", "status", "watch", "usage", "keys", "head", "uploads", "stat", "dirs", "list", "delete", "eval", "run",
    "try", "jobs", "metrics", "connect", "other",
];

/// Counters of requests by kind.
#[derive(Default)]
pub struct Requests([AtomicU64; KINDS.len()]);

impl Requests {
    /// Counts a request for `path`.
    pub fn count(&self, path: &str) {
        let path = path.strip_prefix("/v1/").unwrap_or(path.trim_start_matches('/'));
        let kind = path.split('/').next().unwrap_or("");
        let at = KINDS.iter().position(|known| *known == kind).unwrap_or(KINDS.len() - 1);
        self.0[at].fetch_add(1, Ordering::Relaxed);
    }

    pub fn by_kind(&self) -> impl Iterator<Item = (&'static str, u64)> {
        KINDS.into_iter().zip(self.0.iter().map(|count| count.load(Ordering::Relaxed)))
    }
}
