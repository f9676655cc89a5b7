//! Reads a job's plan, task by task. [`plan`](super::plan) writes it.

use crate::store::Store;
use s4::error::{Error, ErrorKind, Result};
use s4::file::open_to_read;
use s4::key::Key;
use s4::protocol::{JobSpec, MapKind};
use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Seek, Write};
use std::path::Path;

/// Tasks that are read at a time.
const BATCH: usize = 64;

/// In a plan: a group that needs no run.
pub const SKIP: &str = "=";

/// A planned task.
pub struct Task {
    /// Counts from 0, in the order of the plan.
    pub number: u64,
    /// The (first) input.
    pub key: Key,
    /// The output of a 1:1 or n:1 task.
    pub output: Option<Key>,
    /// The stdin of an n:1 task: the local paths of its inputs, one per line.
    pub paths: Option<File>,
    /// Bytes of the inputs.
    pub size: u64,
    /// Outputs of earlier runs must be deleted first. The value is the digest of the inputs.
    pub clean: Option<u64>,
    /// The outdated outputs of this merge name, which are deleted too.
    pub outdated: Vec<Key>,
}

/// Reads the tasks of a plan in order.
pub struct Tasks {
    lines: std::io::Lines<BufReader<File>>,
    number: u64,
}

impl Tasks {
    pub fn open(path: &Path) -> Result<Self> {
        let file = open_to_read(path).map_err(|e| failed(&e))?;
        Ok(Self { lines: BufReader::new(file).lines(), number: 0 })
    }

    /// The next tasks, in order; none at the end. Several at once, to save thread switches. Blocks.
    pub fn next_batch(&mut self, store: &Store, spec: &JobSpec) -> Result<VecDeque<Task>> {
        let most = match spec.kind {
            MapKind::Map | MapKind::MapToN => BATCH,
            // Each task of an n:1 map holds a file.
            MapKind::MapFromN => 1,
            MapKind::Copy => 0,
        };
        (0..most).map_while(|_| self.next(store, spec).transpose()).collect()
    }

    fn next(&mut self, store: &Store, spec: &JobSpec) -> Result<Option<Task>> {
        let task = match spec.kind {
            MapKind::Map | MapKind::MapToN => self.next_single(spec)?,
            MapKind::MapFromN => self.next_merge(store, spec)?,
            // A copy has no plan.
            MapKind::Copy => None,
        };
        self.number += u64::from(task.is_some());
        Ok(task)
    }

    fn next_single(&mut self, spec: &JobSpec) -> Result<Option<Task>> {
        let Some(line) = self.next_line()? else {
            return Ok(None);
        };
        let (size, clean, key) = parse_decided(&line)?;
        let key = Key::parse(key)?;
        let output = match spec.kind {
            MapKind::Map => Some(output_of(spec, &key)?),
            MapKind::MapToN | MapKind::MapFromN | MapKind::Copy => None,
        };
        let clean = parse_clean(clean);
        Ok(Some(Task { number: self.number, key, output, paths: None, size, clean, outdated: Vec::new() }))
    }

    fn next_merge(&mut self, store: &Store, spec: &JobSpec) -> Result<Option<Task>> {
        loop {
            let Some(line) = self.next_line()? else {
                return Ok(None);
            };
            let first = Key::parse(&line)?;
            let mut merged = Merged::begin(store, &first)?;
            let end = loop {
                let line = self.next_line()?.ok_or_else(damaged)?;
                match line.strip_prefix(' ') {
                    Some(end) => break end.to_owned(),
                    None => merged.add(store, &Key::parse(&line)?)?,
                }
            };
            let (size, clean, names) = parse_decided(&end)?;
            if clean == SKIP {
                continue;
            }
            let mut names = names.split(' ');
            let output = Some(merged.suffix.output(spec, names.next().unwrap_or_default())?);
            let outdated = names.map(Key::parse).collect::<Result<_>>()?;
            let (clean, paths) = (parse_clean(clean), Some(merged.finish()?));
            return Ok(Some(Task { number: self.number, key: first, output, paths, size, clean, outdated }));
        }
    }

    fn next_line(&mut self) -> Result<Option<String>> {
        self.lines.next().transpose().map_err(|e| failed(&e))
    }
}

