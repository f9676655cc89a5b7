//! Names in a mount: one node is asked about each, and what another client makes or removes is seen at once.

use crate::harness::Cluster;
use crate::mounting::Mount;
use crate::scripting::skipped;

/// Three nodes, all remote to a mount; the mount comes first, so that it ends first.
fn setup() -> Option<(Mount, Cluster)> {
    if skipped() {
        return None;
    }
    let cluster = Cluster::start(3);
    Some((Mount::with_remote_nodes(&cluster, "mnt", &[0, 1, 2], &[]), cluster))
}

/// Makes a directory of the mount, and some files in it.
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

/// Questions about names that all nodes were asked, and requests of every kind.
fn asked_of_all(cluster: &Cluster) -> u64 {
    (0..cluster.len()).map(|node| asked(cluster, node)).sum()
}

#[test]
fn a_new_file_costs_the_same_in_a_cluster_of_any_size() {
    if skipped() {
        return;
    }
    let mut costs = Vec::new();
    for nodes in [3, 12, 48, 100] {
        let cluster = Cluster::start(nodes);
        let remote: Vec<usize> = (0..nodes).collect();
        let mount = Mount::with_remote_nodes(&cluster, "mnt", &remote, &[]);
        let other = Mount::with_remote_nodes(&cluster, "other", &remote, &[]);
        std::fs::create_dir_all(mount.path("b/dir")).unwrap();
        let before = asked_of_all(&cluster);
        for n in 0..100 {
            let maker = if n % 2 == 0 { &mount } else { &other };
            std::fs::write(maker.path(&format!("b/dir/{n}_file")), b"content").unwrap();
        }
        costs.push((asked_of_all(&cluster) - before) as f64 / 100.0);
    }
    println!("questions about names for each new file, with 3, 12, 48 and 100 nodes: {costs:?}");
    // Its own name, and once in a while that of its directory.
    assert!(costs.iter().all(|cost| *cost <= 1.5), "{costs:?}");
}

#[test]
fn a_dead_home_is_an_error_and_never_an_absence() {
    let Some((mount, mut cluster)) = setup() else { return };
    cluster.put("s4://b/0_dir/1_key", b"content");
    cluster.put("s4://b/0_key", b"content");
    cluster.kill_node(0);
    // Another node has a key in it, and so knows.
    assert!(std::fs::metadata(mount.path("b/0_dir")).unwrap().is_dir());
    assert_eq!(std::fs::read(mount.path("b/0_dir/1_key")).unwrap(), b"content");
    for name in ["0_key", "0_absent"] {
        let error = std::fs::metadata(mount.path(&format!("b/{name}"))).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(nix::libc::EIO), "{name}: {error}");
        let error = std::fs::write(mount.path(&format!("b/{name}")), b"x").unwrap_err();
        assert_eq!(error.raw_os_error(), Some(nix::libc::EIO), "{name}: {error}");
    }
    std::fs::write(mount.path("b/1_new"), b"of a node that lives").unwrap();
    cluster.start_node(0);
    assert_eq!(std::fs::read(mount.path("b/0_dir/1_key")).unwrap(), b"content");
}

#[test]
fn a_directory_has_its_own_mode_and_times() {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    let Some((mount, cluster)) = setup() else { return };
    let other = Mount::with_remote_nodes(&cluster, "other", &[0, 1, 2], &[]);
    for dir in ["b", "b/0_dir", "b/1_dir/2_dir"] {
        std::fs::create_dir_all(mount.path(dir)).unwrap();
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() as i64;
        let made = std::fs::metadata(mount.path(dir)).unwrap();
        assert!((made.mtime() - now).abs() < 60, "{dir}: {} and now {now}", made.mtime());
        std::fs::set_permissions(mount.path(dir), std::fs::Permissions::from_mode(0o751)).unwrap();
        let long_ago = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000);
        std::fs::File::open(mount.path(dir)).unwrap().set_modified(long_ago).unwrap();
        cluster.put(&format!("s4://{dir}/0_key"), b"content");
        let seen = std::fs::metadata(other.path(dir)).unwrap();
        assert_eq!((seen.mode() & 0o7777, seen.mtime()), (0o751, 1_000_000_000), "{dir}");
    }
    let listed = std::process::Command::new("ls").arg("-l").arg(other.path("b")).output().unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    assert!(listed.contains("drwxr-x--x") && listed.contains("2001"), "{listed}");
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
