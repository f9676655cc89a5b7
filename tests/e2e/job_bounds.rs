//! What a node keeps of jobs has bounds.

use crate::harness::{Cluster, resident_kib, text};
use crate::strange_bodies::ask;
use std::time::{Duration, SystemTime};

/// Plans a job that nobody starts; returns the answer.
fn plan(cluster: &Cluster, number: usize) -> String {
    plan_with(cluster, number, &"\\u0001".repeat(5000))
}

fn plan_with(cluster: &Cluster, number: usize, cmd: &str) -> String {
    let spec = format!(
        r#"{{"id":"20260101-000000-000-{number:06}","kind":"map","indir":"in","outdir":"out{number}","cmd":"cat {cmd}"}}"#
    );
    ask(cluster, "POST", "/v1/jobs", spec.as_bytes())
}

#[test]
fn jobs_that_nobody_starts_are_bounded_and_do_not_hide_the_node() {
    let cluster = Cluster::start(1);
    cluster.put("s4://in/0_k", b"k");
    let refused = (0..2000).find_map(|number| {
        let answer = plan(&cluster, number);
        (!answer.contains("\"event\":\"planned\"")).then_some((number, answer))
    });
    let (planned, answer) = refused.expect("there is an end to it");
    assert!((100..=1000).contains(&planned) && answer.contains("jobs have not ended"), "{planned}: {answer}");
    let open = std::fs::read_dir(format!("/proc/{}/fd", cluster.pid(0))).unwrap().count();
    assert!(open < 100, "{open} descriptors");
    let top = cluster.ok(&["top", "--once"]);
    assert!(top.contains("1 of 1 nodes up"), "{top}");
    cluster.ok(&["health"]);
    assert_eq!(cluster.ok(&["jobs"]).lines().count(), planned + 1);
    // One that is cancelled makes room.
    cluster.ok(&["cancel", "20260101-000000-000-000000"]);
    assert!(plan(&cluster, 5000).contains("planned"));
}

/// A command of about a megabyte: a hundred jobs have a hundred of it.
fn plan_large(cluster: &Cluster, number: usize) -> String {
    plan_with(cluster, number, &"x".repeat(1_000_000))
}

fn id_of(number: usize) -> String {
    format!("20260101-000000-000-{number:06}")
}

#[test]
fn jobs_that_have_not_ended_are_bounded_in_bytes_too() {
    let cluster = Cluster::start(1);
    cluster.put("s4://in/0_k", b"k");
    let before = resident_kib(cluster.pid(0));
    let refused = (0..100).find_map(|number| {
        let answer = plan_large(&cluster, number);
        (!answer.contains("\"event\":\"planned\"")).then_some((number, answer))
    });
    let (planned, answer) = refused.expect("there is an end to it");
    assert!((60..=67).contains(&planned), "{planned}: {answer:.500}");
    assert!(answer.contains("64 MiB") && answer.contains("wait for them or cancel some"), "{answer:.500}");
    let grown = resident_kib(cluster.pid(0)) - before;
    assert!(grown < 160 << 10, "the daemon grew by {grown} KiB");
    assert_eq!(
        std::fs::read_dir(cluster.data(0).join(".s4/jobs")).unwrap().count(),
        planned,
        "nothing of them is left"
    );
    // One that is cancelled makes room.
    cluster.ok(&["cancel", &id_of(0)]);
    assert!(plan_large(&cluster, 2000).contains("planned"));
}

#[test]
fn jobs_that_have_ended_are_bounded_in_bytes_too() {
    let cluster = Cluster::start(1);
    cluster.put("s4://in/0_k", b"k");
    for number in 0..40 {
        assert!(plan_large(&cluster, number).contains("planned"));
        cluster.ok(&["cancel", &id_of(number)]);
    }
    let kept = std::fs::read_dir(cluster.data(0).join(".s4/jobs")).unwrap().count();
    assert!((15..=20).contains(&kept), "{kept} are kept");
    cluster.ok(&["map", "s4://in/", "s4://small/", "cat"]);
    assert!(cluster.ok(&["jobs"]).contains("s4://small/"));
}

#[test]
fn a_file_that_no_job_needs_is_removed() {
    let mut cluster = Cluster::start(1);
    cluster.put("s4://in/0_k", b"k");
    let files = |cluster: &Cluster| std::fs::read_dir(cluster.data(0).join(".s4/files")).unwrap().flatten().count();
    for (name, content) in [("old", "1"), ("new", "2")] {
        std::fs::write(cluster.dir().join(name), content).unwrap();
        cluster.ok(&["map", "--file", name, "s4://in/", &format!("s4://{name}/"), "cat"]);
    }
    assert_eq!(files(&cluster), 2);
    let all = std::fs::read_dir(cluster.data(0).join(".s4/files")).unwrap().flatten();
    for file in all.filter(|file| text(&std::fs::read(file.path()).unwrap()) == "1") {
        let file = std::fs::File::open(file.path()).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_secs(2 * 3600)).unwrap();
    }
    cluster.stop_node(0);
    cluster.start_node(0);
    assert_eq!(files(&cluster), 1, "the one of an hour ago is gone");
}
