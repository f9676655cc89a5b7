//! A job's tasks on this node: checked and written to a file before anything runs, then read one by one, so that memory
//! does not grow with their number.

use super::journal::{History, Journal, Past};
use crate::store::{Selection, Sorter, Store};
use s4::checksum::Hasher;
use s4::error::{Error, ErrorKind, Result};
use s4::file::open_to_read;
use s4::key::Key;
use s4::protocol::{Entry, JobSpec, MapKind, Plan};
use s4::stored::recorded_at;
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Seek, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// One task as planned.
pub struct Task {
    /// From 0, in the order of the plan.
    pub number: u64,
    /// Its name in the journal: the input's path, or the merge name.
    pub id: String,
    /// The input, or the first of them.
    pub key: Key,
    /// The output of a 1:1 or n:1 task.
    pub output: Option<Key>,
    /// The stdin of an n:1 task: the local paths of its inputs, one a line.
    pub paths: Option<File>,
    /// Bytes of its inputs.
    pub size: u64,
    /// What an earlier run left of it has to go first: the inode of its output, or 0 for all in its directory.
    pub clean: Option<u64>,
}

/// What is to become of a task.
enum Decision {
    Run,
    Clean(u64),
    /// An earlier run finished it.
    Skip,
}

/// Writes a job's plan.
struct Planner<'a> {
    store: &'a Store,
    spec: &'a JobSpec,
    history: &'a mut History,
    journal: &'a Journal,
    out: BufWriter<File>,
    plan: Plan,
}

/// Lists the job's inputs into a plan at `path`. What `history` knows of its tasks goes over into `journal`. `alive` is
/// called again and again, and ends the work by returning false.
pub fn make(
    store: &Store,
    spec: &JobSpec,
    path: &Path,
    (history, journal): (&mut History, &Journal),
    alive: &mut dyn FnMut() -> bool,
) -> Result<Plan> {
    store.check_space(format_args!("job {}", spec.id))?;
    let out = BufWriter::new(File::create(path).map_err(|e| failed(&e))?);
    let mut planner = Planner { store, spec, history, journal, out, plan: Plan::default() };
    match spec.kind {
        MapKind::Map => each_input(store, spec, alive, &mut |key, size| {
            let output = output_of(spec, &key)?;
            planner.single(&key, size, Some(&output))
        })?,
        MapKind::MapToN => {
            let mut basenames = Sorter::new(store.root());
            each_input(store, spec, alive, &mut |key, size| {
                spec.outdir.join(key.basename())?;
                basenames.push(format!("{} {}", key.basename(), key.as_str()).into_bytes())?;
                planner.single(&key, size, None)
            })?;
            refuse_equal(basenames)?;
        }
        MapKind::MapFromN => planner.merge(alive)?,
    }
    planner.out.flush().map_err(|e| failed(&e))?;
    Ok(planner.plan)
}

impl Planner<'_> {
    fn single(&mut self, key: &Key, size: u64, output: Option<&Key>) -> Result<()> {
        self.plan.keys += 1;
        self.plan.bytes += size;
        let past = self.history.find(key.as_str())?;
        let input = match past {
            Some(_) => input_of(self.store, key)?,
            None => 0,
        };
        if let Some(clean) = self.decide(key.as_str(), past, input, size, output)? {
            writeln!(self.out, "{size} {clean} {}", key.as_str()).map_err(|e| failed(&e))?;
        }
        Ok(())
    }

    /// Lines of merge name and key, those of one name together, and after each group a line of what is to become of it.
    fn merge(&mut self, alive: &mut dyn FnMut() -> bool) -> Result<()> {
        let mut inputs = Sorter::new(self.store.root());
        each_input(self.store, self.spec, alive, &mut |key, size| {
            inputs.push(format!("{} {} {size}", key.merge_name(), key.as_str()).into_bytes())
        })?;
        let mut group: Option<Group> = None;
        for record in inputs.finish()? {
            let (name, key, size) = parse_merge_input(&record?)?;
            if group.as_ref().is_some_and(|group| group.name != name) {
                self.end_group(group.take())?;
            }
            let mut joined = match group.take() {
                Some(group) => group,
                None => Group::new(name, self.history.find(key.merge_name())?),
            };
            joined.add(self.store, &key, size)?;
            writeln!(self.out, "{}", key.as_str()).map_err(|e| failed(&e))?;
            self.plan.keys += 1;
            self.plan.bytes += size;
            group = Some(joined);
        }
        self.end_group(group)
    }

    fn end_group(&mut self, group: Option<Group>) -> Result<()> {
        let Some(group) = group else {
            return Ok(());
        };
        let output = group.output(self.spec)?;
        let decided = self.decide(&group.name, group.past, group.input.finish().xxh3, group.size, Some(&output))?;
        let end = decided.unwrap_or_else(|| SKIP.to_owned());
        writeln!(self.out, " {} {end} {}", group.size, group.name).map_err(|e| failed(&e))
    }

    /// How the task is marked in the plan; `None` if it has been done before.
    fn decide(
        &mut self,
        id: &str,
        past: Option<Past>,
        input: u64,
        size: u64,
        output: Option<&Key>,
    ) -> Result<Option<String>> {
        let decision = match (output, past) {
            (Some(output), past) => {
                let found = std::fs::symlink_metadata(self.store.path(output)).ok().filter(|found| found.is_file());
                match past.zip(found).filter(|(past, found)| past.inode == found.ino()) {
                    Some((past, _)) if past.input == input => Decision::Skip,
                    Some((past, _)) => Decision::Clean(past.inode),
                    None => refuse_taken(self.store, output, self.spec.resume).map(|()| Decision::Run)?,
                }
            }
            (None, Some(past)) if past.done.is_some() && past.input == input => Decision::Skip,
            (None, Some(_)) => Decision::Clean(0),
            (None, None) => Decision::Run,
        };
        match (decision, past) {
            (Decision::Skip, Some(past)) => {
                self.plan.done_before += 1;
                let done = past.done.or(Some((1, size)));
                self.journal.take_over(id, Past { done, ..past }).map(|()| None)
            }
            (Decision::Clean(inode), Some(past)) => {
                self.plan.tasks += 1;
                self.journal.take_over(id, Past { done: None, ..past }).map(|()| Some(inode.to_string()))
            }
            _ => {
                self.plan.tasks += 1;
                Ok(Some("-".to_owned()))
            }
        }
    }
}

