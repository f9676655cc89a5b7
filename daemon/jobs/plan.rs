//! Plans a job's tasks on this node. They are checked and written to a file before anything runs.
//! [`tasks`](super::tasks) reads them a few at a time, so that memory does not grow with their number.

use super::existing::ExistingOutputs;
use super::inputs::{add_input, input_hash};
use super::marks::mark_of;
use super::orphans;
use super::outdated::OutdatedOutputs;
use super::renamed;
use super::rerun::{self, Decision, is_ours, may_remove};
use super::shared::Shared;
use super::sources::Sources;
use super::tasks::{Merged, SKIP, Suffix, Task, damaged, failed, output_of, still_wanted};
use crate::store::{Selection, Sorter, Store};
use s4::attribute::Mark;
use s4::error::{Error, ErrorKind, Result};
use s4::hasher::Hasher;
use s4::key::Key;
use s4::protocol::{Entry, FoundOutputs, JobSpec, MapKind, Plan, Reason, Rerun};
use s4::stored::{is_absent, record_at, recorded_at};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

/// The plan's file name in its job's directory.
pub const FILE: &str = "plan";

/// Writes the plan of a job.
struct Planner<'a> {
    store: &'a Store,
    spec: &'a JobSpec,
    /// The mark of its outputs, except inputs and number.
    mark: Mark,
    sources: &'a mut Sources,
    out: BufWriter<File>,
    plan: Plan,
}

/// Writes the job's inputs to a plan in `dir`, and counts them for the jobs that made them. `alive` is called from time
/// to time; the work stops if it returns false.
pub fn make(
    shared: &Shared,
    spec: &JobSpec,
    dir: &Path,
    sources: &mut Sources,
    alive: &mut dyn FnMut() -> bool,
) -> Result<Plan> {
    let store = &*shared.store;
    let out = BufWriter::new(File::create(dir.join(FILE)).map_err(|e| failed(&e))?);
    let mut planner = Planner { store, spec, mark: mark_of(spec), sources, out, plan: Plan::default() };
    let mut orphans = match spec.rerun {
        Rerun::Update => Some(orphans::List::create(dir)?),
        Rerun::Refuse | Rerun::Resume | Rerun::Missing => None,
    };
    match spec.kind {
        MapKind::Map if spec.to_name.is_some() => planner.renamed(shared, orphans.as_mut(), alive)?,
        MapKind::Map => planner.singles(orphans.as_mut(), alive)?,
        MapKind::MapToN => planner.split(shared, orphans.as_mut(), alive)?,
        MapKind::MapFromN => planner.merge(orphans.as_mut(), alive)?,
        // Its worker finds out what there is.
        MapKind::Copy => {}
    }
    planner.out.flush().map_err(|e| failed(&e))?;
    let orphans = orphans.map_or(Ok(0), orphans::List::finish)?;
    let nodes = shared.client.cluster().len() as u64;
    Ok(Plan { gone: orphans, nodes, slots: shared.max_running as u64, ..planner.plan })
}

