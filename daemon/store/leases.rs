//! Leases that this node has given, see [`s4::protocol::LEASE`]. Who makes a directory where one is out waits until it is over.

use super::Store;
use s4::error::Result;
use s4::key::Dir;
use s4::placement;
use s4::protocol::{Holder, LEASE, Told};
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// Directories with leases at once.
const MOST: usize = 10_000;

/// In a directory's links, those that are no directory in it: its name and its `.`.
const OWN_LINKS: u64 = 2;

/// Guards what is promised and what is being made, by the directory's path below the root.
pub(super) struct Leases {
    dirs: Mutex<HashMap<String, Promised>>,
    /// Until then, leases of a predecessor of this process may be out.
    settled: Option<Instant>,
}

#[derive(Default)]
struct Promised {
    holders: Vec<(Holder, Instant)>,
    /// Directories being made in it, or about to be.
    making: usize,
}

impl Leases {
    /// Of the data directory `root`, which is marked once a lease is given, since these outlive the process.
    pub fn new(root: &Path) -> Self {
        let settled = mark(root).exists().then(|| Instant::now() + LEASE);
        Self { dirs: Mutex::default(), settled }
    }

    /// Promises `holder` that no directory comes to be in `dir`. False if one is about to.
    fn give(&self, dir: &str, holder: Holder) -> bool {
        let (mut dirs, now) = (self.lock(), Instant::now());
        if dirs.len() >= MOST {
            dirs.retain(|_, promised| promised.making > 0 || promised.holders.iter().any(|&(_, until)| until > now));
        }
        if dirs.len() >= MOST {
            return false;
        }
        let promised = dirs.entry(dir.to_owned()).or_default();
        if promised.making > 0 {
            return false;
        }
        promised.holders.retain(|&(other, until)| until > now && other != holder);
        promised.holders.push((holder, now + LEASE));
        true
    }

    /// Waits until nobody but `holder` relies on there being no other directory in `dir`, and has nobody begin to, until what
    /// is returned is dropped.
    fn making(&self, dir: &str, holder: Option<Holder>) -> Making<'_> {
        self.lock().entry(dir.to_owned()).or_default().making += 1;
        let making = Making { leases: self, dir: dir.to_owned() };
        while let Some(until) = self.relied_on_until(dir, holder) {
            std::thread::sleep(until.saturating_duration_since(Instant::now()));
        }
        making
    }

    fn relied_on_until(&self, dir: &str, holder: Option<Holder>) -> Option<Instant> {
        let (dirs, now) = (self.lock(), Instant::now());
        let others = dirs.get(dir).into_iter().flat_map(|promised| &promised.holders);
        let others = others.filter(|(other, _)| Some(*other) != holder).map(|&(_, until)| until);
        others.chain(self.settled).filter(|&until| until > now).max()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Promised>> {
        self.dirs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A directory that is being made.
struct Making<'l> {
    leases: &'l Leases,
    dir: String,
}

impl Drop for Making<'_> {
    fn drop(&mut self) {
        let mut dirs = self.leases.lock();
        if let Some(promised) = dirs.get_mut(&self.dir) {
            promised.making -= 1;
            if promised.making == 0 {
                dirs.remove(&self.dir);
            }
        }
    }
}

impl Store {
    /// What `path` is on this node; with a lease on where it is, if `holder` asks for one and it can be given.
    pub fn tell(&self, path: &Dir, holder: Option<Holder>) -> Result<Told> {
        // Before the look at the name, which so is covered too.
        let lease = holder.is_some_and(|holder| self.lease(path, holder).unwrap_or(false));
        self.stat(path.as_str()).map(|stat| Told { stat, lease })
    }

    fn lease(&self, path: &Dir, holder: Holder) -> io::Result<bool> {
        // Buckets are made often, and few at a time.
        let Some((dir, _)) = path.as_str().rsplit_once('/') else { return Ok(false) };
        let path = self.root.join(dir);
        let mark = mark(&self.root);
        if !holds_no_dir(&path) {
            return Ok(false);
        }
        if !mark.exists() {
            File::create(mark)?;
        }
        // Another may just have been made, which then is seen.
        Ok(self.leases.give(dir, holder) && holds_no_dir(&path))
    }

    /// Makes `dir`, below the root, and those above it, for `holder` or for others. Waits where a lease is out.
    pub(super) fn make_dirs(&self, dir: &Path, holder: Option<Holder>) -> io::Result<()> {
        if dir == self.root {
            return Ok(());
        }
        let making = self.making(dir, holder);
        match std::fs::create_dir(dir) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists && dir.is_dir() => return Ok(()),
            done => return done,
        }
        drop(making);
        self.make_dirs(dir.parent().unwrap_or(&self.root), holder)?;
        let _making = self.making(dir, holder);
        match std::fs::create_dir(dir) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists && dir.is_dir() => Ok(()),
            done => done,
        }
    }

    /// `None` where no lease can be in the way: of a bucket, and of a directory that this is the own node of.
    fn making(&self, dir: &Path, holder: Option<Holder>) -> Option<Making<'_>> {
        let path = dir.strip_prefix(&self.root).ok()?.to_str()?;
        let (parent, name) = path.rsplit_once('/')?;
        let own = placement::node_of_basename(name, self.nodes) == self.node;
        (!own).then(|| self.leases.making(parent, holder))
    }
}

/// True also of a directory that is not there. File systems that do not count directories among the links have another number.
fn holds_no_dir(path: &Path) -> bool {
    match std::fs::symlink_metadata(path) {
        Ok(found) => found.is_dir() && found.nlink() == OWN_LINKS,
        Err(e) => e.kind() == io::ErrorKind::NotFound,
    }
}

fn mark(root: &Path) -> PathBuf {
    root.join(".s4/leased")
}
