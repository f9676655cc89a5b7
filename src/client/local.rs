//! Puts to a node on this machine: the file is copied into the data directory of the node, which links the copy. No
//! byte goes through a socket.

use super::core::{Client, blocking};
use super::input_reader::{Input, InputReader};
use super::upload::{PutOptions, first_of};
use crate::aligned::Block;
use crate::checksum::Checksum;
use crate::error::{Error, ErrorKind, Result};
use crate::file::{AtPosition, BLOCK, read_small};
use crate::hasher::{FileHasher, Hasher, Sums};
use crate::key::Key;
use crate::placement::NodeId;
use crate::protocol::{HEARTBEAT, Handoff, Health};
use crate::stored::{SpaceChecks, draft};
use crate::wire::SMALL;
use nix::errno::Errno;
use nix::fcntl::copy_file_range;
use nix::sys::statvfs::statvfs;
use std::fs::File;
use std::io::{Cursor, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::Thread;

/// Bytes that one call copies: few enough to be hashed while they are in the CPU cache.
const COPY_STEP: usize = 1 << 20;

/// The longest token, in bytes.
const MAX_TOKEN: usize = 256;

impl Client {
    /// The data directory of the node, if it is on this machine: then it contains the token that the node reports.
    pub fn local_dir<'h>(&self, node: NodeId, health: &'h Health) -> Option<&'h Path> {
        // What is reached through a proxy is another machine, whatever this one has at the same path.
        let host = self.cluster().address(node).host();
        if self.inner.settings.proxy.as_ref().is_some_and(|proxy| proxy.is_for(host)) {
            return None;
        }
        // The path comes from the node, so anything may be there: the read must not block, and must be bounded.
        let token = read_small(&health.data.join(".s4/token"), MAX_TOKEN).ok()?;
        (token == health.token.as_bytes() && !token.is_empty()).then_some(&health.data)
    }
}

