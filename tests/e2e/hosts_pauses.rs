//! On several hosts: a client that is stopped for a while does not take its own pause for the nodes' silence; daemons that
//! restart.

use crate::harness::eventually;
use crate::hosts::{Hosts, Running};
use crate::programs::directory;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::time::{Duration, Instant};

/// Longer than the deadline of the commands here.
const PAUSE: Duration = Duration::from_secs(6);

fn pause(pid: u32) {
    let send = |signal| kill(Pid::from_raw(pid as i32), signal).unwrap();
    send(Signal::SIGSTOP);
    // A pause is a time: there is nothing to wait for.
    let until = Instant::now() + PAUSE;
    while let Some(left) = until.checked_duration_since(Instant::now()) {
        std::thread::park_timeout(left);
    }
    send(Signal::SIGCONT);
}

#[test]
fn a_client_that_was_stopped_goes_on_with_its_job() {
    let Some(hosts) = Hosts::start(3, &[]) else { return };
    (0..6).for_each(|n| drop(hosts.sh(&format!("echo {n} | s4 cp - s4://in/{n}_k"))));
    let command = hosts.s4(&["map", "s4://in/", "s4://out/", "sleep 8; cat", "--deadline", "3"]);
    let mapping = Running::start(command);
    eventually("node 1 runs its commands", || {
        (std::fs::read_dir(hosts.disk(1).join("data/.s4/tasks")).unwrap().count() > 0).then_some(())
    });
    pause(mapping.pid);
    mapping.end(Instant::now()).succeeds("map of a client that was stopped");
    assert_eq!(hosts.ok(&["ls", "-r", "s4://out/"]).lines().count(), 6);
}

#[test]
fn a_transfer_of_a_client_that_was_stopped_goes_on() {
    let Some(hosts) = Hosts::start(3, &[]) else { return };
    std::fs::File::create(hosts.dir().join("large")).unwrap().set_len(256 << 20).unwrap();
    let large = hosts.dir().join("large").display().to_string();
    let putting = Running::start(hosts.s4(&["cp", &large, "s4://b/1_large", "--deadline", "3"]));
    eventually("it is under way", || (crate::observe::longest_open(hosts.pid(1)) > 16 << 20).then_some(()));
    pause(putting.pid);
    putting.end(Instant::now()).succeeds("put of a client that was stopped");
    let out = hosts.dir().join("out").display().to_string();
    let command = || hosts.s4(&["cp", "s4://b/1_large", &out, "--deadline", "3"]);
    let getting = Running::under_way(command, |pid| crate::observe::longest_open(pid) > 16 << 20);
    pause(getting.pid);
    getting.end(Instant::now()).succeeds("get of a client that was stopped");
}

#[test]
fn nothing_is_stored_after_no_answer_was_said() {
    let Some(hosts) = Hosts::start(2, &[]) else { return };
    std::fs::create_dir(hosts.dir().join("tree")).unwrap();
    (0..20).for_each(|n| std::fs::write(hosts.dir().join(format!("tree/{n}_k")), vec![b'x'; 5000]).unwrap());
    let tree = hosts.dir().join("tree").display().to_string();
    let file = hosts.dir().join("tree/1_k").display().to_string();
    // The daemon hears nothing of the client's end either, since the client's host has lost its network by then.
    hosts.signal(1, Signal::SIGSTOP);
    let began = Instant::now();
    let puts: [&[&str]; 3] =
        [&["cp", "-r", &tree, "s4://pack/"], &["cp", &file, "s4://one/1_k"], &["eval", "s4://none/1_k", "cat"]];
    let running: Vec<_> = puts
        .iter()
        .map(|args| {
            let mut command = hosts.s4(args);
            command.args(["--deadline", "2"]);
            Running::start(command)
        })
        .collect();
    eventually("the requests are sent", || (began.elapsed() > Duration::from_secs(1)).then_some(()));
    hosts.one_way(hosts.client(), 1);
    for running in running {
        running.end(began).fails_within("put to a daemon that is stopped", Duration::from_secs(2));
    }
    hosts.signal(1, Signal::SIGCONT);
    // It answers others once it has dealt with what waited for it.
    let asked =
        "until s4 health > /dev/null; do :; done; s4 ls -r s4://pack/ | grep -c [13579]_k; s4 ls s4://one/ | wc -l";
    let mut other = hosts.on(0, "bash");
    let programs = directory().display().to_string();
    other.args(["-c", asked]).env("PATH", format!("{programs}:/usr/bin:/bin"));
    let odd_keys = String::from_utf8(other.output().unwrap().stdout).unwrap();
    assert_eq!(odd_keys, "0\n0\n", "keys of node 1 that came to be after the client had given up");
}

