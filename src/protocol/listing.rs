//! The lines of a listing: JSON, one value per line.

use crate::bounds::{beginning, bounded};
use crate::error::{Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;

/// Details of a key that a listing contains only on request, since they need another access to the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Detail {
    /// Permission bits.
    pub mode: u32,
    /// As 16 hexadecimal digits, because JSON parsers of many languages do not support 64-bit integers.
    #[serde(with = "hex")]
    pub xxh3: u64,
}

/// Serialises a 64-bit number as 16 hexadecimal digits.
pub(super) mod hex {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};
    use std::borrow::Cow;

    pub fn serialize<S: Serializer>(number: &u64, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&format_args!("{number:016x}"))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
        let digits = Cow::<str>::deserialize(from)?;
        u64::from_str_radix(&digits, 16).map_err(D::Error::custom)
    }
}

/// An entry of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// `mtime`: nanoseconds since 1970. `detail`: only on request.
    Key { path: String, size: u64, mtime: i64, detail: Option<Detail> },
    /// `path` ends in `/`. `stat`: mtime and permission bits, on request, and only from the directory's home.
    Dir { path: String, stat: Option<(i64, u32)> },
}

/// A line of a listing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ListingLine<'a> {
    Key {
        path: Cow<'a, str>,
        size: u64,
        mtime: i64,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        detail: Option<Detail>,
    },
    Dir {
        path: Cow<'a, str>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        stat: Option<(i64, u32)>,
    },
    /// A keepalive.
    Alive,
    /// The last line of a complete listing. Without it, the listing was cut off.
    End,
    /// The last line of a listing that failed.
    Error(Error),
}

impl Entry {
    /// `bucket/dir/name`, or `bucket/dir/` for a directory. Listings are sorted by the bytes of this path.
    pub fn path(&self) -> &str {
        match self {
            Self::Key { path, .. } | Self::Dir { path, .. } => path,
        }
    }

    /// The entry's line in a listing.
    pub fn line(&self) -> ListingLine<'_> {
        match self {
            Self::Key { path, size, mtime, detail } => {
                ListingLine::Key { path: path.into(), size: *size, mtime: *mtime, detail: *detail }
            }
            Self::Dir { path, stat } => ListingLine::Dir { path: path.into(), stat: *stat },
        }
    }
}

impl ListingLine<'_> {
    /// Appends the line with its newline.
    pub fn write(&self, out: &mut Vec<u8>) {
        serde_json::to_writer(&mut *out, self).expect("a listing is plain JSON");
        out.push(b'\n');
    }
}

/// What follows in a listing.
#[derive(Debug, PartialEq, Eq)]
pub enum Listed {
    Entry(Entry),
    Alive,
    End,
}

impl Listed {
    /// Parses a line without its newline. A line with an error returns that error.
    pub fn parse(line: &[u8]) -> Result<Self> {
        let parsed: ListingLine = serde_json::from_slice(line).map_err(|_| {
            let text = String::from_utf8_lossy(line);
            let shown = beginning(&text, 200);
            Error::new(ErrorKind::Unreachable, format!("malformed line in a listing: '{}'", shown.escape_debug()))
        })?;
        Ok(match parsed {
            ListingLine::Key { path, size, mtime, detail } => {
                let detail = detail.map(|detail| Detail { mode: detail.mode & 0o7777, ..detail });
                Self::Entry(Entry::Key { path: path.into_owned(), size: bounded(size), mtime, detail })
            }
            ListingLine::Dir { path, stat } => {
                let stat = stat.map(|(mtime, mode)| (mtime, mode & 0o7777));
                Self::Entry(Entry::Dir { path: path.into_owned(), stat })
            }
            ListingLine::Alive => Self::Alive,
            ListingLine::End => Self::End,
            ListingLine::Error(error) => return Err(error),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(line: &ListingLine) -> String {
        let mut out = Vec::new();
        line.write(&mut out);
        String::from_utf8(out).expect("JSON is UTF-8")
    }

    #[test]
    fn entries_are_read_as_written() {
        let detail = Some(Detail { mode: 0o444, xxh3: u64::MAX });
        for (entry, line) in [
            (
                Entry::Key { path: "b/k".into(), size: 6, mtime: -1, detail: None },
                r#"{"key":{"path":"b/k","size":6,"mtime":-1}}"#,
            ),
            (
                Entry::Key { path: "b/\u{e4}".into(), size: 0, mtime: 1, detail },
                "{\"key\":{\"path\":\"b/\u{e4}\",\"size\":0,\"mtime\":1,\"detail\":{\"mode\":292,\"xxh3\":\"ffffffffffffffff\"}}}",
            ),
            (Entry::Dir { path: "b/".into(), stat: Some((1, 0o755)) }, r#"{"dir":{"path":"b/","stat":[1,493]}}"#),
        ] {
            assert_eq!(written(&entry.line()), format!("{line}\n"));
            assert_eq!(Listed::parse(line.as_bytes()), Ok(Listed::Entry(entry)));
        }
        assert_eq!(Listed::parse(written(&ListingLine::End).trim_end().as_bytes()), Ok(Listed::End));
    }

    #[test]
    fn an_error_line_returns_the_error_and_a_malformed_line_is_an_error() {
        let error = Error::new(ErrorKind::Io, "b/k: Input/output error");
        let line = written(&ListingLine::Error(error.clone()));
        assert_eq!(Listed::parse(line.trim_end().as_bytes()), Err(error));
        for line in
            ["", "k 1 2 b/k", "{}", r#"{"key":{"path":"b/k"}}"#, r#"{"key":{"path":"b/k","size":-1,"mtime":0}}"#]
        {
            assert_eq!(Listed::parse(line.as_bytes()).unwrap_err().kind(), ErrorKind::Unreachable, "{line}");
        }
        let large = Listed::parse(br#"{"key":{"path":"b/k","size":18446744073709551615,"mtime":0}}"#);
        assert!(matches!(large, Ok(Listed::Entry(Entry::Key { size, .. })) if size < u64::MAX / 1000), "{large:?}");
    }
}
