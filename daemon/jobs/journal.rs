//! Journals: a file for each job that ran tasks on this node. It is kept longer than the other records of the job. Its
//! name is the hash of the job's id, which the marks of outputs contain.
//!
//! The first line is the job as JSON. Then each finished task has a line `OUTPUTS BYTES DIGEST INPUTS`: the number of
//! its outputs, then the bytes, the digest and the number of its inputs. A line ` KEY XXH3 LENGTH` follows for each
//! input. No output is judged by these files. `s4 why` reads them, and a starting daemon reads the progress of an
//! interrupted job. Files of earlier versions stay on disks, so a new field must be optional and last.

use super::inputs::TaskInputs;
use super::lines::Lines;
use crate::store::Store;
use s4::error::{Error, Result};
use s4::file::open_to_read;
use s4::key::{Key, MAX_KEY};
use s4::protocol::{Input, JobSpec, Progress, TaskRecord};
use std::fs::File;
use std::io::{self, BufRead, BufReader, ErrorKind, Read};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::SystemTime;

/// Limit of bytes of all journals, except those of running jobs. The oldest are removed first.
const MAX_BYTES: u64 = 256 << 20;
/// Limit of bytes of a line about a task.
const MAX_LINE: u64 = MAX_KEY as u64 + 64;
/// Limit of bytes of a job that is read.
const MAX_JOB: u64 = 4 << 20;

/// The journal of a job, open for appending.
pub struct Journal(Lines);

impl Journal {
    /// `job` is the hash of the job's id.
    pub fn new(store: &Store, job: u64) -> Result<Self> {
        Lines::new(path(store, job)).map(Self).map_err(|e| failed(&e))
    }

    /// Writes the job. Must be called before any task is written.
    pub fn begin(&self, spec: &JobSpec) -> Result<()> {
        let mut line = serde_json::to_vec(spec).expect("a job is plain JSON");
        line.push(b'\n');
        self.0.append(&line).map_err(|e| failed(&e))
    }

    /// True if the job has been written down, whole.
    pub fn has_begun(&self) -> Result<bool> {
        let file = self.0.read().map_err(|e| failed(&e))?;
        file.map_or(Ok(false), |file| read_job(&file).map(|job| job.is_some()))
    }

    /// Removes what was written before it was whole.
    pub fn clear(&self) -> Result<()> {
        self.0.remove().map_err(|e| failed(&e))
    }

    /// Records a task whose outputs are all published. `bytes` is the size of its inputs.
    pub fn done(&self, outputs: u64, bytes: u64, inputs: TaskInputs) -> Result<()> {
        let (digest, count) = (inputs.digest(), inputs.count());
        let line = format!("{outputs} {bytes} {digest:016x} {count}\n");
        inputs.append_to(&self.0, line).map_err(|e| failed(&e))
    }

    /// Closes the file; with `sync`, syncs it to the disk before.
    pub fn close(&self, sync: bool) -> Result<()> {
        self.0.close(sync).map_err(|e| failed(&e))
    }

    /// Totals of the job on this node.
    pub fn sum(&self) -> Result<Progress> {
        let mut progress = Progress::default();
        each_line(self.0.read().map_err(|e| failed(&e))?, &mut |line| {
            if let Some(Line::Task { outputs, bytes, .. }) = Line::of_task(line) {
                progress.done += 1;
                progress.outputs += outputs;
                progress.bytes_done += bytes;
            }
        })?;
        Ok(progress)
    }

    /// The time of the last write; `None` if there is no file.
    pub fn modified(&self) -> Option<SystemTime> {
        self.0.read().ok()??.metadata().ok()?.modified().ok()
    }
}

/// The record of the last task of `job` (the hash of its id) whose inputs have this digest, with at most `most` inputs,
/// from number `from` on.
pub fn find(store: &Store, job: u64, digest: u64, from: u64, most: usize) -> Result<Option<TaskRecord>> {
    let file = match open_to_read(&path(store, job)) {
        Ok(file) => file,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(failed(&e)),
    };
    let Some(job) = read_job(&file)? else {
        return Ok(None);
    };
    let mut found: Option<TaskRecord> = None;
    // The task whose lines are being read: its number of inputs, and how many were read.
    let mut under_way: Option<(TaskRecord, u64)> = None;
    each_line(Some(file), &mut |line| {
        if let Some(Line::Task { digest: of, count, .. }) = Line::of_task(line) {
            under_way = (of == digest).then(|| (TaskRecord { job: job.clone(), count, inputs: Vec::new() }, 0));
            return;
        }
        let Some((record, seen)) = &mut under_way else { return };
        let Some(Line::Input(input)) = Line::parse(line) else { return };
        if *seen >= from && record.inputs.len() < most {
            record.inputs.push(input);
        }
        *seen += 1;
        if *seen == record.count {
            found = under_way.take().map(|(record, _)| record);
        }
    })?;
    Ok(found)
}

