//! Nodes that are dead or silent.

use crate::harness::{Cluster, eventually, text};
use crate::observe::{Marker, end_within, fails_within, leftovers, listed, spawn};
use std::thread;
use std::time::Duration;

/// What `health` promises, and something for a busy machine.
const HEALTH: Duration = Duration::from_millis(2500);

/// A cluster of three with a key on each node.
fn cluster() -> Cluster {
    let cluster = Cluster::start(3);
    for key in ["0_a", "1_b", "2_c"] {
        cluster.put(&format!("s4://in/{key}"), key.as_bytes());
    }
    cluster
}

fn assert_health_names(cluster: &Cluster, node: usize) {
    let end = end_within(HEALTH, spawn(cluster, &["health"]));
    let stdout = text(&end.stdout);
    assert_eq!(end.status.code(), Some(1), "{stdout}");
    let lines: Vec<&str> = stdout.lines().collect();
    assert_eq!(lines.len(), cluster.len(), "{stdout}");
    for (number, line) in lines.iter().enumerate() {
        assert!(line.starts_with(&format!("{number} 127.0.0.1:{}", cluster.port(number))), "{stdout}");
        assert_eq!(line.contains("healthy"), number != node, "{stdout}");
    }
}

/// Everything that needs node 1 fails within `limit` and names it; all at once, as each may take that long.
fn assert_needing_commands_fail(cluster: &Cluster, limit: Duration, options: &[&str]) {
    std::fs::write(cluster.dir().join("1_file"), "x").unwrap();
    let commands: [&[&str]; 11] = [
        &["cp", "s4://in/1_b", "-"],
        &["cp", "1_file", "s4://new/"],
        &["cp", "-r", "s4://in/", "tree"],
        &["eval", "s4://in/1_b", "cat"],
        &["ls", "s4://in/"],
        &["ls", "-r", "s4://in/"],
        &["rm", "s4://in/1_b"],
        &["rm", "-r", "s4://nothing"],
        &["map", "s4://in/", "s4://out/map/", "cat"],
        &["map-to-n", "s4://in/", "s4://out/to/", "cat > 0_x; echo 0_x"],
        &["map-from-n", "s4://in/", "s4://out/from/", "xargs -d '\\n' cat"],
    ];
    thread::scope(|scope| {
        let running: Vec<_> = commands
            .iter()
            .map(|command| (command, [command, options].concat()))
            .map(|(command, args)| (command, scope.spawn(move || fails_within(limit, cluster, &args))))
            .collect();
        let mut wrong = Vec::new();
        for (command, running) in running {
            match running.join() {
                Ok(stderr) if stderr.contains(&cluster.name(1)) => {}
                Ok(stderr) => wrong.push(format!("{command:?} does not name the node: {stderr}")),
                Err(panic) => wrong.push(format!("{command:?}: {:?}", panic.downcast_ref::<String>())),
            }
        }
        assert!(wrong.is_empty(), "{wrong:#?}");
    });
}

fn assert_others_work(cluster: &Cluster, new: &str) {
    assert_eq!(cluster.get("s4://in/0_a"), b"0_a");
    assert_eq!(cluster.ok(&["eval", "s4://in/2_c", "cat"]), "2_c");
    for node in [0, 2] {
        let key = format!("s4://{new}/{node}_x");
        cluster.put(&key, b"new");
        assert_eq!(cluster.get(&key), b"new");
        cluster.ok(&["rm", &key]);
    }
}

fn assert_all_works(cluster: &Cluster) {
    cluster.ok(&["health"]);
    cluster.put("s4://again/1_x", b"x");
    assert_eq!(cluster.get("s4://in/1_b"), b"1_b");
    cluster.ok(&["map", "s4://in/", "s4://again/", "cat"]);
    assert_eq!(cluster.ok(&["ls", "s4://again/"]).lines().count(), 4);
}

#[test]
fn with_a_node_down_what_needs_it_fails_and_the_rest_works() {
    let mut cluster = cluster();
    cluster.kill_node(1);
    assert_health_names(&cluster, 1);
    assert_others_work(&cluster, "new");
    assert_needing_commands_fail(&cluster, Duration::from_secs(10), &[]);
    cluster.start_node(1);
    assert_eq!(cluster.run(&["ls", "s4://out/"]).status.code(), Some(1), "no output of a job that could not begin");
    assert_all_works(&cluster);
}

#[test]
fn with_a_node_silent_what_needs_it_fails_within_the_deadline() {
    let cluster = cluster();
    cluster.signal(1, "STOP");
    assert_health_names(&cluster, 1);
    assert_others_work(&cluster, "new");
    // A second and a half for the start of eleven programs on a busy machine.
    assert_needing_commands_fail(&cluster, Duration::from_millis(4500), &["--deadline", "3"]);
    cluster.signal(1, "CONT");
    eventually("the node has dealt with what waited for it", || {
        cluster.run(&["health"]).status.success().then_some(())
    });
    // What came while it was stopped may have been done after all, which is a put's and a delete's good right.
    cluster.run(&["rm", "-r", "s4://in"]);
    for key in ["0_a", "1_b", "2_c"] {
        cluster.put(&format!("s4://in/{key}"), key.as_bytes());
    }
    assert_all_works(&cluster);
}

/// Starts a map that sleeps on every node, and stops node 1 in it. Returns the client's stderr.
fn run_into_silence(cluster: &Cluster, marker: &Marker, limit: Duration) -> String {
    let cmd = format!("sleep {}", marker.as_str());
    let client = spawn(cluster, &["map", "s4://in/", "s4://out/", &cmd, "--deadline", "3"]);
    eventually("every node runs its command", || (marker.sleepers().len() == 3).then_some(()));
    cluster.signal(1, "STOP");
    let end = end_within(limit, client);
    assert_eq!(end.status.code(), Some(1), "{}", text(&end.stderr));
    text(&end.stderr)
}

#[test]
fn a_node_that_falls_silent_in_a_job_fails_the_job_within_the_deadline() {
    let cluster = cluster();
    let marker = Marker::new();
    let stderr = run_into_silence(&cluster, &marker, Duration::from_millis(5500));
    assert!(stderr.contains(&cluster.name(1)), "{stderr}");
    assert!(marker.sleepers().len() <= 1, "the nodes that answer have ended their part");
    cluster.signal(1, "CONT");
    assert_all_works(&cluster);
}

#[test]
fn a_node_that_was_silent_at_a_cancel_ends_its_part_once_it_is_back() {
    let cluster = cluster();
    let marker = Marker::new();
    run_into_silence(&cluster, &marker, Duration::from_secs(20));
    cluster.signal(1, "CONT");
    eventually("the node that is back has ended its part", || marker.sleepers().is_empty().then_some(()));
    eventually("its directory is gone", || leftovers(&cluster).is_empty().then_some(()));
    assert_eq!(listed(&cluster, "s4://out/"), [""; 0]);
}
