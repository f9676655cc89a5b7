//! Listing: every key of a selection in the byte order of its path, in bounded memory.

use super::core::Store;
use super::sorter::Sorter;
use s4::attribute::Mark;
use s4::error::{Error, ErrorKind, Result};
use s4::key::{Dir, Key, MAX_KEY, MAX_PART, Prefix};
use s4::pattern::Pattern;
use s4::placement::{NodeId, node_of_basename};
use s4::protocol::{Detail, Entry, FoundOutputs, Stat, Usage};
use s4::stored::{is_absent, key_mode, mtime_of, record_at, recorded_at};
use std::collections::HashMap;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

/// Different marks in one directory that are kept in memory; usually there is one.
const MARKS: usize = 1024;

/// What to list.
pub enum Selection<'a> {
    /// Keys that begin with a prefix: all of them, or only the names up to the next `/`. Of these, what comes after the
    /// path `after`; all with an empty one. With `made`, also the directories that mkdir made, by their home, and before
    /// what is in them; among these the directory that `prefix` names with its `/`.
    Prefix { prefix: &'a Prefix, recursive: bool, details: bool, made: bool, after: &'a str },
    /// The inputs of a map.
    Pattern(&'a Pattern),
    /// Every file that begins with a prefix, also a file that belongs on another node and so is no key.
    Files(&'a Prefix),
    /// Every file, as in `Files`, whose path comes after this one.
    After(&'a str),
}

/// Called with the entries in order; returns false to end the listing.
type Visit<'a> = dyn FnMut(Entry) -> Result<bool> + 'a;

impl<'a> Selection<'a> {
    /// Every key that begins with `prefix`.
    pub fn keys(prefix: &'a Prefix) -> Self {
        Self::Prefix { prefix, recursive: true, details: false, made: false, after: "" }
    }

    /// The names that begin with `prefix`, up to the next `/`.
    pub fn names(prefix: &'a Prefix) -> Self {
        Self::Prefix { prefix, recursive: false, details: false, made: false, after: "" }
    }

    fn start(&self) -> &str {
        match self {
            Self::Prefix { prefix, .. } | Self::Files(prefix) => prefix.split().0,
            Self::Pattern(pattern) => pattern.base(),
            Self::After(_) => "",
        }
    }

    fn recursive(&self) -> bool {
        match self {
            Self::Prefix { recursive, .. } => *recursive,
            Self::Pattern(_) | Self::Files(_) | Self::After(_) => true,
        }
    }

    /// True if the directory is itself an entry of the listing where mkdir made it: `path` ends in `/`.
    fn holds_made(&self, path: &str) -> bool {
        match self {
            Self::Prefix { prefix, made: true, after, .. } => path.starts_with(prefix.as_str()) && path > *after,
            _ => false,
        }
    }

    fn details(&self) -> bool {
        matches!(self, Self::Prefix { details: true, .. })
    }

    /// The point after which it lists, as a path in directory `path`; `None` if the point is not in the directory.
    fn after_in(&self, path: &str) -> Option<&str> {
        let (Self::Prefix { after, .. } | Self::After(after)) = self else { return None };
        match path.is_empty() {
            true => Some(after),
            false => after.strip_prefix(path).and_then(|rest| rest.strip_prefix('/')),
        }
    }

    /// True if everything in directory `path` comes before the point after which it lists.
    fn is_before(&self, path: &str) -> bool {
        let (Self::Prefix { after, .. } | Self::After(after)) = self else { return false };
        !path.is_empty() && !is_after(format!("{path}/").as_bytes(), after.as_bytes())
    }

    fn holds_dir(&self, path: &str) -> bool {
        match self {
            Self::Prefix { prefix, .. } | Self::Files(prefix) => {
                path.starts_with(prefix.as_str()) || prefix.as_str().starts_with(&format!("{path}/"))
            }
            Self::Pattern(pattern) => pattern.may_hold(path),
            Self::After(_) => true,
        }
    }

    fn holds_key(&self, path: &str) -> bool {
        match self {
            Self::Prefix { prefix, .. } | Self::Files(prefix) => path.starts_with(prefix.as_str()),
            Self::Pattern(pattern) => Key::parse(path).is_ok_and(|key| pattern.matches(&key)),
            Self::After(_) => true,
        }
    }
}

impl Store {
    /// Visits every entry of `selection`. A key that is deleted during the listing may be missing.
    pub fn list(&self, selection: &Selection, visit: &mut Visit) -> Result<()> {
        let start = selection.start();
        if !self.visit_made(start, selection, visit)? {
            return Ok(());
        }
        if !selection.is_before(start) {
            self.list_dir(start, selection, visit)?;
        }
        // Otherwise the listing of a disk that was unmounted meanwhile would look complete.
        self.check_there()
    }

    /// Visits the existing outputs of a 1:n map below `outdir` for the inputs on node `of`, in the order of the inputs'
    /// basenames. Without a node, visits each key as the only output of its task, under its own path. `visit` is also
    /// called with `None` from time to time, and ends the listing by returning false.
    pub fn existing_outputs(
        &self,
        outdir: &Dir,
        of: Option<NodeId>,
        visit: &mut dyn FnMut(Option<FoundOutputs>) -> Result<bool>,
    ) -> Result<()> {
        let Some(of) = of else {
            return self.existing_keys(outdir, visit);
        };
        for record in self.sorted_names(&self.root.join(outdir.as_str()), false, "")? {
            let record = record?;
            let Some(input) = std::str::from_utf8(&record).ok().and_then(|name| name.strip_suffix('/')) else {
                continue;
            };
            if !visit(None)? {
                return Ok(());
            }
            if node_of_basename(input, self.nodes) == of && !self.existing_outputs_of(outdir, input, visit)? {
                return Ok(());
            }
        }
        Ok(())
    }

    fn existing_keys(&self, outdir: &Dir, visit: &mut dyn FnMut(Option<FoundOutputs>) -> Result<bool>) -> Result<()> {
        let prefix = Prefix::below(outdir);
        self.list(&Selection::keys(&prefix), &mut |entry| {
            let Entry::Key { path, .. } = &entry else { return visit(None) };
            let record = match record_at(&self.root.join(path)) {
                Err(e) if is_absent(&e) => return visit(None),
                found => found.map_err(|e| self.unreadable(format!("s4://{path}"), &e))?,
            };
            // The mark of a key that no map has made.
            let unmarked = Mark { recipe: 0, inputs: 0, job: 0, source: 0, outputs: 1 };
            let mark = record.and_then(|record| record.mark).unwrap_or(unmarked);
            visit(Some(FoundOutputs { input: path.clone(), count: mark.outputs.into(), key: Key::parse(path)?, mark }))
        })
    }

    fn existing_outputs_of(
        &self,
        outdir: &Dir,
        input: &str,
        visit: &mut dyn FnMut(Option<FoundOutputs>) -> Result<bool>,
    ) -> Result<bool> {
        let mut found: HashMap<Mark, FoundOutputs> = HashMap::new();
        let dir = Dir::try_from(format!("{}/{input}", outdir.as_str()))?;
        let prefix = Prefix::below(&dir);
        let mut go_on = true;
        self.list(&Selection::names(&prefix), &mut |entry| {
            let record = match record_at(&self.root.join(entry.path())) {
                Err(e) if !is_absent(&e) => return Err(self.unreadable(format!("s4://{}", entry.path()), &e)),
                found => found.ok().flatten(),
            };
            if let (Entry::Key { path, .. }, Some(mark)) = (&entry, record.and_then(|record| record.mark)) {
                let (input, key) = (input.to_owned(), Key::parse(path)?);
                found.entry(mark).or_insert(FoundOutputs { input, mark, count: 0, key }).count += 1;
            }
            if found.len() >= MARKS {
                let counted = found.drain().map(|(_, output)| output).collect::<Vec<_>>();
                counted.into_iter().try_for_each(|output| visit(Some(output)).map(|more| go_on &= more))?;
            }
            go_on &= visit(None)?;
            Ok(go_on)
        })?;
        found.into_values().try_for_each(|output| visit(Some(output)).map(|more| go_on &= more))?;
        Ok(go_on)
    }

    /// Counts every key.
    pub fn usage(&self) -> Result<Usage> {
        let mut usage = Usage::default();
        let prefix = Prefix::parse("")?;
        self.list(&Selection::keys(&prefix), &mut |entry| {
            if let Entry::Key { size, .. } = entry {
                usage.keys += 1;
                usage.bytes += size;
            }
            Ok(true)
        })?;
        Ok(usage)
    }

    /// Visits the entries below directory `path`. Returns false if the visitor has ended the listing.
    fn list_dir(&self, path: &str, selection: &Selection, visit: &mut Visit) -> Result<bool> {
        let dir = self.root.join(path);
        for record in self.sorted_names(&dir, path.is_empty(), selection.after_in(path).unwrap_or(""))? {
            let record = record?;
            let name = std::str::from_utf8(&record).map_err(|e| Error::new(ErrorKind::Io, e.to_string()))?;
            let child = match path.is_empty() {
                true => name.to_owned(),
                false => format!("{path}/{name}"),
            };
            let go_on = match child.strip_suffix('/') {
                // Longer than any key: a command may have created it.
                _ if child.len() > MAX_KEY => true,
                Some(below) if !selection.holds_dir(below) => true,
                Some(below) if selection.recursive() => {
                    self.visit_made(below, selection, visit)? && self.list_dir(below, selection, visit)?
                }
                Some(below) if !self.goes_on_in(below, selection)? => true,
                Some(below) => {
                    let stat = if selection.details() { self.dir_stat(below)? } else { None };
                    visit(Entry::Dir { path: child, stat })?
                }
                None if !selection.holds_key(&child) => true,
                None if !matches!(selection, Selection::Files(_) | Selection::After(_))
                    && self.is_stray(name, &child) =>
                {
                    true
                }
                None => match self.key_entry(&dir, name, child, selection.details())? {
                    Some(entry) => visit(entry)?,
                    None => true,
                },
            };
            if !go_on {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Visits directory `path` itself, if mkdir made it and `selection` has such. Returns false if the visitor has ended the
    /// listing.
    fn visit_made(&self, path: &str, selection: &Selection, visit: &mut Visit) -> Result<bool> {
        let entry = format!("{path}/");
        if !selection.holds_made(&entry) || !self.is_made(path)? {
            return Ok(true);
        }
        match self.dir_stat(path)? {
            Some(stat) => visit(Entry::Dir { path: entry, stat: Some(stat) }),
            None => Ok(true),
        }
    }

    /// False if the point after which `selection` is listed is directory `path`, or a path in it after which no key in
    /// it comes.
    fn goes_on_in(&self, path: &str, selection: &Selection) -> Result<bool> {
        match (selection, selection.after_in(path)) {
            (_, Some("")) => Ok(false),
            (&Selection::Prefix { prefix, after, .. }, Some(_)) => {
                let below = Selection::Prefix { prefix, recursive: true, details: false, made: false, after };
                self.list_dir(path, &below, &mut |_| Ok(false)).map(|is_empty| !is_empty)
            }
            _ => Ok(true),
        }
    }

    /// Mtime and permission bits of a directory, if this node is its home.
    fn dir_stat(&self, path: &str) -> Result<Option<(i64, u32)>> {
        if node_of_basename(path.rsplit('/').next().unwrap_or(path), self.nodes) != self.node {
            return Ok(None);
        }
        Ok(match self.stat(path)? {
            Stat::Dir { mtime, mode } => Some((mtime, mode)),
            Stat::Key(_) | Stat::Absent => None,
        })
    }

    /// The names in `dir`, in the byte order of the paths below; names of directories end in `/`. Those before the path
    /// `after`, which may be further below, are left out. A directory that does not exist counts as empty.
    fn sorted_names(
        &self,
        dir: &Path,
        is_root: bool,
        after: &str,
    ) -> Result<impl Iterator<Item = Result<Vec<u8>>> + use<>> {
        let failed = |e: std::io::Error| self.unreadable(dir.display(), &e);
        let mut names = Sorter::new(&self.root);
        let entries = match std::fs::read_dir(dir) {
            Ok(entries) => Some(entries),
            Err(e) if matches!(e.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => {
                self.check_there()?;
                None
            }
            Err(e) => return Err(self.unreadable(dir.display(), &e)),
        };
        for entry in entries.into_iter().flatten() {
            let entry = entry.map_err(failed)?;
            let Ok(name) = entry.file_name().into_string() else {
                continue;
            };
            let kind = entry.file_type().map_err(failed)?;
            if !is_name(&name, is_root) || !(kind.is_dir() || kind.is_file()) {
                continue;
            }
            let mut record = name.into_bytes();
            if kind.is_dir() {
                record.push(b'/');
            }
            if is_after(&record, after.as_bytes()) {
                names.push(record)?;
            }
        }
        names.finish()
    }
}

/// True for a name that comes after the path `after`, and for a directory in which that path is.
fn is_after(name: &[u8], after: &[u8]) -> bool {
    name > after || name.ends_with(b"/") && after.starts_with(name)
}

impl Store {
    /// True for a file that belongs on another node, which somebody has copied here without s4: it is no key.
    fn is_stray(&self, name: &str, path: &str) -> bool {
        static LOGGED: AtomicBool = AtomicBool::new(false);
        let node = node_of_basename(name, self.nodes);
        if node != self.node && self.resize.is_none() && path.contains('/') && !LOGGED.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                "s4://{path} lies here and belongs on node {node}, so that it is no key, as maybe others; 's4 scrub --remove-strays' removes it"
            );
        }
        node != self.node
    }

    /// The entry of a file; `None` if it is no key, or does not exist any more.
    fn key_entry(&self, dir: &Path, name: &str, path: String, details: bool) -> Result<Option<Entry>> {
        // A file at the top of the data directory is in no bucket, so it is no key.
        if !path.contains('/') {
            return Ok(None);
        }
        let file = dir.join(name);
        let found = match std::fs::symlink_metadata(&file) {
            Ok(found) => found,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(self.unreadable(format!("s4://{path}"), &e)),
        };
        let detail = match details {
            false => None,
            true => match recorded_at(&file) {
                Ok(Some(checksum)) => Some(Detail { mode: key_mode(found.mode()), xxh3: checksum.xxh3 }),
                Ok(None) => return Ok(None),
                Err(e) if is_absent(&e) => return Ok(None),
                Err(e) => return Err(self.unreadable(format!("s4://{path}"), &e)),
            },
        };
        Ok(Some(Entry::Key { path, size: found.len(), mtime: mtime_of(&found), detail }))
    }
}

/// False for a name that cannot be a part of a key, so that the file did not come from s4.
pub(super) fn is_name(name: &str, is_root: bool) -> bool {
    let bucket = !is_root || !name.starts_with(['.', '_']);
    bucket && name.len() <= MAX_PART && !name.chars().any(|c| c.is_whitespace() || c.is_control())
}
