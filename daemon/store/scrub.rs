//! Scrub: reads every file of the data directory and compares it with its record. It goes in the order of paths, so one
//! path says how far it is; `.s4/scrub` has that path, and an interrupted scrub can be resumed from it. The bytes are
//! read past the page cache where the file system permits it: the disk is to be checked, and the cache belongs to
//! requests.

use super::core::Store;
use super::errors::failed;
use super::list::Selection;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, PosixFadviseAdvice, fcntl, posix_fadvise};
use s4::attribute::KeyRecord;
use s4::checksum::Checksum;
use s4::error::{Error, ErrorKind, Result};
use s4::file::{read_small, replace};
use s4::hasher::Hasher;
use s4::placement::{NodeId, node_of_basename};
use s4::protocol::{Entry, Fault, Finding, Scrubbed};
use s4::stored;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

/// Bytes that are read at a time; a multiple of [`PAGE`].
const BLOCK: usize = 1 << 20;
/// The alignment that O_DIRECT needs.
const PAGE: usize = 4096;
/// Limit of bytes of `.s4/scrub`.
const LONGEST: usize = 16 << 10;

/// How far a scrub of this node is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScrubPosition {
    /// The last path that was checked; empty at the beginning.
    pub after: String,
    /// It has come to the end.
    pub is_whole: bool,
    pub so_far: Scrubbed,
}

/// A step of a scrub.
pub enum ScrubStep {
    /// So many bytes were read from a file.
    Read(u64),
    /// The file at this path was checked.
    Checked(String, Option<Finding>),
}

/// What becomes of a file that belongs on another node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strays {
    Report,
    Remove,
}

/// Called after each step; returns false to end the scrub.
type Visit<'v> = dyn FnMut(ScrubStep) -> bool + 'v;

impl Store {
    /// Checks every file whose path comes after `after`. A file that is deleted meanwhile is left out. Returns true if
    /// it has come to the end. Errors: a directory cannot be read.
    pub fn scrub(&self, after: &str, strays: Strays, visit: &mut Visit) -> Result<bool> {
        if strays == Strays::Remove && self.resize.is_some() {
            return Err(Error::new(ErrorKind::Busy, "a resize is under way, which moves what belongs on other nodes"));
        }
        let mut buffer = Aligned::new();
        let mut is_whole = true;
        self.list(&Selection::After(after), &mut |entry| {
            let Entry::Key { path, .. } = entry else { return Ok(true) };
            is_whole = match self.check(&path, strays, &mut buffer, visit)? {
                Checked::Gone => true,
                Checked::Interrupted => false,
                Checked::Done(finding) => visit(ScrubStep::Checked(path, finding)),
            };
            Ok(is_whole)
        })?;
        Ok(is_whole)
    }

    fn check(&self, path: &str, strays: Strays, buffer: &mut Aligned, visit: &mut Visit) -> Result<Checked> {
        let found = |fault, message: String| {
            let finding = Finding { fault, path: path.to_owned(), message };
            Ok(Checked::Done(Some(finding)))
        };
        let node = node_of_basename(path.rsplit('/').next().unwrap_or(path), self.nodes);
        if node != self.node {
            let what = match strays {
                Strays::Report => format!("it lies here and belongs on node {node}, so that it is no key"),
                Strays::Remove => match self.remove_stray(path, node) {
                    Some(what) => what,
                    None => return Ok(Checked::Gone),
                },
            };
            return found(Fault::Stray, what);
        }
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
        let file = match self.data_dir().open_at(&self.root().join(path), flags) {
            Ok(file) => File::from(file),
            Err(Errno::ENOENT | Errno::ENOTDIR) => {
                self.check_there()?;
                return Ok(Checked::Gone);
            }
            Err(errno) => return found(Fault::Unreadable, reason(&failed(path, errno), path)),
        };
        match self.compare(&file, path, buffer, visit) {
            Ok(checked) => Ok(checked),
            Err(e) => found(Fault::Unreadable, reason(&self.unreadable(path, &e), path)),
        }
    }

    /// What became of the file. `None` if it is gone already.
    fn remove_stray(&self, path: &str, node: NodeId) -> Option<String> {
        let file = self.root().join(path);
        match self.unlink(&file) {
            Ok(()) => {}
            Err(Errno::ENOENT | Errno::ENOTDIR) => return None,
            Err(errno) => {
                let what = format!("it lies here and belongs on node {node}, so that it is no key");
                return Some(format!("{what}; it cannot be removed: {}", errno.desc()));
            }
        }
        let what = format!("it lay here and belongs on node {node}, so that it was no key; removed");
        self.prune_unused(&file);
        match self.sync_above(&file) {
            Ok(()) => Some(what),
            Err(error) => Some(format!("{what}, but the disk is not synced: {error}")),
        }
    }

