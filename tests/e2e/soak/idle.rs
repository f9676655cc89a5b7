//! What the programs and the disks hold when nothing is under way.

use super::Soak;
use super::faults::SPARED;
use crate::harness::own_kib;
use crate::hosts::print_now;
use crate::observe::open_files;
use crate::sites::{MOUNT, NODES, Site, unnamed};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// How long what was kept for reuse may stay.
const SETTLES: Duration = Duration::from_secs(90);
/// More than this is left over.
const DESCRIPTORS: usize = 6;
const THREADS: usize = 6;
const KIB: u64 = 6 << 10;
const DISK_KIB: u64 = 1 << 10;

/// Of a process that lives all the time.
#[derive(Clone, Copy, Debug)]
struct Process {
    descriptors: usize,
    threads: usize,
    kib: u64,
}

pub struct Idle {
    processes: Vec<(String, Process)>,
    /// Of each node: what is below `.s4`, without records of jobs, and KiB on the disk without these.
    files: Vec<BTreeSet<String>>,
    disk_kib: Vec<u64>,
}

fn process(pid: u32) -> Process {
    let count = |what: &str| std::fs::read_dir(format!("/proc/{pid}/{what}")).unwrap().count();
    // Keys that were read stay open for ten minutes.
    let descriptors = count("fd").saturating_sub(open_files(pid).count());
    Process { descriptors, threads: count("task"), kib: own_kib(pid) }
}

fn processes(site: &Site) -> Vec<(String, Process)> {
    vec![
        (format!("node {SPARED}"), process(site.hosts.pid(SPARED))),
        ("the mount".to_owned(), process(site.mount_pid(MOUNT))),
    ]
}

/// Records of jobs are kept for a week, and by their number. Idle directories are reused.
const KEPT: [&str; 3] = ["jobs", "provenance", "idle"];

fn files(site: &Site, node: usize) -> BTreeSet<String> {
    let own = site.hosts.disk(node).join("data/.s4");
    let is_kept = |entry: &walkdir::DirEntry| entry.depth() == 1 && KEPT.iter().any(|kept| entry.file_name() == *kept);
    let entries = walkdir::WalkDir::new(&own).into_iter().filter_entry(|entry| !is_kept(entry)).flatten();
    entries.map(|entry| entry.path().strip_prefix(&own).unwrap().display().to_string()).collect()
}

fn disk_kib(site: &Site, node: usize) -> u64 {
    use std::os::unix::fs::MetadataExt;
    site.hosts.sync(node);
    let disk = site.hosts.disk(node);
    let stat = nix::sys::statvfs::statvfs(&disk).unwrap();
    let used = (stat.blocks() - stat.blocks_free()) as u64 * stat.fragment_size() as u64;
    let kept =
        KEPT.iter().flat_map(|kept| walkdir::WalkDir::new(disk.join("data/.s4").join(kept)).into_iter().flatten());
    let kept: u64 = kept.filter_map(|entry| Some(entry.metadata().ok()?.blocks() * 512)).sum();
    let held: u64 = unnamed(site.hosts.pid(node), false).into_iter().map(|len| len.next_multiple_of(4096)).sum();
    used.saturating_sub(kept + held) >> 10
}

/// Waits until what is kept for reuse is let go of.
pub fn measure(site: &Site) -> Idle {
    let began = Instant::now();
    let mut least = processes(site);
    // Nothing tells when a process is idle: its lowest values are those that count.
    while began.elapsed() < Duration::from_secs(25) {
        std::thread::park_timeout(Duration::from_millis(500));
        least_of(&mut least, processes(site));
    }
    for (name, process) in &least {
        print_now(&format!("{name}: {process:?}"));
    }
    Idle {
        processes: least,
        files: (0..NODES).map(|node| files(site, node)).collect(),
        disk_kib: (0..NODES).map(|node| disk_kib(site, node)).collect(),
    }
}

fn least_of(least: &mut [(String, Process)], now: Vec<(String, Process)>) {
    for ((_, least), (_, now)) in least.iter_mut().zip(now) {
        least.descriptors = least.descriptors.min(now.descriptors);
        least.threads = least.threads.min(now.threads);
        least.kib = least.kib.min(now.kib);
    }
}

/// Reports what is left over since `before`.
pub fn compare(soak: &Soak, before: &Idle) {
    let site = soak.site.read().unwrap();
    let began = Instant::now();
    let mut after = measure(&site);
    while !excess(&site, before, &after).is_empty() && began.elapsed() < SETTLES {
        let seen = measure(&site);
        least_of(&mut after.processes, seen.processes);
        (after.files, after.disk_kib) = (seen.files, seen.disk_kib);
    }
    excess(&site, before, &after).into_iter().for_each(|excess| soak.report(excess));
    for node in 0..NODES {
        let strays = site.hosts.strays(node);
        if !strays.is_empty() {
            soak.report(format!("processes on host {node}: {strays:?}"));
        }
    }
}

fn excess(site: &Site, before: &Idle, after: &Idle) -> Vec<String> {
    let mut excess = Vec::new();
    for ((name, before), (_, after)) in before.processes.iter().zip(&after.processes) {
        let is_more = after.descriptors > before.descriptors + DESCRIPTORS
            || after.threads > before.threads + THREADS
            || after.kib > before.kib + KIB;
        if is_more {
            excess.push(format!("{name}: {after:?}, before {before:?}"));
        }
    }
    for node in 0..NODES {
        let more: Vec<&String> = after.files[node].difference(&before.files[node]).collect();
        if !more.is_empty() {
            excess.push(format!("below .s4 of node {node}: {more:?}"));
        }
        if after.disk_kib[node] > before.disk_kib[node] + DISK_KIB {
            let (now, before) = (after.disk_kib[node], before.disk_kib[node]);
            excess.push(format!("KiB of node {node}: {now}, before {before}; {}", largest(site, node)));
        }
    }
    excess
}

/// The largest files and directories of a disk, with their KiB.
fn largest(site: &Site, node: usize) -> String {
    use std::os::unix::fs::MetadataExt;
    let entries = walkdir::WalkDir::new(site.hosts.disk(node)).into_iter().flatten();
    let sizes = entries.filter_map(|entry| Some((entry.metadata().ok()?.blocks() / 2, entry.into_path())));
    let mut sizes: Vec<_> = sizes.collect();
    sizes.sort_unstable_by(|a, b| b.cmp(a));
    let all: u64 = sizes.iter().map(|(kib, _)| kib).sum();
    format!("{all} KiB in {} files, the largest {:?}", sizes.len(), &sizes[..sizes.len().min(8)])
}
