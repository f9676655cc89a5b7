//! What a job's tasks have done so far, for whoever asks after a restart of the daemon: a line `OUTPUTS BYTES` for each task that is done.
//! Nothing else rests on it: which tasks are done, the outputs themselves say.

use super::lines::Lines;
use s4::error::{Error, Result};
use s4::file::open_to_read;
use s4::protocol::Progress;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::time::UNIX_EPOCH;

/// The name of the file in a job's directory.
const FILE: &str = "journal";
/// Bytes of a line that are read at once: no line of ours is so long.
const LONGEST: u64 = 64;

/// A journal being written.
pub struct Journal(Lines);

impl Journal {
    pub fn new(dir: &Path) -> Result<Self> {
        Lines::new(dir.join(FILE)).map(Self).map_err(|e| failed(&e))
    }

    /// All outputs of a task are published; `bytes` are those of its inputs.
    pub fn done(&self, outputs: u64, bytes: u64) -> Result<()> {
        self.0.append(format!("{outputs} {bytes}\n").as_bytes()).map_err(|e| failed(&e))
    }

    pub fn close(&self) {
        self.0.close();
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
    let (mut file, mut line) = (BufReader::new(file), Vec::new());
    loop {
        line.clear();
        if file.by_ref().take(LONGEST).read_until(b'\n', &mut line).map_err(|e| failed(&e))? == 0 {
            break;
        }
        let whole = line.strip_suffix(b"\n").and_then(|line| std::str::from_utf8(line).ok());
        let counts = whole.and_then(|line| line.split_once(' '));
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

/// When something of the job in `dir` was last written, in milliseconds since 1970: a daemon that was killed was alive then. `None` if that
/// cannot be told.
pub fn last_sign(dir: &Path) -> Option<i64> {
    let entries = std::fs::read_dir(dir).ok()?.flatten();
    let written = entries.filter_map(|entry| entry.metadata().ok()?.modified().ok()?.duration_since(UNIX_EPOCH).ok());
    written.max().map(|since| since.as_millis() as i64)
}

fn failed(error: &std::io::Error) -> Error {
    Error::io("the job's journal", error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_was_cut_says_nothing() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(FILE), "1 10\n17\n").unwrap();
        let journal = Journal::new(dir.path()).unwrap();
        journal.done(2, 20).unwrap();
        journal.close();
        journal.done(4, 40).unwrap();
        let sum = sum(dir.path()).unwrap();
        assert_eq!((sum.done, sum.outputs, sum.bytes_done), (3, 7, 70));
    }
}
