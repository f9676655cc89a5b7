//! A job's tasks on this node: checked and written to a file before anything runs, from which they are read few by few
//! ([`tasks`](super::tasks)), so that memory does not grow with their number.

use super::former::Former;
use super::marks::mark_of;
use super::shared::Shared;
use super::sources::Sources;
use super::standing::{self, AllStanding, Decision};
use super::tasks::{Merged, SKIP, Suffix, Task, damaged, failed, output_of};
use crate::store::{Selection, Sorter, Store};
use s4::attribute::Mark;
use s4::checksum::Checksum;
use s4::error::{Error, ErrorKind, Result};
use s4::hasher::Hasher;
use s4::key::Key;
use s4::protocol::{Entry, JobSpec, MapKind, Plan};
use s4::stored::{is_absent, record_at, recorded_at};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

/// Writes a job's plan.
struct Planner<'a> {
    store: &'a Store,
    spec: &'a JobSpec,
    /// The mark of its outputs, but for inputs and number.
    mark: Mark,
    sources: &'a mut Sources,
    out: BufWriter<File>,
    plan: Plan,
}

/// Lists the job's inputs into a plan at `path`, and counts them for the jobs that made them. `alive` is called again and again, and ends
/// the work by returning false.
pub fn make(
    shared: &Shared,
    spec: &JobSpec,
    path: &Path,
    sources: &mut Sources,
    alive: &mut dyn FnMut() -> bool,
) -> Result<Plan> {
    let store = &*shared.store;
    store.check_space(format_args!("job {}", spec.id))?;
    let out = BufWriter::new(File::create(path).map_err(|e| failed(&e))?);
    let mut planner = Planner { store, spec, mark: mark_of(spec), sources, out, plan: Plan::default() };
    match spec.kind {
        MapKind::Map => planner.singles(alive)?,
        MapKind::MapToN => planner.split(shared, alive)?,
        MapKind::MapFromN => planner.merge(alive)?,
    }
    planner.out.flush().map_err(|e| failed(&e))?;
    Ok(planner.plan)
}

