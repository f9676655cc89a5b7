//! Where names are looked for in vain, and where no directory can come to be, by the nodes' leases.

use super::find::Found;
use nix::time::{ClockId, clock_gettime};
use s4::protocol::RELIANCE;
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// What a miss counts, and a key that is found takes away: who makes files also looks at those that it has made.
const MISS: u32 = 2;
const HIT: u32 = 1;
/// From this count on leases are asked for: where some names are missing, more are about to be made.
const SOME: u32 = 6;
/// The highest count, so that it is forgotten soon.
const TOP: u32 = 8;

/// Directories remembered at once.
const MOST: usize = 64;

/// How long no lease is asked for where a node has given none.
const REFUSED: Duration = Duration::from_secs(5);

/// Guards what is known of each directory.
#[derive(Default)]
pub struct Misses(Mutex<HashMap<String, Known>>);

#[derive(Default)]
struct Known {
    count: u32,
    lease: Lease,
    /// Directories that we are making in it, whom no lease binds.
    making: usize,
}

/// Times are those of [`now`].
#[derive(Default, Clone, Copy, PartialEq, Eq)]
enum Lease {
    #[default]
    Unasked,
    AskedAt(Duration),
    Until(Duration),
    RefusedAt(Duration),
}

/// Whether a name is there, going by those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Missing {
    Unlikely,
    Possibly,
    Likely,
}

/// Something that is being made. Until it is dropped, nothing relies on leases above it.
pub struct Making<'m> {
    misses: &'m Misses,
    above: Vec<String>,
    done: bool,
}

impl Misses {
    pub(super) fn missing(&self, dir: &str) -> Missing {
        match self.lock().get(dir).map_or(0, |known| known.count) {
            0 => Missing::Unlikely,
            SOME.. => Missing::Likely,
            _ => Missing::Possibly,
        }
    }

    pub(super) fn note(&self, dir: &str, found: &Found) {
        let mut table = self.lock();
        match (found, table.get_mut(dir)) {
            (Found::Absent, Some(known)) => known.count = (known.count + MISS).min(TOP),
            (Found::Absent, None) => {
                make_room(&mut table);
                table.insert(dir.to_owned(), Known { count: MISS, ..Known::default() });
            }
            (Found::Key(..), Some(known)) => known.count = known.count.saturating_sub(HIT),
            (Found::Key(..), None) | (Found::Dir, _) => {}
        }
    }

    pub(super) fn has_lease(&self, dir: &str) -> bool {
        let lease = self.lock().get(dir).map(|known| known.lease);
        matches!(lease, Some(Lease::Until(until)) if until > now())
    }

    /// To be called before the nodes are asked for their leases. Returns when, for [`answered`](Self::answered); `None` if
    /// they are not to be asked.
    pub(super) fn ask_lease(&self, dir: &str) -> Option<Duration> {
        let (mut table, now) = (self.lock(), now());
        let known = table.get_mut(dir)?;
        if known.making > 0 || matches!(known.lease, Lease::RefusedAt(at) if at + REFUSED > now) {
            return None;
        }
        known.lease = Lease::AskedAt(now);
        Some(now)
    }

    /// Each node has answered, and `all` or not all have given their lease.
    pub(super) fn answered(&self, dir: &str, asked: Duration, all: bool) {
        if let Some(known) = self.lock().get_mut(dir)
            && known.lease == Lease::AskedAt(asked)
        {
            known.lease = if all { Lease::Until(asked + RELIANCE) } else { Lease::RefusedAt(asked) };
        }
    }

    /// To be held while something is made in `dir`: directories may come to be with it, `dir` itself and those above it.
    pub(super) fn making_in(&self, dir: &str) -> Making<'_> {
        let above: Vec<String> = dir.match_indices('/').map(|(end, _)| dir[..end].to_owned()).collect();
        if !above.is_empty() {
            let mut table = self.lock();
            make_room(&mut table);
            for dir in &above {
                let known = table.entry(dir.clone()).or_default();
                known.making += 1;
                known.lease = Lease::Unasked;
            }
        }
        Making { misses: self, above, done: false }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Known>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Making<'_> {
    /// The node has answered.
    pub fn end(mut self) {
        self.done = true;
    }
}

impl Drop for Making<'_> {
    fn drop(&mut self) {
        // Broken off, it may still come to be at any time: then there are no more leases above it.
        if !self.done || self.above.is_empty() {
            return;
        }
        let mut table = self.misses.lock();
        for dir in &self.above {
            if let Some(known) = table.get_mut(dir) {
                known.making = known.making.saturating_sub(1);
            }
        }
    }
}

/// Forgets all but those that something is being made in.
fn make_room(table: &mut HashMap<String, Known>) {
    if table.len() >= MOST {
        table.retain(|_, known| known.making > 0);
    }
}

/// Since the start of the machine, its sleep included: nodes do not sleep with it.
fn now() -> Duration {
    clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(Duration::MAX / 2, Duration::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// After some misses, all nodes give their lease.
    fn leased(misses: &Misses, dir: &str) {
        while misses.missing(dir) != Missing::Likely {
            misses.note(dir, &Found::Absent);
        }
        let asked = misses.ask_lease(dir).expect("nothing is in the way");
        assert!(!misses.has_lease(dir));
        misses.answered(dir, asked, true);
        assert!(misses.has_lease(dir));
    }

    #[test]
    fn what_we_make_ends_the_leases_above_it() {
        let misses = Misses::default();
        for dir in ["b", "b/d", "b/d/e"] {
            leased(&misses, dir);
        }
        let making = misses.making_in("b/d/e");
        assert!(!misses.has_lease("b") && !misses.has_lease("b/d"));
        assert!(misses.has_lease("b/d/e"), "it is no new directory in itself");
        assert!(misses.ask_lease("b/d").is_none(), "it may come to be at any moment");
        making.end();
        leased(&misses, "b/d");
    }

    #[test]
    fn what_may_have_been_made_since_they_were_asked_counts() {
        let misses = Misses::default();
        leased(&misses, "b");
        let asked = misses.ask_lease("b").unwrap();
        misses.making_in("b/new").end();
        misses.answered("b", asked, true);
        assert!(!misses.has_lease("b"));
    }

    #[test]
    fn what_was_broken_off_may_still_come() {
        let misses = Misses::default();
        leased(&misses, "b");
        drop(misses.making_in("b/new"));
        assert!(!misses.has_lease("b") && misses.ask_lease("b").is_none());
    }

    #[test]
    fn a_refusal_is_remembered() {
        let misses = Misses::default();
        leased(&misses, "b");
        let asked = misses.ask_lease("b").unwrap();
        misses.answered("b", asked, false);
        assert!(!misses.has_lease("b") && misses.ask_lease("b").is_none());
    }

    #[test]
    fn finding_keys_ends_the_expectation() {
        let misses = Misses::default();
        leased(&misses, "b");
        let key = s4::key::Key::parse("b/k").unwrap();
        let stat = s4::protocol::KeyStat { checksum: s4::checksum::Checksum { xxh3: 0, len: 0 }, mtime: 0, mode: 0 };
        for _ in 0..TOP {
            misses.note("b", &Found::Key(key.clone(), stat.clone()));
        }
        assert_eq!(misses.missing("b"), Missing::Unlikely);
    }
}
