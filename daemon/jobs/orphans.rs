//! Orphans: outputs whose inputs no longer exist. `--update` removes them. Planning lists them in a file beside the
//! plan; they are deleted before the tasks run.

use super::rerun::may_remove;
use super::tasks::failed;
use crate::store::{Selection, Sorter, Store};
use s4::attribute::Mark;
use s4::error::Result;
use s4::file::open_to_read;
use s4::key::{Dir, Key, Prefix};
use s4::protocol::{Entry, Rerun};
use s4::stored::{is_absent, record_at};
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, ErrorKind, Write};
use std::path::Path;

/// The file's name in a job's directory.
const FILE: &str = "gone";

/// The outputs that the tasks of a 1:1 or n:1 map will have. Existing outputs are compared with them.
pub struct Outputs(Sorter);

impl Outputs {
    pub fn new(store: &Store) -> Self {
        Self(Sorter::new(store.root()))
    }

    pub fn add(&mut self, output: &Key) -> Result<()> {
        self.0.push(output.as_str().as_bytes().to_vec())
    }

    /// Writes the orphans below `outdir` on this node that an update of the map of `ours` removes. If `alive` fails, so
    /// does this.
    pub fn write_others(
        self,
        store: &Store,
        outdir: &Dir,
        ours: Mark,
        list: &mut List,
        alive: &mut dyn FnMut() -> Result<bool>,
    ) -> Result<()> {
        let mut existing = Sorter::new(store.root());
        let prefix = Prefix::below(outdir);
        store.list(&Selection::keys(&prefix), &mut |entry| {
            if let Entry::Key { path, .. } = entry {
                let mark = match record_at(&store.root().join(&path)) {
                    Err(e) if !is_absent(&e) => return Err(store.unreadable(format!("s4://{path}"), &e)),
                    record => record.ok().flatten().and_then(|record| record.mark),
                };
                if mark.is_some_and(|mark| may_remove(Rerun::Update, mark, ours)) {
                    existing.push(path.into_bytes())?;
                }
            }
            alive()
        })?;
        let mut planned = self.0.finish()?.peekable();
        for path in existing.finish()? {
            let path = path?;
            // Take a record that cannot be read too, to return its error.
            while let Some(before) = planned.next_if(|planned| planned.as_ref().map_or(true, |planned| *planned < path))
            {
                before?;
            }
            if !planned.peek().is_some_and(|planned| planned.as_ref().is_ok_and(|planned| *planned == path)) {
                list.add(&String::from_utf8_lossy(&path))?;
            }
        }
        Ok(())
    }
}

/// The file while it is written. Each line is a key, or for a 1:n map the basename of an input.
pub struct List {
    out: BufWriter<File>,
    pub count: u64,
    last: String,
}

impl List {
    pub fn create(dir: &Path) -> Result<Self> {
        let file = File::create(dir.join(FILE)).map_err(|e| failed(&e))?;
        Ok(Self { out: BufWriter::new(file), count: 0, last: String::new() })
    }

    /// Adds a line. Does nothing if the line before is equal.
    pub fn add(&mut self, line: &str) -> Result<()> {
        if self.last != line {
            self.count += 1;
            line.clone_into(&mut self.last);
            writeln!(self.out, "{line}").map_err(|e| failed(&e))?;
        }
        Ok(())
    }

    pub fn finish(mut self) -> Result<u64> {
        self.out.flush().map_err(|e| failed(&e)).map(|()| self.count)
    }
}

/// The lines of the file in a job's directory; none if there is no file.
pub fn read(dir: &Path) -> Result<impl Iterator<Item = Result<String>> + use<>> {
    let file = match open_to_read(&dir.join(FILE)) {
        Ok(file) => Some(file),
        Err(e) if e.kind() == ErrorKind::NotFound => None,
        Err(e) => return Err(failed(&e)),
    };
    let lines = file.map(|file| BufReader::new(file).lines());
    Ok(lines.into_iter().flatten().map(|line| line.map_err(|e| failed(&e))))
}