impl Planner<'_> {
    /// The tasks of a 1:1 map.
    fn singles(&mut self, alive: &mut dyn FnMut() -> bool) -> Result<()> {
        let (store, spec) = (self.store, self.spec);
        each_input(store, spec, alive, &mut |key, size| {
            let output = output_of(spec, &key)?;
            self.take_input(&key, size)?;
            let (decision, inputs) = self.decide(&output, &mut || input_of(store, &key))?;
            self.write(decision, inputs, &key, size)
        })
    }

    /// The tasks of a 1:n map, in the order of the inputs' basenames. Refuses two of one basename, whose outputs would mix.
    fn split(&mut self, shared: &Shared, alive: &mut dyn FnMut() -> bool) -> Result<()> {
        let (store, spec) = (self.store, self.spec);
        let mut inputs = Sorter::new(store.root());
        each_input(store, spec, alive, &mut |key, size| {
            spec.outdir.join(key.basename())?;
            inputs.push(format!("{} {} {size}", key.basename(), key.as_str()).into_bytes())
        })?;
        let mut standing = AllStanding::gather(shared, spec, alive)?;
        let mut last: Option<(String, Key)> = None;
        for record in inputs.finish()? {
            let (name, key, size) = parse_input(&record?)?;
            if let Some((_, other)) = last.filter(|(last, _)| *last == name) {
                let message = format!(
                    "{other} and {key} have the same basename, so their outputs would mix; map them in two jobs"
                );
                return Err(Error::new(ErrorKind::AlreadyExists, message));
            }
            self.take_input(&key, size)?;
            let found = standing.of(&name)?;
            let inputs = if found.is_empty() { 0 } else { input_of(store, &key)? };
            let decision = standing::decide(&found, Mark { inputs, ..self.mark });
            match decision {
                Ok(decision) if spec.resume || decision == Decision::Run => self.write(decision, inputs, &key, size)?,
                Ok(_) => return Err(taken(spec, &found.first().map_or(key, |found| found.key.clone()), true)),
                Err(other) => return Err(taken(spec, other, false)),
            }
            last = Some((name, key));
        }
        Ok(())
    }

    /// Lines of keys, those of one merge name together, and after each group a line of what is to become of it.
    fn merge(&mut self, alive: &mut dyn FnMut() -> bool) -> Result<()> {
        let mut inputs = Sorter::new(self.store.root());
        each_input(self.store, self.spec, alive, &mut |key, size| {
            inputs.push(format!("{} {} {size}", key.merge_name(), key.as_str()).into_bytes())
        })?;
        let mut former = Former::gather(self.store, self.spec, alive)?;
        let mut group: Option<Group> = None;
        for record in inputs.finish()? {
            let (name, key, size) = parse_input(&record?)?;
            if group.as_ref().is_some_and(|group| group.name != name) {
                self.end_group(group.take(), &mut former)?;
            }
            self.take_input(&key, size)?;
            let joined = group.get_or_insert_with(|| Group::new(name));
            joined.add(self.store, self.spec, &key, size)?;
            writeln!(self.out, "{}", key.as_str()).map_err(|e| failed(&e))?;
        }
        self.end_group(group, &mut former)
    }

    fn end_group(&mut self, group: Option<Group>, former: &mut Former) -> Result<()> {
        let Some(group) = group else {
            return Ok(());
        };
        let output = group.suffix.output(self.spec, &group.name)?;
        let inputs = group.inputs.finish().xxh3;
        let (decision, _) = self.decide(&output, &mut || Ok(inputs))?;
        let former = self.former_outputs(former, &group.name, &output)?;
        let decision = if former.is_empty() { decision } else { Decision::Clean };
        let end = self.note(decision, inputs).unwrap_or_else(|| SKIP.to_owned());
        let former: String = former.iter().map(|key| format!(" {}", key.as_str())).collect();
        writeln!(self.out, " {} {end} {}{former}", group.size, group.name).map_err(|e| failed(&e))
    }

    /// Those of the merge name `name` that maps from this INDIR to this OUTDIR made, beside `output`. They are few: a resume takes them
    /// away.
    fn former_outputs(&self, standing: &mut Former, name: &str, output: &Key) -> Result<Vec<Key>> {
        let mut former = Vec::new();
        standing.each_of(name, &mut |key| {
            if key == *output {
                return Ok(());
            }
            let record = match record_at(&self.store.path(&key)) {
                Err(e) if !is_absent(&e) => return Err(self.store.unreadable(&key, &e)),
                record => record.ok().flatten(),
            };
            let mark = record.and_then(|record| record.mark).filter(|mark| mark.source == self.mark.source);
            match mark.map(|mark| mark.recipe == self.mark.recipe) {
                Some(true) if self.spec.resume => former.push(key),
                Some(is_ours) => return Err(taken(self.spec, &key, is_ours)),
                None => {}
            }
            Ok(())
        })?;
        Ok(former)
    }

    fn take_input(&mut self, key: &Key, size: u64) -> Result<()> {
        self.plan.keys += 1;
        self.plan.bytes += size;
        self.sources.count(self.store, key)
    }

    /// What is to become of a task with one output, and the digest of its inputs where that was asked for.
    fn decide(&self, output: &Key, inputs: &mut dyn FnMut() -> Result<u64>) -> Result<(Decision, u64)> {
        if !self.spec.resume {
            return refuse_taken(self.store, output, self.spec).map(|()| (Decision::Run, 0));
        }
        let record = match record_at(&self.store.path(output)) {
            Ok(record) => record,
            Err(e) if is_absent(&e) => None,
            Err(e) => return Err(self.store.unreadable(output, &e)),
        };
        let Some(mark) = record.and_then(|record| record.mark) else {
            return refuse_taken(self.store, output, self.spec).map(|()| (Decision::Run, 0));
        };
        let ours = Mark { inputs: inputs()?, ..self.mark };
        match standing::is_ours(mark, ours) {
            true if mark.inputs == ours.inputs => Ok((Decision::Skip, ours.inputs)),
            true => Ok((Decision::Clean, ours.inputs)),
            false => Err(taken(self.spec, output, false)),
        }
    }

    /// Counts a task, and returns how it is marked in the plan; `None` if it is done.
    fn note(&mut self, decision: Decision, inputs: u64) -> Option<String> {
        match decision {
            Decision::Skip => {
                self.plan.done_before += 1;
                return None;
            }
            Decision::Run | Decision::Clean => self.plan.tasks += 1,
        }
        Some(if decision == Decision::Clean { format!("{inputs:x}") } else { "-".to_owned() })
    }

    fn write(&mut self, decision: Decision, inputs: u64, key: &Key, size: u64) -> Result<()> {
        let Some(mark) = self.note(decision, inputs) else {
            return Ok(());
        };
        writeln!(self.out, "{size} {mark} {}", key.as_str()).map_err(|e| failed(&e))
    }
}