impl Planner<'_> {
    /// Writes the tasks of a 1:1 map.
    fn singles(&mut self, orphans: Option<&mut orphans::List>, alive: &mut dyn FnMut() -> bool) -> Result<()> {
        let (store, spec) = (self.store, self.spec);
        let mut outputs = orphans::Outputs::new(store);
        each_input(store, spec, alive, &mut |key, size| {
            let output = output_of(spec, &key)?;
            if orphans.is_some() {
                outputs.add(&output)?;
            }
            self.take_input(&key, size)?;
            let (decision, inputs) = self.decide(&output, &mut || input_of(store, &key))?;
            self.write(decision, inputs, &key, size)
        })?;
        self.list_orphans(orphans, outputs, alive)
    }

    /// Lists the orphans that an update removes.
    fn list_orphans(
        &self,
        orphans: Option<&mut orphans::List>,
        outputs: orphans::Outputs,
        alive: &mut dyn FnMut() -> bool,
    ) -> Result<()> {
        let (store, spec) = (self.store, self.spec);
        orphans.map_or(Ok(()), |orphans| {
            outputs.write_others(store, &spec.outdir, self.mark, orphans, &mut || still_wanted(spec, alive))
        })
    }

    /// Writes the tasks of a 1:n map, in the order of the inputs' basenames. Refuses two inputs of one basename: their
    /// outputs would mix.
    fn split(
        &mut self,
        shared: &Shared,
        mut orphans: Option<&mut orphans::List>,
        alive: &mut dyn FnMut() -> bool,
    ) -> Result<()> {
        let (store, spec, ours) = (self.store, self.spec, self.mark);
        let mut inputs = Sorter::new(store.root());
        each_input(store, spec, alive, &mut |key, size| {
            spec.outdir.join(key.basename())?;
            inputs.push(format!("{} {} {size}", key.basename(), key.as_str()).into_bytes())
        })?;
        let mut existing = ExistingOutputs::gather(shared, spec, alive)?;
        let mut without_input = |found: FoundOutputs| match &mut orphans {
            Some(orphans) if may_remove(spec.rerun, found.mark, ours) => orphans.add(&found.input),
            _ => Ok(()),
        };
        let mut last: Option<(String, Key)> = None;
        for record in inputs.finish()? {
            let (name, key, size) = parse_input(&record?)?;
            if let Some((_, other)) = last.filter(|(last, _)| *last == name) {
                let message = format!(
                    "{other} and {key} have the same basename, so their outputs would mix; map them in two jobs"
                );
                return Err(Error::new(ErrorKind::AlreadyExists, message));
            }
            let found = existing.of(&name, &mut without_input)?;
            self.take_task(&found, &key, size)?;
            last = Some((name, key));
        }
        existing.rest(&mut without_input)
    }

    /// Writes the task of the input `key`. `found` are its existing outputs.
    fn take_task(&mut self, found: &[FoundOutputs], key: &Key, size: u64) -> Result<()> {
        self.take_input(key, size)?;
        let inputs = if found.is_empty() { 0 } else { input_of(self.store, key)? };
        let ours = Mark { inputs, ..self.mark };
        let decision = rerun::decide(self.spec.rerun, found, ours).map_err(|other| taken(self.spec, other, ours))?;
        self.write(decision, inputs, key, size)
    }

    /// Writes the tasks of a 1:1 map with `--to-name`, in the order of the outputs.
    fn renamed(
        &mut self,
        shared: &Shared,
        orphans: Option<&mut orphans::List>,
        alive: &mut dyn FnMut() -> bool,
    ) -> Result<()> {
        let (store, spec) = (self.store, self.spec);
        let mut outputs = orphans::Outputs::new(store);
        renamed::each_output_here(shared, spec, alive, &mut |output| {
            self.refuse_in_the_way(output)?;
            if orphans.is_some() { outputs.add(output) } else { Ok(()) }
        })?;
        let mut inputs = Sorter::new(store.root());
        each_input(store, spec, alive, &mut |key, size| {
            let output = output_of(spec, &key)?;
            inputs.push(format!("{} {} {size}", output.as_str(), key.as_str()).into_bytes())
        })?;
        // The node of each output refuses an output that exists.
        let is_fresh = spec.rerun == Rerun::Refuse;
        let mut existing = if is_fresh { None } else { Some(ExistingOutputs::gather(shared, spec, alive)?) };
        for record in inputs.finish()? {
            let (output, key, size) = parse_input(&record?)?;
            let found = existing.as_mut().map(|existing| existing.of(&output, &mut |_| Ok(()))).transpose()?;
            self.take_task(&found.unwrap_or_default(), &key, size)?;
        }
        self.list_orphans(orphans, outputs, alive)
    }

    /// Refuses the task (possibly of another node) whose output on this node cannot be created.
    fn refuse_in_the_way(&self, output: &Key) -> Result<()> {
        match self.spec.rerun {
            Rerun::Missing => Ok(()),
            Rerun::Resume | Rerun::Update if self.mark_at(output)?.is_some() => Ok(()),
            Rerun::Refuse | Rerun::Resume | Rerun::Update => refuse_taken(self.store, output, self.spec),
        }
    }

    /// Writes lines of keys, grouped by merge name. After each group comes a line with the decision about it.
    fn merge(&mut self, orphans: Option<&mut orphans::List>, alive: &mut dyn FnMut() -> bool) -> Result<()> {
        let mut inputs = Sorter::new(self.store.root());
        each_input(self.store, self.spec, alive, &mut |key, size| {
            inputs.push(format!("{} {} {size}", key.merge_name(), key.as_str()).into_bytes())
        })?;
        // An update finds outdated outputs among the orphans.
        let mut outdated = match self.spec.rerun {
            Rerun::Update => None,
            _ => Some(OutdatedOutputs::gather(self.store, self.spec, alive)?),
        };
        let mut outputs = orphans::Outputs::new(self.store);
        let mut group: Option<Group> = None;
        for record in inputs.finish()? {
            let (name, key, size) = parse_input(&record?)?;
            if let Some(ended) = group.take_if(|group| group.name != name) {
                self.end_group(ended, outdated.as_mut(), &mut outputs)?;
            }
            self.take_input(&key, size)?;
            let joined = group.get_or_insert_with(|| Group::new(name));
            joined.add(self.store, self.spec, &key, size)?;
            writeln!(self.out, "{}", key.as_str()).map_err(|e| failed(&e))?;
        }
        if let Some(group) = group {
            self.end_group(group, outdated.as_mut(), &mut outputs)?;
        }
        self.list_orphans(orphans, outputs, alive)
    }

    fn end_group(
        &mut self,
        group: Group,
        outdated: Option<&mut OutdatedOutputs>,
        outputs: &mut orphans::Outputs,
    ) -> Result<()> {
        let output = group.suffix.output(self.spec, &group.name)?;
        let inputs = group.inputs.finish().xxh3;
        let (decision, _) = self.decide(&output, &mut || Ok(inputs))?;
        let find = |existing| self.outdated_outputs(existing, &group.name, &output);
        let outdated = outdated.map(find).transpose()?.unwrap_or_default();
        let (decision, outdated) = match self.spec.rerun {
            _ if outdated.is_empty() => (decision, outdated),
            // The next step would count these inputs twice if there were a second output of them.
            Rerun::Missing => (Decision::Keep, Vec::new()),
            _ => (Decision::Run(Reason::InputChanged), outdated),
        };
        if self.spec.rerun == Rerun::Update {
            outputs.add(&output)?;
        }
        let end = self.note(decision, inputs).unwrap_or_else(|| SKIP.to_owned());
        let outdated: String = outdated.iter().map(|key| format!(" {}", key.as_str())).collect();
        writeln!(self.out, " {} {end} {}{outdated}", group.size, group.name).map_err(|e| failed(&e))
    }

    /// Outdated outputs of the merge name `name`, made by maps from this INDIR to this OUTDIR. There are few, since
    /// each resume removes those that it finds.
    fn outdated_outputs(&self, existing: &mut OutdatedOutputs, name: &str, output: &Key) -> Result<Vec<Key>> {
        let mut outdated = Vec::new();
        existing.each_of(name, &mut |key| {
            if key == *output {
                return Ok(());
            }
            let Some(mark) = self.mark_at(&key)?.filter(|mark| mark.source == self.mark.source) else {
                return Ok(());
            };
            match self.spec.rerun {
                Rerun::Missing => outdated.push(key),
                Rerun::Resume if mark.recipe == self.mark.recipe => outdated.push(key),
                Rerun::Refuse | Rerun::Resume | Rerun::Update => {
                    return Err(taken(self.spec, &made_alone(&key, mark), self.mark));
                }
            }
            Ok(())
        })?;
        Ok(outdated)
    }

    /// The mark of a key; `None` if the key has none or does not exist.
    fn mark_at(&self, key: &Key) -> Result<Option<Mark>> {
        match record_at(&self.store.path(key)) {
            Err(e) if !is_absent(&e) => Err(self.store.unreadable(key, &e)),
            record => Ok(record.ok().flatten().and_then(|record| record.mark)),
        }
    }

    fn take_input(&mut self, key: &Key, size: u64) -> Result<()> {
        self.plan.keys += 1;
        self.plan.bytes += size;
        self.sources.count(self.store, key)
    }

    /// Decides about a task with one output. Also returns the digest of its inputs; 0 if the decision did not need it.
    fn decide(&self, output: &Key, inputs: &mut dyn FnMut() -> Result<u64>) -> Result<(Decision, u64)> {
        let (spec, path) = (self.spec, self.store.path(output));
        let fresh = || refuse_taken(self.store, output, spec).map(|()| (Decision::Run(Reason::Missing), 0));
        match (spec.rerun, self.mark_at(output)?) {
            (Rerun::Missing, mark) if path.symlink_metadata().is_ok_and(|found| found.is_file()) => {
                Ok((mark.map_or(Decision::KeepOthers, |mark| rerun::kept([mark].into_iter(), self.mark)), 0))
            }
            (_, None) => fresh(),
            (_, Some(mark)) => {
                let ours = Mark { inputs: inputs()?, ..self.mark };
                let found = [made_alone(output, mark)];
                let decision = rerun::decide(spec.rerun, &found, ours).map_err(|other| taken(spec, other, ours))?;
                Ok((decision, ours.inputs))
            }
        }
    }

    /// Counts a task, and returns its text for the plan; `None` if there is nothing to do.
    fn note(&mut self, decision: Decision, inputs: u64) -> Option<String> {
        match decision {
            Decision::Keep | Decision::KeepOthers => {
                self.plan.done_before += 1;
                self.plan.of_others += u64::from(decision == Decision::KeepOthers);
                return None;
            }
            Decision::Run(reason) => {
                self.plan.tasks += 1;
                self.plan.reasons.count(reason);
            }
        }
        Some(if decision.removes() { format!("{inputs:x}") } else { "-".to_owned() })
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

fn each_input(
    store: &Store,
    spec: &JobSpec,
    alive: &mut dyn FnMut() -> bool,
    take: &mut dyn FnMut(Key, u64) -> Result<()>,
) -> Result<()> {
    store.list(&Selection::Pattern(&spec.indir), &mut |entry| {
        if let Entry::Key { path, size, .. } = entry {
            take(Key::parse(&path)?, size)?;
        }
        still_wanted(spec, alive)
    })
}

fn refuse_taken(store: &Store, output: &Key, spec: &JobSpec) -> Result<()> {
    store.check_unused(output).map_err(|e| match e.kind() {
        ErrorKind::AlreadyExists => {
            let which = if spec.rerun == Rerun::Refuse { "" } else { ", which no map has made" };
            Error::new(e.kind(), format!("output {e}{which}; delete it, or choose another OUTDIR"))
        }
        _ => e,
    })
}

/// The error that a map (possibly this one) has made outputs already. `ours` is the mark of the refused job.
fn taken(spec: &JobSpec, found: &FoundOutputs, ours: Mark) -> Error {
    let which = match (is_ours(found.mark, ours), spec.rerun) {
        (true, _) => "which an earlier run of this map has made; go on from it with --resume",
        (false, Rerun::Refuse) => "which another map or command has made; --update makes it again, --missing keeps it",
        (false, _) => "which another command has made; --update makes it again, --missing keeps it",
    };
    let message = format!("output {}: key already exists, {which}; or delete it, or choose another OUTDIR", found.key);
    Error::new(ErrorKind::AlreadyExists, message)
}

/// An existing output which is the only one of its task.
fn made_alone(key: &Key, mark: Mark) -> FoundOutputs {
    FoundOutputs { input: String::new(), key: key.clone(), count: mark.outputs.into(), mark }
}

/// Parses `NAME KEY SIZE`; sorted by NAME.
fn parse_input(record: &[u8]) -> Result<(String, Key, u64)> {
    let text = std::str::from_utf8(record).map_err(|_| damaged())?;
    match text.split(' ').collect::<Vec<_>>()[..] {
        [name, key, size] => Ok((name.to_owned(), Key::parse(key)?, size.parse().map_err(|_| damaged())?)),
        _ => Err(damaged()),
    }
}

/// The inputs of one merge name.
struct Group {
    name: String,
    /// The digest of the inputs so far, if an earlier run may have merged them.
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
        if spec.rerun != Rerun::Refuse
            && let Some(checksum) = recorded_at(&store.path(key)).map_err(|e| Error::io(key, &e))?
        {
            add_input(&mut self.inputs, key, checksum);
        }
        Ok(())
    }
}

/// The task of `key` alone, without an output, for `--try`.
pub fn one(store: &Store, spec: &JobSpec, key: &Key) -> Result<Task> {
    let mut task =
        Task { number: 0, key: key.clone(), output: None, paths: None, size: 0, clean: None, outdated: Vec::new() };
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
    fn a_sorted_input_has_a_name_a_key_and_a_size() {
        let (name, key, size) = parse_input(b"002 in/002_a 7").unwrap();
        assert_eq!((name.as_str(), key.as_str(), size), ("002", "in/002_a", 7));
        for damaged in [&b"002 in/002_a"[..], b"002 in/002_a x", b"002 in/../x 7", b"002 in/a b 7", b"\xff in/a 7"] {
            assert!(parse_input(damaged).is_err(), "{damaged:?}");
        }
    }
}
