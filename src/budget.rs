//! A budget for bytes in memory that peers have not read yet. When it is short, bodies are sent in smaller chunks.

use bytes::Bytes;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Bytes for each permit of the semaphore.
const UNIT: usize = 1024;

/// The budget. Clones share it.
#[derive(Clone)]
pub struct MemoryBudget {
    free: Arc<Semaphore>,
    all: usize,
}

/// Bytes with their share of the budget. Dropping them gives the share back.
struct Counted {
    bytes: Bytes,
    _permit: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl MemoryBudget {
    pub fn new(bytes: usize) -> Self {
        let all = bytes / UNIT;
        Self { free: Arc::new(Semaphore::new(all)), all }
    }

    /// True if hardly anything is left.
    pub fn is_short(&self) -> bool {
        self.free.available_permits() < self.all / 8
    }

    /// True if no bytes are counted.
    pub fn is_idle(&self) -> bool {
        self.free.available_permits() == self.all
    }

    /// Counts the bytes until they are dropped, if the budget has room for them.
    pub fn count(&self, bytes: Bytes) -> Bytes {
        match self.free.clone().try_acquire_many_owned(units(bytes.len())) {
            Ok(permit) => Bytes::from_owner(Counted { bytes, _permit: permit }),
            Err(_) => bytes,
        }
    }
}

fn units(len: usize) -> u32 {
    u32::try_from(len.div_ceil(UNIT)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dropped_bytes_are_given_back() {
        let budget = MemoryBudget::new(10 * UNIT);
        let bytes = budget.count(vec![7; 9 * UNIT + 1].into());
        assert!(budget.is_short() && !budget.is_idle());
        let part = bytes.slice(1..2);
        let more = budget.count(vec![8; UNIT].into());
        assert_eq!((part[0], more[0]), (7, 8));
        drop(bytes);
        assert!(budget.is_short(), "a part of them is still there");
        drop(part);
        assert!(budget.is_idle());
    }
}
