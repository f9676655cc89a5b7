//! FIFOs and sockets. The kernel moves their data; the mount keeps their names only, in memory: no node and no other
//! mount knows them.

use nix::errno::Errno;
use nix::libc;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

/// The maximum for a mount, since they are kept in memory.
const MAX_SPECIALS: usize = 65_536;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Fifo,
    Socket,
}

impl Kind {
    /// The kind in a mode of mknod(2).
    pub fn of(mode: u32) -> Option<Self> {
        match mode & libc::S_IFMT {
            libc::S_IFIFO => Some(Self::Fifo),
            libc::S_IFSOCK => Some(Self::Socket),
            _ => None,
        }
    }
}

pub struct Special {
    pub kind: Kind,
    /// An id. Unlike the name, it never changes, and is never reused.
    pub number: u64,
    attributes: Mutex<(u32, SystemTime)>,
}

impl Special {
    pub fn new(kind: Kind, mode: u32) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        Self { kind, number, attributes: Mutex::new((mode & 0o7777, SystemTime::now())) }
    }

    /// The mode and the time of the last change.
    pub fn attributes(&self) -> (u32, SystemTime) {
        *self.attributes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn change(&self, mode: Option<u32>, mtime: Option<SystemTime>) {
        let mut attributes = self.attributes.lock().unwrap_or_else(PoisonError::into_inner);
        attributes.0 = mode.map_or(attributes.0, |mode| mode & 0o7777);
        attributes.1 = mtime.unwrap_or(attributes.1);
    }
}

/// All FIFOs and sockets of the mount, by their `bucket/dir/name`.
#[derive(Default)]
pub struct Specials(Mutex<BTreeMap<String, Arc<Special>>>);

impl Specials {
    pub fn at(&self, path: &str) -> Option<Arc<Special>> {
        self.lock().get(path).cloned()
    }

    pub fn add(&self, path: String, special: Arc<Special>) -> Result<(), Errno> {
        let mut all = self.lock();
        if all.len() >= MAX_SPECIALS {
            return Err(Errno::ENOSPC);
        }
        if all.contains_key(&path) {
            return Err(Errno::EEXIST);
        }
        all.insert(path, special);
        Ok(())
    }

    /// False if there is none.
    pub fn remove(&self, path: &str) -> bool {
        self.lock().remove(path).is_some()
    }

    pub fn rename(&self, from: &str, to: &str) -> Result<(), Errno> {
        let mut all = self.lock();
        if all.contains_key(to) {
            return Err(Errno::EEXIST);
        }
        let special = all.remove(from).ok_or(Errno::ENOENT)?;
        all.insert(to.to_owned(), special);
        Ok(())
    }

    /// The names of those directly in `dir`.
    pub fn names_in(&self, dir: &str) -> Vec<String> {
        let start = format!("{dir}/");
        let all = self.lock();
        let below = all.range(start.clone()..).map_while(|(path, _)| path.strip_prefix(&*start));
        below.filter(|name| !name.contains('/')).map(str::to_owned).collect()
    }

    pub fn any_below(&self, dir: &str) -> bool {
        let start = format!("{dir}/");
        self.lock().range(start.clone()..).next().is_some_and(|(path, _)| path.starts_with(&start))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Special>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_by_their_directory() {
        let specials = Specials::default();
        for path in ["b/d/x", "b/d", "b/d-e", "b/d0", "c/d/y"] {
            specials.add(path.to_owned(), Arc::new(Special::new(Kind::Fifo, 0o644))).unwrap();
        }
        assert_eq!(specials.names_in("b"), ["d", "d-e", "d0"]);
        assert_eq!(specials.names_in("b/d"), ["x"]);
        assert!(specials.any_below("c") && specials.any_below("b/d") && !specials.any_below("b/d0"));
        assert_eq!(specials.rename("b/d0", "b/d"), Err(Errno::EEXIST));
        assert_eq!(specials.rename("b/d0", "c/d/z"), Ok(()));
        assert!(specials.remove("c/d/z") && !specials.remove("c/d/z"));
    }
}
