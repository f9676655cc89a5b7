//! Where names are looked for in vain, and where no directory or nothing at all can come to be, by the nodes' leases.

use super::find::Found;
use nix::time::{ClockId, clock_gettime};
use s4::checksum::hash;
use s4::key::Key;
use s4::placement::NodeId;
use s4::protocol::{Book, RELIANCE};
use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// What a miss counts, and a key that is found takes away: who makes files also looks at those that it has made.
const MISS: u32 = 2;
const HIT: u32 = 1;
/// From this count on leases are asked for: where some names are missing, more are about to be made.
const SOME: u32 = 6;
/// The highest count, so that it is forgotten soon.
const TOP: u32 = 8;

/// Directories remembered at once, and names that we have made in each.
const MOST: usize = 64;
const MOST_NAMES: usize = 20_000;

/// How long no lease is asked for where a node has given none.
const REFUSED: Duration = Duration::from_secs(5);

/// How long who has made a key, or a directory, is expected to make keys there.
const BUSY: Duration = Duration::from_secs(1);
const NEW: Duration = Duration::from_secs(60);

/// How long something may still come to be that was broken off, or not answered.
const UNSURE: Duration = Duration::from_secs(60);

#[derive(Default)]
pub struct Misses(Mutex<Table>);

/// Guards what is known of each directory. Times are those of [`now`].
#[derive(Default)]
struct Table {
    dirs: HashMap<String, Known>,
    /// How often something was made.
    made: u64,
    /// The last number of what is known of a directory.
    books: Book,
}

struct Known {
    count: u32,
    leased_until: Duration,
    ask_again: Duration,
    /// Directories that we are making in it, whom no lease binds.
    making: usize,
    /// When something was last made in it, by [`Table::made`].
    made: u64,
    book: Book,
    /// Nodes on which nothing is in it but what we have made, and until when.
    exclusive: HashMap<NodeId, Duration>,
    /// Hashes of the names of all keys that we have made in it, or may have.
    names: HashSet<u64>,
    /// Keys that we are making in it.
    keys: usize,
    /// Until then we are likely to make more.
    busy_until: Duration,
}

impl Known {
    /// True while something may come to be that is known of nowhere else.
    fn is_needed(&self, now: Duration) -> bool {
        self.making > 0 || self.keys > 0 || self.ask_again > now
    }
}

/// A question for leases that was asked.
#[derive(Clone, Copy)]
pub(super) struct Asked {
    at: Duration,
    made: u64,
    pub book: Book,
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
    /// Where a key is made.
    dir: Option<String>,
    is_sure: bool,
}

impl Misses {
    pub(super) fn missing(&self, dir: &str) -> Missing {
        match self.lock().dirs.get(dir).map_or(0, |known| known.count) {
            0 => Missing::Unlikely,
            SOME.. => Missing::Likely,
            _ => Missing::Possibly,
        }
    }

    pub(super) fn note(&self, dir: &str, found: &Found) {
        let mut table = self.lock();
        match (found, table.dirs.get_mut(dir)) {
            (Found::Absent, Some(known)) => known.count = (known.count + MISS).min(TOP),
            (Found::Absent, None) => {
                table.make_room();
                table.known(dir).count = MISS;
            }
            (Found::Key(key, _), Some(known)) => {
                known.count = known.count.saturating_sub(HIT);
                // Others make keys there, and are not to be held up.
                if !known.names.contains(&hash(key.basename().as_bytes())) {
                    known.busy_until = Duration::ZERO;
                }
            }
            (Found::Key(..), None) | (Found::Dir, _) => {}
        }
    }

    pub(super) fn has_lease(&self, dir: &str) -> bool {
        self.lock().dirs.get(dir).is_some_and(|known| known.making == 0 && known.leased_until > now())
    }

    /// True if `node` would have nothing of this name in `dir`, where [`has_lease`](Self::has_lease) is true: by its lease nobody
    /// else makes anything, and we have not.
    pub(super) fn has_none(&self, dir: &str, name: &str, node: NodeId) -> bool {
        let table = self.lock();
        let known = table.dirs.get(dir).filter(|known| known.exclusive.get(&node).is_some_and(|&until| until > now()));
        known.is_some_and(|known| !known.names.contains(&hash(name.as_bytes())))
    }

    /// To be called before the nodes are asked for their leases. `None` if they are not to be asked.
    pub(super) fn ask_lease(&self, dir: &str) -> Option<Asked> {
        let (table, at) = (self.lock(), now());
        let known = table.dirs.get(dir).filter(|known| known.making == 0 && known.ask_again <= at)?;
        // It would hold up others in vain where we make nothing.
        let makes = known.busy_until > at && known.names.len() < MOST_NAMES;
        Some(Asked { at, made: known.made, book: if makes { known.book } else { 0 } })
    }

