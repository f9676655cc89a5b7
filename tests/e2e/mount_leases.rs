//! Directories in which many files are made: not every node is asked about each name, or none is, and still nothing is missed.

use crate::harness::{Cluster, eventually};
use crate::mounting::Mount;
use crate::scripting::skipped;
use std::io::Write;
use std::net::TcpStream;

/// Three nodes, all remote to a mount; the mount comes first, so that it ends first.
fn setup() -> Option<(Mount, Cluster)> {
    if skipped() {
        return None;
    }
    let cluster = Cluster::start(3);
    Some((Mount::with_remote_nodes(&cluster, "mnt", &[0, 1, 2], &[]), cluster))
}

/// Makes a directory of the mount, and so many files in it that new names are asked of their own node only.
fn make_files(mount: &Mount, dir: &str) {
    std::fs::create_dir_all(mount.path(dir)).unwrap();
    for n in 0..12 {
        std::fs::write(mount.path(&format!("{dir}/{n}_file")), b"content").unwrap();
    }
}

/// Has another client make `name` in `dir`, which is to be seen at once.
fn assert_seen(mount: &Mount, cluster: &Cluster, dir: &str, name: &str) {
    let key = format!("{dir}/{name}");
    cluster.put(&format!("s4://{key}"), b"of another");
    assert_eq!(std::fs::read(mount.path(&key)).unwrap(), b"of another", "{key}");
}

/// A key in a directory whose own node is another than the key's, on which alone it comes to be.
const IN_NEW_DIR: &str = "0_sub/1_key";

/// Names that `node` was asked about.
fn asked(cluster: &Cluster, node: usize) -> u64 {
    let request =
        format!("GET /metrics HTTP/1.1\r\nhost: 127.0.0.1:{}\r\nconnection: close\r\n\r\n", cluster.port(node));
    let answer = cluster.raw(node, request.as_bytes());
    let line = answer.lines().find_map(|line| line.strip_prefix("s4_requests_total{kind=\"stat\"} "));
    line.map_or(0, |count| count.trim().parse().expect("a count"))
}

#[test]
fn the_nodes_of_other_keys_are_not_asked_about_each_new_file() {
    let Some((mount, cluster)) = setup() else { return };
    // Not of the mount's making, and not empty.
    cluster.put("s4://b/dir/1_first", b"content");
    let before = asked(&cluster, 1);
    for n in 0..200 {
        std::fs::write(mount.path(&format!("b/dir/{}_file", 3 * n)), b"content").unwrap();
    }
    let asked = asked(&cluster, 1) - before;
    assert!(asked < 100, "node 1 was asked {asked} times about 200 names of node 0");
}

#[test]
fn nor_are_their_own_where_the_mount_has_made_the_directory() {
    let Some((mount, cluster)) = setup() else { return };
    std::fs::create_dir_all(mount.path("b/dir")).unwrap();
    let before = asked(&cluster, 0);
    for n in 0..200 {
        std::fs::write(mount.path(&format!("b/dir/{}_file", 3 * n)), b"content").unwrap();
    }
    let asked = asked(&cluster, 0) - before;
    assert!(asked < 100, "node 0 was asked {asked} times about 200 names of its own");
    assert_eq!(std::fs::read_dir(mount.path("b/dir")).unwrap().count(), 200);
    // What it has made, it finds.
    let taken = std::fs::File::create_new(mount.path("b/dir/3_file")).unwrap_err();
    assert_eq!(taken.kind(), std::io::ErrorKind::AlreadyExists);
}

#[test]
fn a_directory_that_another_client_makes_among_them_is_seen_at_once() {
    let Some((mount, cluster)) = setup() else { return };
    for turn in 0..10 {
        let dir = format!("b/dir{turn}");
        make_files(&mount, &dir);
        assert_seen(&mount, &cluster, &dir, IN_NEW_DIR);
    }
}

#[test]
fn so_is_a_key() {
    let Some((mount, cluster)) = setup() else { return };
    for turn in 0..9 {
        let dir = format!("b/dir{turn}");
        make_files(&mount, &dir);
        assert_seen(&mount, &cluster, &dir, ["0_other", "1_other", "2_other"][turn % 3]);
    }
}

