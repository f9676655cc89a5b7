//! The asynchronous runtime of the daemon and of the mount.

use crate::error::{Error, Result};
use std::time::Duration;
use tokio::runtime::{Builder, Runtime};

/// Limit of threads for blocking work: files, hashes and streams. Each transfer needs one.
const BLOCKING: usize = 4096;

/// How long an idle blocking thread is kept.
const KEPT: Duration = Duration::from_secs(3);

/// Bytes of each thread's stack. Listings recurse into directories, of which a key's name can have 512, and debug
/// builds have large stack frames. Unused stack takes no memory.
const STACK: usize = 8 << 20;

/// A runtime with a worker for every second CPU. Workers mostly move messages; more of them would only wake each other,
/// and delay small keys.
pub fn build() -> Result<Runtime> {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    Builder::new_multi_thread()
        .worker_threads((cpus / 2).clamp(1, 8))
        .max_blocking_threads(BLOCKING)
        .thread_keep_alive(KEPT)
        .thread_stack_size(STACK)
        .enable_all()
        .build()
        .map_err(|e| Error::io("the runtime", &e))
}
