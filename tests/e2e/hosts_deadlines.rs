//! On several hosts: whatever falls silent, and without a reset, an error comes within one deadline.

use crate::harness::eventually;
use crate::hosts::{Hosts, Running, print_now};
use crate::mounting::no_mounts;
use crate::observe::{longest_open, open_files};
use crate::programs::program;
use nix::sys::signal::Signal;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

const DEADLINE: Duration = Duration::from_secs(3);

/// How long a daemon lets another one be silent.
const BETWEEN_NODES: Duration = Duration::from_secs(10);

/// Bytes after which a transfer is under way.
const UNDER_WAY: u64 = 8 << 20;

/// How node 1 falls silent.
#[derive(Clone, Copy, Debug)]
enum Silence {
    /// All packets from and to it are lost.
    Lost,
    /// Its cable is out.
    Unplugged,
    /// Its daemon is stopped: the kernel still answers for it.
    Stopped,
}

const SILENCES: [Silence; 3] = [Silence::Lost, Silence::Unplugged, Silence::Stopped];

fn silence(hosts: &Hosts, how: Silence) -> Instant {
    match how {
        Silence::Lost => hosts.isolate(1),
        Silence::Unplugged => hosts.unplug(1),
        Silence::Stopped => hosts.signal(1, Signal::SIGSTOP),
    }
    Instant::now()
}

/// A key is on its way to node 1, where it has no name yet. Those that were read there are held for a while too.
fn is_sent_to_node_1(hosts: &Hosts) -> bool {
    open_files(hosts.pid(1)).any(|file| file.nlink() == 0 && file.len() > UNDER_WAY)
}

/// Node 1 speaks again, and has ended what it was asked before.
fn speak(hosts: &Hosts) {
    hosts.heal();
    hosts.signal(1, Signal::SIGCONT);
    eventually("it has let go of what will not come", || (!is_sent_to_node_1(hosts)).then_some(()));
    eventually("all nodes are healthy", || hosts.s4(&["health"]).output().unwrap().status.success().then_some(()));
}

fn large_file(path: &Path, len: u64) {
    std::fs::File::create(path).unwrap().set_len(len).unwrap();
}

fn s4(hosts: &Hosts, args: &[&str]) -> Command {
    let mut command = hosts.s4(args);
    command.args(["--deadline", "3"]);
    command
}

fn size_below(dir: &Path) -> u64 {
    let files = walkdir::WalkDir::new(dir).into_iter().flatten().filter_map(|entry| entry.metadata().ok());
    files.filter(|found| found.is_file()).map(|found| found.len()).sum()
}

#[test]
fn a_large_put_ends_within_the_deadline() {
    let Some(hosts) = Hosts::start(5, &[]) else { return };
    let file = hosts.dir().join("large");
    large_file(&file, 512 << 20);
    for how in SILENCES {
        let putting = Running::start(s4(&hosts, &["cp", file.to_str().unwrap(), "s4://b/1_large"]));
        eventually("it is under way", || is_sent_to_node_1(&hosts).then_some(()));
        let since = silence(&hosts, how);
        let error = putting.end(since).fails_within(&format!("put of 512 MiB, {how:?}"), DEADLINE);
        assert!(error.contains(&hosts.name(1)), "{error}");
        speak(&hosts);
        assert!(!hosts.s4(&["ls", "s4://b/"]).output().unwrap().status.success(), "nothing was stored");
    }
}

#[test]
fn a_put_from_a_pipe_ends_within_the_deadline() {
    let Some(hosts) = Hosts::start(5, &[]) else { return };
    for how in SILENCES {
        let putting = Running::start(hosts.script("yes | s4 cp - s4://b/1_pipe --deadline 3"));
        eventually("it is under way", || is_sent_to_node_1(&hosts).then_some(()));
        let since = silence(&hosts, how);
        putting.end(since).fails_within(&format!("put from a pipe, {how:?}"), DEADLINE);
        speak(&hosts);
    }
}

#[test]
fn a_large_get_ends_within_the_deadline() {
    let Some(hosts) = Hosts::start(5, &[]) else { return };
    let file = hosts.dir().join("large");
    large_file(&file, 512 << 20);
    hosts.ok(&["cp", file.to_str().unwrap(), "s4://b/1_large"]);
    let out = hosts.dir().join("out");
    for how in SILENCES {
        let getting = Running::start(s4(&hosts, &["cp", "s4://b/1_large", out.to_str().unwrap()]));
        eventually("it is under way", || (longest_open(getting.pid) > UNDER_WAY).then_some(()));
        let since = silence(&hosts, how);
        let error = getting.end(since).fails_within(&format!("get of 512 MiB, {how:?}"), DEADLINE);
        assert!(error.contains(&hosts.name(1)), "{error}");
        assert!(!out.exists());
        speak(&hosts);
    }
}

