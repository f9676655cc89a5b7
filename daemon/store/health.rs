//! How the disk is: what it refused to read, and whether it takes writes now.

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

/// A look at the disk serves for so long.
const FRESH: Duration = Duration::from_secs(5);
/// A disk that takes longer for a page does not answer.
const SLOW: Duration = Duration::from_secs(1);
/// Bytes that are written and read back, and where they have to begin for the disk to be asked and not the kernel's memory.
const PAGE: usize = 4096;

/// What is known. Clones share it.
#[derive(Clone, Default)]
pub(super) struct DiskHealth(Arc<Known>);

#[derive(Default)]
struct Known {
    /// Guards it. Never held while the disk is asked, which may take for ever.
    state: Mutex<State>,
    /// A look at the disk has ended.
    tried: Condvar,
}

#[derive(Default)]
struct State {
    /// Reads that the disk refused since the start, and the last of them.
    failed_reads: u64,
    last: String,
    /// When the disk was last tried, and what is wrong with it.
    tried: Option<(Instant, Option<String>)>,
    /// Since when it is being tried, on a thread of its own.
    trying: Option<Instant>,
}

impl DiskHealth {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the disk of `root` tried, unless it was a moment ago or is being tried, and waits for that a little.
    fn look(&self, root: &Path) -> MutexGuard<'_, State> {
        let mut state = self.lock();
        let is_due = state.tried.as_ref().is_none_or(|(tried, _)| tried.elapsed() > FRESH);
        if is_due && state.trying.is_none() {
            let (health, root) = (self.clone(), root.to_owned());
            let started = std::thread::Builder::new().name("s4-disk".to_owned()).spawn(move || health.try_disk(&root));
            // Without a thread it is tried the next time.
            state.trying = started.is_ok().then(Instant::now);
        }
        let left = state.trying.map_or(Duration::ZERO, |began| SLOW.saturating_sub(began.elapsed()));
        let waited = self.0.tried.wait_timeout_while(state, left, |state| state.trying.is_some());
        waited.unwrap_or_else(PoisonError::into_inner).0
    }

    /// The error of something that could not be read. What the disk refused is counted, and in the log.
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

    /// What is wrong with the disk of `root` now. Blocks, but not for longer than a moment.
    pub fn trouble(&self, root: &Path) -> Option<String> {
        let state = self.look(root);
        if let Some(slow) = state.trying.map(|began| began.elapsed()).filter(|elapsed| *elapsed >= SLOW) {
            return Some(format!("the disk does not answer: it was asked to take a page {} s ago", slow.as_secs()));
        }
        let (_, trouble) = state.tried.as_ref()?;
        trouble.as_ref().map(|trouble| format!("disk error: {trouble}"))
    }

    /// What it refused to read, if it refused anything.
    pub fn failed_reads(&self) -> Option<String> {
        let state = self.lock();
        (state.failed_reads > 0)
            .then(|| format!("{} disk read errors since the start, the last: {}", state.failed_reads, state.last))
    }

    fn try_disk(&self, root: &Path) {
        let trouble = try_disk(root).err().map(|e| reason(&e));
        if let Some(trouble) = &trouble {
            tracing::error!("data directory {}: {trouble}", root.display());
        }
        let mut state = self.lock();
        (state.tried, state.trying) = (Some((Instant::now(), trouble)), None);
        self.0.tried.notify_all();
    }
}

/// Writes a page to an unnamed file and reads it back, both from the disk itself where the file system can.
fn try_disk(root: &Path) -> io::Result<()> {
    if statvfs(root)?.flags().contains(FsFlags::ST_RDONLY) {
        return Err(io::Error::other("its file system is read-only"));
    }
    match stored::draft(root) {
        Ok(file) => try_file(&file),
        Err(e) if is_full(&e) => Ok(()),
        Err(e) => Err(e),
    }
}

/// A full disk works; that it is full is shown by its numbers.
fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

fn try_file(file: &File) -> io::Result<()> {
    // Where there is no such thing, the kernel's memory answers.
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
