//! Limits that the kernel sets to a process.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Raises the limit of open descriptors to the most that is allowed: every connection, key and file takes one.
pub fn raise_descriptors() {
    if let Ok((_, most)) = getrlimit(Resource::RLIMIT_NOFILE)
        && let Err(error) = setrlimit(Resource::RLIMIT_NOFILE, most, most)
    {
        tracing::warn!("cannot raise the limit of open files: {error}");
    }
}

/// Keeps from our children what whoever started us has left open: a command would hold their files and pipes for as long as
/// it runs.
pub fn keep_descriptors() {
    // SAFETY: the call takes three integers, and marks descriptors of which no code here is told that they stay open in
    // children. A kernel before 5.11 does not know it, and children inherit as they always have.
    unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC) };
}

/// Has the allocator keep few heaps, and in them the buffers that are used again and again, instead of asking the kernel
/// for fresh pages for each. To be called before any other thread runs.
pub fn settle_heaps() {
    for (what, value) in [(libc::M_ARENA_MAX, 2), (libc::M_MMAP_THRESHOLD, 4 << 20), (libc::M_TRIM_THRESHOLD, 8 << 20)]
    {
        // SAFETY: the call sets a number of the allocator; no other thread uses it yet.
        unsafe { libc::mallopt(what, value) };
    }
}

/// Descriptors that this process may have open.
pub fn descriptors() -> usize {
    getrlimit(Resource::RLIMIT_NOFILE).map_or(1024, |(soft, _)| usize::try_from(soft).unwrap_or(usize::MAX))
}

/// Has the allocator give back to the kernel what is free. To be called when there is little to do: it looks at all its heaps.
pub fn give_back_memory() {
    // SAFETY: the call takes a number, and gives back pages that no allocation has.
    unsafe { libc::malloc_trim(0) };
}
