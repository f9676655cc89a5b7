//! Splits lines into files by the value of a field: what `s4 partition` does, without its command line.
//!
//! The input is read in blocks ([`window`]) and cut into records ([`records`]), which are lines, or rows of CSV. The [`key`] of a record
//! gives its bucket ([`buckets`]), and [`outputs`] writes each bucket to a file of its own. A record is held in memory up to the end of its
//! key only; the rest of a long one is passed on in pieces. Nothing here knows a cluster: that file names choose nodes is [`names`]' concern.

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
use records::Records;
use std::io::{Read, Write};
use std::path::PathBuf;
use window::Window;

/// What [`partition`] is asked to do.
pub struct Options {
    pub format: Format,
    pub key: KeyFields,
    pub buckets: Buckets,
    pub names: Names,
    /// Where the files are made.
    pub dir: PathBuf,
}

/// Writes the records of `input` into files, and the names of these files to `listing`, one a line. Blocks. Errors leave no file that was made
/// here.
pub fn partition(options: Options, input: impl Read, listing: &mut impl Write) -> Result<()> {
    let Options { format, key, buckets, names, dir } = options;
    let outputs = Outputs::new(dir, names, buckets.count());
    let key = KeyReader::new(key, format, buckets.joiner(format.delimiter));
    let mut splitter = Splitter { format, key, buckets, outputs, header: format.header, open: None, records: 0 };
    splitter.read(Window::new(input))?;
    splitter.outputs.finish(listing)
}

/// A record whose bucket is known, and whose end has not been read yet.
struct Open {
    bucket: usize,
    quotes: Option<Quotes>,
}

struct Splitter {
    format: Format,
    key: KeyReader,
    buckets: Buckets,
    outputs: Outputs,
    /// The header is still to come.
    header: bool,
    open: Option<Open>,
    /// Records that have been read whole.
    records: u64,
}

impl Splitter {
    fn read(&mut self, mut window: Window<impl Read>) -> Result<()> {
        while window.fill()? {
            let used = self.take(window.bytes())?;
            window.consume(used);
            if window.is_full() {
                // One record is longer than a block.
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

    /// Takes all records that end in `bytes`, and what there is of one that is open. Returns how many bytes that was.
    fn take(&mut self, bytes: &[u8]) -> Result<usize> {
        let mut taken = self.take_rest(bytes)?;
        let mut records = Records::new(&bytes[taken..], self.format);
        while let Some((record, quoted)) = records.next() {
            taken += record.len();
            self.take_record(record, quoted)?;
        }
        Ok(taken)
    }

    fn take_record(&mut self, record: &[u8], quoted: bool) -> Result<()> {
        self.records += 1;
        if self.header {
            self.header = false;
            self.outputs.set_header(record);
            return Ok(());
        }
        let bucket = self.buckets.find(self.key.read(record, quoted));
        self.outputs.write(bucket, record)
    }

    /// Passes on what `bytes` has of the record that is open.
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

    /// Takes the beginning of a record whose end is not here, if its key is.
    fn take_head(&mut self, head: &[u8]) -> Result<usize> {
        let quoted = self.format.csv;
        if self.header || self.open.is_some() || !self.key.is_whole_in(head, quoted) {
            return Ok(0);
        }
        let bucket = self.buckets.find(self.key.read(head, quoted));
        self.outputs.write(bucket, head)?;
        self.open = Some(Open { bucket, quotes: quoted.then(|| self.quotes_after(head)) });
        Ok(head.len())
    }

    /// Takes what comes after the last newline. It gets one, as from `cut` and `sort`: the files will be put together.
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
        self.take_record(&[bytes, b"\n"].concat(), self.format.csv)
    }

    /// How far the row is that begins with `head`.
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

    /// The record that is being read, for messages.
    fn place(&self) -> String {
        let what = if self.format.csv { "row" } else { "line" };
        format!("stdin: {what} {}", self.records + 1)
    }
}

#[cfg(test)]
mod tests;
