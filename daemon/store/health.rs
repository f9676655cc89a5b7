//! Health of the disk: its read errors since the start, and whether it accepts writes now.

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::statvfs::{FsFlags, statvfs};
use s4::error::{Error, ErrorKind, reason};
use s4::stored;
use std::fmt::Display;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long the result of a probe is used.
const FRESH: Duration = Duration::from_secs(5);
/// A disk that takes longer for one page is reported.
const SLOW: Duration = Duration::from_secs(1);
/// A disk that takes longer for one page hangs: one that writes much takes a second or two.
const HANGS: Duration = Duration::from_secs(10);
/// Bytes that a probe writes and reads back, and their alignment, which O_DIRECT needs.
const PAGE: usize = 4096;

/// Read errors and the last probe. Clones share them.
#[derive(Clone, Default)]
pub(super) struct DiskHealth(Arc<Known>);

#[derive(Default)]
struct Known {
    /// Never locked during a probe, which may hang.
    state: Mutex<State>,
    /// Notified at the end of a probe.
    probed: Condvar,
}

#[derive(Default)]
struct State {
    /// Number of read errors since the start, and the text of the last.
    failed_reads: u64,
    last: String,
    /// Time of the last probe, and what is wrong with the disk.
    probed: Option<(Instant, Option<String>)>,
    /// Start of the running probe, which has a thread of its own.
    probing: Option<Instant>,
}

impl DiskHealth {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts a probe of the disk of `root`, unless the last is recent or one is running, and waits for its end for
    /// [`SLOW`] at most.
    fn probe(&self, root: &Path) -> MutexGuard<'_, State> {
        let state = self.start_probe(root);
        let left = state.probing.map_or(Duration::ZERO, |began| SLOW.saturating_sub(began.elapsed()));
        let waited = self.0.probed.wait_timeout_while(state, left, |state| state.probing.is_some());
        waited.unwrap_or_else(PoisonError::into_inner).0
    }

    fn start_probe(&self, root: &Path) -> MutexGuard<'_, State> {
        let mut state = self.lock();
        let is_due = state.probed.as_ref().is_none_or(|(at, _)| at.elapsed() > FRESH);
        if is_due && state.probing.is_none() {
            let (health, root) = (self.clone(), root.to_owned());
            let started = std::thread::Builder::new().name("s4-disk".to_owned()).spawn(move || health.run_probe(&root));
            // If no thread can be started, the next call tries again.
            state.probing = started.is_ok().then(Instant::now);
        }
        state
    }

    /// True if the disk of `root` does not take a page for [`HANGS`]. Does not block.
    pub fn hangs(&self, root: &Path) -> bool {
        self.start_probe(root).probing.is_some_and(|began| began.elapsed() > HANGS)
    }

    /// The error of `what`, which could not be read. Read errors of the disk are counted and logged.
    pub fn unreadable(&self, what: impl Display, error: &io::Error) -> Error {
        if error.raw_os_error() != Some(nix::libc::EIO) {
            return Error::io(what, error);
        }
        let message = format!("{what}: disk read error: {}", reason(error));
        tracing::error!("{message}");
        let mut state = self.lock();
        state.failed_reads += 1;
        state.last.clone_from(&message);
        Error::new(ErrorKind::Io, message)
    }

    /// What is wrong with the disk of `root` now. Blocks for [`SLOW`] at most.
    pub fn trouble(&self, root: &Path) -> Option<String> {
        let state = self.probe(root);
        if let Some(slow) = state.probing.map(|began| began.elapsed()).filter(|elapsed| *elapsed >= SLOW) {
            return Some(format!(
                "the disk is very slow or hangs: it was asked to take a page {} s ago",
                slow.as_secs()
            ));
        }
        let (_, trouble) = state.probed.as_ref()?;
        trouble.as_ref().map(|trouble| format!("disk error: {trouble}"))
    }

    /// The read errors since the start, if there were any.
    pub fn failed_reads(&self) -> Option<String> {
        let state = self.lock();
        (state.failed_reads > 0)
            .then(|| format!("{} disk read errors since the start, the last: {}", state.failed_reads, state.last))
    }

    fn run_probe(&self, root: &Path) {
        let trouble = probe_disk(root).err().map(|e| reason(&e));
        if let Some(trouble) = &trouble {
            tracing::error!("data directory {}: {trouble}", root.display());
        }
        let mut state = self.lock();
        (state.probed, state.probing) = (Some((Instant::now(), trouble)), None);
        self.0.probed.notify_all();
    }
}

/// Writes a page to an unnamed file and reads it back, past the page cache where the file system supports that.
fn probe_disk(root: &Path) -> io::Result<()> {
    if statvfs(root)?.flags().contains(FsFlags::ST_RDONLY) {
        return Err(io::Error::other("its file system is read-only"));
    }
    match stored::draft(root) {
        Ok(file) => probe_file(&file),
        Err(e) if is_full(&e) => Ok(()),
        Err(e) => Err(e),
    }
}

/// A full disk is healthy: a put reports that it is full (`space.rs`), and the free bytes are in `Health`.
fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

fn probe_file(file: &File) -> io::Result<()> {
    // Without O_DIRECT, the page cache is tested instead of the disk.
    let _ = fcntl(file, FcntlArg::F_SETFL(OFlag::O_DIRECT));
    let mut room = vec![0u8; 2 * PAGE];
    let start = room.as_ptr().align_offset(PAGE).min(PAGE);
    let page = &mut room[start..start + PAGE];
    page.fill(0x5a);
    match file.write_all_at(page, 0) {
        Err(e) if is_full(&e) => return Ok(()),
        done => done?,
    }
    page.fill(0);
    file.read_exact_at(page, 0)?;
    match page.iter().all(|&byte| byte == 0x5a) {
        true => Ok(()),
        false => Err(io::Error::other("it reads other bytes than were written")),
    }
}
