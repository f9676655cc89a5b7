//! The processes of commands: ended with their job, however they were started.

use crate::harness::{Cluster, eventually, text};
use crate::observe::{Marker, assert_died_by, end_within, fails_within, leftovers, send, spawn};
use nix::sys::signal::Signal;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How soon a command is gone after its client's end, and more for a busy machine.
const SOON: Duration = Duration::from_secs(5);

/// A command that forks, leaves its session, ignores SIGTERM and goes on writing files: four processes that sleep.
fn stubborn(marker: &Marker) -> String {
    let number = marker.as_str();
    let sleep = format!("bash -c 'trap \"\" TERM HUP; sleep {number}; :'");
    let write = "bash -c 'trap \"\" TERM; while :; do mkdir -p d$RANDOM; echo x > f$RANDOM; sleep 0.005; done'";
    format!(
        "trap '' TERM HUP; setsid {sleep} & {sleep} & (setsid setsid {sleep} &) ; setsid {write} {number}x & sleep {number}; wait"
    )
}

fn await_sleepers(marker: &Marker, count: usize) {
    eventually("the commands run", || (marker.sleepers().len() == count).then_some(()));
}

fn assert_all_gone(cluster: &Cluster, marker: &Marker) {
    assert_eq!(marker.all(), Vec::<u32>::new(), "processes are left");
    assert_eq!(leftovers(cluster), Vec::<PathBuf>::new());
}

#[test]
fn the_daemons_end_is_its_commands_end() {
    let mut cluster = Cluster::start(1);
    let marker = Marker::new();
    cluster.put("s4://in/0_a", b"x");
    cluster.put("s4://in/0_b", b"x");
    let cmd = stubborn(&marker);
    let map = spawn(&cluster, &["map", "s4://in/", "s4://out/", &cmd, "--deadline", "2"]);
    let eval = spawn(&cluster, &["eval", "s4://in/0_a", &cmd, "--deadline", "2"]);
    await_sleepers(&marker, 12);
    let began = Instant::now();
    cluster.stop_node(0);
    let took = began.elapsed();
    let clients = [map.id(), eval.id()];
    let left: Vec<u32> = marker.all().into_iter().filter(|pid| !clients.contains(pid)).collect();
    assert_eq!(left, Vec::<u32>::new(), "processes outlive their daemon");
    assert_eq!(leftovers(&cluster), Vec::<PathBuf>::new());
    assert!(took < Duration::from_secs(11), "the daemon took {took:?} to end");
    for client in [map, eval] {
        let end = end_within(Duration::from_secs(8), client);
        // 137 is an eval's way to say that its command was killed.
        assert!(matches!(end.status.code(), Some(1 | 137)), "{}", end.status);
        assert!(text(&end.stderr).contains(&cluster.name(0)), "{}", text(&end.stderr));
    }
    cluster.start_node(0);
    cluster.fails(1, &["ls", "s4://out/"]);
}

#[test]
fn the_daemons_end_is_the_end_of_what_an_eval_left_behind() {
    let mut cluster = Cluster::start(1);
    let marker = Marker::new();
    cluster.put("s4://in/0_a", b"x");
    let child = format!("setsid bash -c 'touch begun; sleep {}; :' > /dev/null 2>&1", marker.as_str());
    let cmd = format!("{child} & until [ -e begun ]; do sleep 0.01; done; echo done");
    assert_eq!(cluster.ok(&["eval", "s4://in/0_a", &cmd]), "done\n");
    cluster.stop_node(0);
    assert_eq!(marker.all(), Vec::<u32>::new(), "processes outlive their daemon");
}

