//! The key of a record: one field, several fields, or the whole record.

use super::positions::Positions;
use super::quotes::{Quotes, unquote};
use super::records::{Format, Record};
use crate::error::{Error, Result};
use memchr::memchr;

/// Limit of fields. A longer list is a mistake.
const MAX_FIELDS: usize = 65_536;

/// The fields of a key, in the given order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyFields {
    /// First and last field of each range, from 0. The last one is `usize::MAX` if the range has no end. Empty: the
    /// whole record.
    ranges: Vec<(usize, usize)>,
}

impl KeyFields {
    /// The key that is the whole record.
    pub fn all() -> Self {
        Self { ranges: Vec::new() }
    }

    /// Parses a list of fields in the form of `cut`: `3`, `1,2`, `2-4`, `3-`, `-2`.
    pub fn parse(list: &str) -> Result<Self> {
        let wrong = || {
            let what = "fields are numbers from 1, as in -k3, -k1,2 or -k2-4";
            Error::usage(format!("-k {list}: {what}"))
        };
        let ranges: Option<Vec<_>> = list.split(',').map(parse_range).collect();
        ranges.filter(|ranges| ranges.len() <= MAX_FIELDS).map(|ranges| Self { ranges }).ok_or_else(wrong)
    }

    /// The last field, from 0; `usize::MAX` if the key ends with the record.
    fn last(&self) -> usize {
        self.ranges.iter().map(|(_, last)| *last).max().unwrap_or(usize::MAX)
    }
}

fn parse_range(text: &str) -> Option<(usize, usize)> {
    // The standard parser would accept a sign.
    let number = |text: &str| {
        let is_number = text.bytes().all(|b| b.is_ascii_digit());
        text.parse::<usize>().ok().filter(|&number| is_number && (1..=MAX_FIELDS).contains(&number))
    };
    let (first, last) = match text.split_once('-') {
        None => (number(text)?, number(text)?),
        Some(("", last)) => (1, number(last)?),
        Some((first, "")) => return Some((number(first)? - 1, usize::MAX)),
        Some((first, last)) => (number(first)?, number(last)?),
    };
    (first <= last).then_some((first - 1, last - 1))
}

/// Finds keys in records.
pub struct KeyReader {
    fields: KeyFields,
    /// The key's only field.
    only: Option<usize>,
    format: Format,
    /// The separator between the fields of a key.
    joiner: u8,
    /// The last key, if it is not a part of its record; and the ends of its fields.
    value: Vec<u8>,
    ends: Vec<usize>,
}

impl KeyReader {
    pub fn new(fields: KeyFields, format: Format, joiner: u8) -> Self {
        let only = match *fields.ranges {
            [(first, last)] if first == last => Some(first),
            _ => None,
        };
        Self { fields, only, format, joiner, value: Vec::new(), ends: Vec::new() }
    }

    /// The key of a complete record. A missing field is empty.
    #[inline]
    pub fn read<'a>(&'a mut self, record: &Record<'a>) -> &'a [u8] {
        match record.ends {
            None => self.read_bare(record.bytes),
            Some(ends) => {
                self.ends.clear();
                self.ends.extend_from_slice(ends);
                self.collect(self.without_end(record.bytes), true)
            }
        }
    }

    /// The key of the beginning of a record, in which the key is complete. `quoted`: it may have quotes.
    pub fn read_head<'a>(&'a mut self, head: &'a [u8], quoted: bool) -> &'a [u8] {
        if !quoted {
            return self.read_bare(head);
        }
        let ends = &mut self.ends;
        ends.clear();
        Quotes::new(self.format.delimiter).scan(head, |end| ends.push(end));
        self.collect(self.without_end(head), true)
    }

    #[inline]
    fn read_bare<'a>(&'a mut self, record: &'a [u8]) -> &'a [u8] {
        let line = self.without_end(record);
        match self.only {
            _ if self.fields.ranges.is_empty() => line,
            Some(field) => nth(line, self.format.delimiter, field),
            None => {
                let wanted = self.fields.last().saturating_add(1);
                self.ends.clear();
                self.ends.extend(Positions::of(self.format.delimiter, line).take(wanted));
                self.collect(line, false)
            }
        }
    }

