//! The record of failures of a job's tasks on this node: a file of JSON lines, each appended in one write.

use super::lines::Lines;
use s4::error::{Error, Result};
use s4::protocol::{Event, TaskFailure};
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Bytes of the record that are read at a time.
const PAGE: u64 = 1 << 20;
/// Limit of bytes that are read in total, in case another process has replaced the file.
const MAX_BYTES: u64 = 4 << 30;

pub struct Failures(Lines);

impl Failures {
    /// The failures of the job whose files are in `dir`.
    pub fn new(dir: &Path) -> Result<Self> {
        let path = dir.join("failures");
        Lines::new(path.clone()).map(Self).map_err(|e| Error::io(path.display(), &e))
    }

    pub fn append(&self, failure: &TaskFailure) -> std::io::Result<()> {
        let mut line = serde_json::to_vec(failure).expect("a failure is plain JSON");
        line.push(b'\n');
        self.0.append(&line)
    }

    /// Closes the file.
    pub fn close(&self) {
        // Closing can only fail when it syncs.
        let _ = self.0.close(false);
    }

    /// Failures from byte `from` of the record on, and the byte at which they end.
    pub fn read(&self, from: u64) -> Result<(Vec<Event>, u64)> {
        let failed = |e: std::io::Error| Error::io("the job's failures", &e);
        let Some(file) = self.0.read().map_err(failed)? else {
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
            let lines = bytes[..whole].split(|&b| b == b'\n');
            let events = lines.filter_map(|line| serde_json::from_slice::<TaskFailure>(line).ok()).map(Event::Failure);
            let events: Vec<_> = events.collect();
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
