//! The record of failures of a job's tasks on this node: a file of JSON lines, each appended in one write.

use super::lines::Lines;
use s4::error::{Error, Result};
use s4::protocol::{Event, TaskFailure};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Bytes of the record that are read at a time.
const PAGE: u64 = 1 << 20;
/// Limit of bytes that are read in total, in case another process has replaced the file.
const MAX_BYTES: u64 = 4 << 30;
/// Limit of bytes that are held because the disk does not take them.
const MAX_UNWRITTEN: usize = 64 << 10;

pub struct Failures {
    lines: Lines,
    unwritten: Mutex<Unwritten>,
}

/// What the disk did not take, until the daemon ends: a failing disk is why tasks fail, and the client must learn of it.
#[derive(Default)]
struct Unwritten {
    /// The first byte of `lines`, as if they were the end of the record.
    from: u64,
    lines: Vec<u8>,
}

impl Failures {
    /// The failures of the job whose files are in `dir`.
    pub fn new(dir: &Path) -> Result<Self> {
        let path = dir.join("failures");
        let lines = Lines::new(path.clone()).map_err(|e| Error::io(path.display(), &e))?;
        Ok(Self { lines, unwritten: Mutex::default() })
    }

    /// Errors: it is not on the disk, but is [read](Failures::read) until the daemon ends, unless there are too many.
    pub fn append(&self, failure: &TaskFailure) -> std::io::Result<()> {
        let mut line = serde_json::to_vec(failure).expect("a failure is plain JSON");
        line.push(b'\n');
        let mut unwritten = self.unwritten();
        if unwritten.lines.is_empty() {
            let Err(error) = self.lines.append(&line) else { return Ok(()) };
            unwritten.from =
                self.lines.read().ok().flatten().and_then(|file| Some(file.metadata().ok()?.len())).unwrap_or(0);
            unwritten.lines = line;
            return Err(error);
        }
        if unwritten.lines.len() < MAX_UNWRITTEN {
            unwritten.lines.extend(line);
        }
        Err(std::io::Error::other("the disk has refused one before"))
    }

    fn unwritten(&self) -> MutexGuard<'_, Unwritten> {
        self.unwritten.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Closes the file.
    pub fn close(&self) {
        // Closing can only fail when it syncs.
        let _ = self.lines.close(false);
    }

    /// Failures from byte `from` of the record on, and the byte at which they end.
    pub fn read(&self, from: u64) -> Result<(Vec<Event>, u64)> {
        let written = self.read_written(from);
        let unwritten = self.unwritten();
        if unwritten.lines.is_empty() || written.as_ref().is_ok_and(|(events, _)| !events.is_empty()) {
            return written;
        }
        let lines = unwritten.lines.get(from.saturating_sub(unwritten.from) as usize..).unwrap_or_default();
        Ok((events_of(lines), unwritten.from + unwritten.lines.len() as u64))
    }

    fn read_written(&self, from: u64) -> Result<(Vec<Event>, u64)> {
        let failed = |e: std::io::Error| Error::io("the job's failures", &e);
        let Some(file) = self.lines.read().map_err(failed)? else {
            return Ok((Vec::new(), from));
        };
        let mut from = from;
        loop {
            let len = file.metadata().map_err(failed)?.len().min(MAX_BYTES);
            let mut bytes = vec![0; len.saturating_sub(from).min(PAGE) as usize];
            file.read_exact_at(&mut bytes, from).map_err(failed)?;
            let whole = match bytes.iter().rposition(|&b| b == b'\n') {
                Some(at) => at + 1,
                // s4 never writes such a long line. It is skipped, so that reading goes on behind it.
                None if bytes.len() as u64 == PAGE => bytes.len(),
                None => return Ok((Vec::new(), from)),
            };
            from += whole as u64;
            let events = events_of(&bytes[..whole]);
            if !events.is_empty() {
                return Ok((events, from));
            }
        }
    }

    pub fn count(&self) -> u64 {
        let (mut from, mut count) = (0, 0);
        while let Ok((failures, end)) = self.read(from)
            && !failures.is_empty()
        {
            (from, count) = (end, count + failures.len() as u64);
        }
        count
    }
}

fn events_of(lines: &[u8]) -> Vec<Event> {
    let lines = lines.split(|&b| b == b'\n');
    lines.filter_map(|line| serde_json::from_slice::<TaskFailure>(line).ok()).map(Event::Failure).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_that_the_disk_does_not_take_is_read_all_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let failures = Failures::new(&dir.path().join("gone")).unwrap();
        let failure = |name: &str| TaskFailure {
            node: 1,
            key: s4::key::Key::parse(name).unwrap(),
            reason: "exit status 1".to_owned(),
            stderr: String::new(),
        };
        failures.append(&failure("b/1_a")).unwrap_err();
        let (first, end) = failures.read(0).unwrap();
        assert_eq!(first.len(), 1);
        failures.append(&failure("b/1_b")).unwrap_err();
        let (second, end) = failures.read(end).unwrap();
        assert!(second.len() == 1 && failures.read(end).unwrap().0.is_empty());
        assert_eq!(failures.count(), 2);
    }
}
