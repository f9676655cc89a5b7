//! What a map tells while it runs: on a terminal, into a log, as events.

use crate::harness::{Cluster, eventually, text};
use crate::observe::listed;
use crate::terminal::OnTerminal;
use serde_json::Value;

/// A cluster whose nodes may run all tasks at once.
fn with_keys(nodes: usize, keys: usize) -> Cluster {
    let cluster = Cluster::with_options(nodes, &["--reserve", "0", "--jobs", "50"]);
    let tree = cluster.dir().join("tree");
    std::fs::create_dir(&tree).unwrap();
    for number in 0..keys {
        std::fs::write(tree.join(format!("{number}_k")), format!("{number}\n")).unwrap();
    }
    cluster.ok(&["cp", "-r", tree.to_str().unwrap(), "s4://in/"]);
    cluster
}

#[test]
fn the_display_is_wiped_and_leaves_failures_and_summary() {
    let cluster = with_keys(3, 30);
    let cmd = "sleep 0.4; case $filename in 7_k) echo no seven >&2; exit 3;; esac; cat";
    for (number, size) in [(80, 24), (200, 50), (30, 5), (12, 3), (5, 2)].into_iter().enumerate() {
        let out = format!("s4://out{number}/");
        let map = OnTerminal::start(&cluster, size, &["map", "--keep-going", "s4://in/", &out, cmd]);
        let (status, sent, lines) = map.finish();
        assert_eq!(status, 1, "{size:?}");
        assert!(sent.contains("\x1b[?7l"), "{size:?}: nothing was drawn: {sent}");
        // A narrow terminal has wrapped the lines, at spaces too.
        let joined = lines.concat().replace(' ', "");
        let left = ["#", "[...", "tasks/s"].iter().filter(|part| joined.contains(*part)).count();
        assert_eq!(left, 0, "{size:?}: the display is not wiped: {lines:#?}");
        for part in ["1of30tasksfailed:exitstatus3s4://in/7_konnode1(", "noseven", "29of30tasksdone"] {
            assert!(joined.contains(part), "{size:?}: no '{part}' in {lines:#?}");
        }
    }
}

#[test]
fn the_display_counts_and_has_a_bar_for_each_node() {
    let cluster = with_keys(3, 30);
    let go = cluster.dir().join("go");
    let cmd = format!("[ ${{filename%_k}} -lt 6 ] || until [ -e {} ]; do sleep 0.02; done; cat", go.display());
    let map = OnTerminal::start(&cluster, (100, 24), &["map", "s4://in/", "s4://out/", &cmd]);
    for part in ["map 6/30 done", "\n0 [#", "\n1 [#", "\n2 [#", " 15%"] {
        eventually(&format!("the display shows {part:?}"), || {
            map.text().replace('\r', "").contains(part).then_some(())
        });
    }
    std::fs::write(go, "").unwrap();
    let (status, _, lines) = map.finish();
    assert_eq!((status, lines.len()), (0, 1), "{lines:?}");
    assert!(lines[0].starts_with("s4: map: 30 tasks done, 30 outputs in s4://out/, "), "{lines:?}");
}

#[test]
fn the_display_names_the_slowest_tasks() {
    let cluster = with_keys(2, 6);
    let go = cluster.dir().join("go");
    let cmd = format!("[ $filename != 3_k ] || until [ -e {} ]; do sleep 0.02; done; cat", go.display());
    let map = OnTerminal::start(&cluster, (100, 24), &["map", "s4://in/", "s4://out/", &cmd]);
    eventually("the slow one is named", || map.text().contains("slowest: 3_k ").then_some(()));
    std::fs::write(go, "").unwrap();
    assert_eq!(map.finish().0, 0);
}

#[test]
fn a_failure_is_shown_at_once_with_the_end_of_its_stderr() {
    let cluster = with_keys(2, 6);
    let go = cluster.dir().join("go");
    let cmd = format!(
        "[ $filename != 2_k ] || {{ seq 40 >&2; exit 9; }}; until [ -e {} ]; do sleep 0.02; done; cat",
        go.display()
    );
    let map = OnTerminal::start(&cluster, (40, 10), &["map", "--keep-going", "s4://in/", "s4://out/", &cmd]);
    eventually("the failure is shown", || map.text().contains("    40\r\n").then_some(()));
    assert!(map.text().contains("s4://in/2_k on node 0"), "{}", map.text());
    std::fs::write(go, "").unwrap();
    let (status, _, lines) = map.finish();
    assert_eq!(status, 1);
    let stderr: Vec<u32> = lines.iter().filter_map(|line| line.strip_prefix("    ")?.parse().ok()).collect();
    assert_eq!(stderr, (31..=40).collect::<Vec<u32>>(), "{lines:#?}");
}

