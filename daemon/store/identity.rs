//! The identity of a data directory: the file `.s4/node` says which node it belongs to. Only `s4-server --init` creates
//! it, never a start. Otherwise a daemon whose disk is not mounted would start as a healthy node without keys.

use super::core::{Options, Store};
use super::list::Selection;
use s4::error::{Error, ErrorKind, Result, reason};
use s4::file::{read_small, write_durably};
use s4::key::{Key, Prefix};
use s4::placement::node_of;
use s4::protocol::Entry;
use s4::stored::{self, recorded_at};
use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};

/// Keys that are examined to find the node of a directory whose `.s4/node` is missing or damaged.
const LOOKED_AT: usize = 10_000;
/// Bytes of `.s4/node` that are read.
const LONGEST: usize = 4096;

/// Creates the data directory of a node; it is on the disk when this returns. Returns false if it is this node's
/// already, and changes nothing then. Errors: it is another node's; it lies in another data directory or holds one; it
/// is not empty and has no `.s4/node`.
pub fn init(options: &Options) -> Result<bool> {
    let dir = &options.dir;
    let refuse = |why: String| Error::new(ErrorKind::Config, format!("data directory {}: {why}", dir.display()));
    let failed = |e: std::io::Error| refuse(reason(&e));
    let ours = mark_of(options.node, options.nodes);
    match read_mark(dir) {
        Ok(theirs) if theirs == ours => return Ok(false),
        Ok(theirs) if is_whole(&theirs) => return Err(refuse(other(&theirs, &ours, "it is"))),
        Err(e) if !stored::is_absent(&e) => return Err(refuse(format!(".s4/node: {}", reason(&e)))),
        _ => {}
    }
    std::fs::create_dir_all(dir).map_err(failed)?;
    let root = dir.canonicalize().map_err(failed)?;
    check_path(&root).map_err(refuse)?;
    stored::probe(&root).map_err(refuse)?;
    refuse_inner(&root).map_err(refuse)?;
    refuse_outer(&root).map_err(refuse)?;
    if let Some(name) = anything_in(&root).map_err(failed)? {
        return Err(refuse(format!(
            "it holds '{}', and no whole .s4/node that says whose it is; take an empty directory, or, if the keys are this node's, \
             'mkdir -p {}' and start without --init",
            name.display(),
            root.join(".s4").display()
        )));
    }
    std::fs::create_dir_all(root.join(".s4")).map_err(failed)?;
    write_durably(&node_path(&root), ours.as_bytes()).map_err(failed)?;
    for above in [Some(root.as_path()), root.parent()].into_iter().flatten() {
        File::open(above).and_then(|above| above.sync_all()).map_err(failed)?;
    }
    Ok(true)
}

/// Refuses a path that map-from-n could not print for `xargs`.
pub(super) fn check_path(root: &Path) -> std::result::Result<(), String> {
    let splits = |c: char| c.is_whitespace() || matches!(c, '\'' | '"' | '\\');
    match root.to_str().is_none_or(|path| path.contains(splits)) {
        true => {
            Err("its path has whitespace, a quote or a backslash, which 'xargs' in a map-from-n would split".into())
        }
        false => Ok(()),
    }
}

/// Refuses a directory that `--init` has not made a data directory.
pub(super) fn refuse_absent(dir: &Path) -> std::result::Result<(), String> {
    let what = match (dir.join(".s4").is_dir(), dir.is_dir()) {
        (true, _) => return Ok(()),
        (false, true) => "it is not one yet",
        (false, false) => "it is not there",
    };
    Err(format!("{what}: is its disk mounted? 's4-server --init --data {}' makes a new one", dir.display()))
}

/// Refuses a directory inside another node's, which would be a bucket there.
pub(super) fn refuse_inner(root: &Path) -> std::result::Result<(), String> {
    match root.ancestors().skip(1).find(|above| node_path(above).is_file()) {
        None => Ok(()),
        Some(outer) => {
            Err(format!("it lies in {}, the data directory of another node; choose one outside", outer.display()))
        }
    }
}

fn refuse_outer(root: &Path) -> std::result::Result<(), String> {
    let mut below = walkdir::WalkDir::new(root).min_depth(1).same_file_system(true).into_iter().flatten();
    match below.find(|entry| entry.file_type().is_dir() && node_path(entry.path()).is_file()) {
        None => Ok(()),
        Some(inner) => {
            Err(format!("{} in it is the data directory of another node; choose one outside", inner.path().display()))
        }
    }
}

