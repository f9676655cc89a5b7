//! Splits lines into files by the value of a field: the implementation of `s4 partition`, without its command line.
//!
//! The input is read in blocks ([`window`]) and split into records ([`records`]), which are lines or rows of CSV. The
//! [`key`] of a record decides its bucket ([`buckets`]), and [`outputs`] writes each bucket to a file. A record is held
//! in memory only up to the end of its key; the rest of a long record is copied in pieces. This module does not know
//! the cluster; [`names`] makes file names that place the files.

mod buckets;
mod key;
mod names;
mod numeric;
mod outputs;
mod positions;
pub mod quotes;
mod records;
mod window;

pub use buckets::Buckets;
pub use key::KeyFields;
pub use names::Names;
pub use records::Format;

use crate::error::{Error, ErrorKind, Result};
use key::KeyReader;
use outputs::Outputs;
use quotes::Quotes;
use records::{Record, Records};
use std::io::{Read, Write};
use std::path::PathBuf;
use window::Window;

/// The options of [`partition`].
pub struct Options {
    pub format: Format,
    pub key: KeyFields,
    pub buckets: Buckets,
    pub names: Names,
    /// The directory for the files.
    pub dir: PathBuf,
}

/// Writes the records of `input` to files, and the names of these files to `listing`, one per line. Blocks. After an
/// error, all files created here are removed.
pub fn partition(options: Options, input: impl Read, listing: &mut impl Write) -> Result<()> {
    let Options { format, key, buckets, names, dir } = options;
    let outputs = Outputs::new(dir, names, buckets.count());
    let key = KeyReader::new(key, format, buckets.joiner(format.delimiter));
    let mut splitter = Splitter { format, key, buckets, outputs, header: format.header, open: None, records: 0 };
    splitter.read(Window::new(input))?;
    splitter.outputs.finish(listing)
}

/// A record whose bucket is known and whose end was not read yet.
struct Open {
    bucket: usize,
    quotes: Option<Quotes>,
}

struct Splitter {
    format: Format,
    key: KeyReader,
    buckets: Buckets,
    outputs: Outputs,
    /// The header was not read yet.
    header: bool,
    open: Option<Open>,
    /// The number of complete records so far.
    records: u64,
}

impl Splitter {
    fn read(&mut self, mut window: Window<impl Read>) -> Result<()> {
        while window.fill()? {
            let used = self.take(window.bytes())?;
            window.consume(used);
            if window.is_full() {
                // The record is longer than a block.
                let used = self.take_head(window.bytes())?;
                window.consume(used);
            }
            if window.is_full() && !window.grow() {
                let message = format!("{}: its key does not end within {} MiB", self.place(), window::LONGEST >> 20);
                return Err(Error::new(ErrorKind::Io, message));
            }
        }
        self.take_last(window.bytes())
    }

    /// Processes all records that end in `bytes`, and the available part of an open record. Returns the number of bytes
    /// processed.
    fn take(&mut self, bytes: &[u8]) -> Result<usize> {
        let mut taken = self.take_rest(bytes)?;
        let mut records = Records::new(&bytes[taken..], self.format);
        while let Some(record) = records.next() {
            taken += record.bytes.len();
            self.take_record(&record)?;
        }
        Ok(taken)
    }

    fn take_record(&mut self, record: &Record) -> Result<()> {
        self.records += 1;
        if self.header {
            self.header = false;
            self.outputs.set_header(record.bytes);
            return Ok(());
        }
        let bucket = self.buckets.find(self.key.read(record));
        self.outputs.write(bucket, record.bytes)
    }

    /// Copies the part of the open record that is in `bytes`.
    fn take_rest(&mut self, bytes: &[u8]) -> Result<usize> {
        let Some(open) = &mut self.open else { return Ok(0) };
        let end = match &mut open.quotes {
            Some(quotes) => quotes.scan(bytes, |_| {}),
            None => memchr::memchr(b'\n', bytes).map(|at| at + 1),
        };
        let rest = &bytes[..end.unwrap_or(bytes.len())];
        self.outputs.write(open.bucket, rest)?;
        if end.is_some() {
            self.open = None;
            self.records += 1;
        }
        Ok(rest.len())
    }

    /// Processes the beginning of a record whose end was not read yet, if its key is complete.
    fn take_head(&mut self, head: &[u8]) -> Result<usize> {
        let quoted = self.format.csv;
        if self.header || self.open.is_some() || !self.key.is_whole_in(head, quoted) {
            return Ok(0);
        }
        let bucket = self.buckets.find(self.key.read_head(head, quoted));
        self.outputs.write(bucket, head)?;
        self.open = Some(Open { bucket, quotes: quoted.then(|| self.quotes_after(head)) });
        Ok(head.len())
    }

    /// Processes the bytes after the last newline. A newline is added, as `cut` and `sort` do, since the files will be
    /// concatenated.
    fn take_last(&mut self, bytes: &[u8]) -> Result<()> {
        if let Some(Open { bucket, quotes }) = self.open.take() {
            self.check_closed(quotes)?;
            return self.outputs.write(bucket, b"\n");
        }
        if bytes.is_empty() {
            return Ok(());
        }
        let quotes = self.format.csv.then(|| self.quotes_after(bytes));
        self.check_closed(quotes)?;
        let last = [bytes, b"\n"].concat();
        match Records::new(&last, self.format).next() {
            Some(record) => self.take_record(&record),
            None => Ok(()),
        }
    }

    /// The state of the quotes after `head`, the beginning of a row.
    fn quotes_after(&self, head: &[u8]) -> Quotes {
        let mut quotes = Quotes::new(self.format.delimiter);
        quotes.scan(head, |_| {});
        quotes
    }

    fn check_closed(&self, quotes: Option<Quotes>) -> Result<()> {
        match quotes.is_some_and(|quotes| quotes.is_open()) {
            true => Err(Error::new(ErrorKind::Io, format!("{}: a quote is not closed", self.place()))),
            false => Ok(()),
        }
    }

    /// The number of the current record, for messages.
    fn place(&self) -> String {
        let what = if self.format.csv { "row" } else { "line" };
        format!("stdin: {what} {}", self.records + 1)
    }
}

#[cfg(test)]
mod tests;
