//! Outputs of an n:1 map under names that their tasks do not give any more: an output has the suffix that all its inputs share, which
//! changes when inputs come or go. Beside the new output, the next step would count their inputs twice.

use super::standing::{Records, precedes};
use crate::store::{Selection, Sorter, Store};
use s4::error::{Error, ErrorKind, Result};
use s4::key::{Key, Prefix, split_number};
use s4::protocol::{Entry, JobSpec};
use std::iter::Peekable;

/// What stands in a job's OUTDIR under numbers, in the order of the merge names, with memory bounded whatever there is.
pub struct Former(Peekable<Records>);

impl Former {
    /// Blocks. All keys of a merge name are on one node. `alive` is called again and again, and ends the work by returning false.
    pub fn gather(store: &Store, spec: &JobSpec, alive: &mut dyn FnMut() -> bool) -> Result<Self> {
        let mut sorter = Sorter::new(store.root());
        let prefix = Prefix::below(&spec.outdir);
        store.list(&Selection::Prefix { prefix: &prefix, recursive: false, details: false }, &mut |entry| {
            if let Entry::Key { path, .. } = entry
                && let Some((number, _)) = split_number(path.rsplit('/').next().unwrap_or_default())
            {
                sorter.push(format!("{number} {path}").into_bytes())?;
            }
            match alive() {
                true => Ok(true),
                false => Err(Error::new(ErrorKind::Cancelled, format!("job {}: its client is gone", spec.id))),
            }
        })?;
        let records: Records = Box::new(sorter.finish()?);
        Ok(Self(records.peekable()))
    }

    /// Hands out the keys of this merge name; to be asked in the order of the names.
    pub fn each_of(&mut self, name: &str, visit: &mut dyn FnMut(Key) -> Result<()>) -> Result<()> {
        // A record that cannot be read comes out too, as the error that it is.
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