/// In a plan: a group that has been done before.
const SKIP: &str = "=";

fn failed(error: &std::io::Error) -> Error {
    Error::io("the job's plan", error)
}

/// A hash of what an input holds.
fn input_of(store: &Store, key: &Key) -> Result<u64> {
    let recorded = recorded_at(&store.path(key)).map_err(|e| Error::io(key, &e))?;
    Ok(recorded.map_or(0, |checksum| input_hash(key, checksum)))
}

/// The hash of one input with this checksum.
pub fn input_hash(key: &Key, checksum: s4::checksum::Checksum) -> u64 {
    let mut hasher = Hasher::new();
    add_input(&mut hasher, key, checksum);
    hasher.finish().xxh3
}

/// The hash of an n:1 task's inputs under way: of their paths and checksums, in their order.
pub fn add_input(hasher: &mut Hasher, key: &Key, checksum: s4::checksum::Checksum) {
    hasher.update(format!("{} {checksum}\n", key.as_str()).as_bytes());
}

fn each_input(
    store: &Store,
    spec: &JobSpec,
    alive: &mut dyn FnMut() -> bool,
    take: &mut dyn FnMut(Key, u64) -> Result<()>,
) -> Result<()> {
    let gone = || Error::new(ErrorKind::Cancelled, format!("job {}: its client is gone", spec.id));
    store.list(&Selection::Pattern(&spec.indir), &mut |entry| {
        if let Entry::Key { path, size, .. } = entry {
            take(Key::parse(&path)?, size)?;
        }
        match alive() {
            true => Ok(true),
            false => Err(gone()),
        }
    })
}

fn refuse_taken(store: &Store, output: &Key, resumes: bool) -> Result<()> {
    let which = if resumes { ", which no run of the same map and command has made" } else { "" };
    store.check_new(output).map_err(|e| match e.kind() {
        ErrorKind::AlreadyExists => {
            Error::new(e.kind(), format!("output {e}{which}; delete it, or choose another OUTDIR"))
        }
        _ => e,
    })
}

/// Refuses two inputs of one basename, whose outputs would mix.
fn refuse_equal(basenames: Sorter) -> Result<()> {
    let mut last: Option<(String, Key)> = None;
    for record in basenames.finish()? {
        let (name, key) = parse_input(&record?)?;
        if let Some((_, other)) = last.filter(|(last, _)| *last == name) {
            let message =
                format!("{other} and {key} have the same basename, so their outputs would mix; map them in two jobs");
            return Err(Error::new(ErrorKind::AlreadyExists, message));
        }
        last = Some((name, key));
    }
    Ok(())
}

/// The output of a 1:1 task.
fn output_of(spec: &JobSpec, input: &Key) -> Result<Key> {
    spec.outdir.join(spec.indir.below(input))
}

fn damaged() -> Error {
    Error::new(ErrorKind::Io, "the job's plan is damaged")
}

fn parse_merge_input(record: &[u8]) -> Result<(String, Key, u64)> {
    let text = std::str::from_utf8(record).map_err(|_| damaged())?;
    match text.split(' ').collect::<Vec<_>>()[..] {
        [name, key, size] => Ok((name.to_owned(), Key::parse(key)?, size.parse().map_err(|_| damaged())?)),
        _ => Err(damaged()),
    }
}

