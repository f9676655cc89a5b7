//! A gate for every publish of a job, and for every removal that makes room for one. After it is shut, nothing of the
//! job is published or removed any more. It is shut by a cancel, and before a later run of the same map removes the outputs of this run.

use s4::error::{Error, ErrorKind, Result};
use std::sync::{PoisonError, RwLock};

/// True if the fence is shut.
#[derive(Default)]
pub struct Fence(RwLock<bool>);

impl Fence {
    /// Does `work` unless the fence is shut. Shutting it waits until `work` has ended.
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

    /// Also false while another thread is shutting it. Does not block.
    pub fn is_shut(&self) -> bool {
        self.0.try_read().is_ok_and(|shut| *shut)
    }

    pub fn shut(&self) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = true;
    }
}
