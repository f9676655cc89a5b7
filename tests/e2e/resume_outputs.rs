//! What a resume takes away: all that earlier runs of the same map left of a task, whatever its name, and nothing else.

use crate::frames::{connect, data, exchange, message, put_end, requests};
use crate::harness::{Cluster, eventually, text};
use crate::observe::listed;
use s4::checksum::Checksum;
use std::fs::Permissions;
use std::io::Write;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;

const MERGE: [&str; 4] = ["map-from-n", "s4://in/", "s4://out/", "xargs -d '\\n' cat"];

fn merge(more: &[&'static str]) -> Vec<&'static str> {
    [&MERGE[..], more].concat()
}

/// A merge's output has the suffix that its inputs share, so that its name changes when inputs come or go.
#[test]
fn a_merge_leaves_no_output_under_the_name_that_it_had_with_other_inputs() {
    let cluster = Cluster::start(2);
    for key in ["001_a", "002_a", "003_a"] {
        cluster.put(&format!("s4://in/{key}"), format!("{key}\n").as_bytes());
    }
    cluster.put("s4://out/002_other", b"somebody's");
    cluster.ok(&MERGE);
    let resumed = |done_before: usize, names: [&str; 4]| {
        let output = cluster.run(&merge(&["--resume"]));
        let told = text(&output.stderr);
        assert!(output.status.success() && told.contains(&format!("{done_before} done before")), "{told}");
        assert_eq!(listed(&cluster, "s4://out/"), names);
    };
    cluster.put("s4://in/002_b", b"002_b\n");
    resumed(2, ["001_a", "002", "002_other", "003_a"]);
    assert_eq!(cluster.get("s4://out/002"), b"002_a\n002_b\n");
    cluster.ok(&["rm", "s4://in/002_a"]);
    resumed(2, ["001_a", "002_b", "002_other", "003_a"]);
    resumed(3, ["001_a", "002_b", "002_other", "003_a"]);
    assert_eq!(cluster.get("s4://out/002_b"), b"002_b\n");
    assert_eq!(cluster.get("s4://out/002_other"), b"somebody's");
    // The next step has each input once.
    cluster.ok(&["rm", "s4://out/002_other"]);
    cluster.ok(&["map-from-n", "s4://out/", "s4://next/", "xargs -d '\\n' cat"]);
    assert_eq!(cluster.get("s4://next/002_b"), b"002_b\n");
}

/// As one that a daemon without this test's rule left.
#[test]
fn an_old_name_beside_the_current_one_goes_too() {
    let cluster = Cluster::start(2);
    cluster.put("s4://in/002_a", b"a\n");
    cluster.ok(&MERGE);
    let file = |name: &str| cluster.data(0).join("out").join(name);
    let saved = cluster.dir().join("saved");
    std::fs::hard_link(file("002_a"), &saved).unwrap();
    cluster.put("s4://in/002_b", b"b\n");
    cluster.ok(&merge(&["--resume"]));
    std::fs::hard_link(&saved, file("002_a")).unwrap();
    assert_eq!(listed(&cluster, "s4://out/"), ["002", "002_a"]);
    cluster.ok(&merge(&["--resume"]));
    assert_eq!(listed(&cluster, "s4://out/"), ["002"]);
    assert_eq!(cluster.get("s4://out/002"), b"a\nb\n");
}

#[test]
fn a_merge_is_refused_beside_what_it_or_another_command_made_of_the_same_inputs() {
    let cluster = Cluster::start(2);
    cluster.put("s4://in/002_a", b"a\n");
    cluster.put("s4://more/002_c", b"c\n");
    cluster.ok(&MERGE);
    cluster.put("s4://in/002_b", b"b\n");
    let told = cluster.fails(1, &MERGE);
    assert!(told.contains("s4://out/002_a: key already exists") && told.contains("--resume"), "{told}");
    for more in [&[][..], &["--resume"]] {
        let other = [&["map-from-n", "s4://in/", "s4://out/", "xargs -d '\\n' cat | sort -r"], more].concat();
        let told = cluster.fails(1, &other);
        assert!(told.contains("s4://out/002_a: key already exists") && told.contains("delete it"), "{told}");
    }
    assert_eq!(listed(&cluster, "s4://out/"), ["002_a"]);
    // What another INDIR becomes does not count its inputs twice.
    cluster.ok(&["map-from-n", "s4://more/", "s4://out/", MERGE[3]]);
    assert_eq!(listed(&cluster, "s4://out/"), ["002_a", "002_c"]);
    cluster.ok(&merge(&["--resume"]));
    assert_eq!(listed(&cluster, "s4://out/"), ["002", "002_c"]);
}

/// Two OUTDIRs of one map, one in the other, where a name is an output of both.
#[test]
fn the_same_map_into_another_outdir_has_outputs_of_its_own() {
    let cluster = Cluster::start(2);
    cluster.put("s4://in/0_k", b"outer");
    cluster.put("s4://in/x/0_k", b"inner");
    cluster.ok(&["map", "s4://in/", "s4://o/x/", "cat"]);
    assert_eq!(cluster.get("s4://o/x/0_k"), b"outer");
    for more in [&[][..], &["--resume"]] {
        let told = cluster.fails(1, &[&["map", "s4://in/", "s4://o/", "cat"], more].concat());
        assert!(told.contains("s4://o/x/0_k: key already exists"), "{told}");
        assert_eq!(cluster.get("s4://o/x/0_k"), b"outer");
    }
}

#[test]
fn a_shuffle_deletes_nothing_in_directories_below_those_of_its_tasks() {
    let cluster = Cluster::start(2);
    cluster.put("s4://in/0_k", b"first");
    cluster.put("s4://in/1_z", b"second");
    let shuffle = |outdir: &'static str| ["map-to-n", "s4://in/", outdir, "cat > 0_f; cp 0_f 1_f; echo 0_f; echo 1_f"];
    cluster.ok(&shuffle("s4://o/"));
    cluster.ok(&shuffle("s4://o/0_k/"));
    let inner = listed(&cluster, "s4://o/0_k/1_z/");
    assert_eq!(inner.len(), 2, "{inner:?}");
    cluster.ok(&["rm", "s4://in/0_k"]);
    cluster.put("s4://in/0_k", b"third");
    cluster.ok(&[&shuffle("s4://o/")[..], &["--resume"]].concat());
    assert_eq!(cluster.get("s4://o/0_k/0_f"), b"third");
    assert_eq!(listed(&cluster, "s4://o/0_k/1_z/"), inner, "outputs of the other job");
    assert_eq!(listed(&cluster, "s4://o/0_k/0_k/").len(), 2, "outputs of the other job");
}

fn post(cluster: &Cluster, path: &str, body: &str) -> String {
    crate::strange_bodies::ask(cluster, "POST", path, body.as_bytes())
}

const JOB: &str = "20990101-000000-000-abcdef";

/// Plans the resume of a shuffle over s4://in/ on node 0.
fn plan(cluster: &Cluster, cmd: &str) {
    let spec =
        format!(r#"{{"id":"{JOB}","kind":"map-to-n","indir":"in","outdir":"out","cmd":"{cmd}","rerun":"resume"}}"#);
    let planned = post(cluster, "/v1/jobs", &spec);
    assert!(planned.contains("planned"), "{planned}");
}

#[test]
fn an_output_that_cannot_be_looked_at_is_no_stranger_s() {
    let Some(cluster) = Cluster::unprivileged(1) else { return };
    cluster.put("s4://in/0_k", b"x");
    let cmd = "echo x > 0_f; echo 0_f";
    cluster.ok(&["map-to-n", "s4://in/", "s4://out/", cmd]);
    cluster.ok(&["rm", "s4://in/0_k"]);
    cluster.put("s4://in/0_k", b"another");
    plan(&cluster, cmd);
    let file = cluster.data(0).join("out/0_k/0_f");
    std::fs::set_permissions(&file, Permissions::from_mode(0o000)).unwrap();
    let clean = format!("/v1/jobs/{JOB}/clean?prefix=out/0_k/&inputs=0000000000000001");
    let answer = post(&cluster, &clean, "");
    assert!(answer.contains("s4://out/0_k/0_f: Permission denied"), "{answer}");
    assert!(file.exists());
    std::fs::set_permissions(&file, Permissions::from_mode(0o444)).unwrap();
    let answer = post(&cluster, &clean, "");
    assert!(answer.starts_with("HTTP/1.1 20") && !file.exists(), "{answer}");
}

#[test]
fn a_directory_that_cannot_be_looked_at_is_not_pruned() {
    let Some(cluster) = Cluster::unprivileged(1) else { return };
    let answer = crate::strange_bodies::ask(&cluster, "PUT", "/v1/dirs/b/made", b"");
    assert!(answer.starts_with("HTTP/1.1 20"), "{answer}");
    cluster.put("s4://b/made/0_k", b"x");
    let dir = cluster.data(0).join("b/made");
    std::fs::set_permissions(&dir, Permissions::from_mode(0o300)).unwrap();
    cluster.ok(&["rm", "s4://b/made/0_k"]);
    assert!(dir.exists(), "whether it was made by itself is not known");
}

/// A mount that moves a key to another node deletes what it has copied, and takes "no such key with these bytes" for done.
#[test]
fn a_key_that_cannot_be_looked_at_is_not_said_to_be_gone() {
    let Some(cluster) = Cluster::unprivileged(1) else { return };
    cluster.put("s4://b/0_k", b"x");
    let file = cluster.data(0).join("b/0_k");
    let delete = || crate::strange_bodies::ask(&cluster, "DELETE", "/v1/keys/b/0_k?checksum=0000000000000001%201", b"");
    let answer = delete();
    assert!(answer.contains("no such key with these bytes"), "{answer}");
    std::fs::set_permissions(&file, Permissions::from_mode(0o000)).unwrap();
    let answer = delete();
    assert!(answer.starts_with("HTTP/1.1 500") && answer.contains("Permission denied"), "{answer}");
    assert!(file.exists());
}

#[test]
fn only_the_directory_of_a_task_is_cleaned() {
    let cluster = Cluster::start(1);
    cluster.put("s4://in/0_k", b"x");
    let cmd = "echo x > 0_f; echo 0_f";
    cluster.ok(&["map-to-n", "s4://in/", "s4://out/", cmd]);
    plan(&cluster, cmd);
    for prefix in ["", "o", "in/", "out", "out/", "out/0", "out/0_k", "out/0_k/0", "out/0_k/deep/", "out//"] {
        let answer = post(&cluster, &format!("/v1/jobs/{JOB}/clean?prefix={prefix}&inputs=0000000000000001"), "");
        assert!(answer.starts_with("HTTP/1.1 4"), "{prefix}: {answer}");
        assert_eq!(listed(&cluster, "s4://out/"), ["0_k/0_f"], "{prefix}");
    }
}

/// As when the node that asked for it was silent for a while.
#[test]
fn a_clean_that_comes_late_takes_nothing_of_its_own_job() {
    let cluster = Cluster::start(1);
    cluster.put("s4://in/0_k", b"x");
    cluster.ok(&["map-to-n", "s4://in/", "s4://out/", "echo x > 0_f; echo 0_f", "--resume"]);
    let id = cluster.ok(&["jobs"]).lines().last().unwrap().split_whitespace().next().unwrap().to_owned();
    let answer = post(&cluster, &format!("/v1/jobs/{id}/clean?prefix=out/0_k/&inputs=0000000000000001"), "");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(listed(&cluster, "s4://out/"), ["0_k/0_f"]);
}

/// As when the node that asked for it was silent when the job was cancelled: a later job may have made what is there.
#[test]
fn a_clean_of_a_cancelled_job_removes_nothing() {
    let cluster = Cluster::start(1);
    cluster.put("s4://in/0_k", b"x");
    let cmd = "echo x > 0_f; echo 0_f";
    cluster.ok(&["map-to-n", "s4://in/", "s4://out/", cmd]);
    cluster.ok(&["rm", "s4://in/0_k"]);
    cluster.put("s4://in/0_k", b"changed");
    plan(&cluster, cmd);
    cluster.ok(&["cancel", JOB]);
    let answer = post(&cluster, &format!("/v1/jobs/{JOB}/clean?prefix=out/0_k/&inputs=0000000000000001"), "");
    assert!(answer.starts_with("HTTP/1.1 4"), "{answer}");
    assert_eq!(listed(&cluster, "s4://out/"), ["0_k/0_f"]);
}

/// An output of a job's task on its way to node 0, whose last byte has not come.
struct Late(TcpStream);

impl Late {
    fn begin(cluster: &Cluster, job: &str, key: &str) -> Self {
        let mut stream = connect(cluster, 0);
        let delivery = format!(r#"{{"job":"{job}","inputs":1,"outputs":1}}"#);
        let put = message(&format!(r#"{{"put":{{"key":"{key}","delivery":{delivery}}}}}"#));
        let before = requests(cluster, 0, "keys");
        stream.write_all(&[put, data(b"late")].concat()).unwrap();
        eventually("it was asked", || (requests(cluster, 0, "keys") > before).then_some(()));
        Self(stream)
    }

    fn end(mut self) -> String {
        exchange(&mut self.0, &[data(b"\n"), put_end(&Checksum::of(b"late\n").to_string())].concat())
    }
}

#[test]
fn an_output_that_comes_after_the_end_of_its_job_is_not_published() {
    let mut cluster = Cluster::start(1);
    cluster.put("s4://in/0_k", b"x");
    let last_job =
        |cluster: &Cluster| cluster.ok(&["jobs"]).lines().last().unwrap().split_whitespace().next().unwrap().to_owned();
    let assert_refused = |cluster: &Cluster, late: Late, key: &str| {
        let answer = late.end();
        assert!(answer.contains("the job has ended"), "{key}: {answer}");
        cluster.fails(1, &["ls", &format!("s4://{key}")]);
    };
    let gate = cluster.dir().join("gate");
    let cmd = format!("until [ -e {} ]; do sleep 0.02; done; echo x > 0_f; echo 0_f", gate.display());
    let shuffle = ["map-to-n", "s4://in/", "s4://out/", &cmd];
    let running = cluster.ok(&[&shuffle[..], &["--detach"]].concat()).trim().to_owned();
    let late = Late::begin(&cluster, &running, "out/0_k/0_of_the_cancelled");
    cluster.ok(&["cancel", &running]);
    assert_refused(&cluster, late, "out/0_k/0_of_the_cancelled");

    std::fs::write(&gate, "").unwrap();
    cluster.fails(1, &["map-to-n", "s4://in/", "s4://out/", "exit 3"]);
    let late = Late::begin(&cluster, &last_job(&cluster), "out/0_k/0_of_the_failed");
    // The next run over the same outputs has begun.
    cluster.ok(&shuffle);
    assert_refused(&cluster, late, "out/0_k/0_of_the_failed");

    let done = last_job(&cluster);
    cluster.stop_node(0);
    cluster.start_node(0);
    let late = Late::begin(&cluster, &done, "out/0_k/0_of_the_one_before_the_restart");
    assert_refused(&cluster, late, "out/0_k/0_of_the_one_before_the_restart");
    assert_eq!(listed(&cluster, "s4://out/"), ["0_k/0_f"]);
}
