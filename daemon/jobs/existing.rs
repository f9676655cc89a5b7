//! The existing outputs of a 1:n map, or of a 1:1 map with `--to-name`, on all nodes. Whether a task is done is decided
//! from the outputs themselves.

use super::shared::Shared;
use super::tasks::still_wanted;
use crate::store::Sorter;
use s4::error::{Error, Result};
use s4::protocol::{FoundOutputs, HEARTBEAT, JobSpec};
use std::iter::Peekable;
use tokio::runtime::Handle;
use tokio::sync::mpsc;

/// Limit of received entries that wait to be sorted.
const QUEUE: usize = 1024;

/// The existing outputs, in the order of the inputs' basenames. Memory use is bounded.
pub struct ExistingOutputs(Peekable<Records>);

pub(super) type Records = Box<dyn Iterator<Item = Result<Vec<u8>>>>;

impl ExistingOutputs {
    /// Asks every node for the existing outputs of this node's tasks; for a 1:1 map, for all outputs, each under its
    /// own path. Blocks. `alive` is called from time to time; the work stops if it returns false.
    pub fn gather(shared: &Shared, spec: &JobSpec, alive: &mut dyn FnMut() -> bool) -> Result<Self> {
        let mut sorter = Sorter::new(shared.store.root());
        let (sender, mut answers) = mpsc::channel(QUEUE);
        let handle = Handle::current();
        let of = spec.to_name.is_none().then_some(shared.node);
        for node in shared.client.cluster().ids().filter(|&node| node != shared.node) {
            let (client, outdir, sender) = (shared.client.clone(), spec.outdir.clone(), sender.clone());
            handle.spawn(async move {
                if let Err(error) = client.existing_outputs(node, &outdir, of, &sender).await {
                    // This fails if another node has failed before.
                    let _ = sender.send(Err(error)).await;
                }
            });
        }
        drop(sender);
        shared.store.existing_outputs(&spec.outdir, of, &mut |found| {
            found.map_or(Ok(()), |output| push(&mut sorter, &output)).map(|()| alive())
        })?;
        loop {
            match handle.block_on(async { tokio::time::timeout(HEARTBEAT, answers.recv()).await }) {
                Ok(Some(output)) => push(&mut sorter, &output?)?,
                Ok(None) => break,
                Err(_) => {}
            }
            still_wanted(spec, alive)?;
        }
        let records: Records = Box::new(sorter.finish()?);
        Ok(Self(records.peekable()))
    }

    /// The existing outputs of `input`, one entry for each mark. Must be called in the order of basenames. Outputs of
    /// inputs in between that were skipped go to `other`.
    pub fn of(&mut self, input: &str, other: &mut dyn FnMut(FoundOutputs) -> Result<()>) -> Result<Vec<FoundOutputs>> {
        let mut found: Vec<FoundOutputs> = Vec::new();
        // Take a record that cannot be read too, to return its error.
        while let Some(record) = self.0.next_if(|record| record.as_ref().map_or(true, |record| precedes(record, input)))
        {
            let output = parse(&record?)?;
            if output.input != input {
                other(output)?;
                continue;
            }
            match found.iter_mut().find(|other| other.mark == output.mark) {
                Some(other) => other.count += output.count,
                None => found.push(output),
            }
        }
        Ok(found)
    }

    /// Passes the outputs of all inputs behind the last one to `other`.
    pub fn rest(self, other: &mut dyn FnMut(FoundOutputs) -> Result<()>) -> Result<()> {
        self.0.into_iter().try_for_each(|record| other(parse(&record?)?))
    }
}

fn parse(record: &[u8]) -> Result<FoundOutputs> {
    let json = record.iter().position(|&byte| byte == b' ').map_or(record, |at| &record[at + 1..]);
    serde_json::from_slice(json).map_err(|e| Error::io("existing outputs", &e.into()))
}

fn push(sorter: &mut Sorter, output: &FoundOutputs) -> Result<()> {
    let json = serde_json::to_string(output).map_err(|e| Error::io("existing outputs", &e.into()))?;
    sorter.push(format!("{} {json}", output.input).into_bytes())
}

/// True for the records of `input` itself and for those that are sorted before them.
pub(super) fn precedes(record: &[u8], input: &str) -> bool {
    let name = record.split_inclusive(|&byte| byte == b' ').next().unwrap_or_default();
    name.iter().copied().le(input.bytes().chain([b' ']))
}

#[cfg(test)]
mod tests {
    use super::*;
    use s4::attribute::Mark;
    use s4::key::Key;

    const OURS: Mark = Mark { recipe: 1, inputs: 2, job: 3, source: 4, outputs: 1 };

    fn outputs(mark: Mark, count: u64) -> FoundOutputs {
        FoundOutputs { input: "in".into(), key: Key::parse("out/in/x").unwrap(), count, mark }
    }

    #[test]
    fn existing_outputs_are_found_in_the_order_of_basenames() {
        let names = ["a", "a-b", "a.x", "ab", "b"];
        let mut sorter = Sorter::new(&std::env::temp_dir());
        for name in names {
            for job in [1, 2, 1] {
                push(&mut sorter, &FoundOutputs { input: name.into(), ..outputs(Mark { job, ..OURS }, 2) }).unwrap();
            }
        }
        let records: Records = Box::new(sorter.finish().unwrap());
        let mut all = ExistingOutputs(records.peekable());
        for name in ["a", "a-a", "a-b", "ab", "c"] {
            let mut counts: Vec<u64> =
                all.of(name, &mut |_| Ok(())).unwrap().iter().map(|output| output.count).collect();
            counts.sort_unstable();
            assert_eq!(counts, if names.contains(&name) { vec![2, 4] } else { vec![] }, "{name}");
        }
    }
}
