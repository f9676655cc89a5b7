//! A gate that every publish of a job passes, so that nothing of it appears any more once it is shut: after a cancel, or
//! before a later run of the same map clears away what it left.

use s4::error::{Error, ErrorKind, Result};
use std::sync::{PoisonError, RwLock};

/// Guarded: whether it is shut.
#[derive(Default)]
pub struct Fence(RwLock<bool>);

impl Fence {
    /// Does `work` unless the fence is shut, which waits until it is done.
    pub fn pass<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let shut = self.0.read().unwrap_or_else(PoisonError::into_inner);
        match *shut {
            true => Err(Error::new(ErrorKind::Cancelled, "the job has ended")),
            false => work(),
        }
    }

    pub fn is_open(&self) -> bool {
        !*self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// False also while it is being shut. Does not wait.
    pub fn is_shut(&self) -> bool {
        self.0.try_read().is_ok_and(|shut| *shut)
    }

    pub fn shut(&self) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = true;
    }
}