/// The digest of one input.
fn input_of(store: &Store, key: &Key) -> Result<u64> {
    let recorded = recorded_at(&store.path(key)).map_err(|e| Error::io(key, &e))?;
    Ok(recorded.map_or(0, |checksum| input_hash(key, checksum)))
}

/// The digest of one input with this checksum.
pub fn input_hash(key: &Key, checksum: Checksum) -> u64 {
    let mut hasher = Hasher::new();
    add_input(&mut hasher, key, checksum);
    hasher.finish().xxh3
}

/// The digest of a task's inputs under way: of their names and checksums, in their order.
pub fn add_input(hasher: &mut Hasher, key: &Key, checksum: Checksum) {
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

fn refuse_taken(store: &Store, output: &Key, spec: &JobSpec) -> Result<()> {
    store.check_unused(output).map_err(|e| match e.kind() {
        ErrorKind::AlreadyExists => {
            let which = if spec.resume { NOT_OURS } else { "" };
            Error::new(e.kind(), format!("output {e}{which}; delete it, or choose another OUTDIR"))
        }
        _ => e,
    })
}

/// Said of outputs that a resume finds.
const NOT_OURS: &str = ", which no run of the same map and command has made";

/// The refusal of a job because of an output that a map has made, maybe this one.
fn taken(spec: &JobSpec, output: &Key, is_ours: bool) -> Error {
    let which = match (is_ours, spec.resume) {
        (true, _) => ", which an earlier run of this map has made; go on from it with --resume, delete it",
        (false, true) => ", which no run of the same map and command has made; delete it",
        (false, false) => ", which another map has made; delete it",
    };
    Error::new(
        ErrorKind::AlreadyExists,
        format!("output {output}: key already exists{which}, or choose another OUTDIR"),
    )
}

/// `NAME KEY SIZE`, sorted by the name.
fn parse_input(record: &[u8]) -> Result<(String, Key, u64)> {
    let text = std::str::from_utf8(record).map_err(|_| damaged())?;
    match text.split(' ').collect::<Vec<_>>()[..] {
        [name, key, size] => Ok((name.to_owned(), Key::parse(key)?, size.parse().map_err(|_| damaged())?)),
        _ => Err(damaged()),
    }
}

/// Inputs of one merge name.
struct Group {
    name: String,
    /// The digest of the inputs under way, where an earlier run may have merged them.
    inputs: Hasher,
    size: u64,
    suffix: Suffix,
}

impl Group {
    fn new(name: String) -> Self {
        Self { name, inputs: Hasher::new(), size: 0, suffix: Suffix::default() }
    }

    fn add(&mut self, store: &Store, spec: &JobSpec, key: &Key, size: u64) -> Result<()> {
        self.size += size;
        self.suffix.add(key);
        if spec.resume
            && let Some(checksum) = recorded_at(&store.path(key)).map_err(|e| Error::io(key, &e))?
        {
            add_input(&mut self.inputs, key, checksum);
        }
        Ok(())
    }
}

/// The task of `key` alone, to be tried: with no output.
pub fn one(store: &Store, spec: &JobSpec, key: &Key) -> Result<Task> {
    let mut task =
        Task { number: 0, key: key.clone(), output: None, paths: None, size: 0, clean: None, former: Vec::new() };
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_input_under_way_has_a_name_a_key_and_a_size() {
        let (name, key, size) = parse_input(b"002 in/002_a 7").unwrap();
        assert_eq!((name.as_str(), key.as_str(), size), ("002", "in/002_a", 7));
        for damaged in [&b"002 in/002_a"[..], b"002 in/002_a x", b"002 in/../x 7", b"002 in/a b 7", b"\xff in/a 7"] {
            assert!(parse_input(damaged).is_err(), "{damaged:?}");
        }
    }

    #[test]
    fn the_digest_of_inputs_is_of_names_sums_and_order() {
        let sum = |len| Checksum { xxh3: 1, len };
        let of = |inputs: &[(&str, u64)]| {
            let mut hasher = Hasher::new();
            inputs.iter().for_each(|(key, len)| add_input(&mut hasher, &Key::parse(key).unwrap(), sum(*len)));
            hasher.finish().xxh3
        };
        assert_eq!(of(&[("in/a", 5)]), input_hash(&Key::parse("in/a").unwrap(), sum(5)));
        let all =
            [of(&[("in/a", 5), ("in/b", 5)]), of(&[("in/b", 5), ("in/a", 5)]), of(&[("in/a", 5)]), of(&[("in/a", 6)])];
        assert!((0..all.len()).all(|at| !all[at + 1..].contains(&all[at])));
    }
}