#[test]
fn no_terminal_no_display() {
    let cluster = with_keys(2, 4);
    let output = cluster.run(&["map", "s4://in/", "s4://out/", "sleep 0.3; cat"]);
    let told = text(&output.stderr);
    assert!(!told.contains('\x1b') && told.lines().count() == 1, "{told}");
    let dumb = cluster.command(&["map", "s4://in/", "s4://dumb/", "cat"]).env("TERM", "dumb").output().unwrap();
    assert!(!text(&dumb.stderr).contains('\x1b'));
}

#[test]
fn quiet_tells_failures_only() {
    let cluster = with_keys(2, 6);
    let map = OnTerminal::start(&cluster, (80, 24), &["map", "--quiet", "s4://in/", "s4://out/", "sleep 0.5; cat"]);
    let (status, sent, _) = map.finish();
    assert_eq!((status, sent.as_str()), (0, ""));
    let told = cluster.fails(1, &["map", "--quiet", "s4://in/", "s4://two/", "echo bad >&2; exit 4"]);
    assert!(told.contains("exit status 4") && told.contains("bad") && told.contains("map failed"), "{told}");
}

/// Runs a map that tells events; returns its exit status and them.
fn events_of(cluster: &Cluster, args: &[&str]) -> (i32, Vec<Value>) {
    let output = cluster.run(&[args, &["--json"]].concat());
    let lines = text(&output.stdout);
    let parse = |line: &str| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
    (output.status.code().unwrap(), lines.lines().map(parse).collect())
}

#[test]
fn the_last_event_agrees_with_the_store() {
    let cluster = with_keys(3, 40);
    for (kind, cmd) in [("map", "cat"), ("map-to-n", "cat > 0_a; cp 0_a 1_b; ls"), ("map-from-n", "xargs -d '\\n' cat")]
    {
        let out = format!("s4://{kind}/");
        let (status, events) = events_of(&cluster, &[kind, "s4://in/", &out, cmd]);
        let (first, last) = (&events[0], events.last().unwrap());
        assert_eq!(status, 0, "{last}");
        assert_eq!((&first["event"], &first["kind"]), (&"planned".into(), &kind.into()), "{first}");
        assert_eq!((&first["tasks"], &first["keys"]), (&40.into(), &40.into()), "{first}");
        assert_eq!((&last["event"], &last["state"]), (&"ended".into(), &"done".into()), "{last}");
        assert_eq!((&last["done"], &last["failed"]), (&40.into(), &0.into()), "{last}");
        assert_eq!(last["outputs"], listed(&cluster, &out).len(), "{last}");
        assert_eq!(last["bytes"], first["bytes"], "{last}");
        assert_eq!(first["job"], last["job"]);
    }
}

#[test]
fn events_tell_failures_and_waiting_tells_the_same() {
    let cluster = with_keys(2, 12);
    let cmd = "case $filename in [05]_k) printf 'a\\nb\"\\n' >&2; exit 5;; esac; cat";
    let (status, events) = events_of(&cluster, &["map", "--keep-going", "s4://in/", "s4://out/", cmd]);
    let last = events.last().unwrap().clone();
    assert_eq!((status, &last["state"], &last["failed"]), (1, &"failed".into(), &2.into()), "{last}");
    assert_eq!(last["outputs"], listed(&cluster, "s4://out/").len());
    let failures = |events: &[Value]| {
        let failed = events.iter().filter(|event| event["event"] == "failure").cloned();
        let mut failed: Vec<String> = failed.map(|event| event.to_string()).collect();
        failed.sort();
        failed
    };
    let told = failures(&events);
    assert_eq!(told.len(), 2, "{told:?}");
    for (line, key) in told.iter().zip(["s4://in/0_k", "s4://in/5_k"]) {
        let event: Value = serde_json::from_str(line).unwrap();
        assert_eq!((&event["key"], &event["reason"]), (&key.into(), &"exit status 5".into()), "{event}");
        assert_eq!(event["stderr"].as_str().unwrap().trim_end(), "a\nb\"", "{event}");
    }
    let (status, again) = events_of(&cluster, &["wait", last["job"].as_str().unwrap()]);
    assert_eq!(status, 1);
    assert_eq!(failures(&again), told);
    assert_eq!(again.last().unwrap()["done"], last["done"]);
}
