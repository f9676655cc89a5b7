//! Open files and open directories, by the handle numbers that the kernel uses.

use crate::errno::Result;
use nix::errno::Errno;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A table of open files or directories.
pub struct Handles<T>(Mutex<Table<T>>);

struct Table<T> {
    last: u64,
    open: HashMap<u64, Arc<T>>,
}

impl<T> Default for Handles<T> {
    fn default() -> Self {
        Self(Mutex::new(Table { last: 0, open: HashMap::new() }))
    }
}

impl<T> Handles<T> {
    /// Adds an open file or directory, and returns its number.
    pub fn add(&self, opened: T) -> u64 {
        let mut table = self.lock();
        table.last += 1;
        let number = table.last;
        table.open.insert(number, Arc::new(opened));
        number
    }

    /// Errors: EBADF.
    pub fn get(&self, number: u64) -> Result<Arc<T>> {
        self.lock().open.get(&number).cloned().ok_or(Errno::EBADF)
    }

    pub fn remove(&self, number: u64) -> Option<Arc<T>> {
        self.lock().open.remove(&number)
    }

    pub fn all(&self) -> Vec<(u64, Arc<T>)> {
        self.lock().open.iter().map(|(number, opened)| (*number, opened.clone())).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Table<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
