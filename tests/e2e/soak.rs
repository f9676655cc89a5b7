//! Random work and random faults for as long as one likes, on hosts with disks of their own. Clients make, read, rename and
//! delete keys, by commands, maps and mounts, and remember what was reported; meanwhile nodes and clients are killed, frozen, cut
//! off, filled and lose their power. At the end every fault is over, and:
//!
//! - every key that was reported stored, and not deleted, is there with its bytes, and no other but those of which it is not known;
//! - of work and faults no process, file or byte is left;
//! - the node and the mount that were never killed hold the memory, the descriptors and the threads of the beginning.
//!
//! `S4_TEST_MINUTES` says how long, `S4_TEST_SEED` repeats the random numbers, though not the timing. An odd seed has daemons with
//! `--fsync`. Without, a power cut may take the keys of the last seconds, and bring those back that were deleted.

mod faults;
mod idle;
mod ledger;
mod work;

use crate::harness::eventually;
use crate::hosts::print_now;
use crate::random_work::Random;
use crate::sites::{MOUNT, Site};
use ledger::Ledger;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, RwLock};
use std::time::{Duration, Instant, SystemTime};
use work::Worker;

const WORKERS: usize = 4;
/// A second mount, which is killed now and then. The site's own never is.
pub const KILLED: &str = "mnt2";

/// What all threads share.
pub struct Soak {
    pub site: RwLock<Site>,
    pub ledger: Ledger,
    pub wrong: Mutex<Vec<String>>,
    pub ends: AtomicBool,
    /// Operations of each kind: how many succeeded and failed, and the longest.
    pub counts: Mutex<BTreeMap<&'static str, (u64, u64, Duration)>>,
}

impl Soak {
    pub fn report(&self, wrong: String) {
        print_now(&format!("WRONG: {wrong}"));
        self.wrong.lock().unwrap().push(wrong);
    }
}

fn seed() -> u64 {
    let clock = || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_nanos() as u64 % 1_000_000;
    let seed = std::env::var("S4_TEST_SEED").map_or_else(|_| clock(), |seed| seed.parse().expect("a number"));
    print_now(&format!("S4_TEST_SEED={seed}"));
    seed
}

fn minutes() -> f64 {
    std::env::var("S4_TEST_MINUTES").map_or(10.0, |minutes| minutes.parse().expect("a number"))
}

#[test]
#[ignore = "takes as long as one likes: scripts/soak.sh"]
fn whatever_happens_nothing_that_was_reported_is_lost_and_nothing_is_left_over() {
    let (seed, minutes) = (seed(), minutes());
    let syncs = seed % 2 == 1;
    let Some(mut site) = Site::new(if syncs { &["--fsync"] } else { &[] }) else { return };
    site.start_mount(KILLED);
    let soak = Soak {
        site: RwLock::new(site),
        ledger: Ledger::new(WORKERS, syncs),
        wrong: Mutex::default(),
        ends: AtomicBool::new(false),
        counts: Mutex::default(),
    };
    let mut workers: Vec<Worker> = (0..WORKERS).map(|number| Worker::new(&soak, number, seed)).collect();
    // Once without faults, so that all is in use that will be.
    std::thread::scope(|scope| workers.iter_mut().for_each(|worker| drop(scope.spawn(move || worker.do_each_once()))));
    empty(&soak);
    let before = idle::measure(&soak.site.read().unwrap());
    let until = Instant::now() + Duration::from_secs_f64(60.0 * minutes);
    std::thread::scope(|scope| {
        for worker in &mut workers {
            scope.spawn(move || worker.run());
        }
        faults::run(&soak, &mut Random(seed), until);
        soak.ends.store(true, Ordering::Relaxed);
    });
    let all_over = || soak.site.read().unwrap().ok("! s4 $D jobs | grep -w running").ok();
    soak.site.write().unwrap().heal();
    eventually("no job runs", all_over);
    print_counts(&soak);
    check_keys(&soak);
    empty(&soak);
    idle::compare(&soak, &before);
    let wrong = soak.wrong.into_inner().unwrap();
    assert!(wrong.is_empty(), "S4_TEST_SEED={seed}: {} are wrong:\n{}", wrong.len(), wrong.join("\n"));
}

fn print_counts(soak: &Soak) {
    for (kind, (done, failed, longest)) in &*soak.counts.lock().unwrap() {
        print_now(&format!("{kind:<14}{done:>7} done {failed:>7} failed, longest {:.1} s", longest.as_secs_f64()));
    }
}

/// Compares all keys with the ledger.
fn check_keys(soak: &Soak) {
    let site = soak.site.read().unwrap();
    let mut keys = 0;
    for worker in 0..WORKERS {
        match site.keys(&work::bucket(worker)) {
            Ok(found) => {
                keys += found.len();
                soak.ledger.compare(worker, &found).into_iter().for_each(|wrong| soak.report(wrong));
            }
            Err(error) => soak.report(error),
        }
    }
    print_now(&format!("{keys} keys are there at the end"));
}

/// Deletes everything, through the ledger too.
fn empty(soak: &Soak) {
    let site = soak.site.read().unwrap();
    for worker in 0..WORKERS {
        site.ok(&format!("s4 $D rm -r s4://{}/", work::bucket(worker))).unwrap();
        soak.ledger.forget(worker);
    }
    if let Err(left) = site.settle() {
        soak.report(left);
    }
    // Mounts learn of it, and give up what they know.
    site.ok(&format!("ls {MOUNT} {KILLED}")).unwrap();
}
