//! What a job's tasks have done so far, for whoever asks after a restart of the daemon: a line `OUTPUTS BYTES` for each task that is done.
//! Nothing else rests on it: which tasks are done, the outputs themselves say.

use s4::error::{Error, Result};
use s4::file::{open_regular, open_to_read};
use s4::protocol::Progress;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

/// The name of the file in a job's directory.
const FILE: &str = "journal";

/// A journal being written; each line goes out whole.
pub struct Journal {
    file: File,
    /// A full disk has cut the last line, which must not swallow the next.
    torn: AtomicBool,
}

impl Journal {
    pub fn open(dir: &Path) -> Result<Self> {
        let file = open_regular(&dir.join(FILE), OpenOptions::new().create(true).append(true));
        file.map(|file| Self { file, torn: AtomicBool::new(false) }).map_err(|e| failed(&e))
    }

    /// All outputs of a task are published; `bytes` are those of its inputs.
    pub fn done(&self, outputs: u64, bytes: u64) -> Result<()> {
        let begin = if self.torn.swap(false, Ordering::Relaxed) { "\n" } else { "" };
        let written = (&self.file).write_all(format!("{begin}{outputs} {bytes}\n").as_bytes());
        written.inspect_err(|_| self.torn.store(true, Ordering::Relaxed)).map_err(|e| failed(&e))
    }
}

/// What the job in `dir` has done. A line that was cut says nothing; a job that did nothing yet may have no journal.
pub fn sum(dir: &Path) -> Result<Progress> {
    let mut progress = Progress::default();
    let file = match open_to_read(&dir.join(FILE)) {
        Ok(file) => file,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(progress),
        Err(e) => return Err(failed(&e)),
    };
    for line in BufReader::new(file).split(b'\n') {
        let line = line.map_err(|e| failed(&e))?;
        let counts = std::str::from_utf8(&line).ok().and_then(|line| line.split_once(' '));
        if let Some((Ok(outputs), Ok(bytes))) =
            counts.map(|(outputs, bytes)| (outputs.parse::<u64>(), bytes.parse::<u64>()))
        {
            progress.done += 1;
            progress.outputs += outputs;
            progress.bytes_done += bytes;
        }
    }
    Ok(progress)
}

fn failed(error: &std::io::Error) -> Error {
    Error::io("the job's journal", error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_was_cut_swallows_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::open(dir.path()).unwrap();
        journal.done(1, 10).unwrap();
        (&journal.file).write_all(b"17").unwrap();
        journal.torn.store(true, Ordering::Relaxed);
        journal.done(2, 20).unwrap();
        journal.done(4, 40).unwrap();
        let sum = sum(dir.path()).unwrap();
        assert_eq!((sum.done, sum.outputs, sum.bytes_done), (3, 7, 70));
    }
}
