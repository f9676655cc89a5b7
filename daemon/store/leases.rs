//! Leases that this node has given, see [`s4::protocol::LEASE`]. Who makes what one rules out waits until it is over.

use super::Store;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::{Mode, mkdirat};
use s4::error::Result;
use s4::key::{Dir, Key};
use s4::placement;
use s4::protocol::{Book, Holder, LEASE, Told};
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Directories with leases at once.
const MOST: usize = 10_000;

/// In a directory's links, those that are no directory in it: its name and its `.`.
const OWN_LINKS: u64 = 2;

/// How long after an exclusive lease it is remembered that nobody else has made anything since.
const REMEMBERED: Duration = Duration::from_secs(10);

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
    exclusive: Option<Exclusive>,
    /// Who makes anything in it, or waits to.
    makers: Vec<Maker>,
}

/// Nothing is in the directory but what the holder has made since it first asked with its book.
struct Exclusive {
    holder: Holder,
    book: Book,
    /// When its last lease ends.
    until: Instant,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Maker {
    who: Option<Holder>,
    what: Made,
}

/// What leases tell from each other.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Made {
    /// A directory that this is not the own node of.
    Dir,
    /// A key, or a directory that this is the own node of.
    Name,
}

impl Promised {
    /// True if it binds anybody, or somebody is at it.
    fn binds(&self, now: Instant) -> bool {
        let exclusive = self.exclusive.iter().map(|held| held.until);
        !self.makers.is_empty()
            || self.holders.iter().map(|&(_, until)| until).chain(exclusive).any(|until| until > now)
    }

    fn is_over(&self, now: Instant) -> bool {
        !self.binds(now) && self.exclusive.as_ref().is_none_or(|held| held.until + REMEMBERED <= now)
    }

    /// When all leases are over that rule out what `maker` makes.
    fn binds_until(&mut self, maker: Maker, now: Instant) -> Option<Instant> {
        // One that is over, and would be given again as if nothing had been made, is forgotten.
        self.exclusive.take_if(|held| Some(held.holder) != maker.who && held.until <= now);
        let exclusive = self.exclusive.iter().map(|held| (held.holder, held.until));
        let shared = self.holders.iter().copied().filter(|_| maker.what == Made::Dir);
        let others = exclusive.chain(shared).filter(|(other, _)| Some(*other) != maker.who);
        others.map(|(_, until)| until).filter(|&until| until > now).max()
    }
}

impl Table {
    /// Forgets what is over, if that was not done for a while.
    fn sweep(&mut self, now: Instant) {
        if self.swept + LEASE < now {
            self.swept = now;
            self.dirs.retain(|_, promised| !promised.is_over(now));
            self.dirs.shrink_to(MOST / 10);
        }
    }
}

/// What a holder gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Given {
    Nothing,
    Shared,
    Exclusive,
}

impl Leases {
    /// Of the data directory `root`.
    pub fn new(root: &Path) -> Self {
        let now = Instant::now();
        let settled = mark(root).exists().then(|| now + LEASE);
        Self { table: Mutex::new(Table { dirs: HashMap::new(), swept: now }), settled }
    }

    /// Promises `holder` that no directory comes to be in `dir`, if none is about to; and that nothing does, if it had that promise and
    /// nobody else has made anything since, or `is_empty`.
    fn give(&self, dir: &str, holder: Holder, book: Book, now: Instant, is_empty: impl FnOnce() -> bool) -> Given {
        let mut table = self.lock();
        table.sweep(now);
        if table.dirs.len() >= MOST && !table.dirs.contains_key(dir) {
            table.dirs.retain(|_, promised| promised.binds(now));
            if table.dirs.len() >= MOST {
                return Given::Nothing;
            }
        }
        let promised = table.dirs.entry(dir.to_owned()).or_default();
        if promised.makers.iter().any(|maker| maker.what == Made::Dir) {
            return Given::Nothing;
        }
        promised.holders.retain(|&(other, until)| until > now && other != holder);
        promised.holders.push((holder, now + LEASE));
        let may_be = match &promised.exclusive {
            _ if book == 0 || promised.makers.iter().any(|maker| maker.who != Some(holder)) => false,
            Some(held) if (held.holder, held.book) == (holder, book) => true,
            Some(held) if held.until > now => false,
            // Still locked, so that nobody begins to make anything after the look.
            _ => is_empty(),
        };
        if may_be {
            promised.exclusive = Some(Exclusive { holder, book, until: now + LEASE });
        }
        if may_be { Given::Exclusive } else { Given::Shared }
    }