    /// Each node has answered, and `all` or not all have given their lease; those of `exclusive` also that nothing comes to be.
    pub(super) fn answered(&self, dir: &str, asked: Asked, all: bool, exclusive: &[NodeId]) {
        let mut table = self.lock();
        match table.dirs.get_mut(dir) {
            Some(known) if !all => known.ask_again = known.ask_again.max(asked.at + REFUSED),
            Some(known) if known.making == 0 && known.made == asked.made => {
                let until = asked.at + RELIANCE;
                known.leased_until = known.leased_until.max(until);
                // What was made before it was forgotten is in no new book, and what was made since it is full in none.
                if known.book == asked.book && known.names.len() < MOST_NAMES {
                    known.exclusive.extend(exclusive.iter().map(|&node| (node, until)));
                }
            }
            Some(_) | None => {}
        }
    }

    /// To be held while a key is made: directories may come to be with it, its own and those above.
    pub(super) fn making_key(&self, key: &Key) -> Making<'_> {
        let (dir, name) = (key.parent(), key.basename());
        let mut making = self.making_in(dir);
        let mut table = self.lock();
        table.make_room();
        let known = table.known(dir);
        known.keys += 1;
        known.busy_until = now() + BUSY;
        if known.names.len() < MOST_NAMES {
            known.names.insert(hash(name.as_bytes()));
        } else {
            known.exclusive.clear();
        }
        making.dir = Some(dir.to_owned());
        making
    }

    /// To be held while directory `dir` is made.
    pub(super) fn making_dir(&self, dir: &str) -> Making<'_> {
        let making = self.making_in(dir);
        // Most likely names will be missing in it: those that are about to be made.
        let mut table = self.lock();
        let known = table.known(dir);
        (known.count, known.busy_until) = (SOME, now() + NEW);
        making
    }

    fn making_in(&self, dir: &str) -> Making<'_> {
        let above: Vec<String> = dir.match_indices('/').map(|(end, _)| dir[..end].to_owned()).collect();
        let mut table = self.lock();
        table.make_room();
        table.made += 1;
        let made = table.made;
        for dir in &above {
            let known = table.known(dir);
            known.making += 1;
            known.made = made;
            known.leased_until = Duration::ZERO;
        }
        drop(table);
        Making { misses: self, above, dir: None, is_sure: false }
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn known(&mut self, dir: &str) -> &mut Known {
        // What was made in it before it was forgotten is older than any question to come.
        let (made, book) = (self.made, &mut self.books);
        self.dirs.entry(dir.to_owned()).or_insert_with(|| {
            *book += 1;
            Known {
                count: 0,
                leased_until: Duration::ZERO,
                ask_again: Duration::ZERO,
                making: 0,
                made,
                book: *book,
                exclusive: HashMap::new(),
                names: HashSet::new(),
                keys: 0,
                busy_until: Duration::ZERO,
            }
        })
    }

    /// Forgets all but those in which something is being made or may be, and if that is enough, most likely will be.
    fn make_room(&mut self) {
        let now = now();
        if self.dirs.len() >= MOST {
            self.dirs.retain(|_, known| known.is_needed(now) || known.busy_until > now);
        }
        if self.dirs.len() >= MOST {
            self.dirs.retain(|_, known| known.is_needed(now));
        }
    }
}

impl Making<'_> {
    /// It is over: a node has made it or has refused. Dropped without, or not `sure`, it may still come to be.
    pub fn end(mut self, sure: bool) {
        self.is_sure = sure;
    }
}

impl Drop for Making<'_> {
    fn drop(&mut self) {
        let (mut table, ask_again) = (self.misses.lock(), if self.is_sure { Duration::ZERO } else { now() + UNSURE });
        for dir in &self.above {
            if let Some(known) = table.dirs.get_mut(dir) {
                known.making = known.making.saturating_sub(1);
                known.ask_again = known.ask_again.max(ask_again);
            }
        }
        if let Some(known) = self.dir.as_ref().and_then(|dir| table.dirs.get_mut(dir)) {
            known.keys = known.keys.saturating_sub(1);
            known.ask_again = known.ask_again.max(ask_again);
        }
    }
}

/// Since the start of the machine, its sleep included: nodes do not sleep with it.
fn now() -> Duration {
    clock_gettime(ClockId::CLOCK_BOOTTIME).map(Duration::from).expect("Linux has had this clock since 2.6.39")
}

#[cfg(test)]
mod tests {
    use super::*;
    use s4::checksum::Checksum;
    use s4::protocol::KeyStat;

    const STAT: KeyStat = KeyStat { checksum: Checksum { xxh3: 0, len: 0 }, mtime: 0, mode: 0 };

    /// After some misses, all nodes give their lease.
    fn leased(misses: &Misses, dir: &str) {
        while misses.missing(dir) != Missing::Likely {
            misses.note(dir, &Found::Absent);
        }
        let asked = misses.ask_lease(dir).expect("nothing is in the way");
        assert!(!misses.has_lease(dir));
        misses.answered(dir, asked, true, &[0]);
        assert!(misses.has_lease(dir));
    }

