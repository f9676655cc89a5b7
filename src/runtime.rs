//! The asynchronous runtime of the daemon and of the mount.

use crate::error::{Error, Result};
use std::time::Duration;
use tokio::runtime::{Builder, Runtime};

/// Threads for work that blocks: files, hashes, streams, each of them for one transfer.
const BLOCKING: usize = 4096;

/// How long one of them is kept that has nothing to do.
const KEPT: Duration = Duration::from_secs(3);

/// Bytes of each thread's stack: listings recurse into directories, 512 of which a key's name has room for, and builds for tests have large
/// frames. Only what is used takes memory.
const STACK: usize = 8 << 20;

/// A runtime whose workers mostly move messages, so that half of the processors do: each further one wakes and is woken for
/// nothing, which small keys wait for.
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