impl Client {
    /// Copies a file of `len` bytes, inside the kernel, into the data directory of its node, which links the copy.
    /// `None` if the node is not on this machine, or the copy cannot be made there.
    pub(super) async fn put_local(&self, key: &Key, file: &File, len: u64) -> Result<Option<Checksum>> {
        let Some((dir, reserve)) = self.room_beside(key, len).await? else { return Ok(None) };
        let from = file.try_clone().map_err(|e| Error::io(key, &e))?;
        let Ok((made, sums)) = blocking(move || copy(&from, &dir, reserve)).await else {
            return Ok(None);
        };
        // The daemon may have to write the whole file to the disk before it answers.
        let handoff = handoff(&made, &sums, PutOptions::default()).map_err(|e| Error::io(key, &e))?;
        match self.with_timeout_for(len).adopt(key, &made, &handoff).await {
            Ok(_) => Ok(Some(sums.checksum)),
            // The daemon cannot see our file: send its bytes.
            Err(error) if error.kind() == ErrorKind::BadRequest => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Like [`put_with`](Self::put_with), for programs that run beside the nodes: the bytes are written into the data
    /// directory of the key's node, which links the file, so that they go through no second socket. They are sent if the
    /// node is elsewhere or cannot take the file.
    pub async fn put_beside(
        &self,
        key: &Key,
        input: impl Read + Send + 'static,
        input_name: &str,
        options: PutOptions,
    ) -> Result<Checksum> {
        let (first, input) = first_of(input, input_name).await?;
        let place = match first.len() <= SMALL || options.part.is_some() {
            true => None,
            false => self.room_beside(key, SMALL as u64).await?,
        };
        let Some((made, dir, reserve)) = place.and_then(|(dir, reserve)| Some((draft(&dir).ok()?, dir, reserve)))
        else {
            return self.put_begun(key, (first, input), input_name, options).await;
        };
        let input = Cursor::new(first).chain(input);
        let subject = format!("{}: {key}", self.cluster().name(self.cluster().node_of(key)));
        let name = input_name.to_owned();
        let written = blocking(move || {
            let sums = write_all_of(input, &name, &made, &subject, || check_space(&dir, reserve));
            sums.map(|sums| (made, sums))
        });
        let (made, sums) = written.await?;
        let len = sums.checksum.len;
        let handoff = handoff(&made, &sums, options.clone()).map_err(|e| Error::io(key, &e))?;
        match self.with_timeout_for(len).adopt(key, &made, &handoff).await {
            // The daemon cannot see our file: send its bytes.
            Err(error) if error.kind() == ErrorKind::BadRequest => {
                self.put_with(key, AtPosition::new(made, 0), input_name, options).await
            }
            adopted => adopted.map(|_| sums.checksum),
        }
    }

    /// The data directory of the key's node and what it keeps free, if it is on this machine, its disk is sound, and it has
    /// room for `len` bytes. Otherwise a normal put gets the node's error, which has the numbers.
    async fn room_beside(&self, key: &Key, len: u64) -> Result<Option<(PathBuf, u64)>> {
        let node = self.cluster().node_of(key);
        let health = self.health(node).await?;
        // A disk that hangs would hold this program without a deadline.
        let is_sound = health.trouble.is_none();
        let has_room = is_sound && health.free_bytes > len.saturating_add(health.reserve_bytes);
        Ok(self.local_dir(node, &health).filter(|_| has_room).map(|dir| (dir.to_owned(), health.reserve_bytes)))
    }
}

/// Writes all of `input` into `made`, and calls `check` from time to time; the names are those of errors.
fn write_all_of(
    input: impl Read + Send + 'static,
    input_name: &str,
    mut made: &File,
    name: &str,
    check: impl Fn() -> std::io::Result<()>,
) -> Result<Sums> {
    let unreadable = |e: std::io::Error| Error::io(input_name, &e);
    let (mut hasher, checks) = (Hasher::of_parts(), SpaceChecks::default());
    let reading = InputReader::start(input).map_err(unreadable)?;
    loop {
        let written = reading.next(HEARTBEAT, |came| match came {
            Input::Bytes(bytes) => {
                hasher.update(bytes);
                made.write_all(bytes)?;
                if checks.is_due(hasher.len()) { check().map(|()| true) } else { Ok(true) }
            }
            Input::Pending => Ok(true),
            Input::End => Ok(false),
        });
        if !written.map_err(unreadable)?.map_err(|e| Error::io(name, &e))? {
            return Ok(hasher.sums());
        }
    }
}

/// A copy of `file` in an unnamed file of the data directory `dir`, and its checksums. A second thread reads the copy
/// while it is made, since the kernel copies without passing the bytes to this process.
fn copy(file: &File, dir: &Path, reserve: u64) -> std::io::Result<(File, Sums)> {
    let (made, checks) = (draft(dir)?, SpaceChecks::default());
    let ((), sums) = of_growing(
        &made,
        |e| e,
        |progress| {
            copy_all(file, &made, |position| {
                progress(position);
                match checks.is_due(position) {
                    true => check_space(dir, reserve),
                    false => Ok(()),
                }
            })
        },
    )?;
    Ok((made, sums))
}

/// Errors: less space is free than the node reserves. Then a normal put gets the error of the node, which has the
/// numbers.
fn check_space(dir: &Path, reserve: u64) -> std::io::Result<()> {
    let found = statvfs(dir)?;
    match found.blocks_available() as u64 * found.fragment_size() as u64 > reserve {
        true => Ok(()),
        false => Err(std::io::ErrorKind::StorageFull.into()),
    }
}

/// Copies up to the end of `from`, and reports the length so far to `progress`.
fn copy_all(from: &File, to: &File, progress: impl Fn(u64) -> std::io::Result<()>) -> std::io::Result<()> {
    let (mut read, mut written) = (0, 0);
    loop {
        match copy_file_range(from, Some(&mut read), to, Some(&mut written), COPY_STEP) {
            // Some kernels return 0 for files that they cannot copy.
            Ok(0) if written == 0 => break,
            Ok(0) => return Ok(()),
            Ok(_) => progress(written as u64)?,
            Err(Errno::EINTR) => {}
            Err(_) if written == 0 => break,
            Err(errno) => return Err(errno.into()),
        }
    }
    // The kernel does not copy between file systems.
    let (mut block, mut position) = (Block::new(BLOCK), 0);
    loop {
        match from.read_at(&mut block, position) {
            Ok(0) => return Ok(()),
            Ok(n) => {
                to.write_all_at(&block[..n], position)?;
                position += n as u64;
                progress(position)?;
            }
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

fn handoff(made: &File, sums: &Sums, options: PutOptions) -> std::io::Result<Handoff> {
    let found = made.metadata()?;
    Ok(Handoff {
        pid: std::process::id(),
        fd: made.as_raw_fd(),
        device: found.dev(),
        inode: found.ino(),
        len: found.len(),
        checksum: Some(sums.checksum),
        blocks: sums.table.as_ref().map(|table| table.encode(sums.checksum)),
        change: options.change,
        metadata: options.metadata,
    })
}

/// Drop guard: tells the reader of a growing file that the file is complete.
struct Ending<'a> {
    ended: &'a AtomicBool,
    reader: Thread,
}

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Release);
        self.reader.unpark();
    }
}

/// The checksums of `file` and of its parts. `write` makes the file longer and reports its length so far, while a
/// second thread reads the bytes. Blocks. Errors: those of `write`; if no thread can be started or the file cannot be
/// read, what `failed` makes of the error.
fn of_growing<T, E>(
    file: &File,
    failed: impl Fn(std::io::Error) -> E,
    write: impl FnOnce(&dyn Fn(u64)) -> std::result::Result<T, E>,
) -> std::result::Result<(T, Sums), E> {
    let (written, ended) = (AtomicU64::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let hash = || {
            let mut hasher = FileHasher::of_parts();
            loop {
                // Loaded before the length: if the file is complete, the length is final.
                let is_all = ended.load(Ordering::Acquire);
                hasher.read_to(file, written.load(Ordering::Acquire))?;
                match is_all {
                    true => return Ok(hasher.sums()),
                    false => std::thread::park(),
                }
            }
        };
        let hashing = std::thread::Builder::new().spawn_scoped(scope, hash).map_err(&failed)?;
        // Needed also if `write` panics, since the scope waits for its threads.
        let ending = Ending { ended: &ended, reader: hashing.thread().clone() };
        let done = write(&|len| {
            written.store(len, Ordering::Release);
            ending.reader.unpark();
        });
        drop(ending);
        let hashed = hashing.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        Ok((done?, hashed.map_err(&failed)?))
    })
}