/// Trees of many keys on all hosts, both ways.
#[test]
fn copies_of_trees_end_within_the_deadline() {
    let Some(hosts) = Hosts::start(5, &[]) else { return };
    let tree = hosts.dir().join("tree");
    std::fs::create_dir(&tree).unwrap();
    (0..200).for_each(|n| large_file(&tree.join(format!("{n}_file")), 4 << 20));
    for how in SILENCES {
        let _ = hosts.s4(&["rm", "-r", "s4://in"]).output();
        let putting = Running::start(s4(&hosts, &["cp", "-r", tree.to_str().unwrap(), "s4://in/"]));
        let data = hosts.disk(1).join("data/in");
        eventually("it is under way", || (size_below(&data) > UNDER_WAY).then_some(()));
        let since = silence(&hosts, how);
        putting.end(since).fails_within(&format!("cp -r of 800 MiB in, {how:?}"), DEADLINE);
        speak(&hosts);
    }
    let _ = hosts.s4(&["rm", "-r", "s4://in"]).output();
    hosts.ok(&["cp", "-r", tree.to_str().unwrap(), "s4://in/"]);
    for (number, how) in SILENCES.into_iter().enumerate() {
        let out = hosts.dir().join(format!("out{number}"));
        let getting = Running::start(s4(&hosts, &["cp", "-r", "s4://in/", out.to_str().unwrap()]));
        eventually("it is under way", || (size_below(&out) > 4 * UNDER_WAY).then_some(()));
        let since = silence(&hosts, how);
        getting.end(since).fails_within(&format!("cp -r of 800 MiB out, {how:?}"), DEADLINE);
        speak(&hosts);
    }
}

/// Each command begun after a node fell silent: several exchanges, one deadline.
#[test]
fn commands_that_begin_in_a_silence_end_within_the_deadline() {
    let Some(hosts) = Hosts::start(5, &[]) else { return };
    let tree = hosts.dir().join("tree");
    std::fs::create_dir(&tree).unwrap();
    (0..50).for_each(|n| std::fs::write(tree.join(format!("{n}_file")), "text\n").unwrap());
    hosts.ok(&["cp", "-r", tree.to_str().unwrap(), "s4://in/"]);
    large_file(&hosts.dir().join("1_large"), 64 << 20);
    let large = hosts.dir().join("1_large").display().to_string();
    let out = hosts.dir().join("out").display().to_string();
    let commands: [&[&str]; 10] = [
        &["cp", "s4://in/1_file", "-"],
        &["cp", &large, "s4://new/"],
        &["cp", "-r", tree.to_str().unwrap(), "s4://new/"],
        &["cp", "-r", "s4://in/", &out],
        &["ls", "-r", "s4://in/"],
        &["rm", "-r", "s4://nothing"],
        &["eval", "s4://in/1_file", "cat"],
        &["map", "s4://in/", "s4://out/map/", "cat"],
        &["map-to-n", "s4://in/", "s4://out/to/", "cat > 0_x; echo 0_x"],
        &["map-from-n", "s4://in/", "s4://out/from/", "xargs cat"],
    ];
    for how in SILENCES {
        silence(&hosts, how);
        let began = Instant::now();
        let _ = std::fs::remove_dir_all(&out);
        let running: Vec<_> = commands.iter().map(|args| (args, Running::start(s4(&hosts, args)))).collect();
        let ended: Vec<_> = running.into_iter().map(|(args, running)| (args, running.end(began))).collect();
        for (args, ended) in ended {
            // They are ten at once, each a program to start.
            let error = ended.fails_within(&format!("{} in a silence, {how:?}", args.join(" ")), DEADLINE);
            assert!(error.contains(&hosts.name(1)), "{error}");
        }
        speak(&hosts);
    }
}

#[test]
fn a_map_ends_within_the_deadline_when_a_node_falls_silent() {
    for how in SILENCES {
        let Some(hosts) = Hosts::start(5, &[]) else { return };
        (0..10).for_each(|n| drop(hosts.sh(&format!("echo {n} | s4 cp - s4://in/{n}_k"))));
        let mapping = Running::start(s4(&hosts, &["map", "s4://in/", "s4://out/", "sleep 60"]));
        eventually("node 1 runs its commands", || {
            (std::fs::read_dir(hosts.disk(1).join("data/.s4/tasks")).unwrap().count() > 0).then_some(())
        });
        let since = silence(&hosts, how);
        let error = mapping.end(since).fails_within(&format!("map, {how:?}"), DEADLINE);
        assert!(error.contains(&hosts.name(1)) && error.contains("job "), "{error}");
    }
}

