//! The records of a block: lines, or rows of CSV, in which a newline inside quotes does not end the row.

use super::quotes::Quotes;
use memchr::memchr;

/// The format of the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Format {
    pub delimiter: u8,
    /// Fields may be quoted, as in CSV.
    pub csv: bool,
    /// The first record is a header: it is written to the beginning of each file.
    pub header: bool,
}

pub struct Records<'a> {
    rest: &'a [u8],
    format: Format,
    /// The number of bytes of `rest` before its first quote. Records in them need no parsing of quotes.
    bare: usize,
    /// The ends of the fields of the last record with quotes.
    ends: Vec<usize>,
}

/// A complete record with its newline.
pub struct Record<'a> {
    pub bytes: &'a [u8],
    /// The ends of its fields, the last one that of the record's newline; `None` if it has no quotes.
    pub ends: Option<&'a [usize]>,
}

impl<'a> Records<'a> {
    /// `bytes` must begin at a record.
    pub fn new(bytes: &'a [u8], format: Format) -> Self {
        Self { rest: bytes, format, bare: bare(bytes, format), ends: Vec::new() }
    }

    /// The next complete record.
    #[inline]
    pub fn next(&mut self) -> Option<Record<'_>> {
        let line = memchr(b'\n', self.rest)? + 1;
        if line <= self.bare {
            self.bare -= line;
            return Some(Record { bytes: self.split_off(line), ends: None });
        }
        let Self { ends, .. } = self;
        ends.clear();
        let end = Quotes::new(self.format.delimiter).scan(self.rest, |end| ends.push(end))?;
        let bytes = self.split_off(end);
        self.bare = bare(self.rest, self.format);
        Some(Record { bytes, ends: Some(&self.ends) })
    }

    fn split_off(&mut self, length: usize) -> &'a [u8] {
        let (record, rest) = self.rest.split_at(length);
        self.rest = rest;
        record
    }
}

fn bare(bytes: &[u8], format: Format) -> usize {
    let quote = if format.csv { memchr(b'"', bytes) } else { None };
    quote.unwrap_or(bytes.len())
}
