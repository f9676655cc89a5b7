//! Sorting any number of records in bounded memory: sorted runs in an unnamed temporary file, merged as they are read.

use s4::error::{Error, Result};
use s4::stored;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Bytes of records held in memory before a run is written.
const RUN: usize = 4 << 20;
/// Bytes read from a run at a time.
const PAGE: usize = 16 * 1024;

/// Collects records, which must not contain newlines.
pub struct Sorter {
    /// Directory of the temporary file, if one is needed.
    dir: PathBuf,
    records: Vec<Vec<u8>>,
    held: usize,
    spill: Option<File>,
    /// Where each run begins in the spill file; the last ends at `spilled`.
    runs: Vec<u64>,
    spilled: u64,
}

impl Sorter {
    pub fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned(), records: Vec::new(), held: 0, spill: None, runs: Vec::new(), spilled: 0 }
    }

    pub fn push(&mut self, record: Vec<u8>) -> Result<()> {
        self.held += record.len() + size_of::<Vec<u8>>();
        self.records.push(record);
        match self.held >= RUN {
            true => self.spill_run(),
            false => Ok(()),
        }
    }

    /// All records in byte order.
    pub fn finish(mut self) -> Result<impl Iterator<Item = Result<Vec<u8>>> + use<>> {
        self.records.sort_unstable();
        let mut runs = vec![Run::Memory(std::mem::take(&mut self.records).into_iter())];
        if let Some(file) = self.spill {
            let file = Arc::new(file);
            let ends = self.runs.iter().skip(1).copied().chain([self.spilled]);
            for (&at, end) in self.runs.iter().zip(ends) {
                runs.push(Run::File { file: file.clone(), at, end, page: Vec::new(), used: 0 });
            }
        }
        let mut merge = Merge { runs, heads: BinaryHeap::new() };
        for run in 0..merge.runs.len() {
            merge.advance(run)?;
        }
        Ok(merge)
    }

    fn spill_run(&mut self) -> Result<()> {
        let failed = |e: std::io::Error| Error::io("a temporary file for sorting", &e);
        let file = match self.spill.take() {
            Some(file) => file,
            None => stored::unnamed_file(&self.dir).map_err(failed)?,
        };
        self.records.sort_unstable();
        self.runs.push(self.spilled);
        let mut out = BufWriter::with_capacity(RUN / 16, &file);
        for record in self.records.drain(..) {
            out.write_all(&record).and_then(|()| out.write_all(b"\n")).map_err(failed)?;
            self.spilled += record.len() as u64 + 1;
        }
        out.flush().map_err(failed)?;
        drop(out);
        self.held = 0;
        self.spill = Some(file);
        Ok(())
    }
}

enum Run {
    Memory(std::vec::IntoIter<Vec<u8>>),
    File { file: Arc<File>, at: u64, end: u64, page: Vec<u8>, used: usize },
}

impl Run {
    fn next(&mut self) -> std::io::Result<Option<Vec<u8>>> {
        let (file, at, end, page, used) = match self {
            Self::Memory(records) => return Ok(records.next()),
            Self::File { file, at, end, page, used } => (file, at, end, page, used),
        };
        loop {
            if let Some(len) = page[*used..].iter().position(|&b| b == b'\n') {
                let record = page[*used..*used + len].to_vec();
                *used += len + 1;
                return Ok(Some(record));
            }
            if at == end {
                return Ok(None);
            }
            page.drain(..*used);
            *used = 0;
            let (kept, more) = (page.len(), PAGE.min((*end - *at) as usize));
            page.resize(kept + more, 0);
            file.read_exact_at(&mut page[kept..], *at)?;
            *at += more as u64;
        }
    }
}

struct Merge {
    runs: Vec<Run>,
    heads: BinaryHeap<Reverse<(Vec<u8>, usize)>>,
}

impl Merge {
    fn advance(&mut self, run: usize) -> Result<()> {
        let next = self.runs[run].next().map_err(|e| Error::io("a temporary file for sorting", &e))?;
        self.heads.extend(next.map(|record| Reverse((record, run))));
        Ok(())
    }
}

impl Iterator for Merge {
    type Item = Result<Vec<u8>>;

    fn next(&mut self) -> Option<Self::Item> {
        let Reverse((record, run)) = self.heads.pop()?;
        Some(self.advance(run).map(|()| record))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_records_than_fit_in_memory_come_back_sorted() {
        let mut sorter = Sorter::new(&std::env::temp_dir());
        let count = 400_000_u64;
        for n in 0..count {
            // A multiplication by an odd number modulo a power of two visits every value once.
            let shuffled = n.wrapping_mul(2_654_435_761) % (1 << 32);
            sorter.push(format!("{shuffled:010}").into_bytes()).unwrap();
        }
        assert!(sorter.runs.len() > 1, "the test is to reach the spill file");
        let sorted: Vec<Vec<u8>> = sorter.finish().unwrap().collect::<Result<_>>().unwrap();
        assert_eq!(sorted.len() as u64, count);
        assert!(sorted.is_sorted());
    }
}
