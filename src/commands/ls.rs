//! `s4 ls`

use super::absence::nothing_found;
use super::format::{counted, size_text};
use crate::cli::LsArgs;
use s4::client::Client;
use s4::error::{Error, ErrorKind, ExitStatus, Result};
use s4::key::Prefix;
use s4::protocol::Entry;
use s4::skew::Load;
use s4::time;
use std::io::{BufWriter, Write};

pub async fn run(client: &Client, args: LsArgs) -> Result<ExitStatus> {
    let prefix = Prefix::parse_url(args.prefix.as_deref().unwrap_or("s4://"))?;
    let mut listing = client.list(&prefix, args.recursive).await?;
    let mut out = BufWriter::new(std::io::stdout().lock());
    let mut totals = Totals::new(&prefix);
    let shown = Shown { from: shown_from(&prefix, args.recursive), human: args.human };
    while let Some(entry) = listing.next().await? {
        totals.add(&entry);
        shown.write(&mut out, &entry).map_err(|e| Error::io("stdout", &e))?;
    }
    if args.total {
        writeln!(out, "{}", totals.text(args.human)).map_err(|e| Error::io("stdout", &e))?;
    }
    out.flush().map_err(|e| Error::io("stdout", &e))?;
    match totals.found {
        true => Ok(ExitStatus::Done),
        false => {
            let error = Error::new(ErrorKind::NotFound, format!("{prefix}: nothing found"));
            Err(nothing_found(client, prefix.as_str(), error).await)
        }
    }
}

/// The number of bytes of each path that are not shown: its directory, or with `-r` its bucket.
fn shown_from(prefix: &Prefix, recursive: bool) -> usize {
    let (dir, _) = prefix.split();
    let said = match recursive {
        true => dir.split('/').next().unwrap_or(""),
        false => dir,
    };
    if said.is_empty() { 0 } else { said.len() + 1 }
}

/// How entries are printed.
struct Shown {
    /// The number of bytes of each path that are not shown.
    from: usize,
    human: bool,
}

impl Shown {
    fn write(&self, out: &mut impl Write, entry: &Entry) -> std::io::Result<()> {
        match entry {
            Entry::Key { path, size, mtime, .. } => {
                let (date, clock) = time::utc(mtime.div_euclid(1_000_000_000));
                let size = if self.human { size_text(*size) } else { size.to_string() };
                writeln!(out, "{date} {clock} {size:>10} {}", &path[self.from..])
            }
            Entry::Dir { path, .. } if is_bucket(path) => writeln!(out, "{}", path.trim_end_matches('/')),
            Entry::Dir { path, .. } => writeln!(out, "{:>30} {}", "PRE", &path[self.from..]),
        }
    }
}

/// True if the path is a bucket, of which only the name is printed.
fn is_bucket(path: &str) -> bool {
    path.find('/') == Some(path.len() - 1)
}

/// Totals of the listing. Entries are sorted by path, so the entries of a directory come together.
struct Totals {
    /// Bytes of each path that belong to directories outside the listing.
    from: usize,
    found: bool,
    keys: Load,
    buckets: u64,
    dirs: u64,
    /// The previous path.
    last: String,
}

impl Totals {
    fn new(prefix: &Prefix) -> Self {
        let dir = prefix.split().0;
        let from = if dir.is_empty() { 0 } else { dir.len() + 1 };
        Self { from, found: false, keys: Load::default(), buckets: 0, dirs: 0, last: String::new() }
    }

    fn add(&mut self, entry: &Entry) {
        self.found = true;
        if let Entry::Key { size, .. } = entry {
            self.keys += Load::of_key(*size);
        }
        let path = entry.path();
        let same = path.bytes().zip(self.last.bytes()).take_while(|(a, b)| a == b).count();
        for (at, _) in path.match_indices('/').filter(|(at, _)| *at >= self.from.max(same)) {
            match path[..at].contains('/') {
                true => self.dirs += 1,
                false => self.buckets += 1,
            }
        }
        path.clone_into(&mut self.last);
    }

    fn text(&self, human: bool) -> String {
        let Load { keys, bytes } = self.keys;
        let bytes = if human { size_text(bytes) } else { counted(bytes, "byte") };
        let mut text = format!("total: {}, {bytes}, {}", counted(keys, "key"), counted(self.dirs, "directory"));
        if self.buckets > 0 {
            text += &format!(", {}", counted(self.buckets, "bucket"));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn total(prefix: &str, paths: &[&str]) -> String {
        let mut totals = Totals::new(&Prefix::parse(prefix).unwrap());
        for path in paths {
            totals.add(&match path.ends_with('/') {
                true => Entry::Dir { path: (*path).to_owned(), stat: None },
                false => Entry::Key { path: (*path).to_owned(), size: 1000, mtime: 0, detail: None },
            });
        }
        totals.text(true)
    }

    #[test]
    fn each_directory_is_counted_once() {
        assert_eq!(total("", &["a/", "b/"]), "total: 0 keys, 0B, 0 directories, 2 buckets");
        let tree = ["a/d-e", "a/d/e", "a/d/f/g", "a/d/h", "a/x", "b/y"];
        assert_eq!(total("", &tree), "total: 6 keys, 5.9K, 2 directories, 2 buckets");
        assert_eq!(total("a/", &tree[..5]), "total: 5 keys, 4.9K, 2 directories");
        assert_eq!(total("a/d", &tree[..4]), "total: 4 keys, 3.9K, 2 directories");
        assert_eq!(total("a/d/", &tree[1..4]), "total: 3 keys, 2.9K, 1 directory");
        assert_eq!(total("a/", &["a/d/", "a/x"]), "total: 1 key, 1000B, 1 directory");
    }
}