#[test]
fn a_timeout_kills_the_whole_tree() {
    let cluster = Cluster::start(1);
    cluster.put("s4://in/0_a", b"x");
    for kind in ["map", "map-to-n", "map-from-n"] {
        let marker = Marker::new();
        let cmd = stubborn(&marker);
        let client = spawn(&cluster, &[kind, "s4://in/", "s4://out/", &cmd, "--timeout", "1"]);
        let end = end_within(Duration::from_secs(6), client);
        let stderr = text(&end.stderr);
        assert_eq!(end.status.code(), Some(1), "{stderr}");
        for part in ["timeout", "s4://in/0_a", &cluster.name(0)] {
            assert!(stderr.contains(part), "no '{part}' in: {stderr}");
        }
        assert_all_gone(&cluster, &marker);
    }
    cluster.fails(1, &["ls", "s4://out/"]);
    cluster.ok(&["map", "s4://in/", "s4://out/", "cat", "--timeout", "10"]);
}

#[test]
fn interrupting_the_client_cancels_the_job() {
    let cluster = Cluster::start(2);
    let marker = Marker::new();
    for key in ["0_a", "1_b", "0_c"] {
        cluster.put(&format!("s4://in/{key}"), b"x");
    }
    let client = spawn(&cluster, &["map", "s4://in/", "s4://out/", &stubborn(&marker)]);
    await_sleepers(&marker, 12);
    send(client.id(), Signal::SIGINT);
    let end = end_within(SOON, client);
    assert_died_by(Signal::SIGINT, &end);
    assert!(text(&end.stderr).contains("cancel"), "{}", text(&end.stderr));
    assert_eq!(marker.all(), Vec::<u32>::new(), "the client's end comes after that of the processes");
    eventually("the directories are gone", || leftovers(&cluster).is_empty().then_some(()));
    cluster.fails(1, &["ls", "s4://out/"]);
}

#[test]
fn a_command_whose_eval_client_is_killed_is_gone_soon() {
    let cluster = Cluster::start(1);
    cluster.put("s4://in/0_a", b"x");
    for noise in ["", "while :; do echo noise; sleep 0.05; done &"] {
        let marker = Marker::new();
        let mut client = spawn(&cluster, &["eval", "s4://in/0_a", &format!("{noise} {}", stubborn(&marker))]);
        await_sleepers(&marker, 4);
        client.kill().unwrap();
        client.wait().unwrap();
        let began = Instant::now();
        eventually("the processes are gone", || marker.all().is_empty().then_some(()));
        assert!(began.elapsed() < SOON, "gone only after {:?}", began.elapsed());
        eventually("the directory is gone", || leftovers(&cluster).is_empty().then_some(()));
    }
    cluster.ok(&["eval", "s4://in/0_a", "cat"]);
}

#[test]
fn a_background_child_that_holds_the_streams_hangs_nothing() {
    let cluster = Cluster::start(1);
    cluster.put("s4://in/0_a", b"x");
    for start in ["", "setsid "] {
        for kind in ["map", "map-from-n"] {
            let marker = Marker::new();
            let cmd = format!("{start}sleep {} & echo done", marker.as_str());
            let told = fails_within(SOON, &cluster, &[kind, "s4://in/", "s4://out/", &cmd]);
            assert!(told.contains("ran on after its shell had ended: sleep (pid "), "{told}");
            assert_all_gone(&cluster, &marker);
            cluster.fails(1, &["ls", "s4://out/"]);
        }
        let marker = Marker::new();
        let cmd = format!("{start}sleep {} & echo done", marker.as_str());
        let end = end_within(SOON, spawn(&cluster, &["eval", "s4://in/0_a", &cmd]));
        assert_eq!((end.status.code(), text(&end.stdout)), (Some(0), "done\n".to_owned()));
    }
}

#[test]
fn a_child_that_goes_on_writing_leaves_no_directory() {
    let cluster = Cluster::start(1);
    let marker = Marker::new();
    for number in 0..4 {
        cluster.put(&format!("s4://in/0_{number}"), b"x");
    }
    let number = marker.as_str();
    let write =
        format!("setsid bash -c 'while :; do mkdir -p d; echo x > d/$RANDOM; echo x > $RANDOM; : {number}; done'");
    let cmd = format!("{write} & echo y > 0_out; sleep 0.1; echo 0_out");
    let told = cluster.fails(1, &["map-to-n", "s4://in/", "s4://out/", &cmd, "--timeout", "3"]);
    assert!(told.contains("killed after its timeout"), "{told}");
    assert_all_gone(&cluster, &marker);
    cluster.fails(1, &["ls", "s4://out/"]);
}

