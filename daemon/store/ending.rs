//! The uploads in parts that are being completed or aborted.

use s4::error::Result;
use s4::protocol::UploadId;
use std::collections::HashSet;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

/// The interval between two checks whether a waiting request is still wanted.
const CHECK: Duration = Duration::from_secs(1);

/// The uploads that are being completed or aborted. Each is by one request at a time.
#[derive(Default)]
pub(super) struct Ending {
    running: Mutex<HashSet<UploadId>>,
    ended: Condvar,
}

/// Until it is dropped, no other request completes or aborts the upload.
pub(super) struct Turn<'e> {
    ending: &'e Ending,
    id: UploadId,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.ending.running.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.id);
        self.ending.ended.notify_all();
    }
}

impl Ending {
    /// Waits until no other request ends the upload. Errors: those of `check`, which is called once in a while.
    pub fn begin(&self, id: &UploadId, check: impl Fn() -> Result<()>) -> Result<Turn<'_>> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        while !running.insert(id.clone()) {
            running = self.ended.wait_timeout(running, CHECK).unwrap_or_else(PoisonError::into_inner).0;
            check()?;
        }
        Ok(Turn { ending: self, id: id.clone() })
    }

    /// `None` if another request ends the upload.
    pub fn try_begin(&self, id: &UploadId) -> Option<Turn<'_>> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.insert(id.clone()).then(|| Turn { ending: self, id: id.clone() })
    }
}
