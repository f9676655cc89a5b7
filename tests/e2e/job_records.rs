//! What the nodes keep of jobs: records that outlive a daemon, and logs within a bound.

use crate::harness::{Cluster, eventually, peak_kib};
use crate::mounts::Mounted;
use crate::observe::{Marker, assert_died_by, send, spawn};
use nix::sys::signal::Signal;

fn last_job(cluster: &Cluster) -> (String, String) {
    let line = cluster.ok(&["jobs"]).lines().last().unwrap().to_owned();
    (line.split_whitespace().next().unwrap().to_owned(), line)
}

#[test]
fn records_and_logs_outlive_the_daemons() {
    let mut cluster = Cluster::start(2);
    for number in 0..10 {
        cluster.put(&format!("s4://in/{number}_k"), b"x");
    }
    let cmd = "echo said by $filename >&2; [ $filename != 7_k ]";
    cluster.fails(1, &["map", "--keep-going", "s4://in/", "s4://out/", cmd]);
    let (id, before) = last_job(&cluster);
    assert!(before.contains("failed") && before.contains("9/10"), "{before}");
    for kill in [true, false] {
        for node in 0..2 {
            if kill {
                cluster.kill_node(node)
            } else {
                cluster.stop_node(node)
            }
            cluster.start_node(node);
        }
        assert_eq!(last_job(&cluster).1, before);
        let told = cluster.fails(1, &["wait", &id]);
        assert!(told.contains("s4://in/7_k") && told.contains("9 of 10"), "{told}");
        assert_eq!(cluster.ok(&["logs", &id, "s4://in/3_k"]), "said by 3_k\n");
    }
}

#[test]
fn a_job_that_its_daemon_did_not_outlive_is_interrupted() {
    for kill in [true, false] {
        let mut cluster = Cluster::start(2);
        for key in ["0_a", "1_b", "2_c"] {
            cluster.put(&format!("s4://in/{key}"), b"x");
        }
        let gate = cluster.dir().join("gate");
        let cmd = format!("[ $filename = 2_c ] || until [ -e {} ]; do sleep 0.02; done; cat", gate.display());
        let id = cluster.ok(&["map", "--detach", "s4://in/", "s4://out/", &cmd]);
        eventually("one is done", || last_job(&cluster).1.contains("1/3").then_some(()));
        if kill {
            cluster.kill_node(0)
        } else {
            cluster.stop_node(0)
        }
        cluster.start_node(0);
        std::fs::write(&gate, "").unwrap();
        let told = cluster.fails(1, &["wait", id.trim()]);
        assert!(told.contains(&cluster.name(0)) && told.contains("--resume"), "{told}");
        let (_, line) = last_job(&cluster);
        assert!(line.contains("interrupted") && line.contains("2/3"), "{line}");
    }
}

#[test]
fn a_line_without_an_end_among_the_failures_hides_no_other() {
    let mut cluster = Cluster::start(1);
    for number in 0..3 {
        cluster.put(&format!("s4://in/0_{number}"), b"x");
    }
    cluster.fails(1, &["map", "--keep-going", "s4://in/", "s4://out/", "exit 7"]);
    let (id, _) = last_job(&cluster);
    cluster.stop_node(0);
    let path = cluster.data(0).join(".s4/jobs").join(&id).join("failures");
    let failures = std::fs::read_to_string(&path).unwrap();
    let (first, others) = failures.split_once('\n').unwrap();
    std::fs::write(&path, format!("{first}\n{}\n{others}", "x".repeat(3 << 20))).unwrap();
    cluster.start_node(0);
    let told = cluster.fails(1, &["wait", &id]);
    for number in 0..3 {
        assert!(told.contains(&format!("s4://in/0_{number}")), "{number} is not told of: {told}");
    }
}

/// Hours that a daemon was down are no part of how long its jobs took.
#[test]
fn the_time_without_a_daemon_is_not_a_job_s() {
    let mut cluster = Cluster::start(1);
    cluster.put("s4://in/0_a", b"x");
    cluster.put("s4://in/0_b", b"x");
    let marker = Marker::new();
    let cmd = format!("[ $filename = 0_a ] || sleep {}", marker.as_str());
    let id = cluster.ok(&["map", "--detach", "s4://in/", "s4://out/", &cmd]).trim().to_owned();
    eventually("one is done", || last_job(&cluster).1.contains("1/2").then_some(()));
    cluster.kill_node(0);
    // As if all this was ten hours ago.
    let ten_hours = 10 * 3600 * 1000;
    let dir = cluster.data(0).join(".s4/jobs").join(&id);
    let record = dir.join("record");
    let mut json: serde_json::Value = serde_json::from_slice(&std::fs::read(&record).unwrap()).unwrap();
    json["started"] = (json["started"].as_i64().unwrap() - ten_hours).into();
    std::fs::write(&record, json.to_string()).unwrap();
    let then = std::time::SystemTime::now() - std::time::Duration::from_millis(ten_hours as u64);
    let provenance = cluster.data(0).join(".s4/provenance");
    for entry in [&dir, &provenance].into_iter().flat_map(walkdir::WalkDir::new).flatten() {
        std::fs::File::open(entry.path()).unwrap().set_modified(then).unwrap();
    }
    let known = |cluster: &Cluster| -> serde_json::Value {
        let answer = crate::strange_bodies::ask(cluster, "GET", &format!("/v1/jobs/{id}"), b"");
        let body = answer.split_once("\r\n\r\n").unwrap().1;
        serde_json::from_str(&body[body.find('{').unwrap()..=body.rfind('}').unwrap()]).unwrap()
    };
    for kill in [true, false] {
        cluster.start_node(0);
        let (_, line) = last_job(&cluster);
        let job = known(&cluster);
        assert!(job["elapsed"].as_i64().unwrap() < 60_000 && line.contains("interrupted"), "{line}: {job}");
        // It is kept for as long as one that has ended just now.
        assert!(job["ended"].as_i64().unwrap() > job["started"].as_i64().unwrap() + ten_hours - 60_000, "{job}");
        if kill { cluster.kill_node(0) } else { cluster.stop_node(0) }
    }
}

