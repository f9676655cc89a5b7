//! `s4 run`: one command on every node, whole lines, each marked with its node. And files that go with a single command.

use crate::harness::{Cluster, eventually, text};
use crate::observe::{Marker, assert_died_by, end_within, leftovers, send, spawn};
use nix::sys::signal::Signal;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(20);

fn sorted(text: &str) -> Vec<&str> {
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    lines
}

#[test]
fn a_command_runs_on_every_node_as_that_of_a_map() {
    let cluster = Cluster::start(3);
    let cmd = "echo $S4_NODE of $S4_NODES $LC_ALL; ls | wc -l; cat | wc -c; printf 'no end' >&2";
    let output = cluster.run(&["run", cmd]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let stdout = text(&output.stdout);
    let expected: Vec<String> = (0..3)
        .flat_map(|n| [format!("node {n}: 0"), format!("node {n}: 0"), format!("node {n}: {n} of 3 C")])
        .collect();
    assert_eq!(sorted(&stdout), expected);
    assert_eq!(sorted(&text(&output.stderr)), ["node 0: no end", "node 1: no end", "node 2: no end"]);
    for cmd in ["false | true", "echo $undefined", "false; true"] {
        let told = cluster.fails(1, &["run", cmd]);
        for node in 0..3 {
            assert!(told.contains(&format!("s4: {}: exit status 1", cluster.name(node))), "{cmd}: {told}");
        }
    }
    assert!(cluster.fails(2, &["run", " "]).contains("CMD is empty"));
}

#[test]
fn lines_of_one_node_are_never_torn_by_those_of_others() {
    let cluster = Cluster::start(3);
    let cmd = "for i in $(seq 300); do printf \"$S4_NODE$S4_NODE\"; printf \"%0200d\" $i; echo; echo e >&2; done";
    let both = format!("{} run '{cmd}' 2>&1", crate::programs::program("s4"));
    let output = std::process::Command::new("bash").args(["-c", &both]).env("S4_CONF_PATH", cluster.conf()).output();
    let output = text(&output.unwrap().stdout);
    assert_eq!(output.lines().count(), 3 * 600);
    for node in 0..3 {
        let marked = output.lines().filter_map(|line| line.strip_prefix(&format!("node {node}: ")));
        let lines: Vec<&str> = marked.filter(|line| *line != "e").collect();
        let expected: Vec<String> = (1..=300).map(|i| format!("{node}{node}{i:0200}")).collect();
        assert_eq!(lines, expected, "node {node}");
    }
}

#[test]
fn a_line_of_any_length_takes_bounded_memory() {
    let cluster = Cluster::start(2);
    let s4 = crate::programs::program("s4");
    let limited = format!("ulimit -d 60000; {s4} run 'head -c 100M /dev/zero | tr \"\\0\" x' | wc -lc");
    let output = std::process::Command::new("bash").args(["-c", &limited]).env("S4_CONF_PATH", cluster.conf()).output();
    let output = output.unwrap();
    let counts: Vec<u64> = text(&output.stdout).split_whitespace().map(|count| count.parse().unwrap()).collect();
    let lines = 2 * (100 << 20) / (64 << 10);
    assert_eq!(counts, [lines, (200 << 20) + lines * "node 0: \n".len() as u64], "{}", text(&output.stderr));
}

#[test]
fn nodes_that_fail_or_are_down_are_named_and_the_others_run() {
    let mut cluster = Cluster::start(4);
    cluster.kill_node(2);
    let output = cluster.run(&["run", "echo here; case $S4_NODE in 1) exit 7;; 3) kill -9 $$;; esac"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(sorted(&text(&output.stdout)), ["node 0: here", "node 1: here", "node 3: here"]);
    let told = text(&output.stderr);
    let lines: Vec<&str> = told.lines().collect();
    assert_eq!(lines[0], format!("s4: {}: exit status 7", cluster.name(1)), "{told}");
    assert!(lines[1].starts_with(&format!("s4: {}: ", cluster.name(2))), "{told}");
    assert_eq!(lines[2], format!("s4: {}: the command was ended by signal 9", cluster.name(3)), "{told}");
    assert_eq!(lines.len(), 3, "{told}");
}

#[test]
fn ctrl_c_ends_the_command_on_every_node() {
    let cluster = Cluster::start(3);
    let marker = Marker::new();
    let client = spawn(&cluster, &["run", &format!("sleep {}", marker.as_str())]);
    eventually("three sleep", || (marker.sleepers().len() == 3).then_some(()));
    send(client.id(), Signal::SIGINT);
    assert_died_by(Signal::SIGINT, &end_within(SOON, client));
    eventually("none sleeps", || marker.sleepers().is_empty().then_some(()));
    eventually("nothing is left", || leftovers(&cluster).is_empty().then_some(()));
}

#[test]
fn a_reader_that_goes_ends_it() {
    let cluster = Cluster::start(2);
    let s4 = crate::programs::program("s4");
    let piped = format!("set -o pipefail; {s4} run 'yes' | head -1");
    let output = std::process::Command::new("bash").args(["-c", &piped]).env("S4_CONF_PATH", cluster.conf()).output();
    let output = output.unwrap();
    assert!(text(&output.stdout).ends_with(": y\n") && output.stderr.is_empty(), "{}", text(&output.stderr));
}

#[test]
fn files_go_with_a_command() {
    let mut cluster = Cluster::start(2);
    cluster.put("s4://in/0_k", b"a line\n");
    std::fs::write(cluster.dir().join("table"), "one\n").unwrap();
    let script = cluster.dir().join("script.sh");
    std::fs::write(&script, "#!/bin/bash\ncat table\ncat\n").unwrap();
    std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let files = ["--file", "script.sh", "--file", "table"];
    let eval = cluster.ok(&[&["eval"], &files[..], &["s4://in/0_k", "./script.sh; ls"]].concat());
    assert_eq!(eval, "one\na line\nscript.sh\ntable\n");
    let run = cluster.ok(&[&["run"], &files[..], &["./script.sh"]].concat());
    assert_eq!(sorted(&run), ["node 0: one", "node 1: one"]);
    for command in [&["run", "--file", "nosuch", "cat"][..], &["eval", "--file", "nosuch", "s4://in/0_k", "cat"]] {
        let told = cluster.fails(1, command);
        assert!(told.contains("--file nosuch: No such file") && told.lines().count() == 1, "{told}");
    }
    // A node that is down keeps no other from it.
    cluster.kill_node(1);
    let output = cluster.run(&[&["run"], &files[..], &["./script.sh"]].concat());
    assert_eq!((output.status.code(), &*text(&output.stdout)), (Some(1), "node 0: one\n"));
    assert!(text(&output.stderr).starts_with(&format!("s4: {}", cluster.name(1))), "{}", text(&output.stderr));
}
