//! A disk that hangs: its node says so, and does not pretend to have ended in order. Needs root, for an ext4 in a file.

use crate::harness::{Cluster, eventually, text};
use crate::mounts::Mounted;
use crate::observe::spawn;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

const SAID: &str = "the disk is very slow or hangs";

/// Names of the threads of a node's daemon that wait for the disk.
fn waiting(cluster: &Cluster, node: usize) -> Vec<String> {
    let tasks =
        std::fs::read_dir(format!("/proc/{}/task", cluster.pid(node))).unwrap().flatten().map(|task| task.path());
    let waiting =
        tasks.filter(|task| state(&task.join("status").display().to_string()).is_some_and(|state| state == "D"));
    waiting.filter_map(|task| Some(std::fs::read_to_string(task.join("comm")).ok()?.trim().to_owned())).collect()
}

fn state(path: &str) -> Option<String> {
    let status = std::fs::read_to_string(path).ok()?;
    status.lines().find_map(|line| line.strip_prefix("State:\t")).map(|state| state[..1].to_owned())
}

/// Waits until a condition is true at many looks in a row: a thread waits for a disk that works too, but not for long.
fn stays(what: &str, condition: impl Fn() -> bool) {
    let mut looks = 0;
    eventually(what, || {
        looks = if condition() { looks + 1 } else { 0 };
        (looks == 50).then_some(())
    });
}

#[test]
fn a_disk_that_hangs_is_reported_and_takes_no_more_than_a_thread() {
    let Some(disk) = Mounted::ext4(64 << 20) else { return };
    let cluster = Cluster::on_disk(&disk, &["--reserve", "0"]);
    cluster.put("s4://b/1_k", b"content");
    cluster.ok(&["health"]);
    let frozen = disk.freeze();
    let health = || cluster.run(&["health"]);
    let said = eventually("health reports it", || Some(text(&health().stdout)).filter(|said| said.contains(SAID)));
    assert!(said.contains(&cluster.port(1).to_string()), "{said}");
    assert_eq!(health().status.code(), Some(1));
    let ask = |_| {
        let mut stream = TcpStream::connect(("127.0.0.1", cluster.port(1))).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let digest = cluster.digest();
        let request =
            format!("GET /v1/health HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\ns4-cluster: {digest}\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        stream
    };
    for mut stream in (0..40).map(ask).collect::<Vec<_>>() {
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("each asker gets an answer");
        assert!(answer.contains(SAID), "{answer}");
    }
    let waiting = waiting(&cluster, 1);
    assert!(waiting.len() <= 1, "{waiting:?}");
    // What needs no write of the disk is served.
    assert_eq!(cluster.get("s4://b/1_k"), b"content");
    drop(frozen);
    eventually("it is healthy again", || health().status.success().then_some(()));
}

#[test]
fn a_daemon_that_ends_while_something_is_at_its_disk_has_not_ended_in_order() {
    let Some(disk) = Mounted::ext4(64 << 20) else { return };
    let mut cluster = Cluster::on_disk(&disk, &["--reserve", "0"]);
    let note = disk.data().join(".s4/synced");
    let is_clean = || std::fs::read_to_string(&note).unwrap().ends_with(" clean\n");
    assert!(!is_clean());
    cluster.stop_node(1);
    assert!(is_clean(), "nothing was at it");
    cluster.start_node(1);
    assert!(!is_clean());
    cluster.separate([1]);
    std::fs::write(cluster.dir().join("1_large"), vec![7; 8 << 20]).unwrap();
    let frozen = disk.freeze();
    let mut putting = spawn(&cluster, &["cp", "1_large", "s4://b/"]);
    // Not just the one that looks how the disk is.
    stays("the put waits for the disk", || waiting(&cluster, 1).iter().any(|thread| thread != "s4-disk"));
    cluster.signal(1, "TERM");
    let pid = cluster.pid(1);
    let main = || state(&format!("/proc/{pid}/task/{pid}/status"));
    stays("the daemon ends, or waits for the disk", || main().is_some_and(|state| state == "D" || state == "Z"));
    drop(frozen);
    cluster.stop_node(1);
    assert!(!is_clean(), "a publish was under way");
    putting.wait().unwrap();
}
