//! Outdated outputs of an n:1 map. The name of an output ends in the suffix that all its inputs share, so it changes
//! when inputs are added or removed. The outdated output must not stay beside the new one: the next step would count
//! its inputs twice.

use super::existing::{Records, precedes};
use super::tasks::still_wanted;
use crate::store::{Selection, Sorter, Store};
use s4::error::Result;
use s4::key::{Key, Prefix, split_number};
use s4::protocol::{Entry, JobSpec};
use std::iter::Peekable;

/// The existing outputs below OUTDIR that have a merge name, sorted by that name. Memory use is bounded.
pub struct OutdatedOutputs(Peekable<Records>);

impl OutdatedOutputs {
    /// Blocks. Only this node is searched, since all keys of a merge name are on one node. `alive` is called from time
    /// to time; the work stops if it returns false.
    pub fn gather(store: &Store, spec: &JobSpec, alive: &mut dyn FnMut() -> bool) -> Result<Self> {
        let mut sorter = Sorter::new(store.root());
        let prefix = Prefix::below(&spec.outdir);
        store.list(&Selection::names(&prefix), &mut |entry| {
            if let Entry::Key { path, .. } = entry
                && let Some((number, _)) = split_number(path.rsplit('/').next().unwrap_or_default())
            {
                sorter.push(format!("{number} {path}").into_bytes())?;
            }
            still_wanted(spec, alive)
        })?;
        let records: Records = Box::new(sorter.finish()?);
        Ok(Self(records.peekable()))
    }

    /// Visits the keys of this merge name. Must be called in the order of the names.
    pub fn each_of(&mut self, name: &str, visit: &mut dyn FnMut(Key) -> Result<()>) -> Result<()> {
        // Take a record that cannot be read too, to return its error.
        while let Some(record) = self.0.next_if(|record| record.as_ref().map_or(true, |record| precedes(record, name)))
        {
            let record = record?;
            let text = std::str::from_utf8(&record).unwrap_or_default();
            match text.split_once(' ') {
                Some((of, path)) if of == name => visit(Key::parse(path)?)?,
                _ => {}
            }
        }
        Ok(())
    }
}
