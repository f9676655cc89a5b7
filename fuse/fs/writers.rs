//! Which processes can still write to a file. Where the kernel writes the file itself, the mount does not see the
//! writes. So it checks the descriptors and the mappings of processes, or the number of references to the file.

use crate::inodes::Ino;
use crate::proc::{self, Caller};
use crate::spool::Spool;
use s4::client::blocking;
use s4::file::is_alone;
use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;

/// Scans of other processes that run at once.
const MAX_SCANS: usize = 4;

/// The longest time of a scan.
const SCAN_TIMEOUT: Duration = Duration::from_secs(1);

/// Files below this size are copied when they are published: a copy costs less than a scan of all processes.
const SMALL_COPY: u64 = 1 << 20;

/// How long the kernel may take to drop its reference to a file after the last close.
const DROP_TIMEOUT: Duration = Duration::from_millis(20);

/// How often a file is checked whose mapping outlives the last close.
const MAPPING_POLL: Duration = Duration::from_millis(100);

pub struct Writers {
    /// Set once the kernel may write files without asking us.
    passthrough: Arc<AtomicBool>,
    scans: Arc<Semaphore>,
}

impl Writers {
    pub fn new(passthrough: Arc<AtomicBool>) -> Self {
        Self { passthrough, scans: Arc::new(Semaphore::new(MAX_SCANS)) }
    }

    /// True if the process of `caller` can write to file `ino` by a mapping.
    pub async fn has_mapped(&self, ino: Ino, caller: Caller) -> bool {
        match caller.is_alone() {
            // Its only thread waits for us, so that its memory does not change and the scan does not block.
            true => caller.has_mapped(ino),
            false => self.scan(move || caller.has_mapped(ino)).await,
        }
    }

    /// True if any process has a descriptor that can write to the file `ino`.
    pub async fn is_held(&self, ino: Ino, spool: &Spool) -> bool {
        let age = spool.age();
        self.scan(move || proc::anyone_writes(ino, false, age)).await
    }

    /// Waits until no mapping can write to the file any more. A mapping may outlive the last close.
    pub async fn unmapped(&self, spool: &Spool) {
        let began = Instant::now();
        while self.is_passthrough() && spool.file().is_ok_and(|file| is_alone(&file) == Ok(false)) {
            let is_late = began.elapsed() > DROP_TIMEOUT;
            tokio::time::sleep(if is_late { MAPPING_POLL } else { Duration::from_millis(1) }).await;
        }
    }

    /// True if `file`, of `len` bytes, may still be written to, or if a scan would cost more than a copy. `is_last`: no
    /// handle was open when the publish began.
    pub async fn may_change(&self, ino: Ino, spool: &Spool, file: &Arc<File>, len: u64, is_last: bool) -> bool {
        if !self.is_passthrough() {
            return false;
        }
        // A process that is just opening the file may not have its descriptor yet.
        let handles = spool.handles();
        if handles.writers > 1 || (is_last && handles.all > 0) {
            return true;
        }
        if is_last {
            return !dropped(file).await;
        }
        let (mappable, age) = (spool.is_mappable(), spool.age());
        len < SMALL_COPY || self.scan(move || proc::anyone_writes(ino, mappable, age)).await
    }

    fn is_passthrough(&self) -> bool {
        self.passthrough.load(Ordering::Relaxed)
    }

    /// The result of a scan of processes, or true if it takes too long: a process that hangs in execve(2) blocks the
    /// thread that reads its files in /proc. The limit on scans keeps the other threads free.
    async fn scan(&self, scan: impl FnOnce() -> bool + Send + 'static) -> bool {
        let scanned = async {
            // The semaphore is never closed.
            let permit = self.scans.clone().acquire_owned().await.ok()?;
            Some(blocking(move || (scan(), permit).0).await)
        };
        tokio::time::timeout(SCAN_TIMEOUT, scanned).await.ok().flatten().unwrap_or(true)
    }
}

/// Waits until the kernel drops its references to a closed file. False if it does not in time, or if that is unknown.
async fn dropped(file: &Arc<File>) -> bool {
    let began = Instant::now();
    loop {
        match is_alone(file) {
            Ok(true) => return true,
            Ok(false) if began.elapsed() <= DROP_TIMEOUT => tokio::time::sleep(Duration::from_millis(1)).await,
            Ok(false) | Err(_) => return false,
        }
    }
}