    /// Waits until nobody but the maker itself relies on there being nothing new in `dir`, and has nobody begin to, until what is
    /// returned is dropped.
    fn wait(&self, dir: &str, maker: Maker) -> Making<'_> {
        let mut making = self.begin(dir, maker, Instant::now());
        while let Some(until) = self.binds_until(dir, maker, Instant::now()) {
            making.waited = true;
            std::thread::sleep(until.saturating_duration_since(Instant::now()));
        }
        making
    }

    /// Has nobody be promised what `maker` makes, until what is returned is dropped.
    fn begin(&self, dir: &str, maker: Maker, now: Instant) -> Making<'_> {
        let mut table = self.lock();
        table.sweep(now);
        table.dirs.entry(dir.to_owned()).or_default().makers.push(maker);
        Making { leases: self, dir: dir.to_owned(), maker, waited: false }
    }

    fn binds_until(&self, dir: &str, maker: Maker, now: Instant) -> Option<Instant> {
        let mut table = self.lock();
        let promised = table.dirs.get_mut(dir).and_then(|promised| promised.binds_until(maker, now));
        promised.into_iter().chain(self.settled.filter(|&until| until > now)).max()
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Something that is being made.
pub(super) struct Making<'l> {
    leases: &'l Leases,
    dir: String,
    maker: Maker,
    /// That took a while.
    pub waited: bool,
}

impl Drop for Making<'_> {
    fn drop(&mut self) {
        let mut table = self.leases.lock();
        if let Some(promised) = table.dirs.get_mut(&self.dir) {
            if let Some(at) = promised.makers.iter().position(|&maker| maker == self.maker) {
                promised.makers.swap_remove(at);
            }
            // The holder's own lease binds others still.
            if promised.is_over(Instant::now()) {
                table.dirs.remove(&self.dir);
            }
        }
    }
}

impl Store {
    /// What `path` is on this node; with a lease on where it is, if a holder asks for one and it can be given.
    pub fn tell(&self, path: &Dir, asks: Option<(Holder, Book)>) -> Result<Told> {
        // Before the look at the name, which so is covered too.
        let given = asks.map_or(Ok(Given::Nothing), |(holder, book)| self.lease(path, holder, book));
        let given = given.unwrap_or(Given::Nothing);
        let stat = self.stat(path.as_str())?;
        Ok(Told { stat, lease: given != Given::Nothing, exclusive: given == Given::Exclusive })
    }

    fn lease(&self, path: &Dir, holder: Holder, book: Book) -> io::Result<Given> {
        // Buckets are made often, and few at a time.
        let Some((dir, _)) = path.as_str().rsplit_once('/') else { return Ok(Given::Nothing) };
        let path = self.root.join(dir);
        let mark = mark(&self.root);
        if !holds_no_dir(&path) {
            return Ok(Given::Nothing);
        }
        if !mark.exists() {
            File::create(mark)?;
        }
        // The look with the table locked is for what was made since, and need not wait for the disk.
        let was_empty = book != 0 && is_empty(&path);
        let given = self.leases.give(dir, holder, book, Instant::now(), || was_empty && is_empty(&path));
        // A directory may just have been made, which then is seen.
        Ok(if holds_no_dir(&path) { given } else { Given::Nothing })
    }

    /// To be held while `key` gets its name, for `holder` or for others. Waits where a lease is out.
    pub(super) fn making(&self, key: &Key, holder: Option<Holder>) -> Making<'_> {
        self.leases.wait(key.parent(), Maker { who: holder, what: Made::Name })
    }

    /// Makes `dir`, below the root, and those above it, for `holder` or for others. Waits where a lease is out. Errors: as of
    /// mkdir(2).
    pub(super) fn make_dirs(&self, dir: &Path, holder: Option<Holder>) -> io::Result<()> {
        let is_dir = || self.data.open_at(dir, OFlag::O_PATH | OFlag::O_DIRECTORY);
        match is_dir() {
            Ok(_) => return Ok(()),
            Err(Errno::ENOENT | Errno::ENOTDIR) => {}
            Err(errno) => return Err(errno.into()),
        }
        // A delete may take away what was just made above it.
        for _ in 0..100 {
            self.make_dirs(dir.parent().unwrap_or(&self.root), holder)?;
            let _making = self.making_dir(dir, holder);
            let make = |(parent, name): (OwnedFd, &Path)| {
                mkdirat(&parent, name, Mode::S_IRWXU | Mode::S_IRWXG | Mode::S_IRWXO)
            };
            match self.data.open_parent(dir).and_then(make) {
                Err(Errno::ENOENT) => {}
                Err(Errno::EEXIST) if is_dir().is_ok() => return Ok(()),
                done => return done.map_err(io::Error::from),
            }
        }
        Err(io::ErrorKind::NotFound.into())
    }

    /// `None` for a bucket, where no lease can be in the way.
    fn making_dir(&self, dir: &Path, holder: Option<Holder>) -> Option<Making<'_>> {
        let path = dir.strip_prefix(&self.root).ok()?.to_str()?;
        let (parent, name) = path.rsplit_once('/')?;
        let own = placement::node_of_basename(name, self.nodes) == self.node;
        let what = if own { Made::Name } else { Made::Dir };
        Some(self.leases.wait(parent, Maker { who: holder, what }))
    }
}