    fn compare(&self, file: &File, path: &str, buffer: &mut Aligned, visit: &mut Visit) -> io::Result<Checked> {
        let found = |fault, message: String| {
            let finding = Finding { fault, path: path.to_owned(), message };
            Ok(Checked::Done(Some(finding)))
        };
        let Some(KeyRecord { checksum: recorded, has_metadata, .. }) = stored::record(file)? else {
            return found(Fault::Unchecksummed, "no checksum is recorded: s4 did not put this file".to_owned());
        };
        let len = file.metadata()?.len();
        if len != recorded.len {
            let message = format!("checksum error: stored with {} bytes, the file has {len}", recorded.len);
            return found(Fault::Damaged, message);
        }
        if has_metadata && stored::metadata(file)?.is_none() {
            return found(Fault::Damaged, "checksum error: its metadata is not what was stored".to_owned());
        }
        match buffer.checksum_of(file, len, &mut |bytes| visit(ScrubStep::Read(bytes)))? {
            None => Ok(Checked::Interrupted),
            Some(checksum) if checksum == recorded => Ok(Checked::Done(None)),
            Some(_) => found(Fault::Damaged, "checksum error: its bytes are not those that were stored".to_owned()),
        }
    }

    /// How far the last scrub came. If its record is missing or damaged, nothing was checked.
    pub fn scrub_position(&self) -> ScrubPosition {
        let bytes = read_small(&self.scrub_path(), LONGEST).unwrap_or_default();
        serde_json::from_slice(&bytes).unwrap_or_default()
    }

    /// Records how far a scrub is.
    pub fn note_scrub_position(&self, position: &ScrubPosition) -> Result<()> {
        let (path, json) = (self.scrub_path(), serde_json::to_vec(position).expect("a position is plain JSON"));
        replace(&path, &json, false).map_err(|e| Error::io(path.display(), &e))
    }

    fn scrub_path(&self) -> PathBuf {
        self.root().join(".s4/scrub")
    }
}

enum Checked {
    Done(Option<Finding>),
    /// It was deleted meanwhile.
    Gone,
    Interrupted,
}

/// The message of `error` without `path`, which the finding has already.
fn reason(error: &Error, path: &str) -> String {
    let message = error.to_string();
    message.strip_prefix(path).and_then(|rest| rest.strip_prefix(": ")).unwrap_or(&message).to_owned()
}

/// A buffer for direct reads.
struct Aligned {
    room: Vec<u8>,
    start: usize,
}

impl Aligned {
    fn new() -> Self {
        let room = vec![0; BLOCK + PAGE];
        let start = room.as_ptr().align_offset(PAGE).min(PAGE);
        Self { room, start }
    }

    /// The checksum of the first `len` bytes of a file as the disk has them, or of fewer if the file is shorter. `None`
    /// if `go_on`, which gets the bytes of each read, returns false.
    fn checksum_of(
        &mut self,
        file: &File,
        len: u64,
        go_on: &mut dyn FnMut(u64) -> bool,
    ) -> io::Result<Option<Checksum>> {
        let block = &mut self.room[self.start..self.start + BLOCK];
        let mut is_direct = fcntl(file, FcntlArg::F_SETFL(OFlag::O_DIRECT)).is_ok();
        if !is_direct {
            forget_cached(file);
        }
        let mut hasher = Hasher::new();
        while hasher.len() < len {
            let n = match file.read_at(block, hasher.len()) {
                Ok(0) => break,
                Ok(n) => n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) if is_direct && e.raw_os_error() == Some(nix::libc::EINVAL) => {
                    // This file system takes the flag, and does not read so.
                    fcntl(file, FcntlArg::F_SETFL(OFlag::empty()))?;
                    is_direct = false;
                    forget_cached(file);
                    continue;
                }
                Err(e) => return Err(e),
            };
            hasher.update(&block[..n]);
            if !go_on(n as u64) {
                return Ok(None);
            }
        }
        Ok(Some(hasher.finish()))
    }
}

/// Makes the next reads come from the disk, if no one else keeps the pages.
fn forget_cached(file: &File) {
    // Without effect, the cache is checked instead.
    let _ = posix_fadvise(file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
}
