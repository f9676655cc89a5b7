//! Walks local sources, and maps their files to keys.

use super::exclude::Exclude;
use super::report::Report;
use s4::client::Client;
use s4::error::{Error, ErrorKind, Result, reason};
use s4::key::{Dir, Key};
use s4::skew::Tally;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use walkdir::{DirEntry, WalkDir};

/// Limit of files with errors that are printed.
const MAX_SHOWN: usize = 20;

/// A file and its key.
pub struct Item {
    pub path: PathBuf,
    pub key: Key,
    pub len: u64,
}

/// A local file or directory that is copied.
#[derive(Clone)]
pub struct Root {
    pub path: PathBuf,
    /// The name at the destination; `None` if the contents are copied directly into it.
    pub name: Option<OsString>,
}

/// The sources of a copy to `dst`.
#[derive(Clone)]
pub struct Files {
    pub roots: Vec<Root>,
    pub dst: Dir,
    pub exclude: Exclude,
}

impl Files {
    /// Every regular file; links are followed. An error names the file that cannot be copied, and the reason; other
    /// files follow.
    pub fn items(&self) -> impl Iterator<Item = std::result::Result<Item, String>> {
        self.roots.iter().flat_map(|root| {
            let keeps = |entry: &DirEntry| !root.is_left_out(entry.path(), &self.exclude);
            let entries = WalkDir::new(&root.path).follow_links(true).into_iter().filter_entry(keeps);
            entries.filter_map(|entry| self.item(root, entry).transpose())
        })
    }

    fn item(&self, root: &Root, entry: walkdir::Result<DirEntry>) -> std::result::Result<Option<Item>, String> {
        let entry = entry.map_err(|error| walk_error(&error))?;
        if entry.file_type().is_dir() {
            return Ok(None);
        }
        let path = entry.path();
        let refuse = |why: &str| format!("{}: {why}", shown(path));
        if !entry.file_type().is_file() {
            return Err(refuse("is not a regular file"));
        }
        let below = root.below(path);
        let below = below.to_str().ok_or_else(|| refuse("a name is UTF-8"))?;
        let key = self.dst.join_checked(below).map_err(refuse)?;
        let len = entry.metadata().map_err(|error| walk_error(&error))?.len();
        Ok(Some(Item { path: entry.into_path(), key, len }))
    }

    /// Walks everything before the copy: counts the files, and collects those that cannot be copied. Blocks.
    pub fn survey(&self, client: &Client) -> Survey {
        let mut survey = Survey { tally: Tally::new(client.cluster().len()), first: Vec::new(), refused: 0 };
        for item in self.items() {
            match item {
                Ok(item) => survey.tally.add(&item.key, client.cluster().node_of(&item.key), item.len),
                Err(why) => survey.refuse(why),
            }
        }
        survey
    }
}

impl Root {
    /// The path at the destination of `path`, which is the root or below it.
    fn below(&self, path: &Path) -> PathBuf {
        let below = path.strip_prefix(&self.path).unwrap_or(path);
        match &self.name {
            None => below.to_owned(),
            Some(name) if below.as_os_str().is_empty() => PathBuf::from(name),
            Some(name) => Path::new(name).join(below),
        }
    }

    fn is_left_out(&self, path: &Path, exclude: &Exclude) -> bool {
        let below = path.strip_prefix(&self.path).unwrap_or(path).as_os_str();
        // The path of a single file is its name.
        let below = if below.is_empty() { self.name.as_deref().unwrap_or(OsStr::new("")) } else { below };
        !below.is_empty() && exclude.matches(&below.to_string_lossy())
    }
}

/// The result of the walk.
pub struct Survey {
    pub tally: Tally,
    /// The first errors.
    first: Vec<String>,
    refused: u64,
}

impl Survey {
    fn refuse(&mut self, why: String) {
        self.refused += 1;
        if self.first.len() < MAX_SHOWN {
            self.first.push(why);
        }
    }

    /// Errors: some files cannot be copied. All of them are printed before.
    pub fn check(&self, report: &Report) -> Result<()> {
        if self.refused == 0 {
            return Ok(());
        }
        self.first.iter().for_each(|why| report.print_above(why));
        match self.refused - self.first.len() as u64 {
            0 => {}
            more => report.print_above(format!("and {more} more")),
        }
        let files = if self.refused == 1 { "1 file" } else { &*format!("{} files", self.refused) };
        Err(Error::new(
            ErrorKind::Io,
            format!("{files} cannot be copied, so nothing was: rename them, or leave them out with --exclude"),
        ))
    }
}

/// A path in one line.
pub fn shown(path: &Path) -> String {
    path.to_string_lossy()
        .chars()
        .flat_map(|c| if c.is_control() { c.escape_debug().collect() } else { vec![c] })
        .collect()
}

fn walk_error(error: &walkdir::Error) -> String {
    let path = shown(error.path().unwrap_or(Path::new("")));
    match error.io_error() {
        Some(io) => format!("{path}: {}", reason(io)),
        None => format!("{path}: its links go round in a circle"),
    }
}