#[test]
fn floods_of_stderr_fill_neither_disk_nor_memory() {
    let Some(disk) = Mounted::ext4(128 << 20) else { return };
    let mut cluster = Cluster::start(1);
    cluster.stop_node(0);
    std::fs::remove_dir_all(cluster.data(0)).unwrap();
    std::os::unix::fs::symlink(disk.data(), cluster.data(0)).unwrap();
    std::fs::create_dir(disk.data()).unwrap();
    cluster.start_node(0);
    for number in 0..100 {
        cluster.put(&format!("s4://in/{number}_k"), b"x");
    }
    let before = peak_kib(cluster.pid(0));
    let free = disk.free_bytes();
    let cmd = "{ yes $filename says the same again and again || :; } | head -c 2000000 >&2; echo the end of $filename >&2; exit 4";
    let told = cluster.fails(1, &["map", "--keep-going", "s4://in/", "s4://out/", cmd]);
    assert!(told.contains("100 failed"), "{told}");
    // An eighth of what was free, the ends of the others, and the failures themselves.
    let used = free - disk.free_bytes();
    assert!(used < free / 8 + (4 << 20), "{used} of {free} bytes are taken by logs");
    let grown = peak_kib(cluster.pid(0)) - before;
    assert!(grown < 24 << 10, "the daemon grew by {grown} KiB");
    let (id, _) = last_job(&cluster);
    let logs: Vec<String> = (0..100).map(|number| cluster.ok(&["logs", &id, &format!("s4://in/{number}_k")])).collect();
    for (number, log) in logs.iter().enumerate() {
        assert!(log.ends_with(&format!("the end of {number}_k\n")), "the end of {number} is missing");
    }
    let whole = logs.iter().filter(|log| log.len() > 2_000_000).count();
    assert!((3..20).contains(&whole), "{whole} logs are whole");
    let cut = logs.iter().find(|log| log.len() < 2_000_000).unwrap();
    assert!(cut.contains("bytes are left out here]"), "{cut}");
}

#[test]
fn two_jobs_never_share_an_output_directory() {
    let cluster = Cluster::start(2);
    let marker = Marker::new();
    cluster.put("s4://in/0_a", b"x");
    let client = spawn(&cluster, &["map", "s4://in/", "s4://out/dir/", &format!("sleep {}", marker.as_str())]);
    eventually("it runs", || (marker.sleepers().len() == 1).then_some(()));
    for outdir in ["s4://out/dir/", "s4://out/", "s4://out/dir/deeper/"] {
        let told = cluster.fails(1, &["map", "s4://in/", outdir, "cat"]);
        assert!(told.contains("s4://out/dir/") && told.lines().count() == 1, "{told}");
    }
    cluster.ok(&["map", "s4://in/", "s4://out/dirs/", "cat"]);
    send(client.id(), Signal::SIGINT);
    let end = client.wait_with_output().unwrap();
    assert_died_by(Signal::SIGINT, &end);
    cluster.ok(&["map", "s4://in/", "s4://out/dir/", "cat"]);
}

#[test]
fn a_file_is_sent_once_and_again_only_if_it_was_damaged() {
    let cluster = Cluster::start(1);
    cluster.put("s4://in/0_a", b"x");
    std::fs::write(cluster.dir().join("table"), "one two three\n").unwrap();
    let map = |outdir: &str, cmd: &str| cluster.ok(&["map", "--file", "table", "s4://in/", outdir, cmd]);
    map("s4://out/a/", "cat table; echo damage >> table");
    let kept = || std::fs::read_dir(cluster.data(0).join(".s4/files")).unwrap().flatten().next().unwrap().path();
    let made = std::os::unix::fs::MetadataExt::ino(&kept().metadata().unwrap());
    map("s4://out/b/", "cat table");
    assert_eq!(std::os::unix::fs::MetadataExt::ino(&kept().metadata().unwrap()), made, "it was sent again");
    std::fs::write(kept(), "damaged").unwrap();
    map("s4://out/c/", "cat table");
    for key in ["a", "b", "c"] {
        assert_eq!(cluster.get(&format!("s4://out/{key}/0_a")), b"one two three\n");
    }
}
