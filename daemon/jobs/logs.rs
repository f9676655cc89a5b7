//! The stderr of a job's tasks, stored on disk up to a limit: a file for each task that wrote any, with its key in the
//! first line.

use super::command::{OutputSink, Stream};
use s4::body::Disconnected;
use s4::checksum::hash;
use s4::error::{Error, ErrorKind, Result};
use s4::file::{make_dir, open_regular, open_to_read};
use s4::key::Key;
use s4::protocol::JobId;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes stored of one task's stderr, from its beginning.
const MAX_TASK: u64 = 16 << 20;
/// Bytes stored for all tasks of a job on this node.
const MAX_JOB: u64 = 512 << 20;
/// Bytes of the end of stderr that a failure shows. They are stored even if the limits above are exceeded.
const TAIL: usize = 4096;
/// Bytes for the ends of stderr that did not fit.
const MAX_TAILS: u64 = 16 << 20;

/// Limit of bytes of a log's first line, which names its key.
const MAX_NAME: u64 = 4096;

/// The logs of one job.
pub struct Logs {
    dir: PathBuf,
    /// Bytes that may still be written.
    left: AtomicU64,
    ends_left: AtomicU64,
}

impl Logs {
    /// Logs in `dir`, of at most `bound` bytes besides the ends of those that did not fit. The directory is created
    /// with the first log.
    pub fn new(dir: PathBuf, bound: u64) -> Arc<Self> {
        Arc::new(Self {
            dir,
            left: AtomicU64::new(bound.min(MAX_JOB)),
            ends_left: AtomicU64::new(MAX_TAILS.min(bound)),
        })
    }

    pub fn task(self: &Arc<Self>, key: &Key) -> TaskLog {
        let path = path_of(&self.dir, key);
        TaskLog { logs: self.clone(), key: key.clone(), path, file: None, kept: 0, left_out: 0, end: Vec::new() }
    }
}

fn path_of(dir: &Path, key: &Key) -> PathBuf {
    dir.join(format!("{:016x}", hash(key.as_str().as_bytes())))
}

/// Takes up to `wanted` bytes of those that are left.
fn take(left: &AtomicU64, wanted: u64) -> u64 {
    let before = left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| Some(left.saturating_sub(wanted)));
    before.unwrap_or(0).min(wanted)
}

/// The log of one task, which receives its command's stderr.
pub struct TaskLog {
    logs: Arc<Logs>,
    key: Key,
    path: PathBuf,
    /// Created with the first byte.
    file: Option<File>,
    kept: u64,
    left_out: u64,
    end: Vec<u8>,
}

impl TaskLog {
    /// Begins another attempt of the task.
    pub fn attempt(&mut self, number: u32) {
        self.end.clear();
        if self.file.is_some() {
            self.keep(format!("[s4: attempt {number}]\n").as_bytes());
        }
    }

    /// The end of what the last attempt has written.
    pub fn end(&self) -> &[u8] {
        &self.end
    }

    fn keep(&mut self, bytes: &[u8]) {
        let wanted = (bytes.len() as u64).min(MAX_TASK.saturating_sub(self.kept));
        let taken = take(&self.logs.left, wanted) as usize;
        self.left_out += (bytes.len() - taken) as u64;
        if taken > 0 {
            self.kept += taken as u64;
            self.write(&bytes[..taken]);
        }
    }

    fn write(&mut self, bytes: &[u8]) {
        let written = match &mut self.file {
            Some(file) => file.write_all(bytes),
            None => self.begin().and_then(|mut file| {
                let written = file.write_all(bytes);
                self.file = Some(file);
                written
            }),
        };
        if let Err(error) = written {
            tracing::debug!("the log of {}: {error}", self.key);
        }
    }

    fn begin(&self) -> std::io::Result<File> {
        make_dir(&self.logs.dir)?;
        let mut file = open_regular(&self.path, OpenOptions::new().create(true).append(true))?;
        if file.metadata()?.len() == 0 {
            writeln!(file, "{}", self.key.as_str())?;
        }
        Ok(file)
    }
}

impl OutputSink for TaskLog {
    fn output(&mut self, _: Stream, bytes: &[u8]) -> std::result::Result<(), Disconnected> {
        self.keep(bytes);
        let new = &bytes[bytes.len().saturating_sub(TAIL)..];
        let old = self.end.len().saturating_sub(TAIL - new.len());
        self.end.drain(..old);
        self.end.extend_from_slice(new);
        Ok(())
    }

    fn idle(&mut self) -> std::result::Result<(), Disconnected> {
        Ok(())
    }
}

impl Drop for TaskLog {
    fn drop(&mut self) {
        if self.left_out == 0 {
            return;
        }
        let end = std::mem::take(&mut self.end);
        let end = &end[end.len() - (end.len() as u64).min(self.left_out) as usize..];
        let said = format!("\n[s4: {} bytes are left out here]\n", self.left_out - end.len() as u64);
        let wanted = (said.len() + end.len()) as u64;
        if take(&self.logs.ends_left, wanted) == wanted {
            self.write(said.as_bytes());
            self.write(end);
        }
    }
}

/// A log that is open for reading behind its first line.
pub struct Log {
    pub key: Key,
    pub content: BufReader<File>,
}

/// The log of the task whose (first) input is `key`, of the job `id` with logs in `dir`.
pub fn find(dir: &Path, id: &JobId, key: &Key) -> Result<Log> {
    open(&path_of(dir, key))?.ok_or_else(|| {
        Error::new(ErrorKind::NotFound, format!("{key}: job {id} has no stderr of it: it wrote none, or is no task"))
    })
}

/// All logs in `dir`, in any order.
pub fn all(dir: &Path) -> Result<impl Iterator<Item = Result<Log>> + use<>> {
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => Some(entries),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => None,
        Err(e) => return Err(Error::io("the job's logs", &e)),
    };
    let paths = entries.into_iter().flatten().flatten().map(|entry| entry.path());
    Ok(paths.filter_map(|path| open(&path).transpose()))
}

fn open(path: &Path) -> Result<Option<Log>> {
    let failed = |e: std::io::Error| Error::io("a task's log", &e);
    let file = match open_to_read(path) {
        Ok(file) => file,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(failed(e)),
    };
    let mut content = BufReader::new(file);
    let mut name = String::new();
    content.by_ref().take(MAX_NAME).read_line(&mut name).map_err(failed)?;
    Ok(Key::parse(name.trim_end()).ok().map(|key| Log { key, content }))
}
