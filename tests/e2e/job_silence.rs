//! Jobs of which some nodes say nothing: what is not known is said to be unknown, and the silent node is named.

use crate::harness::{Cluster, text};
use crate::observe::{end_within, fails_within, spawn};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(20);

#[test]
fn last_is_the_newest_job() {
    let cluster = Cluster::with_keys(1, 4);
    for command in ["wait", "logs", "cancel"] {
        let told = cluster.fails(1, &[command, "last"]);
        assert!(told.contains("no job 'last'") && told.lines().count() == 1, "{told}");
    }
    cluster.ok(&["map", "s4://in/", "s4://one/", "echo first >&2"]);
    cluster.ok(&["map", "s4://in/", "s4://two/", "echo second >&2"]);
    let told = text(&cluster.run(&["wait", "last"]).stderr);
    assert!(told.contains("outputs in s4://two/"), "{told}");
    let logs = cluster.ok(&["logs", "last"]);
    assert!(logs.contains("second") && !logs.contains("first"), "{logs}");
    assert!(cluster.fails(1, &["cancel", "last"]).contains("has ended already: done"));
}

#[test]
fn a_job_is_not_done_where_a_node_does_not_say_so() {
    let mut cluster = Cluster::with_keys(2, 4);
    cluster.ok(&["map", "s4://in/", "s4://out/", "cat"]);
    cluster.fails(1, &["map", "s4://in/", "s4://failed/", "exit 3"]);
    cluster.kill_node(1);
    let output = cluster.run(&["jobs"]);
    let (table, told) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(1));
    assert!(table.lines().nth(1).unwrap().contains(" unknown ") && !table.contains(" done "), "{table}");
    assert!(table.lines().nth(2).unwrap().contains(" failed "), "what failed on one node has failed: {table}");
    assert!(told.contains(&cluster.name(1)) && told.contains("is not known") && told.lines().count() == 1, "{told}");
    let json: serde_json::Value =
        serde_json::from_str(text(&cluster.run(&["jobs", "--json"]).stdout).lines().next().unwrap()).unwrap();
    assert_eq!((&json["state"], &json["silent"]), (&"unknown".into(), &serde_json::json!([1])));
    cluster.start_node(1);
    assert!(cluster.ok(&["jobs"]).lines().nth(1).unwrap().contains(" done "));
}

#[test]
fn wait_does_not_say_what_stands_on_a_silent_node() {
    let cluster = Cluster::with_keys(2, 4);
    cluster.ok(&["map", "s4://in/", "s4://out/", "cat"]);
    cluster.signal(1, "STOP");
    let told = fails_within(SOON, &cluster, &["wait", "last", "--deadline", "1"]);
    cluster.signal(1, "CONT");
    assert!(
        told.contains(&format!("lost {}", cluster.name(1))) && told.contains("what was made there is not known"),
        "{told}"
    );
    assert!(!told.contains("no output was made") && !told.contains("outputs are kept"), "{told}");
    cluster.ok(&["wait", "last"]);
}

#[test]
fn rm_blames_the_silent_node_and_no_other() {
    let cluster = Cluster::start(3);
    // The home of the directory is silent: the others have to tell it that they have left it.
    let dir = (0..).map(|n| format!("{n}_dir")).find(|name| name.starts_with('2')).unwrap();
    for number in 0..3 {
        cluster.put(&format!("s4://in/{dir}/{number}_k"), b"x");
    }
    cluster.signal(2, "STOP");
    let told = fails_within(SOON, &cluster, &["rm", "-r", "s4://in/", "--deadline", "1"]);
    cluster.signal(2, "CONT");
    assert!(told.lines().last().unwrap().starts_with(&format!("s4: {}", cluster.name(2))), "{told}");
    for node in [0, 1] {
        assert!(!told.contains(&cluster.name(node)), "{told}");
    }
    let output = end_within(SOON, spawn(&cluster, &["rm", "-r", "s4://in/"]));
    assert!(output.status.success(), "{}", text(&output.stderr));
}
