//! Locks for giving a name to a file, and the cancelled puts, whose keys must not get a name any more.

use s4::checksum;
use std::collections::VecDeque;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks for paths, one for each class of their hashes.
#[derive(Default)]
pub(super) struct Naming([Mutex<()>; 32]);

impl Naming {
    /// Must be held while a file gets the name `path`, and while the file of this name is examined and then deleted.
    pub fn lock(&self, path: &Path) -> MutexGuard<'_, ()> {
        let at = checksum::hash(path.as_os_str().as_bytes()) as usize % self.0.len();
        self.0[at].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Numbers of puts that must not make a key any more: their senders have asked for the result. Only the last are kept,
/// since old puts have ended.
#[derive(Default)]
pub(super) struct Refused(Mutex<VecDeque<u64>>);

impl Refused {
    const MAX_PUTS: usize = 4096;

    pub fn add(&self, put: u64) {
        let mut puts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if puts.len() == Self::MAX_PUTS {
            puts.pop_front();
        }
        puts.push_back(put);
    }

    pub fn has(&self, put: u64) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(&put)
    }
}
