//! A job's tasks on this node: checked and written to a file before anything runs, then read one by one, so that memory
//! does not grow with their number.

use crate::store::{Selection, Sorter, Store};
use s4::error::{Error, ErrorKind, Result};
use s4::key::Key;
use s4::protocol::{Entry, JobSpec, MapKind, Plan};
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Seek, Write};
use std::path::Path;

/// One task as planned.
pub struct Task {
    /// From 0, in the order of the plan.
    pub number: u64,
    /// The input, or the first of them.
    pub key: Key,
    /// The output of a 1:1 or n:1 task.
    pub output: Option<Key>,
    /// The stdin of an n:1 task: the local paths of its inputs, one a line.
    pub paths: Option<File>,
}

/// Lists the job's inputs into a plan at `path`. `alive` is called again and again, and ends the work by returning false.
pub fn make(store: &Store, spec: &JobSpec, path: &Path, alive: &mut dyn FnMut() -> bool) -> Result<Plan> {
    let failed = |e: std::io::Error| Error::io("the job's plan", &e);
    store.check_space(format_args!("job {}", spec.id))?;
    let mut out = BufWriter::new(File::create(path).map_err(failed)?);
    let plan = match spec.kind {
        MapKind::Map => {
            let mut plan = Plan::default();
            each_input(store, spec, alive, &mut |key, size| {
                refuse_taken(store, &output_of(spec, &key)?)?;
                add(&mut plan, size);
                writeln!(out, "{}", key.as_str()).map_err(failed)
            })?;
            plan
        }
        MapKind::MapToN => {
            let mut plan = Plan::default();
            let mut basenames = Sorter::new(store.root());
            each_input(store, spec, alive, &mut |key, size| {
                spec.outdir.join(key.basename())?;
                basenames.push(format!("{} {}", key.basename(), key.as_str()).into_bytes())?;
                add(&mut plan, size);
                writeln!(out, "{}", key.as_str()).map_err(failed)
            })?;
            refuse_equal(basenames)?;
            plan
        }
        MapKind::MapFromN => make_merge(store, spec, &mut out, alive)?,
    };
    out.flush().map_err(failed)?;
    Ok(plan)
}

fn add(plan: &mut Plan, size: u64) {
    plan.tasks += 1;
    plan.keys += 1;
    plan.bytes += size;
}

/// Plan of an n:1 map: lines of merge name and key, those of one name together.
fn make_merge(store: &Store, spec: &JobSpec, out: &mut impl Write, alive: &mut dyn FnMut() -> bool) -> Result<Plan> {
    let mut plan = Plan::default();
    let mut inputs = Sorter::new(store.root());
    each_input(store, spec, alive, &mut |key, size| {
        plan.keys += 1;
        plan.bytes += size;
        inputs.push(format!("{} {}", key.merge_name(), key.as_str()).into_bytes())
    })?;
    let mut group: Option<Group> = None;
    for record in inputs.finish()? {
        let (name, key) = parse_input(&record?)?;
        writeln!(out, "{name} {}", key.as_str()).map_err(|e| Error::io("the job's plan", &e))?;
        match &mut group {
            Some(group) if group.name == name => group.add(&key),
            _ => {
                if let Some(whole) = group.replace(Group::new(name, &key)) {
                    refuse_taken(store, &whole.output(spec)?)?;
                }
                plan.tasks += 1;
            }
        }
    }
    if let Some(whole) = group {
        refuse_taken(store, &whole.output(spec)?)?;
    }
    Ok(plan)
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

fn refuse_taken(store: &Store, output: &Key) -> Result<()> {
    store.check_new(output).map_err(|e| match e.kind() {
        ErrorKind::AlreadyExists => Error::new(e.kind(), format!("output {e}; delete it, or choose another OUTDIR")),
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

fn parse_input(line: &[u8]) -> Result<(String, Key)> {
    let damaged = || Error::new(ErrorKind::Io, "the job's plan is damaged");
    let text = std::str::from_utf8(line).map_err(|_| damaged())?;
    let (name, key) = text.split_once(' ').ok_or_else(damaged)?;
    Ok((name.to_owned(), Key::parse(key)?))
}

/// Inputs of one merge name.
struct Group {
    name: String,
    /// The suffix that all inputs so far share.
    suffix: Option<String>,
}

impl Group {
    fn new(name: String, key: &Key) -> Self {
        Self { name, suffix: Some(key.merge_suffix().to_owned()) }
    }

    fn add(&mut self, key: &Key) {
        if self.suffix.as_deref() != Some(key.merge_suffix()) {
            self.suffix = None;
        }
    }

    fn output(&self, spec: &JobSpec) -> Result<Key> {
        spec.outdir.join(&format!("{}{}", self.name, self.suffix.as_deref().unwrap_or("")))
    }
}

/// The tasks of a plan, in order.
pub struct Tasks {
    lines: std::io::Lines<BufReader<File>>,
    number: u64,
    /// The first input of the next n:1 task, read with the end of the one before.
    ahead: Option<(String, Key)>,
}

impl Tasks {
    pub fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(|e| Error::io("the job's plan", &e))?;
        Ok(Self { lines: BufReader::new(file).lines(), number: 0, ahead: None })
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
        let key = Key::parse(&line)?;
        let output = match spec.kind {
            MapKind::Map => Some(output_of(spec, &key)?),
            MapKind::MapToN | MapKind::MapFromN => None,
        };
        Ok(Some(Task { number: self.number, key, output, paths: None }))
    }

    fn next_merge(&mut self, store: &Store, spec: &JobSpec) -> Result<Option<Task>> {
        let first = match self.ahead.take() {
            Some(first) => Some(first),
            None => self.next_input()?,
        };
        let Some((name, first)) = first else {
            return Ok(None);
        };
        let failed = |e: std::io::Error| Error::io(&first, &e);
        let mut group = Group::new(name, &first);
        let mut paths = BufWriter::new(store.unnamed_file().map_err(failed)?);
        writeln!(paths, "{}", store.path(&first).display()).map_err(failed)?;
        while let Some((name, key)) = self.next_input()? {
            if name != group.name {
                self.ahead = Some((name, key));
                break;
            }
            group.add(&key);
            writeln!(paths, "{}", store.path(&key).display()).map_err(failed)?;
        }
        let mut paths = paths.into_inner().map_err(|e| failed(e.into_error()))?;
        paths.rewind().map_err(failed)?;
        Ok(Some(Task { number: self.number, output: Some(group.output(spec)?), key: first, paths: Some(paths) }))
    }

    fn next_input(&mut self) -> Result<Option<(String, Key)>> {
        self.next_line()?.map(|line| parse_input(line.as_bytes())).transpose()
    }

    fn next_line(&mut self) -> Result<Option<String>> {
        self.lines.next().transpose().map_err(|e| Error::io("the job's plan", &e))
    }
}