/// Removes the oldest files above the limit, but none that `is_needed` by the hash of a job's id.
pub fn prune(store: &Store, is_needed: impl Fn(u64) -> bool) -> Result<()> {
    let dir = store.provenance_dir();
    let mut files = Vec::new();
    for entry in std::fs::read_dir(&dir).map_err(|e| Error::io(dir.display(), &e))?.flatten() {
        if let Ok(found) = entry.metadata() {
            files.push((found.mtime(), found.blocks() * 512, entry.file_name()));
        }
    }
    files.sort_unstable_by(|one, other| other.cmp(one));
    let mut kept = 0;
    for (_, bytes, name) in files {
        kept += bytes;
        let job = name.to_str().and_then(|name| u64::from_str_radix(name, 16).ok());
        if kept > MAX_BYTES && !job.is_some_and(&is_needed) {
            // A file that cannot be removed only takes space.
            let _ = std::fs::remove_file(dir.join(name));
        }
    }
    Ok(())
}

fn path(store: &Store, job: u64) -> PathBuf {
    store.provenance_dir().join(format!("{job:016x}"))
}

fn read_job(file: &File) -> Result<Option<JobSpec>> {
    let mut line = Vec::new();
    let mut file = BufReader::new(s4::file::AtPosition::new(file, 0));
    file.by_ref().take(MAX_JOB).read_until(b'\n', &mut line).map_err(|e| failed(&e))?;
    Ok(serde_json::from_slice(&line).ok())
}

/// A line about a task.
#[derive(Debug, PartialEq, Eq)]
enum Line {
    Task { outputs: u64, bytes: u64, digest: u64, count: u64 },
    Input(Input),
}

impl Line {
    /// Parses a line about a task. Skips lines of inputs quickly, since most lines are of inputs.
    fn of_task(line: &[u8]) -> Option<Self> {
        if line.starts_with(b" ") { None } else { Self::parse(line) }
    }

    /// `None` if the line is of another kind, or incomplete.
    fn parse(line: &[u8]) -> Option<Self> {
        let line = std::str::from_utf8(line.strip_suffix(b"\n")?).ok()?;
        if let Some(input) = line.strip_prefix(' ') {
            let (key, checksum) = input.split_once(' ')?;
            return Some(Self::Input(Input { key: Key::parse(key).ok()?, checksum: checksum.parse().ok()? }));
        }
        let fields: Vec<&str> = line.split(' ').collect();
        let [outputs, bytes, digest, count] = fields[..] else { return None };
        let digest = u64::from_str_radix(digest, 16).ok()?;
        let number = |text: &str| text.parse::<u64>().ok().map(s4::bounds::bounded);
        Some(Self::Task { outputs: number(outputs)?, bytes: number(bytes)?, digest, count: number(count)? })
    }
}

/// Visits every line, including its newline. Only an incomplete last line has none.
fn each_line(file: Option<File>, visit: &mut dyn FnMut(&[u8])) -> Result<()> {
    let Some(file) = file else { return Ok(()) };
    let (mut file, mut line) = (BufReader::new(file), Vec::new());
    loop {
        line.clear();
        if file.by_ref().take(MAX_LINE).read_until(b'\n', &mut line).map_err(|e| failed(&e))? == 0 {
            return Ok(());
        }
        visit(&line);
    }
}

fn failed(error: &io::Error) -> Error {
    Error::io("the job's journal", error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jobs::inputs::input_line;
    use proptest::prelude::*;
    use s4::checksum::Checksum;

    #[test]
    fn lines_are_read_as_written_and_a_cut_line_is_ignored() {
        let checksum = Checksum { xxh3: 7, len: 5 };
        let key = Key::parse("in/a").unwrap();
        let line = input_line(&key, checksum);
        assert_eq!(Line::parse(line.as_bytes()), Some(Line::Input(Input { key, checksum })));
        let task = Line::Task { outputs: 2, bytes: 20, digest: 31, count: 1 };
        assert_eq!(Line::parse(b"2 20 000000000000001f 1\n"), Some(task));
        for cut in [&b"2 20 000000000000001f 1"[..], b"2 20 1f\n", b"17\n", b"\n", b" in/a 7\n", b"{\"id\":1}\n"] {
            assert_eq!(Line::parse(cut), None, "{}", String::from_utf8_lossy(cut));
        }
    }

    proptest! {
        #[test]
        fn any_line_is_read_without_a_crash(line in "[ 0-9a-f/]{0,40}\n?|\\PC{0,40}\n") {
            let _ = Line::parse(line.as_bytes());
        }
    }
}
