//! Limits and resources of a process: descriptors and memory.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Raises the limit of open descriptors to the hard limit: every connection, key and file needs one.
pub fn raise_descriptors() {
    if let Ok((_, most)) = getrlimit(Resource::RLIMIT_NOFILE)
        && let Err(error) = setrlimit(Resource::RLIMIT_NOFILE, most, most)
    {
        tracing::warn!("cannot raise the limit of open files: {error}");
    }
}

/// Keeps descriptors that this program has inherited out of its child processes. Otherwise a command would hold the
/// files and pipes of whoever started this program for as long as it runs.
pub fn keep_descriptors() {
    // SAFETY: the call takes three integers. It sets close-on-exec for descriptors, and no code here relies on children
    // inheriting them. A kernel before 5.11 refuses the call, and children inherit descriptors as usual.
    unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC) };
}

/// Tunes malloc: few arenas, which keep large buffers for reuse instead of requesting zeroed pages from the kernel each
/// time. Must be called before another thread is started.
pub fn tune_malloc() {
    for (what, value) in [(libc::M_ARENA_MAX, 2), (libc::M_MMAP_THRESHOLD, 4 << 20), (libc::M_TRIM_THRESHOLD, 8 << 20)]
    {
        // SAFETY: the call sets a parameter of malloc, and no other thread uses it yet.
        unsafe { libc::mallopt(what, value) };
    }
}

/// The limit of open descriptors of this process.
pub fn descriptors() -> usize {
    getrlimit(Resource::RLIMIT_NOFILE).map_or(1024, |(soft, _)| usize::try_from(soft).unwrap_or(usize::MAX))
}

/// Returns free memory of malloc to the kernel. Expensive, since it scans all arenas; call it when idle.
pub fn give_back_memory() {
    // SAFETY: the call takes a number, and releases only pages that are not allocated.
    unsafe { libc::malloc_trim(0) };
}
