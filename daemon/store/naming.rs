//! Who gives names to files: one at a time for each name, and nobody for a put that was refused.

use s4::checksum;
use std::collections::VecDeque;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Guards who gives a name to a file, by parts of the hashes of their paths.
#[derive(Default)]
pub(super) struct Naming([Mutex<()>; 32]);

impl Naming {
    /// To be held while a name is given to a file, or a file with this name is looked at and then deleted.
    pub fn lock(&self, path: &Path) -> MutexGuard<'_, ()> {
        let at = checksum::hash(path.as_os_str().as_bytes()) as usize % self.0.len();
        self.0[at].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Guards the numbers of puts whose senders asked what became of them, and that so make no key any more. Of those of long ago nothing
/// is under way.
#[derive(Default)]
pub(super) struct Refused(Mutex<VecDeque<u64>>);

impl Refused {
    const MOST: usize = 4096;

    pub fn add(&self, put: u64) {
        let mut puts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if puts.len() == Self::MOST {
            puts.pop_front();
        }
        puts.push_back(put);
    }

    pub fn has(&self, put: u64) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(&put)
    }
}
