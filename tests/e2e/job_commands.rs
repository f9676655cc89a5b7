//! What is done with a job after its start: list, await, cancel. Any id may be abbreviated.

use crate::harness::{Cluster, eventually, text};
use crate::observe::{Marker, assert_died_by, end_within, listed, send, spawn};
use crate::strange_bodies::ask;
use nix::sys::signal::Signal;
use std::path::PathBuf;
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(20);

/// A shell command that waits until the file is there.
fn gate(cluster: &Cluster) -> (String, PathBuf) {
    let go = cluster.dir().join("go");
    (format!("until [ -e {} ]; do sleep 0.02; done", go.display()), go)
}

/// Starts a map and returns its id.
fn detach(cluster: &Cluster, cmd: &str) -> String {
    let output = cluster.run(&["map", "--detach", "s4://in/", "s4://out/", cmd]);
    assert!(output.status.success() && output.stderr.is_empty(), "{}", text(&output.stderr));
    let stdout = text(&output.stdout);
    let id = stdout.strip_suffix('\n').expect("a line").to_owned();
    assert!(id.len() > 20 && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-'), "{stdout}");
    id
}

/// The line of `s4 jobs` about a job.
fn line_of(cluster: &Cluster, id: &str) -> String {
    let table = cluster.ok(&["jobs"]);
    table.lines().find(|line| line.starts_with(id)).unwrap_or_else(|| panic!("no {id} in {table}")).to_owned()
}

/// Waits until each of the four tasks has its `sleep`.
fn all_asleep(marker: &Marker) {
    eventually("four tasks sleep", || (marker.sleepers().len() == 4).then_some(()));
}

#[test]
fn of_two_planned_jobs_whose_outputs_would_mix_one_starts() {
    let cluster = Cluster::with_keys(1, 4);
    let (wait_for_go, go) = gate(&cluster);
    let plan = |id: &str, outdir: &str| {
        let spec =
            format!(r#"{{"id":"{id}","kind":"map","indir":"in","outdir":"{outdir}","cmd":"{wait_for_go}; cat"}}"#);
        ask(&cluster, "POST", "/v1/jobs", spec.as_bytes())
    };
    let start = |id: &str| ask(&cluster, "POST", &format!("/v1/jobs/{id}/start"), b"");
    for (id, outdir) in [("planned-1", "out"), ("planned-2", "out/below"), ("planned-3", "other")] {
        let planned = plan(id, outdir);
        assert!(planned.contains("\"event\":\"planned\""), "{planned}");
    }
    assert!(start("planned-1").starts_with("HTTP/1.1 200"));
    let refused = start("planned-2");
    assert!(refused.contains("job planned-1 runs and writes to s4://out/"), "{refused}");
    assert!(start("planned-1").contains("started already"));
    assert!(start("planned-3").starts_with("HTTP/1.1 200"));
    let refused = plan("planned-4", "out");
    assert!(refused.contains("job planned-1 runs and writes to s4://out/"), "{refused}");
    std::fs::write(go, "").unwrap();
    cluster.ok(&["wait", "planned-1"]);
    assert!(start("planned-2").starts_with("HTTP/1.1 200"));
    cluster.ok(&["wait", "planned-2"]);
}

#[test]
fn a_detached_job_goes_on_and_wait_tells_its_end() {
    let cluster = Cluster::with_keys(2, 4);
    let (wait_for_go, go) = gate(&cluster);
    let id = detach(&cluster, &format!("{wait_for_go}; cat"));
    assert!(line_of(&cluster, &id).contains(" running "), "{}", line_of(&cluster, &id));
    let waiting = spawn(&cluster, &["wait", &id]);
    std::fs::write(go, "").unwrap();
    let ended = end_within(SOON, waiting);
    let told = text(&ended.stderr);
    assert!(ended.status.success() && ended.stdout.is_empty(), "{told}");
    assert!(told.contains("map: 4 tasks done, 4 outputs in s4://out/"), "{told}");
    assert_eq!(listed(&cluster, "s4://out/"), ["0_k", "1_k", "2_k", "3_k"]);
    let again = cluster.run(&["wait", &id]);
    assert!(again.status.success() && text(&again.stderr).contains("4 tasks done"), "{}", text(&again.stderr));
    let line = line_of(&cluster, &id);
    assert!(line.contains(" done ") && line.contains(" 4/4 "), "{line}");
}

#[test]
fn wait_tells_failures_and_exits_as_the_map_would() {
    let cluster = Cluster::with_keys(2, 4);
    let id = detach(&cluster, "[ $filename != 1_k ] || { echo no good >&2; exit 7; }");
    let told = cluster.fails(1, &["wait", &id]);
    for part in ["s4://in/1_k", &cluster.name(1), "exit status 7", "no good", "map failed", "--resume", &id] {
        assert!(told.contains(part), "no '{part}' in: {told}");
    }
    assert!(line_of(&cluster, &id).contains(" failed "), "{}", line_of(&cluster, &id));
}

#[test]
fn an_id_may_be_abbreviated_while_it_is_unique() {
    let cluster = Cluster::with_keys(1, 4);
    let (one, other) = (detach(&cluster, "cat"), {
        cluster.ok(&["wait", "2"]);
        cluster.ok(&["rm", "-r", "s4://out/"]);
        detach(&cluster, "cat")
    });
    for part in [&one[..], &one[..one.len() - 1], &one[one.len() - 6..]] {
        cluster.ok(&["wait", part]);
    }
    for command in ["wait", "cancel", "logs"] {
        let told = cluster.fails(2, &[command, &one[..4]]);
        assert!(told.contains(&one) && told.contains(&other) && told.lines().count() == 1, "{command}: {told}");
    }
}

#[test]
fn an_unknown_id_is_one_line_and_exit_1() {
    let cluster = Cluster::with_keys(2, 4);
    for command in ["wait", "cancel", "logs"] {
        for id in ["nosuch", "20200101-000000-000-abcdef", "", "a/b", "%"] {
            let told = cluster.fails(1, &[command, id]);
            assert!(told.contains(&format!("no job '{id}'")) && told.lines().count() == 1, "{command} {id}: {told}");
        }
    }
}

#[test]
fn cancel_ends_a_job_everywhere() {
    let cluster = Cluster::with_keys(2, 4);
    let marker = Marker::new();
    let id = detach(&cluster, &format!("sleep {}", marker.as_str()));
    let waiting = spawn(&cluster, &["wait", &id]);
    all_asleep(&marker);
    cluster.ok(&["cancel", &id]);
    assert_eq!(marker.sleepers(), [0_u32; 0]);
    let ended = end_within(SOON, waiting);
    assert_eq!(ended.status.code(), Some(1));
    assert!(text(&ended.stderr).contains("map cancelled"), "{}", text(&ended.stderr));
    assert!(line_of(&cluster, &id).contains(" cancelled "), "{}", line_of(&cluster, &id));
    let again = cluster.fails(1, &["cancel", &id]);
    assert!(again.contains("has ended already: cancelled"), "{again}");
    assert_eq!(listed(&cluster, "s4://out/"), [""; 0]);
}

#[test]
fn cancel_of_a_job_that_is_done_says_so() {
    let cluster = Cluster::with_keys(2, 4);
    let id = detach(&cluster, "cat");
    cluster.ok(&["wait", &id]);
    let told = cluster.fails(1, &["cancel", &id]);
    assert!(told.contains("has ended already: done") && told.lines().count() == 1, "{told}");
    assert_eq!(listed(&cluster, "s4://out/").len(), 4);
}

#[test]
fn cancel_names_a_node_that_is_down_and_cancels_on_the_others() {
    let mut cluster = Cluster::with_keys(2, 4);
    let marker = Marker::new();
    let id = detach(&cluster, &format!("sleep {}", marker.as_str()));
    all_asleep(&marker);
    cluster.kill_node(1);
    let told = cluster.fails(1, &["cancel", &id]);
    assert!(told.contains(&cluster.name(1)), "{told}");
    // The tasks of the killed node are its next start's to end.
    assert!(marker.sleepers().len() <= 2, "node 0's tasks go on");
    let told = cluster.fails(1, &["jobs"]);
    assert!(told.contains(&cluster.name(1)) && told.lines().count() == 1, "{told}");
}

#[test]
fn ctrl_c_in_wait_only_stops_watching() {
    let cluster = Cluster::with_keys(2, 4);
    let marker = Marker::new();
    let id = detach(&cluster, &format!("sleep {}", marker.as_str()));
    all_asleep(&marker);
    let waiting = spawn(&cluster, &["wait", "--json", &id]);
    // Its handler is there once it catches the signal.
    let caught = |pid: u32| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap_or("0").trim().to_owned();
        u64::from_str_radix(&line, 16).is_ok_and(|mask| mask & 2 != 0)
    };
    eventually("wait catches SIGINT", || caught(waiting.id()).then_some(()));
    send(waiting.id(), Signal::SIGINT);
    let ended = end_within(SOON, waiting);
    let told = text(&ended.stderr);
    assert_died_by(Signal::SIGINT, &ended);
    assert!(told.contains("the job goes on") && told.contains(&id), "{told}");
    assert_eq!(marker.sleepers().len(), 4, "the job goes on");
    cluster.ok(&["cancel", &id]);
}

#[test]
fn jobs_lists_the_newest_last() {
    let cluster = Cluster::with_keys(3, 4);
    assert_eq!(cluster.ok(&["jobs"]), "", "none yet");
    cluster.ok(&["map", "s4://in/", "s4://one/", "cat"]);
    cluster.fails(1, &["map-to-n", "s4://in/", "s4://two/", "echo 'a b'; exit 3"]);
    cluster.ok(&["map-from-n", "s4://in/", "s4://three/", "xargs -d '\\n' cat"]);
    let table = cluster.ok(&["jobs"]);
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines.len(), 4, "{table}");
    assert!(lines[0].starts_with("ID ") && lines[0].ends_with("INDIR OUTDIR COMMAND"), "{table}");
    assert!(lines[1].contains(" map ") && lines[1].contains(" done "), "{table}");
    assert!(lines[1].ends_with("s4://in/ s4://one/ cat"), "{table}");
    assert!(lines[2].contains(" map-to-n ") && lines[2].contains(" failed "), "{table}");
    assert!(lines[3].contains(" map-from-n ") && lines[3].contains(" 4/4 "), "{table}");
    let objects = cluster.ok(&["jobs", "--json"]);
    let objects: Vec<serde_json::Value> = objects.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let states: Vec<&str> = objects.iter().map(|job| job["state"].as_str().unwrap()).collect();
    assert_eq!(states, ["done", "failed", "done"]);
    assert_eq!(objects[0]["done"], 4);
    assert_eq!(objects[0]["nodes"].as_array().unwrap().len(), 3);
    assert_eq!(objects[1]["cmd"], "echo 'a b'; exit 3");
    assert!(lines[1].starts_with(objects[0]["job"].as_str().unwrap()), "{table}");
}

