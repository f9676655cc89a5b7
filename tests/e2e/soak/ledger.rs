//! What clients were told of their keys.

use crate::sites::{NODES, Tree};
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Keys that are older than this at a power cut are on the disk, whatever the options of the daemon: it syncs every 30 s.
const SYNCED: Duration = Duration::from_secs(40);

/// What is known of a key.
#[derive(Clone)]
pub struct Fact {
    hash: u64,
    /// When it was reported stored. `None`: it may be there.
    stored: Option<Instant>,
}

pub fn hash(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    hasher.finish()
}

/// What one worker knows, by names below its bucket.
#[derive(Default)]
struct Page {
    keys: BTreeMap<String, Fact>,
    deleted: Vec<(Instant, String, u64)>,
}

pub struct Ledger {
    pages: Vec<Mutex<Page>>,
    cuts: Mutex<Vec<(Instant, usize)>>,
    syncs: bool,
}

/// The node of a name that begins with a number.
fn node_of(name: &str) -> usize {
    let basename = name.rsplit('/').next().unwrap_or_default();
    let digits = basename.split('_').next().unwrap_or_default();
    digits.parse::<usize>().expect("each name begins with a number") % NODES
}

impl Ledger {
    pub fn new(workers: usize, syncs: bool) -> Self {
        Self { pages: (0..workers).map(|_| Mutex::default()).collect(), cuts: Mutex::default(), syncs }
    }

    fn page(&self, worker: usize) -> std::sync::MutexGuard<'_, Page> {
        self.pages[worker].lock().unwrap()
    }

    /// Keys are about to be made.
    pub fn attempt<'a>(&self, worker: usize, keys: impl IntoIterator<Item = (&'a str, &'a [u8])>) {
        let mut page = self.page(worker);
        for (name, bytes) in keys {
            page.keys.entry(name.to_owned()).or_insert(Fact { hash: hash(bytes), stored: None });
        }
    }

    /// Keys were reported stored, by what began at `began`.
    pub fn stored<'a>(&self, worker: usize, names: impl IntoIterator<Item = &'a str>, began: Instant) {
        let mut page = self.page(worker);
        let cuts = self.cuts.lock().unwrap();
        for name in names {
            let is_in_doubt = !self.syncs && cuts.iter().any(|(at, node)| *at >= began && *node == node_of(name));
            let fact = page.keys.get_mut(name).expect("it was attempted");
            fact.stored = (!is_in_doubt).then(Instant::now);
        }
    }

    /// A key is about to be renamed.
    pub fn rename(&self, worker: usize, old: &str, new: &str) {
        let mut page = self.page(worker);
        let fact = page.keys.get_mut(old).expect("it is known");
        fact.stored = None;
        let moved = fact.clone();
        page.keys.insert(new.to_owned(), moved);
    }

    /// Keys are about to be deleted: from now on they may be gone.
    pub fn doubt<'a>(&self, worker: usize, names: impl IntoIterator<Item = &'a str>) {
        let mut page = self.page(worker);
        for name in names {
            if let Some(fact) = page.keys.get_mut(name) {
                fact.stored = None;
            }
        }
    }

    /// Keys were reported deleted, by what began at `began`.
    pub fn deleted<'a>(&self, worker: usize, names: impl IntoIterator<Item = &'a str>, began: Instant) {
        let mut page = self.page(worker);
        let cuts = self.cuts.lock().unwrap();
        for name in names {
            if !self.syncs && cuts.iter().any(|(at, node)| *at >= began && *node == node_of(name)) {
                continue;
            }
            let fact = page.keys.remove(name).expect("it was known");
            page.deleted.push((Instant::now(), name.to_owned(), fact.hash));
        }
    }

    /// The power of a node was cut, or its disk has not written what it was given.
    pub fn power_cut(&self, node: usize) {
        let now = Instant::now();
        self.cuts.lock().unwrap().push((now, node));
        if self.syncs {
            return;
        }
        for page in &self.pages {
            let mut page = page.lock().unwrap();
            let recent = |at: Instant| now.saturating_duration_since(at) < SYNCED;
            for (_, fact) in page.keys.iter_mut().filter(|(name, _)| node_of(name) == node) {
                fact.stored = fact.stored.filter(|at| !recent(*at));
            }
            let deleted = std::mem::take(&mut page.deleted);
            for (_, name, hash) in deleted.into_iter().filter(|(at, name, _)| recent(*at) && node_of(name) == node) {
                page.keys.entry(name).or_insert(Fact { hash, stored: None });
            }
        }
    }

    /// Names that are reported stored now.
    pub fn certain(&self, worker: usize) -> Vec<String> {
        let page = self.page(worker);
        page.keys.iter().filter(|(_, fact)| fact.stored.is_some()).map(|(name, _)| name.clone()).collect()
    }

    pub fn is_certain(&self, worker: usize, name: &str) -> bool {
        self.page(worker).keys.get(name).is_some_and(|fact| fact.stored.is_some())
    }

    pub fn is_known(&self, worker: usize, name: &str) -> bool {
        self.page(worker).keys.contains_key(name)
    }

    /// True if these are the bytes of a key, as far as anything is known of it.
    pub fn has_bytes(&self, worker: usize, name: &str, bytes: &[u8]) -> bool {
        self.page(worker).keys.get(name).is_none_or(|fact| fact.hash == hash(bytes))
    }

    pub fn forget(&self, worker: usize) {
        *self.page(worker) = Page::default();
    }

    /// What is wrong with all keys of a worker.
    pub fn compare(&self, worker: usize, found: &Tree) -> Vec<String> {
        let page = self.page(worker);
        let there = found.iter().filter_map(|(name, bytes)| match page.keys.get(name) {
            None => Some(format!("w{worker}/{name} is there, and nobody has made it, or it was deleted")),
            Some(fact) if fact.hash != hash(bytes) => {
                Some(format!("w{worker}/{name} has other bytes: {}", bytes.len()))
            }
            Some(_) => None,
        });
        let lost = page.keys.iter().filter(|(name, fact)| fact.stored.is_some() && !found.contains_key(*name));
        there.chain(lost.map(|(name, _)| format!("w{worker}/{name} was reported stored, and is not there"))).collect()
    }
}
