//! Directories that were seen. A directory is wherever it has keys, so that one of a node that does not answer cannot be told
//! from none. What is known to be one is unknown then, and not absent: no file must take its place.

use s4::checksum::hash;
use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// So many at once: beyond, it begins anew.
const MOST: usize = 1 << 20;

/// Guards hashes of their paths.
#[derive(Default)]
pub struct KnownDirs(Mutex<HashSet<u64>>);

impl KnownDirs {
    pub fn add(&self, path: &str) {
        let mut known = self.lock();
        if known.len() >= MOST {
            known.clear();
        }
        known.insert(hash(path.as_bytes()));
    }

    pub fn remove(&self, path: &str) {
        self.lock().remove(&hash(path.as_bytes()));
    }

    pub fn contains(&self, path: &str) -> bool {
        let known = self.lock();
        !known.is_empty() && known.contains(&hash(path.as_bytes()))
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