/// The inputs of an n:1 task, in the form that its command reads.
pub struct Merged {
    paths: BufWriter<File>,
    suffix: Suffix,
}

impl Merged {
    pub fn begin(store: &Store, first: &Key) -> Result<Self> {
        let paths = BufWriter::new(store.unnamed_file().map_err(|e| failed(&e))?);
        let mut merged = Self { paths, suffix: Suffix::default() };
        merged.add(store, first).map(|()| merged)
    }

    pub fn add(&mut self, store: &Store, key: &Key) -> Result<()> {
        self.suffix.add(key);
        writeln!(self.paths, "{}", store.path(key).display()).map_err(|e| failed(&e))
    }

    /// The file of the paths, with its position at the beginning.
    pub fn finish(self) -> Result<File> {
        let mut paths = self.paths.into_inner().map_err(|e| failed(&e.into_error()))?;
        paths.rewind().map_err(|e| failed(&e)).map(|()| paths)
    }
}

/// Parses `SIZE CLEAN NAME`.
fn parse_decided(line: &str) -> Result<(u64, &str, &str)> {
    let mut fields = line.splitn(3, ' ');
    let (size, clean, name) = (fields.next(), fields.next(), fields.next());
    let size = size.and_then(|size| size.parse().ok()).ok_or_else(damaged)?;
    Ok((size, clean.ok_or_else(damaged)?, name.ok_or_else(damaged)?))
}

/// Parses the digest of the inputs of a task whose old outputs must be deleted.
fn parse_clean(text: &str) -> Option<u64> {
    u64::from_str_radix(text, 16).ok()
}

/// The suffix that all inputs of a merge name share, if there is one.
#[derive(Default)]
pub struct Suffix(Option<Option<String>>);

impl Suffix {
    pub fn add(&mut self, key: &Key) {
        let shared = self.0.get_or_insert_with(|| Some(key.merge_suffix().to_owned()));
        if shared.as_deref() != Some(key.merge_suffix()) {
            *shared = None;
        }
    }

    pub fn output(&self, spec: &JobSpec, name: &str) -> Result<Key> {
        let suffix = self.0.as_ref().and_then(Option::as_deref).unwrap_or("");
        spec.outdir.join(&format!("{name}{suffix}"))
    }
}

/// The output of a 1:1 task.
pub fn output_of(spec: &JobSpec, input: &Key) -> Result<Key> {
    let below = spec.indir.below(input);
    match &spec.to_name {
        Some(template) => spec.outdir.join(&template.apply(below)),
        None => spec.outdir.join(below),
    }
}

/// Errors: the client has disconnected during the planning.
pub fn still_wanted(spec: &JobSpec, alive: &mut dyn FnMut() -> bool) -> Result<bool> {
    match alive() {
        true => Ok(true),
        false => Err(Error::new(ErrorKind::Cancelled, format!("job {}: its client is gone", spec.id))),
    }
}

pub fn failed(error: &std::io::Error) -> Error {
    Error::io("the job's plan", error)
}

pub fn damaged() -> Error {
    Error::new(ErrorKind::Io, "the job's plan is damaged")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_a_plan_has_a_size_what_to_clean_and_a_name() {
        assert_eq!(parse_decided("12 - in/a").unwrap(), (12, "-", "in/a"));
        assert_eq!(parse_decided("0 1f 002 out/002_x out/002_y").unwrap(), (0, "1f", "002 out/002_x out/002_y"));
        for damaged in ["", "12", "12 -", "x - in/a", "-1 - in/a"] {
            assert!(parse_decided(damaged).is_err(), "{damaged}");
        }
        assert_eq!((parse_clean("-"), parse_clean("="), parse_clean("1f")), (None, None, Some(31)));
    }

    #[test]
    fn a_merge_has_the_suffix_that_all_its_inputs_share() {
        let suffix = |keys: &[&str]| {
            let mut suffix = Suffix::default();
            keys.iter().for_each(|key| suffix.add(&Key::parse(key).unwrap()));
            suffix.0.flatten()
        };
        assert_eq!(suffix(&["a/002_p", "b/002_p"]).as_deref(), Some("_p"));
        assert_eq!(suffix(&["a/002_p", "b/002_q"]), None);
        assert_eq!(suffix(&["a/002_p", "b/002_q", "c/002_p"]), None, "once it differs, it stays so");
    }
}
