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

/// Leases that are out. Those of a process outlive it, so the data directory is marked once one was given, and stays so.
pub(super) struct Leases {
    table: Mutex<Table>,
    /// Until then, leases of a predecessor of this process may be out.
    settled: Option<Instant>,
}

/// Guards what is promised and what is being made, by the directory's path below the root.
struct Table {
    dirs: HashMap<String, Promised>,
    swept: Instant,
}

#[derive(Default)]
struct Promised {
    holders: Vec<(Holder, Instant)>,
    /// How many make a directory in it, or wait to.
    makers: usize,
}

impl Promised {
    fn is_over(&self, now: Instant) -> bool {
        self.makers == 0 && self.holders.iter().all(|&(_, until)| until <= now)
    }
}

impl Leases {
    /// Of the data directory `root`.
    pub fn new(root: &Path) -> Self {
        let now = Instant::now();
        let settled = mark(root).exists().then(|| now + LEASE);
        Self { table: Mutex::new(Table { dirs: HashMap::new(), swept: now }), settled }
    }

    /// Promises `holder` that no directory comes to be in `dir`. False if one is about to.
    fn give(&self, dir: &str, holder: Holder) -> bool {
        let (mut table, now) = (self.lock(), Instant::now());
        if table.swept + LEASE < now {
            table.swept = now;
            table.dirs.retain(|_, promised| !promised.is_over(now));
            table.dirs.shrink_to(MOST / 10);
        }
        if table.dirs.len() >= MOST {
            return false;
        }
        let promised = table.dirs.entry(dir.to_owned()).or_default();
        if promised.makers > 0 {
            return false;
        }
        promised.holders.retain(|&(other, until)| until > now && other != holder);
        promised.holders.push((holder, now + LEASE));
        true
    }

    /// Waits until nobody but `holder` relies on there being no other directory in `dir`, and has nobody begin to, until what
    /// is returned is dropped.
    fn wait(&self, dir: &str, holder: Option<Holder>) -> Making<'_> {
        self.lock().dirs.entry(dir.to_owned()).or_default().makers += 1;
        let making = Making { leases: self, dir: dir.to_owned() };
        while let Some(until) = self.relied_on_until(dir, holder) {
            std::thread::sleep(until.saturating_duration_since(Instant::now()));
        }
        making
    }

    fn relied_on_until(&self, dir: &str, holder: Option<Holder>) -> Option<Instant> {
        let (table, now) = (self.lock(), Instant::now());
        let others = table.dirs.get(dir).into_iter().flat_map(|promised| &promised.holders);
        let others = others.filter(|(other, _)| Some(*other) != holder).map(|&(_, until)| until);
        others.chain(self.settled).filter(|&until| until > now).max()
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A directory that is being made.
struct Making<'l> {
    leases: &'l Leases,
    dir: String,
}

impl Drop for Making<'_> {
    fn drop(&mut self) {
        let mut table = self.leases.lock();
        if let Some(promised) = table.dirs.get_mut(&self.dir) {
            promised.makers -= 1;
            // The holder's own lease binds others still.
            if promised.is_over(Instant::now()) {
                table.dirs.remove(&self.dir);
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

    /// Makes `dir`, below the root, and those above it, for `holder` or for others. Waits where a lease is out. Errors: as of
    /// mkdir(2).
    pub(super) fn make_dirs(&self, dir: &Path, holder: Option<Holder>) -> io::Result<()> {
        if dir == self.root || dir.is_dir() {
            return Ok(());
        }
        // A delete may take away what was just made above it.
        for _ in 0..100 {
            self.make_dirs(dir.parent().unwrap_or(&self.root), holder)?;
            let _making = self.wait_for_leases(dir, holder);
            match std::fs::create_dir(dir) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists && dir.is_dir() => return Ok(()),
                done => return done,
            }
        }
        Err(io::ErrorKind::NotFound.into())
    }

    /// `None` where no lease can be in the way: of a bucket, and of a directory that this is the own node of.
    fn wait_for_leases(&self, dir: &Path, holder: Option<Holder>) -> Option<Making<'_>> {
        let path = dir.strip_prefix(&self.root).ok()?.to_str()?;
        let (parent, name) = path.rsplit_once('/')?;
        let own = placement::node_of_basename(name, self.nodes) == self.node;
        (!own).then(|| self.leases.wait(parent, holder))
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