/// Restarts node 1 under what `start` has begun, and tells since when it may have missed the daemon, as often as it takes until all of it
/// succeeds. It may fail only where the daemon was away for longer than a restart may take, as on a busy machine.
fn restarts_under<const N: usize>(
    hosts: &mut Hosts,
    what: [&str; N],
    mut start: impl FnMut(&mut Hosts) -> ([Running; N], Instant),
) {
    for _ in 0..30 {
        let (running, since) = start(hosts);
        if hosts.runs(1) {
            hosts.kill_node(1);
        }
        hosts.start_node(1);
        let was_quick = since.elapsed() < s4::protocol::RESTART;
        let ended = running.map(|running| running.end(since));
        if was_quick || ended.iter().all(|timed| timed.output.status.success()) {
            for (timed, what) in ended.into_iter().zip(what) {
                timed.succeeds(&format!("{what} while its daemon restarts"));
            }
            return;
        }
    }
    panic!("no restart took less than {:?}", s4::protocol::RESTART);
}

#[test]
fn a_daemon_that_restarts_breaks_no_get() {
    let Some(mut hosts) = Hosts::start(2, &[]) else { return };
    std::fs::File::create(hosts.dir().join("large")).unwrap().set_len(256 << 20).unwrap();
    let large = hosts.dir().join("large").display().to_string();
    hosts.ok(&["cp", &large, "s4://b/1_large"]);
    std::fs::create_dir(hosts.dir().join("tree")).unwrap();
    (0..40).for_each(|n| {
        std::fs::File::create(hosts.dir().join(format!("tree/{n}_f"))).unwrap().set_len(4 << 20).unwrap()
    });
    hosts.ok(&["cp", "-r", &hosts.dir().join("tree").display().to_string(), "s4://tree/"]);
    let one = hosts.dir().join("one").display().to_string();
    for (args, name) in [(&["cp", "s4://b/1_large"][..], "one"), (&["cp", "-r", "s4://tree/"], "all")] {
        let mut turn = 0;
        restarts_under(&mut hosts, [&args.join(" ")], |hosts| {
            turn += 1;
            let to = hosts.dir().join(format!("{name}{turn}")).display().to_string();
            let command = || hosts.s4(&[args, &[&to]].concat());
            let getting = Running::under_way(command, |pid| crate::observe::longest_open(pid) > 1 << 20);
            ([getting], Instant::now())
        });
        let got = hosts.dir().join(format!("{name}{turn}"));
        match name {
            "one" => assert_eq!(got.metadata().unwrap().len(), 256 << 20),
            _ => assert_eq!(got.read_dir().unwrap().count(), 40),
        }
    }
    // Whatever begins while the daemon is away waits for it.
    let mut turn = 0;
    restarts_under(&mut hosts, ["cp", "ls -r", "cp to it", "eval"], |hosts| {
        turn += 1;
        let (file, key) = (hosts.dir().join("tree/1_f").display().to_string(), format!("s4://new{turn}/1_f"));
        hosts.kill_node(1);
        let commands: [&[&str]; 4] = [
            &["cp", "s4://tree/1_f", &one],
            &["ls", "-r", "s4://tree/"],
            &["cp", &file, &key],
            &["eval", "s4://tree/1_f", "wc -c"],
        ];
        let since = Instant::now();
        (commands.map(|args| Running::start(hosts.s4(args))), since)
    });
}