    /// The same where we have made the directory.
    fn leased_alone(misses: &Misses, dir: &str) {
        misses.making_dir(dir).end(true);
        leased(misses, dir);
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
        making.end(true);
        leased(&misses, "b/d");
    }

    #[test]
    fn what_may_have_been_made_since_they_were_asked_counts() {
        let misses = Misses::default();
        leased(&misses, "b");
        let asked = misses.ask_lease("b").unwrap();
        misses.making_in("b/new").end(true);
        misses.answered("b", asked, true, &[0]);
        assert!(!misses.has_lease("b"));
    }

    #[test]
    fn what_was_broken_off_may_still_come() {
        let misses = Misses::default();
        leased(&misses, "b");
        drop(misses.making_in("b/new"));
        assert!(!misses.has_lease("b") && misses.ask_lease("b").is_none());
    }

    fn key(text: &str) -> Key {
        Key::parse(text).expect("a key")
    }

    #[test]
    fn what_we_have_made_is_asked_for() {
        let misses = Misses::default();
        leased_alone(&misses, "b");
        assert!(misses.has_none("b", "other", 0) && !misses.has_none("b", "other", 1));
        let making = misses.making_key(&key("b/ours"));
        assert!(!misses.has_none("b", "ours", 0) && misses.has_none("b", "other", 0));
        making.end(true);
        assert!(!misses.has_none("b", "ours", 0));
    }

    #[test]
    fn what_was_forgotten_since_they_were_asked_is_in_no_book() {
        let misses = Misses::default();
        misses.making_key(&key("b/ours")).end(true);
        let asked = misses.ask_lease("b").unwrap();
        misses.lock().dirs.clear();
        leased_alone(&misses, "b");
        misses.answered("b", Asked { made: misses.ask_lease("b").unwrap().made, ..asked }, true, &[1]);
        assert!(misses.has_none("b", "ours", 0) && !misses.has_none("b", "ours", 1));
    }

    #[test]
    fn what_is_being_made_is_not_forgotten() {
        let misses = Misses::default();
        let making = misses.making_key(&key("b/ours"));
        let book = misses.ask_lease("b").unwrap().book;
        assert_ne!(book, 0);
        for n in 0..3 * MOST {
            drop(misses.making_dir(&format!("other{n}")));
        }
        assert_eq!(misses.ask_lease("b").unwrap().book, book);
        drop(making);
        assert!(misses.ask_lease("b").is_none(), "it may still come to be");
    }

    #[test]
    fn more_names_than_are_remembered_are_asked_for() {
        let misses = Misses::default();
        leased_alone(&misses, "b");
        let asked = misses.ask_lease("b").unwrap();
        for n in 0..=MOST_NAMES {
            misses.making_key(&key(&format!("b/{n}_ours"))).end(true);
        }
        assert!(!misses.has_none("b", "other", 0));
        misses.answered("b", Asked { made: misses.ask_lease("b").unwrap().made, ..asked }, true, &[0]);
        assert!(!misses.has_none("b", &format!("{MOST_NAMES}_ours"), 0), "it was asked before");
        assert_eq!(misses.ask_lease("b").unwrap().book, 0);
    }

    #[test]
    fn where_we_make_nothing_others_are_not_held_up() {
        let misses = Misses::default();
        leased(&misses, "b");
        assert_eq!(misses.ask_lease("b").unwrap().book, 0);
        assert!(!misses.has_none("b", "other", 0));
        misses.making_key(&key("b/ours")).end(true);
        let found = |text| Found::Key(key(text), STAT);
        misses.note("b", &found("b/ours"));
        assert_ne!(misses.ask_lease("b").unwrap().book, 0);
        misses.note("b", &found("b/theirs"));
        assert_eq!(misses.ask_lease("b").unwrap().book, 0);
    }

    #[test]
    fn where_we_make_files_is_not_forgotten_for_where_we_look() {
        let misses = Misses::default();
        misses.making_key(&key("b/ours")).end(true);
        let book = misses.ask_lease("b").unwrap().book;
        for n in 0..3 * MOST {
            misses.note(&format!("other{n}"), &Found::Absent);
        }
        assert_eq!(misses.ask_lease("b").unwrap().book, book);
    }

    #[test]
    fn a_refusal_is_remembered() {
        let misses = Misses::default();
        leased(&misses, "b");
        let asked = misses.ask_lease("b").unwrap();
        misses.answered("b", asked, false, &[]);
        assert!(misses.ask_lease("b").is_none());
        assert!(misses.has_lease("b"), "what was promised before holds");
    }

    #[test]
    fn finding_keys_ends_the_expectation() {
        let misses = Misses::default();
        leased(&misses, "b");
        for _ in 0..TOP {
            misses.note("b", &Found::Key(key("b/k"), STAT));
        }
        assert_eq!(misses.missing("b"), Missing::Unlikely);
    }
}