fn parse_input(line: &[u8]) -> Result<(String, Key)> {
    let text = std::str::from_utf8(line).map_err(|_| damaged())?;
    let (name, key) = text.split_once(' ').ok_or_else(damaged)?;
    Ok((name.to_owned(), Key::parse(key)?))
}

/// Inputs of one merge name.
struct Group {
    name: String,
    past: Option<Past>,
    /// Of what the inputs hold, where there is a past to compare with.
    input: Hasher,
    size: u64,
    suffix: Suffix,
}

impl Group {
    fn new(name: String, past: Option<Past>) -> Self {
        Self { name, past, input: Hasher::new(), size: 0, suffix: Suffix::default() }
    }

    fn add(&mut self, store: &Store, key: &Key, size: u64) -> Result<()> {
        self.size += size;
        self.suffix.add(key);
        if self.past.is_some()
            && let Some(checksum) = recorded_at(&store.path(key)).map_err(|e| Error::io(key, &e))?
        {
            add_input(&mut self.input, key, checksum);
        }
        Ok(())
    }

    fn output(&self, spec: &JobSpec) -> Result<Key> {
        self.suffix.output(spec, &self.name)
    }
}

/// What all inputs of a merge name have behind it, if they share it.
#[derive(Default)]
struct Suffix(Option<Option<String>>);

impl Suffix {
    fn add(&mut self, key: &Key) {
        let shared = self.0.get_or_insert_with(|| Some(key.merge_suffix().to_owned()));
        if shared.as_deref() != Some(key.merge_suffix()) {
            *shared = None;
        }
    }

    fn output(&self, spec: &JobSpec, name: &str) -> Result<Key> {
        let suffix = self.0.as_ref().and_then(Option::as_deref).unwrap_or("");
        spec.outdir.join(&format!("{name}{suffix}"))
    }
}

/// The tasks of a plan, in order.
pub struct Tasks {
    lines: std::io::Lines<BufReader<File>>,
    number: u64,
}

impl Tasks {
    pub fn open(path: &Path) -> Result<Self> {
        let file = open_to_read(path).map_err(|e| failed(&e))?;
        Ok(Self { lines: BufReader::new(file).lines(), number: 0 })
    }

    /// The next task; blocks.
    pub fn next(&mut self, store: &Store, spec: &JobSpec) -> Result<Option<Task>> {
        let task = match spec.kind {
            MapKind::Map | MapKind::MapToN => self.next_single(spec)?,
            MapKind::MapFromN => self.next_merge(store, spec)?,
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
            MapKind::MapToN | MapKind::MapFromN => None,
        };
        let id = key.as_str().to_owned();
        Ok(Some(Task { number: self.number, id, key, output, paths: None, size, clean: clean.parse().ok() }))
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
            let (size, clean, name) = parse_decided(&end)?;
            if clean == SKIP {
                continue;
            }
            let output = Some(merged.suffix.output(spec, name)?);
            let (id, clean) = (name.to_owned(), clean.parse().ok());
            let paths = Some(merged.finish()?);
            return Ok(Some(Task { number: self.number, id, key: first, output, paths, size, clean }));
        }
    }

    fn next_line(&mut self) -> Result<Option<String>> {
        self.lines.next().transpose().map_err(|e| failed(&e))
    }
}

/// The inputs of an n:1 task as its command gets them.
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

    /// The file of their paths, at its beginning.
    pub fn finish(self) -> Result<File> {
        let mut paths = self.paths.into_inner().map_err(|e| failed(&e.into_error()))?;
        paths.rewind().map_err(|e| failed(&e)).map(|()| paths)
    }
}

/// `SIZE CLEAN NAME`.
fn parse_decided(line: &str) -> Result<(u64, &str, &str)> {
    let mut fields = line.splitn(3, ' ');
    let (size, clean, name) = (fields.next(), fields.next(), fields.next());
    let size = size.and_then(|size| size.parse().ok()).ok_or_else(damaged)?;
    Ok((size, clean.ok_or_else(damaged)?, name.ok_or_else(damaged)?))
}

/// The task of `key` alone, to be tried: with no output.
pub fn one(store: &Store, spec: &JobSpec, key: &Key) -> Result<Task> {
    let mut task =
        Task { number: 0, id: String::new(), key: key.clone(), output: None, paths: None, size: 0, clean: None };
    if spec.kind != MapKind::MapFromN {
        return Ok(task);
    }
    let mut merged: Option<Merged> = None;
    each_input(store, spec, &mut || true, &mut |input, _| {
        if input.merge_name() != key.merge_name() {
            return Ok(());
        }
        match &mut merged {
            Some(merged) => merged.add(store, &input),
            None => Merged::begin(store, &input).map(|begun| merged = Some(begun)),
        }
    })?;
    let absent = || Error::new(ErrorKind::NotFound, format!("{key}: no key of this name in {}", spec.indir));
    task.paths = Some(merged.ok_or_else(absent)?.finish()?);
    Ok(task)
}