/// The client's own host loses the network: it can say no more than what it knows, which is the job.
#[test]
fn a_map_whose_client_loses_its_network_names_the_job() {
    let Some(hosts) = Hosts::start(2, &[]) else { return };
    (0..4).for_each(|n| drop(hosts.sh(&format!("echo {n} | s4 cp - s4://in/{n}_k"))));
    let mapping = Running::start(s4(&hosts, &["map", "s4://in/", "s4://out/", "sleep 60"]));
    eventually("node 1 runs its commands", || {
        (std::fs::read_dir(hosts.disk(1).join("data/.s4/tasks")).unwrap().count() > 0).then_some(())
    });
    hosts.isolate(hosts.client());
    let error = mapping.end(Instant::now()).fails_within("map without a network", DEADLINE);
    hosts.heal();
    let jobs = hosts.ok(&["jobs"]);
    let id = jobs.lines().nth(1).and_then(|line| line.split_whitespace().next()).expect("a job is there");
    assert!(error.contains(id), "{error} does not name {id}");
    assert!(!error.contains("no output was made"), "{error}");
    hosts.ok(&["cancel", id]);
}

/// Two nodes that do not reach each other, though the client reaches both.
#[test]
fn a_shuffle_between_two_nodes_that_do_not_reach_each_other_ends_within_their_deadline() {
    let Some(hosts) = Hosts::start(5, &[]) else { return };
    (0..40).for_each(|n| drop(hosts.sh(&format!("echo {n} | s4 cp - s4://in/{}_k", 5 * n))));
    hosts.one_way(0, 1);
    hosts.one_way(1, 0);
    let began = Instant::now();
    let mapping = Running::start(hosts.s4(&["map-to-n", "s4://in/", "s4://out/", "cat > 1_x; echo 1_x"]));
    let error = mapping.end(began).fails_within("shuffle between two partitioned nodes", BETWEEN_NODES);
    assert!(error.contains(&hosts.name(1)), "{error}");
}

/// A mount on the client's host.
fn mounted(hosts: &Hosts) -> Option<Running> {
    if let Some(reason) = no_mounts() {
        print_now(&format!("skipped: {reason}"));
        return None;
    }
    let mount = hosts.dir().join("mnt");
    std::fs::create_dir(&mount).unwrap();
    let mut command = hosts.on(hosts.client(), program("s4-mount"));
    command.arg(&mount).args(["--deadline", "3"]);
    let running = Running::start(command);
    eventually("the mount is there", || hosts.script("mountpoint -q mnt").status().unwrap().success().then_some(()));
    Some(running)
}

/// Writes much, and closes once nobody speaks to it any more.
const WRITE_AND_CLOSE: &str = r#"
import os, sys
fd = os.open('mnt/b/1_new', os.O_CREAT | os.O_WRONLY)
for _ in range(200):
    os.write(fd, bytes(1 << 20))
open('written', 'w').close()
sys.stdin.readline()
os.close(fd)
"#;

#[test]
fn a_close_and_a_read_in_a_mount_end_within_the_deadline() {
    let Some(hosts) = Hosts::start(5, &[]) else { return };
    large_file(&hosts.dir().join("large"), 512 << 20);
    hosts.sh("s4 cp large s4://b/1_large");
    let Some(_mount) = mounted(&hosts) else { return };
    std::fs::write(hosts.dir().join("close.py"), WRITE_AND_CLOSE).unwrap();
    for how in SILENCES {
        // All is written when the node falls silent, and much of it is sent.
        let close = Running::start(hosts.script("python3 -S close.py"));
        let written = hosts.dir().join("written");
        eventually("it is written and under way", || (written.exists() && is_sent_to_node_1(&hosts)).then_some(()));
        std::fs::remove_file(&written).unwrap();
        let since = silence(&hosts, how);
        close.end(since).fails_within(&format!("close of 200 MB in a mount, {how:?}"), DEADLINE);
        speak(&hosts);
        let read = Running::start(hosts.script("cat mnt/b/1_large > out"));
        eventually("it is under way", || {
            (std::fs::metadata(hosts.dir().join("out")).is_ok_and(|found| found.len() > UNDER_WAY)).then_some(())
        });
        let since = silence(&hosts, how);
        read.end(since).fails_within(&format!("read of 512 MB in a mount, {how:?}"), DEADLINE);
        speak(&hosts);
        eventually("the mount serves again", || {
            hosts.script("head -c 10 mnt/b/1_large > /dev/null").output().unwrap().status.success().then_some(())
        });
        std::fs::remove_file(hosts.dir().join("out")).unwrap();
    }
}