/// A command that hides: it clears its environment, leaves its directory, its session and its parent.
fn hidden(marker: &Marker) -> String {
    let number = marker.as_str();
    let hide = format!("cd /; exec env -i setsid bash -c 'trap \"\" TERM HUP; sleep {number}; :'");
    format!("( ({hide}) < /dev/null > /dev/null 2>&1 & ); sleep {number}")
}

/// Whether the daemon runs commands in control groups, without which a hidden process cannot be found.
fn has_groups(cluster: &Cluster) -> bool {
    let has = !cluster.log_text(0).contains("no control groups");
    if !has {
        eprintln!("skipped: this machine has no control groups that s4-server may make");
    }
    has
}

#[test]
fn a_process_that_hides_is_killed_on_every_path() {
    let mut cluster = Cluster::start(1);
    cluster.put("s4://in/0_a", b"x");
    if !has_groups(&cluster) {
        return;
    }
    let marker = Marker::new();
    let cmd = hidden(&marker);
    let told = cluster.fails(1, &["map", "s4://in/", "s4://out/", &cmd, "--timeout", "0.5"]);
    assert!(told.contains("timeout"), "{told}");
    assert_all_gone(&cluster, &marker);
    let client = spawn(&cluster, &["map", "s4://in/", "s4://out/", &cmd]);
    await_sleepers(&marker, 2);
    send(client.id(), Signal::SIGINT);
    end_within(SOON, client);
    assert_all_gone(&cluster, &marker);
    let id = cluster.ok(&["map", "--detach", "s4://in/", "s4://out/", &cmd]);
    await_sleepers(&marker, 2);
    cluster.ok(&["cancel", id.trim()]);
    assert_all_gone(&cluster, &marker);
    for kill in [false, true] {
        cluster.ok(&["map", "--detach", "s4://in/", "s4://out/", &cmd]);
        await_sleepers(&marker, 2);
        if kill {
            cluster.kill_node(0)
        } else {
            cluster.stop_node(0)
        }
        cluster.start_node(0);
        assert_all_gone(&cluster, &marker);
    }
}

#[test]
fn what_a_command_leaves_behind_cannot_change_its_output() {
    let cluster = Cluster::start(1);
    cluster.put("s4://in/0_a", b"x");
    if !has_groups(&cluster) {
        return;
    }
    let marker = Marker::new();
    let late = format!("setsid bash -c 'sleep {}; echo late' 2>/dev/null &", marker.as_str());
    let told = cluster.fails(1, &["map", "s4://in/", "s4://out/", &format!("{late} echo early")]);
    assert!(told.contains("ran on after its shell had ended"), "{told}");
    assert_all_gone(&cluster, &marker);
    cluster.fails(1, &["ls", "s4://out/"]);
}

#[test]
fn a_command_starts_with_no_signal_blocked_or_ignored() {
    let cluster = Cluster::start(1);
    cluster.put("s4://in/0_a", b"x");
    let signals = cluster.ok(&["eval", "s4://in/0_a", "grep -E '^Sig(Blk|Ign)' /proc/self/status"]);
    for line in signals.lines() {
        let (set, ours) = (line.split_whitespace().last().unwrap(), "/proc/self/status");
        let set = u64::from_str_radix(set, 16).unwrap();
        // What this test itself was started with may be passed on.
        let inherited = std::fs::read_to_string(ours).unwrap();
        let name = line.split(':').next().unwrap();
        let inherited = inherited.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().last());
        let inherited = u64::from_str_radix(inherited.unwrap(), 16).unwrap() & !(1 << (Signal::SIGPIPE as u32 - 1));
        // 32 and 33 are glibc's own: its posix_spawn, which started the daemon, has them ignored, and no program can change that by
        // sigaction.
        let inherited = inherited | 1 << 31 | 1 << 32;
        assert_eq!(set & !inherited, 0, "{line}");
    }
    assert_eq!(signals.lines().count(), 2);
}