    #[inline]
    fn without_end<'a>(&self, record: &'a [u8]) -> &'a [u8] {
        let line = record.strip_suffix(b"\n").unwrap_or(record);
        if self.format.csv { line.strip_suffix(b"\r").unwrap_or(line) } else { line }
    }

    /// The key of a line whose fields end at `self.ends`, if these end within the line.
    fn collect<'a>(&'a mut self, line: &'a [u8], quoted: bool) -> &'a [u8] {
        let Self { fields, ends, value, joiner, .. } = self;
        if fields.ranges.is_empty() {
            return line;
        }
        while ends.last().is_some_and(|&end| end >= line.len()) {
            ends.pop();
        }
        if ends.len() <= fields.last() {
            ends.push(line.len());
        }
        let field = |at: usize| match ends.get(at) {
            Some(&end) => &line[at.checked_sub(1).map_or(0, |before| ends[before] + 1)..end],
            None => &[],
        };
        value.clear();
        for (at, &(first, last)) in fields.ranges.iter().enumerate() {
            let last = if last == usize::MAX { first.max(ends.len() - 1) } else { last };
            for number in first..=last {
                if at > 0 || number > first {
                    value.push(*joiner);
                }
                match quoted {
                    true => unquote(field(number), value),
                    false => value.extend_from_slice(field(number)),
                }
            }
        }
        value
    }

    /// True if the key of the record ends within `head`, the beginning of the record.
    pub fn is_whole_in(&self, head: &[u8], quoted: bool) -> bool {
        let last = self.fields.last();
        if !quoted {
            return Positions::of(self.format.delimiter, head).nth(last).is_some();
        }
        let mut ended = 0;
        Quotes::new(self.format.delimiter).scan(head, |_| ended += 1);
        ended > last
    }
}

/// Field `number` of a line without quotes.
#[inline]
fn nth(line: &[u8], delimiter: u8, number: usize) -> &[u8] {
    let start = match number.checked_sub(1) {
        None => 0,
        Some(before) => match Positions::of(delimiter, line).nth(before) {
            Some(end) => end + 1,
            None => return &[],
        },
    };
    let rest = &line[start..];
    &rest[..memchr(delimiter, rest).unwrap_or(rest.len())]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(list: &str, csv: bool, record: &str) -> String {
        let format = Format { delimiter: b',', csv, header: false };
        let fields = if list.is_empty() { KeyFields::all() } else { KeyFields::parse(list).expect("a list") };
        let mut reader = KeyReader::new(fields, format, b'|');
        String::from_utf8(reader.read_head(record.as_bytes(), csv).to_vec()).expect("UTF-8")
    }

    #[test]
    fn a_list_of_fields_is_read_in_its_order() {
        for (list, record, wanted) in [
            ("", "a,b\n", "a,b"),
            ("1", "a,b\n", "a"),
            ("2", "a,b\n", "b"),
            ("3", "a,b\n", ""),
            ("1", "\n", ""),
            ("2,1", "a,b,c\n", "b|a"),
            ("2-", "a,b,c\n", "b|c"),
            ("-2", "a,b,c\n", "a|b"),
            ("1,3", "a,b\n", "a|"),
            ("5-", "a,b\n", ""),
            ("2-3,1", "a,b,c,d\n", "b|c|a"),
            ("1", "\"a\",b\n", "\"a\""),
            ("2", "a,b\r\n", "b\r"),
        ] {
            assert_eq!(key(list, false, record), wanted, "-k {list}: {record}");
        }
    }

    #[test]
    fn quotes_are_no_part_of_a_value() {
        for (list, record, wanted) in [
            ("1", "\"a\",b\n", "a"),
            ("1", "a,b\n", "a"),
            ("2", "\"a,\nx\",\"b\"\r\n", "b"),
            ("2,1", "\"a\"\"\",b,c\n", "b|a\""),
            ("1", "5\",b\n", "5\""),
            ("3", "\"a\",b\n", ""),
        ] {
            assert_eq!(key(list, true, record), wanted, "-k {list}: {record}");
        }
    }

    #[test]
    fn malformed_lists_of_fields_are_refused() {
        for list in ["", "0", "a", "1,", "-", "3-2", "1,,2", "+1", "1.2", "99999999999999999999", "65537", "0-3"] {
            assert!(KeyFields::parse(list).is_err(), "{list}");
        }
    }

    #[test]
    fn a_key_is_whole_once_its_last_field_has_ended() {
        let reader = |list| KeyReader::new(KeyFields::parse(list).expect("a list"), FORMAT, b'|');
        const FORMAT: Format = Format { delimiter: b',', csv: true, header: false };
        assert!(!reader("2").is_whole_in(b"a,b", false));
        assert!(reader("2").is_whole_in(b"a,b,", false));
        assert!(!reader("2").is_whole_in(b"a,\"b,", true));
        assert!(reader("2").is_whole_in(b"a,\"b,\",", true));
        assert!(!reader("1-").is_whole_in(b"a,b,", false));
    }
}
