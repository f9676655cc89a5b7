//! One fault after the other, at random.

use super::{KILLED, Soak};
use crate::hosts::print_now;
use crate::random_work::Random;
use crate::sites::{NODES, Site};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// This node is never killed, so that it shows what it gathers.
pub const SPARED: usize = 0;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fault {
    Killed,
    Frozen,
    Isolated,
    OneWay,
    Partition,
    Slow,
    Full,
    ReadOnly,
    Failing,
    DataGone,
    PowerCut,
    MountKilled,
    ClientIsolated,
}

const FAULTS: [Fault; 13] = [
    Fault::Killed,
    Fault::Frozen,
    Fault::Isolated,
    Fault::OneWay,
    Fault::Partition,
    Fault::Slow,
    Fault::Full,
    Fault::ReadOnly,
    Fault::Failing,
    Fault::DataGone,
    Fault::PowerCut,
    Fault::MountKilled,
    Fault::ClientIsolated,
];

impl Fault {
    /// After these the daemon has to be started again.
    fn ends_the_daemon(self) -> bool {
        matches!(self, Self::Killed | Self::ReadOnly | Self::Failing | Self::PowerCut)
    }

    fn begin(self, soak: &Soak, node: usize, other: usize) {
        let mut site = soak.site.write().unwrap();
        match self {
            Self::Killed => site.hosts.kill_node(node),
            Self::Frozen => site.freeze(node),
            Self::Isolated => site.hosts.isolate(node),
            Self::OneWay => site.hosts.one_way(node, other),
            Self::Partition => site.hosts.partition(node, other),
            Self::Slow => {
                site.hosts.slow(node, "2mbit");
            }
            Self::Full => site.hosts.fill(node, 600),
            Self::ReadOnly => site.hosts.make_read_only(node),
            Self::Failing => site.hosts.fail(node),
            Self::DataGone => site.take_away(node),
            Self::PowerCut => site.hosts.power_cut(node),
            Self::MountKilled => site.kill_mount(KILLED),
            Self::ClientIsolated => site.hosts.isolate(site.hosts.client()),
        }
        if matches!(self, Self::PowerCut | Self::ReadOnly | Self::Failing) {
            soak.ledger.power_cut(node);
        }
    }

    fn end(self, site: &mut Site, node: usize) {
        match self {
            Self::Killed => site.hosts.start_node(node),
            Self::Frozen => site.thaw(node),
            Self::Full => site.hosts.empty(node),
            Self::ReadOnly | Self::Failing => site.hosts.replace_disk(node),
            Self::DataGone => {
                let made = site.bring_back(node);
                if !made.is_empty() {
                    print_now(&format!("known: made in place of a data directory that is gone: {made:?}"));
                }
            }
            Self::PowerCut => site.hosts.boot(node),
            Self::MountKilled => site.start_mount(KILLED),
            Self::Isolated | Self::OneWay | Self::Partition | Self::Slow | Self::ClientIsolated => site.hosts.heal(),
        }
    }
}

fn pause(time: Duration) {
    let until = Instant::now() + time;
    while let Some(left) = until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
        std::thread::park_timeout(left);
    }
}

/// A time that is mostly short.
fn some_time(random: &mut Random) -> Duration {
    let longest = random.pick(&[300, 1500, 6000]);
    Duration::from_millis(50 + random.below(longest))
}

/// Goes on until the time is over, and ends the last fault.
pub fn run(soak: &Soak, random: &mut Random, until: Instant) {
    let mut counts: BTreeMap<Fault, u64> = BTreeMap::new();
    let (mut said, began) = (Instant::now(), Instant::now());
    while Instant::now() < until {
        pause(some_time(random));
        let fault = random.pick(&FAULTS);
        let node = random.below(NODES as u64) as usize;
        let node = if node == SPARED && fault.ends_the_daemon() { 1 } else { node };
        // Any host but this one; the last is the client's.
        let other = (node + 1 + random.below(NODES as u64) as usize) % (NODES + 1);
        fault.begin(soak, node, other);
        pause(some_time(random));
        fault.end(&mut soak.site.write().unwrap(), node);
        *counts.entry(fault).or_default() += 1;
        if said.elapsed() > Duration::from_secs(60) {
            said = Instant::now();
            print_now(&format!("after {:.0} s: {counts:?}", began.elapsed().as_secs_f64()));
        }
    }
    print_now(&format!("faults: {counts:?}"));
}
