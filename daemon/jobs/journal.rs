//! What a job's tasks have done so far, on disk, so that a later run of the same map goes on from there.
//!
//! A line for each step: `b ID INPUT INODE` before the first output of a task is published, `d ID OUTPUTS BYTES` once all
//! are. ID is the input's path, or the merge name; INPUT is a hash of what the inputs hold; INODE is the number of the
//! output's file where there is one output, so that it is told from a key that others put there, else 0. Capital letters
//! mark lines taken over from an earlier job.

use crate::store::{Sorter, Store};
use s4::error::{Error, Result};
use s4::file::{open_regular, open_to_read};
use s4::protocol::Progress;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::iter::Peekable;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

/// The name of the file in a job's directory.
pub const FILE: &str = "journal";

/// A journal being written; each line goes out whole.
pub struct Journal {
    file: File,
    /// A full disk has cut the last line, which must not swallow the next.
    torn: AtomicBool,
}

/// What is known of a task of an earlier run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Past {
    /// A hash of what its inputs held.
    pub input: u64,
    /// Of its only output, or 0.
    pub inode: u64,
    /// Outputs and bytes of inputs, if all outputs were published.
    pub done: Option<(u64, u64)>,
}

impl Journal {
    pub fn open(dir: &Path) -> Result<Self> {
        let file = open_regular(&dir.join(FILE), OpenOptions::new().create(true).append(true));
        file.map(|file| Self { file, torn: AtomicBool::new(false) }).map_err(|e| failed(&e))
    }

    /// Outputs of the task are about to be published.
    pub fn begin(&self, id: &str, input: u64, inode: u64) -> Result<()> {
        self.line(format_args!("b {id} {input:x} {inode}"))
    }

    /// All outputs of the task are published.
    pub fn done(&self, id: &str, outputs: u64, bytes: u64) -> Result<()> {
        self.line(format_args!("d {id} {outputs} {bytes}"))
    }

    /// Takes over what an earlier run did.
    pub fn take_over(&self, id: &str, past: Past) -> Result<()> {
        self.line(format_args!("B {id} {:x} {}", past.input, past.inode))?;
        past.done.map_or(Ok(()), |(outputs, bytes)| self.line(format_args!("D {id} {outputs} {bytes}")))
    }

    fn line(&self, line: std::fmt::Arguments) -> Result<()> {
        let begin = if self.torn.swap(false, Ordering::Relaxed) { "\n" } else { "" };
        let written = (&self.file).write_all(format!("{begin}{line}\n").as_bytes());
        written.inspect_err(|_| self.torn.store(true, Ordering::Relaxed)).map_err(|e| failed(&e))
    }
}

/// What the job in `dir` has done, without what it took over.
pub fn sum(dir: &Path) -> Result<Progress> {
    let mut progress = Progress::default();
    for line in lines(dir)? {
        let line = line?;
        if let ["d", _, outputs, bytes] = line.split(' ').collect::<Vec<_>>()[..] {
            progress.done += 1;
            progress.outputs += outputs.parse().unwrap_or(0);
            progress.bytes_done += bytes.parse().unwrap_or(0);
        }
    }
    Ok(progress)
}

/// The lines of a journal, of which empty and cut ones say nothing; a job that did nothing yet may have none.
fn lines(dir: &Path) -> Result<impl Iterator<Item = Result<String>> + use<>> {
    let file = match open_to_read(&dir.join(FILE)) {
        Ok(file) => Some(file),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => None,
        Err(e) => return Err(failed(&e)),
    };
    let lines = file.into_iter().flat_map(|file| BufReader::new(file).lines());
    Ok(lines.map(|line| line.map_err(|e| failed(&e))))
}

/// The tasks of an earlier run in the order of their ids, with memory bounded whatever their number.
pub struct History(Peekable<Steps>);

type Steps = Box<dyn Iterator<Item = Result<(String, Step)>>>;

/// Gathers a line, to be sorted by its task, and of one task by its number. One that was cut off by a full disk says
/// nothing.
fn push(sorter: &mut Sorter, number: u64, line: &str) -> Result<()> {
    let parts = line.split_once(' ').and_then(|(tag, rest)| Some((tag, rest.split_once(' ')?)));
    parts.map_or(Ok(()), |(tag, (id, rest))| {
        sorter.push(format!("{id} {number:012} {} {rest}", tag.to_ascii_lowercase()).into_bytes())
    })
}

#[derive(Debug, PartialEq, Eq)]
enum Step {
    Begun { input: u64, inode: u64 },
    Done { outputs: u64, bytes: u64 },
}

impl History {
    /// Of no earlier run.
    pub fn none() -> Self {
        let nothing: Steps = Box::new(std::iter::empty());
        Self(nothing.peekable())
    }

    /// Reads the journals of the jobs in `dirs`, the oldest first.
    pub fn read<'a>(store: &Store, dirs: impl Iterator<Item = &'a Path>) -> Result<Self> {
        let mut sorter = Sorter::new(store.root());
        let mut number = 0_u64;
        for dir in dirs {
            for line in lines(dir)? {
                number += 1;
                push(&mut sorter, number, &line?)?;
            }
        }
        let steps = sorter.finish()?.filter_map(|record| record.map(|record| parse(&record)).transpose());
        let steps: Steps = Box::new(steps);
        Ok(Self(steps.peekable()))
    }

    /// What is known of task `id`; to be asked in the order of ids.
    pub fn find(&mut self, id: &str) -> Result<Option<Past>> {
        let mut found: Option<Past> = None;
        loop {
            match self.0.peek() {
                Some(Ok((at, _))) if precedes(at, id) => {}
                Some(Err(_)) => {}
                _ => return Ok(found),
            }
            let Some((at, step)) = self.0.next().transpose()? else {
                return Ok(found);
            };
            match (step, &mut found) {
                _ if at != id => {}
                (Step::Begun { input, inode }, found) => *found = Some(Past { input, inode, done: None }),
                (Step::Done { outputs, bytes }, Some(past)) => past.done = Some((outputs, bytes)),
                (Step::Done { .. }, None) => {}
            }
        }
    }
}

/// True for `id` itself and for what is sorted before it, as lines in which a space follows the id are.
fn precedes(at: &str, id: &str) -> bool {
    at.bytes().chain([b' ']).le(id.bytes().chain([b' ']))
}

fn parse(record: &[u8]) -> Option<(String, Step)> {
    let text = std::str::from_utf8(record).ok()?;
    let fields: Vec<&str> = text.split(' ').collect();
    match fields[..] {
        [id, _, "b", input, inode] => {
            let step = Step::Begun { input: u64::from_str_radix(input, 16).ok()?, inode: inode.parse().ok()? };
            Some((id.to_owned(), step))
        }
        [id, _, "d", outputs, bytes] => {
            Some((id.to_owned(), Step::Done { outputs: outputs.parse().ok()?, bytes: bytes.parse().ok()? }))
        }
        _ => None,
    }
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
        journal.done("in/a", 1, 10).unwrap();
        (&journal.file).write_all(b"d in/b 1").unwrap();
        journal.torn.store(true, Ordering::Relaxed);
        journal.done("in/c", 2, 20).unwrap();
        journal.done("in/d", 4, 40).unwrap();
        let sum = sum(dir.path()).unwrap();
        assert_eq!((sum.done, sum.outputs, sum.bytes_done), (3, 7, 70));
    }
}