#[test]
fn a_job_that_was_only_planned_can_be_cancelled() {
    let cluster = Cluster::with_keys(1, 4);
    let id = "20260101-000000-000-abcdef";
    let json = format!(r#"{{"id":"{id}","kind":"map","indir":"in","outdir":"out","cmd":"cat"}}"#);
    let head = format!("POST /v1/jobs HTTP/1.1\r\nHost: 127.0.0.1\r\ns4-cluster: {}\r\n", cluster.digest());
    let request = format!("{head}Connection: close\r\nContent-Length: {}\r\n\r\n{json}", json.len());
    let planned = cluster.raw(0, request.as_bytes());
    assert!(planned.contains("\"tasks\":4"), "{planned}");
    assert!(line_of(&cluster, id).contains("planned"));
    let waiting = spawn(&cluster, &["wait", id]);
    cluster.ok(&["cancel", id]);
    assert_eq!(end_within(SOON, waiting).status.code(), Some(1));
    cluster.fails(1, &["cancel", id]);
    assert!(!cluster.ok(&["jobs"]).contains(id));
}

#[test]
fn a_cancelled_job_does_not_wait_for_a_silent_node_to_take_its_outputs() {
    let cluster = Cluster::start(2);
    cluster.put("s4://in/0_k", b"x");
    let (wait, go) = gate(&cluster);
    let shell = cluster.dir().join("shell");
    let cmd = format!("echo x > 1_x; echo $$ > {0}.new; mv {0}.new {0}; {wait}; echo 1_x", shell.display());
    let client = spawn(&cluster, &["map-to-n", "s4://in/", "s4://out/", &cmd]);
    let shell = eventually("the command runs", || std::fs::read_to_string(&shell).ok());
    cluster.signal(1, "STOP");
    std::fs::write(go, "").unwrap();
    let shell = PathBuf::from("/proc").join(shell.trim());
    eventually("the command has ended", || (!shell.exists()).then_some(()));
    let began = Instant::now();
    send(client.id(), Signal::SIGINT);
    let is_cancelled = || ask(&cluster, "GET", "/v1/jobs", b"").contains("\"cancelled\"").then_some(());
    eventually("the job has ended on the node that answers", is_cancelled);
    let took = began.elapsed();
    cluster.signal(1, "CONT");
    end_within(SOON, client);
    // A node's own deadline is 10 s.
    assert!(took < Duration::from_secs(5), "{took:?}");
}
