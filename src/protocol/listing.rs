//! Lines of a listing.

use crate::bounds::{beginning, bounded};
use crate::error::{Error, ErrorKind, Result};

/// What a listing tells of a key only when asked, since it takes another look at the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Detail {
    /// Permission bits.
    pub mode: u32,
    pub xxh3: u64,
}

/// A line of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// `mtime`: nanoseconds since 1970. `detail` only where it was asked for.
    Key { path: String, size: u64, mtime: i64, detail: Option<Detail> },
    /// `path` ends in `/`. `stat`: mtime and permission bits, from the directory's home only, and where details were asked for.
    Dir { path: String, stat: Option<(i64, u32)> },
}

impl Entry {
    /// `bucket/dir/name`, or `bucket/dir/` of a directory. Listings are sorted by its bytes.
    pub fn path(&self) -> &str {
        match self {
            Self::Key { path, .. } | Self::Dir { path, .. } => path,
        }
    }

    /// Appends the entry's line. Names hold no whitespace, so a space parts the fields.
    pub fn write_line(&self, out: &mut Vec<u8>) {
        use std::io::Write;
        let written = match self {
            Self::Key { path, size, mtime, detail: None } => writeln!(out, "k {mtime} {size} {path}"),
            Self::Key { path, size, mtime, detail: Some(Detail { mode, xxh3 }) } => {
                writeln!(out, "a {mtime} {size} {mode:o} {xxh3:016x} {path}")
            }
            Self::Dir { path, stat: None } => writeln!(out, "d {path}"),
            Self::Dir { path, stat: Some((mtime, mode)) } => writeln!(out, "h {mtime} {mode:o} {path}"),
        };
        written.expect("a vector takes every write");
    }

    /// Parses a line without its newline; `None` at the listing's end mark. A line of an error is that error.
    pub fn parse_line(line: &str) -> Result<Option<Self>> {
        if let Some(Ok(error)) = line.strip_prefix(LISTING_ERROR).map(serde_json::from_str) {
            return Err(error);
        }
        let shown = beginning(line, 200);
        let malformed =
            || Error::new(ErrorKind::Unreachable, format!("malformed line in a listing: '{}'", shown.escape_debug()));
        let fields: Vec<&str> = line.split(' ').collect();
        let key = |path: &str, size: &str, mtime: &str, detail| {
            let (size, mtime) = (size.parse().map_err(|_| malformed())?, mtime.parse().map_err(|_| malformed())?);
            let size = bounded(size);
            Ok(Self::Key { path: path.to_owned(), size, mtime, detail })
        };
        let entry = match fields[..] {
            ["k", mtime, size, path] => key(path, size, mtime, None)?,
            ["a", mtime, size, mode, xxh3, path] => {
                let mode = u32::from_str_radix(mode, 8).map_err(|_| malformed())?;
                let xxh3 = u64::from_str_radix(xxh3, 16).map_err(|_| malformed())?;
                key(path, size, mtime, Some(Detail { mode, xxh3 }))?
            }
            ["d", path] => Self::Dir { path: path.to_owned(), stat: None },
            ["h", mtime, mode, path] => {
                let mode = u32::from_str_radix(mode, 8).map_err(|_| malformed())?;
                let mtime = mtime.parse().map_err(|_| malformed())?;
                Self::Dir { path: path.to_owned(), stat: Some((mtime, mode & 0o7777)) }
            }
            [LISTING_END] => return Ok(None),
            _ => return Err(malformed()),
        };
        Ok(Some(entry))
    }
}

/// The last line of a whole listing: a listing without it was cut off.
pub const LISTING_END: &str = "end";
/// How the last line of a listing that failed begins; the error follows as JSON.
pub const LISTING_ERROR: &str = "error ";