#[test]
fn so_is_one_that_another_mount_makes_or_renames() {
    let Some((mount, cluster)) = setup() else { return };
    let other = Mount::with_remote_nodes(&cluster, "other", &[0, 1, 2], &[]);
    for turn in 0..6 {
        let dir = format!("b/dir{turn}");
        // Of the node that it is renamed on.
        let elsewhere = other.path(&format!("elsewhere/{turn}/1_other"));
        std::fs::create_dir_all(elsewhere.parent().unwrap()).unwrap();
        std::fs::write(&elsewhere, b"renamed").unwrap();
        make_files(&mount, &dir);
        let made = format!("{dir}/1_other");
        match turn % 2 {
            0 => std::fs::write(other.path(&made), b"made").unwrap(),
            _ => std::fs::rename(&elsewhere, other.path(&made)).unwrap(),
        }
        assert!(mount.path(&made).exists(), "turn {turn}");
        // Now each makes files there, and both see all.
        for n in 100..130 {
            let (maker, seer) = if n % 2 == 0 { (&mount, &other) } else { (&other, &mount) };
            std::fs::write(maker.path(&format!("{dir}/{n}_file")), b"content").unwrap();
            assert!(seer.path(&format!("{dir}/{n}_file")).exists(), "turn {turn}: {n}");
        }
    }
}

#[test]
fn so_are_the_outputs_of_a_job() {
    let Some((mount, cluster)) = setup() else { return };
    for n in 0..30 {
        cluster.put(&format!("s4://in/{n}_input"), b"content");
    }
    for turn in 0..3 {
        let dir = format!("b/dir{turn}");
        make_files(&mount, &dir);
        cluster.ok(&["map", "s4://in/", &format!("s4://{dir}/"), "cat"]);
        for n in 0..30 {
            assert!(mount.path(&format!("{dir}/{n}_input")).exists(), "turn {turn}: {n}");
        }
    }
}

#[test]
fn so_is_one_made_right_after_its_node_was_killed_and_is_back() {
    let Some((mount, mut cluster)) = setup() else { return };
    for turn in 0..6 {
        let dir = format!("b/dir{turn}");
        make_files(&mount, &dir);
        cluster.kill_node(1);
        cluster.start_node(1);
        assert_seen(&mount, &cluster, &dir, ["1_other", IN_NEW_DIR][turn % 2]);
    }
}

#[test]
fn so_are_the_mounts_own() {
    let Some((mount, _cluster)) = setup() else { return };
    for turn in 0..10 {
        let dir = format!("b/dir{turn}");
        make_files(&mount, &dir);
        for sub in ["0_sub", "1_sub"] {
            make_files(&mount, &format!("{dir}/{sub}"));
        }
        for sub in ["0_sub", "1_sub"] {
            let names = std::fs::read_dir(mount.path(&format!("{dir}/{sub}"))).unwrap().count();
            assert_eq!(names, 12, "turn {turn}: {sub}");
        }
        let absent = mount.path(&format!("{dir}/2_sub"));
        assert!(!absent.exists());
    }
}

#[test]
fn who_hangs_up_while_a_lease_is_waited_for_has_stored_nothing() {
    let mut cluster = Cluster::start(2);
    let head =
        format!("host: 127.0.0.1:{}\r\ns4-cluster: {}\r\nconnection: close\r\n", cluster.port(0), cluster.digest());
    let ask = format!("GET /v1/stat/b/0_x?lease=1 HTTP/1.1\r\n{head}s4-holder: 0123456789abcdef\r\n\r\n");
    let is_given = || cluster.raw(0, ask.as_bytes()).contains("\"lease\":true");
    assert!(is_given());
    let mut stream = TcpStream::connect(("127.0.0.1", cluster.port(0))).unwrap();
    let put = format!("PUT /v1/keys/b/1_new/0_k HTTP/1.1\r\n{head}content-length: 1\r\n\r\nx");
    stream.write_all(put.as_bytes()).unwrap();
    eventually("it waits to make its directory", || (!is_given()).then_some(()));
    drop(stream);
    // It waits as long, and then makes its directory.
    cluster.put("s4://b/1_other/0_k", b"content");
    cluster.stop_node(0);
    assert!(cluster.data(0).join("b/1_other/0_k").is_file());
    assert!(!cluster.data(0).join("b/1_new").exists());
}

#[test]
fn a_key_hides_a_directory_of_its_name_on_another_node() {
    let Some((mount, cluster)) = setup() else { return };
    cluster.put("s4://b/0_x", b"the key");
    cluster.put("s4://b/0_x/1_below", b"below it");
    cluster.put("s4://b/0_x-", b"between them");
    cluster.put("s4://b/2_y/1_below", b"below it");
    cluster.put("s4://b/2_y", b"the key");
    for name in ["0_x", "2_y"] {
        let path = mount.path(&format!("b/{name}"));
        for _ in 0..3 {
            // After names that are not there, all nodes are asked at once.
            assert!(!mount.path("b/1_absent").exists() && !mount.path("b/2_absent").exists());
            assert_eq!(std::fs::read(&path).unwrap(), b"the key", "{name}");
        }
        assert!(path.is_file());
    }
    let mut names: Vec<_> =
        std::fs::read_dir(mount.path("b")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["0_x", "0_x-", "2_y"]);
    assert_eq!(cluster.get("s4://b/0_x/1_below"), b"below it");
}