/// True also of a directory that is not there.
fn is_empty(path: &Path) -> bool {
    match std::fs::read_dir(path) {
        Ok(mut entries) => entries.next().is_none(),
        Err(e) => e.kind() == io::ErrorKind::NotFound,
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

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: Made = Made::Name;

    fn leases() -> Leases {
        Leases { table: Mutex::new(Table { dirs: HashMap::new(), swept: Instant::now() }), settled: None }
    }

    /// Somewhat later.
    fn after(at: Instant, leases: u32) -> Instant {
        at + LEASE * leases
    }

    fn of(who: Holder) -> Maker {
        Maker { who: Some(who), what: KEY }
    }

    #[test]
    fn an_empty_directory_is_exclusive_to_who_comes_first() {
        let (leases, now, [ours, theirs]) = (leases(), Instant::now(), [Holder::new(), Holder::new()]);
        assert_eq!(leases.give("b", ours, 1, now, || false), Given::Shared);
        assert_eq!(leases.give("b", ours, 1, now, || true), Given::Exclusive);
        assert_eq!(leases.give("b", theirs, 1, now, || true), Given::Shared);
        assert_eq!(leases.binds_until("b", of(theirs), now), Some(after(now, 1)));
        assert_eq!(leases.binds_until("b", Maker { who: None, what: KEY }, now), Some(after(now, 1)));
        assert_eq!(leases.binds_until("b", of(ours), now), None);
        assert_eq!(leases.binds_until("b/d", of(theirs), now), None);
    }

    #[test]
    fn it_goes_on_while_nobody_else_makes_anything() {
        let (leases, now, [ours, theirs]) = (leases(), Instant::now(), [Holder::new(), Holder::new()]);
        leases.give("b", ours, 1, now, || true);
        drop(leases.begin("b", of(ours), now));
        let later = after(now, 3);
        assert_eq!(leases.give("b", ours, 1, later, || false), Given::Exclusive);
        assert_eq!(leases.give("b", ours, 2, later, || false), Given::Shared, "it has forgotten what it made");
        let making = leases.begin("b", of(theirs), later);
        assert!(leases.binds_until("b", of(theirs), later).is_some());
        assert_eq!(leases.give("b", ours, 1, later, || true), Given::Shared, "another waits");
        assert_eq!(leases.binds_until("b", of(theirs), after(later, 1)), None);
        drop(making);
        assert_eq!(leases.give("b", ours, 1, after(later, 1), || false), Given::Shared, "another has made something");
    }

    #[test]
    fn what_is_no_longer_remembered_is_looked_at() {
        let (leases, now, ours) = (leases(), Instant::now(), Holder::new());
        leases.give("b", ours, 1, now, || true);
        let later = now + LEASE + REMEMBERED + LEASE;
        assert_eq!(leases.give("b", ours, 1, later, || false), Given::Shared);
    }

    #[test]
    fn without_a_book_none_is_exclusive() {
        let (leases, now, ours) = (leases(), Instant::now(), Holder::new());
        assert_eq!(leases.give("b", ours, 0, now, || true), Given::Shared);
        assert_eq!(leases.binds_until("b", Maker { who: None, what: KEY }, now), None);
        assert!(leases.binds_until("b", Maker { who: None, what: Made::Dir }, now).is_some());
    }

    #[test]
    fn a_full_table_forgets_what_binds_nobody() {
        let (leases, now, ours) = (leases(), Instant::now(), Holder::new());
        for n in 0..MOST {
            leases.give(&n.to_string(), ours, 1, now, || true);
        }
        assert_eq!(leases.give("b", ours, 1, now, || true), Given::Nothing);
        assert_eq!(leases.give("0", ours, 1, now, || true), Given::Exclusive, "it has that one");
        leases.lock().swept = after(now, 2);
        assert_eq!(leases.give("b", ours, 1, after(now, 2), || true), Given::Exclusive);
    }
}
