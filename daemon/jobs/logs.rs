//! The stderr of a job's tasks, kept on disk within a bound: a file for each task that wrote any, its key in the first line.

use super::command::{Attendant, Stream};
use s4::body::Hangup;
use s4::checksum::hash;
use s4::error::{Error, ErrorKind, Result};
use s4::file::{open_regular, open_to_read};
use s4::key::Key;
use s4::protocol::JobId;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes kept of one task's stderr, from its beginning.
const TASK: u64 = 16 << 20;
/// Bytes kept of all tasks of a job on this node.
const JOB: u64 = 512 << 20;
/// Bytes of the end of stderr that a failure shows, and that are kept beyond the bounds above.
const SHOWN: usize = 4096;
/// Bytes for the ends of those tasks whose stderr did not fit.
const ENDS: u64 = 16 << 20;

/// Bytes of the line that names a log's key, and some more.
const LONGEST_NAME: u64 = 4096;

/// The logs of one job.
pub struct Logs {
    dir: PathBuf,
    /// Bytes that may still be written.
    left: AtomicU64,
    ends_left: AtomicU64,
}

impl Logs {
    /// Logs in `dir`, which is made with the first of them, of at most `bound` bytes and the ends of those left out.
    pub fn new(dir: PathBuf, bound: u64) -> Arc<Self> {
        Arc::new(Self { dir, left: AtomicU64::new(bound.min(JOB)), ends_left: AtomicU64::new(ENDS.min(bound)) })
    }

    pub fn task(self: &Arc<Self>, key: &Key) -> TaskLog {
        let path = path_of(&self.dir, key);
        TaskLog { logs: self.clone(), key: key.clone(), path, file: None, kept: 0, left_out: 0, end: Vec::new() }
    }
}

fn path_of(dir: &Path, key: &Key) -> PathBuf {
    dir.join(format!("{:016x}", hash(key.as_str().as_bytes())))
}

/// Takes as many of `wanted` as there are left.
fn take(left: &AtomicU64, wanted: u64) -> u64 {
    let before = left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| Some(left.saturating_sub(wanted)));
    before.unwrap_or(0).min(wanted)
}

/// The log of one task, which its command's stderr goes into.
pub struct TaskLog {
    logs: Arc<Logs>,
    key: Key,
    path: PathBuf,
    /// Made with the first byte.
    file: Option<File>,
    kept: u64,
    left_out: u64,
    end: Vec<u8>,
}

impl TaskLog {
    /// Begins another attempt of the same task.
    pub fn attempt(&mut self, number: u32) {
        self.end.clear();
        if self.file.is_some() {
            self.keep(format!("[s4: attempt {number}]\n").as_bytes());
        }
    }

    /// The end of what the last attempt wrote.
    pub fn end(&self) -> &[u8] {
        &self.end
    }

    fn keep(&mut self, bytes: &[u8]) {
        let wanted = (bytes.len() as u64).min(TASK.saturating_sub(self.kept));
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
        std::fs::create_dir_all(&self.logs.dir)?;
        let mut file = open_regular(&self.path, OpenOptions::new().create(true).append(true))?;
        if file.metadata()?.len() == 0 {
            writeln!(file, "{}", self.key.as_str())?;
        }
        Ok(file)
    }
}

impl Attendant for TaskLog {
    fn output(&mut self, _: Stream, bytes: &[u8]) -> std::result::Result<(), Hangup> {
        self.keep(bytes);
        let new = &bytes[bytes.len().saturating_sub(SHOWN)..];
        let old = self.end.len().saturating_sub(SHOWN - new.len());
        self.end.drain(..old);
        self.end.extend_from_slice(new);
        Ok(())
    }

    fn idle(&mut self) -> std::result::Result<(), Hangup> {
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

/// One log, open to be read from behind its first line.
pub struct Log {
    pub key: Key,
    pub content: BufReader<File>,
}

/// The log of the task whose (first) input is `key`, of the job `id` whose logs are in `dir`.
pub fn find(dir: &Path, id: &JobId, key: &Key) -> Result<Log> {
    open(&path_of(dir, key))?.ok_or_else(|| {
        Error::new(ErrorKind::NotFound, format!("{key}: job {id} has no stderr of it: it wrote none, or is no task"))
    })
}

/// All logs in `dir`, in no order.
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
    content.by_ref().take(LONGEST_NAME).read_line(&mut name).map_err(failed)?;
    Ok(Key::parse(name.trim_end()).ok().map(|key| Log { key, content }))
}