#[test]
fn a_command_has_no_descriptors_but_its_streams() {
    let cluster = Cluster::start(1);
    cluster.put("s4://in/0_a", b"x");
    let held = spawn(&cluster, &["eval", "s4://in/0_a", "sleep 1000"]);
    let open = cluster.ok(&["eval", "s4://in/0_a", "bash -c 'ls /proc/$$/fd; :'"]);
    assert_eq!(open, "0\n1\n2\n");
    // Not SIGINT, which is ignored where a shell started the tests in the background.
    send(held.id(), Signal::SIGTERM);
    end_within(SOON, held);
}

#[test]
fn every_command_finds_its_directory_empty_and_its_own() {
    let cluster = Cluster::with_options(1, &["--reserve", "0", "--jobs", "2"]);
    for number in 0..200 {
        cluster.put(&format!("s4://in/0_{number}"), b"x");
    }
    let leave = "mkdir -p .hidden/deep; touch .hidden/deep/file left; ln -s left link; chmod 500 .hidden/deep";
    let close = "[ $((S4_TASK % 7)) = 0 ] && chmod 500 . || :";
    let cmd = format!("ls -A | wc -l; stat -c %a .; {leave}; {close}");
    for job in 0..2 {
        cluster.ok(&["map", "s4://in/", &format!("s4://out{job}/"), &cmd]);
        cluster.ok(&["cp", "-r", &format!("s4://out{job}/"), &format!("out{job}")]);
        for number in 0..200 {
            let found = std::fs::read(cluster.dir().join(format!("out{job}/0_{number}"))).unwrap();
            assert_eq!(text(&found), "0\n755\n", "task {number}");
        }
    }
    assert_eq!(leftovers(&cluster), Vec::<PathBuf>::new());
}

/// Runs its arguments where clone3(2) is not to be had, as in containers whose filter of system calls does not know it.
const WITHOUT_CLONE3: &str = r#"
import ctypes, os, struct, sys
SYS_clone3, ENOSYS, PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, FILTER = 435, 38, 38, 22, 2
# See seccomp(2): the number of the call; if it is clone3, its error; else it is allowed.
code = [(0x20, 0, 0, 0), (0x15, 0, 1, SYS_clone3), (0x06, 0, 0, 0x50000 | ENOSYS), (0x06, 0, 0, 0x7fff0000)]
program = ctypes.create_string_buffer(b''.join(struct.pack('HBBI', *line) for line in code))
filter = ctypes.create_string_buffer(struct.pack('HxxxxxxQ', len(code), ctypes.addressof(program)))
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
assert libc.prctl(PR_SET_SECCOMP, FILTER, filter, 0, 0) == 0, os.strerror(ctypes.get_errno())
os.execv(sys.argv[1], sys.argv[1:])
"#;

#[test]
fn commands_run_where_clone3_is_not_to_be_had() {
    let mut cluster = Cluster::start(1);
    cluster.put("s4://in/0_k", b"content");
    cluster.stop_node(0);
    let server = cluster.server(0);
    let mut filtered = std::process::Command::new("python3");
    filtered.args(["-c", WITHOUT_CLONE3]).arg(server.get_program()).args(server.get_args());
    let mut daemon = filtered.spawn().expect("python3 runs");
    eventually("the daemon answers", || cluster.run(&["health"]).status.success().then_some(()));
    let mapped = cluster.run(&["map", "s4://in/", "s4://out/", "cat"]);
    let got = cluster.run(&["cp", "s4://out/0_k", "-"]);
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(daemon.id() as i32), nix::sys::signal::Signal::SIGTERM).unwrap();
    daemon.wait().unwrap();
    assert!(mapped.status.success(), "{}", text(&mapped.stderr));
    assert_eq!(got.stdout, b"content");
}
