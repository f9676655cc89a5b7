//! The inputs that a task has read: their digest, and a journal line for each. Memory use is bounded.

use super::lines::Lines;
use crate::store::Store;
use s4::checksum::Checksum;
use s4::hasher::Hasher;
use s4::key::Key;
use std::fs::File;
use std::io::{Cursor, Read, Result, Seek, Write};

/// Bytes of lines that are kept in memory.
const MAX_MEMORY: usize = 64 * 1024;

/// The inputs of a task, in the order in which they were read.
pub struct TaskInputs {
    digest: u64,
    count: u64,
    lines: Vec<u8>,
    /// Earlier lines, if there were too many for memory.
    spilled: Option<File>,
}

/// Hashes inputs while they are read.
pub struct Reading<'a> {
    store: &'a Store,
    hasher: Hasher,
    inputs: TaskInputs,
}

impl<'a> Reading<'a> {
    pub fn new(store: &'a Store) -> Self {
        let inputs = TaskInputs { digest: 0, count: 0, lines: Vec::new(), spilled: None };
        Self { store, hasher: Hasher::new(), inputs }
    }

    pub fn add(&mut self, key: &Key, checksum: Checksum) -> Result<()> {
        add_input(&mut self.hasher, key, checksum);
        let inputs = &mut self.inputs;
        inputs.count += 1;
        inputs.lines.extend_from_slice(input_line(key, checksum).as_bytes());
        if inputs.lines.len() < MAX_MEMORY {
            return Ok(());
        }
        let spilled = match &mut inputs.spilled {
            Some(spilled) => spilled,
            empty => empty.insert(self.store.unnamed_file()?),
        };
        spilled.write_all(&std::mem::take(&mut inputs.lines))
    }

    pub fn finish(self) -> TaskInputs {
        TaskInputs { digest: self.hasher.finish().xxh3, ..self.inputs }
    }
}

impl TaskInputs {
    /// The digest for the marks of the task's outputs.
    pub fn digest(&self) -> u64 {
        self.digest
    }

    pub fn count(&self) -> u64 {
        self.count
    }

    /// Appends `line` and the lines of all inputs, without lines of others in between.
    pub fn append_to(self, to: &Lines, line: String) -> Result<()> {
        let Some(mut spilled) = self.spilled else {
            return to.append(&[line.as_bytes(), &self.lines].concat());
        };
        spilled.rewind()?;
        to.append_all(&mut Cursor::new(line).chain(spilled).chain(&self.lines[..]))
    }
}

/// The line of an input, as in a journal.
pub fn input_line(key: &Key, checksum: Checksum) -> String {
    format!(" {} {checksum}\n", key.as_str())
}

/// The digest of one input with this checksum.
pub fn input_hash(key: &Key, checksum: Checksum) -> u64 {
    let mut hasher = Hasher::new();
    add_input(&mut hasher, key, checksum);
    hasher.finish().xxh3
}

/// Adds an input to the digest of a task's inputs. The digest covers names, checksums and order.
pub fn add_input(hasher: &mut Hasher, key: &Key, checksum: Checksum) {
    hasher.update(format!("{} {checksum}\n", key.as_str()).as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_covers_names_checksums_and_order() {
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