impl Store {
    /// Makes sure that the directory is this node's. If `.s4/node` is missing or damaged, as after a power cut, it is
    /// written again, provided that the keys belong on this node.
    pub(super) fn ensure_identity(&self) -> std::result::Result<(), String> {
        let ours = mark_of(self.node, self.nodes);
        if let Some(sizes) = self.resize {
            // What `.s4/resize` says was checked at its beginning, and the keys of two lists lie here.
            let fits =
                |theirs: &str| [sizes.before, sizes.after].iter().any(|&nodes| theirs == mark_of(self.node, nodes));
            return match read_mark(&self.root) {
                Ok(theirs) if is_whole(&theirs) && !fits(&theirs) => Err(other(&theirs, &ours, "it holds keys of")),
                _ => Ok(()),
            };
        }
        match read_mark(&self.root) {
            Ok(theirs) if theirs == ours => return Ok(()),
            Ok(theirs) if is_whole(&theirs) => {
                if !self.is_empty() {
                    return Err(other(&theirs, &ours, "it holds keys of"));
                }
            }
            Ok(_) => self.identify_by_keys("damaged")?,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => self.identify_by_keys("missing")?,
            Err(e) => return Err(format!(".s4/node: {}", reason(&e))),
        }
        write_durably(&node_path(&self.root), ours.as_bytes()).map_err(|e| format!(".s4/node: {}", reason(&e)))
    }

    fn identify_by_keys(&self, state: &str) -> std::result::Result<(), String> {
        let (mut seen, mut foreign) = (0, None);
        let prefix = Prefix::parse("").map_err(|e| e.to_string())?;
        // `Files` also lists files that belong on another node.
        let listed = self.list(&Selection::Files(&prefix), &mut |entry| {
            if let Entry::Key { path, .. } = entry
                && let Ok(key) = Key::parse(&path)
                && recorded_at(&self.path(&key)).map_err(|e| self.unreadable(&key, &e))?.is_some()
            {
                seen += 1;
                foreign = Some((node_of(&key, self.nodes), key)).filter(|(node, _)| *node != self.node);
            }
            Ok(foreign.is_none() && seen < LOOKED_AT)
        });
        listed.map_err(|e| e.to_string())?;
        let ours = mark_of(self.node, self.nodes);
        let ours = ours.trim();
        if let Some((node, key)) = foreign {
            return Err(format!(
                ".s4/node, which says whose it is, is {state}; {key} in it belongs on node {node}, and this is {ours}"
            ));
        }
        tracing::warn!(
            ".s4/node, which says whose the data directory is, was {state}; made anew for {ours}: {seen} keys fit"
        );
        Ok(())
    }

    /// Records, at the end of a resize, that the directory is this node's in a cluster of `nodes`.
    pub fn note_identity(&self, nodes: usize) -> Result<()> {
        let path = node_path(&self.root);
        write_durably(&path, mark_of(self.node, nodes).as_bytes()).map_err(|e| Error::io(path.display(), &e))
    }

    /// True if it holds no bucket.
    pub fn is_empty(&self) -> bool {
        matches!(anything_in(&self.root), Ok(None))
    }
}

/// An entry of a directory that is neither s4's own nor the file system's.
fn anything_in(root: &Path) -> std::io::Result<Option<OsString>> {
    let names = std::fs::read_dir(root)?.map(|entry| entry.map(|entry| entry.file_name()));
    let others = |name: &std::io::Result<OsString>| !matches!(name, Ok(name) if name == ".s4" || name == "lost+found");
    names.into_iter().find(others).transpose()
}

fn node_path(dir: &Path) -> PathBuf {
    dir.join(".s4/node")
}

fn read_mark(dir: &Path) -> std::io::Result<String> {
    read_small(&node_path(dir), LONGEST).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

fn mark_of(node: usize, nodes: usize) -> String {
    format!("node {node} of {nodes}\n")
}

/// True if this is the whole content of a `.s4/node`.
fn is_whole(mark: &str) -> bool {
    let numbers = mark.strip_prefix("node ").and_then(|rest| rest.strip_suffix('\n')?.split_once(" of "));
    numbers.is_some_and(|(node, nodes)| {
        node.parse::<usize>().ok().zip(nodes.parse::<usize>().ok()).is_some_and(|(node, nodes)| node < nodes)
    })
}

fn other(theirs: &str, ours: &str, what: &str) -> String {
    let (theirs, ours) = (theirs.trim(), ours.trim());
    format!("{what} {theirs}, and this is {ours}; copy them out first, or start with an empty directory")
}
