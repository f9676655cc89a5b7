//! Power cuts: the kernel's memory is lost, and what the disk has of it is what comes back. Needs root, for an ext4 in a file.

use crate::harness::{Cluster, text};
use crate::mounts::Mounted;
use crate::observe::listed;
use std::collections::BTreeMap;

const MIB: usize = 1 << 20;

/// Cuts the power of node 1's machine, and boots it.
fn cut_and_boot(cluster: &mut Cluster, disk: &Mounted) {
    disk.cut_power();
    cluster.kill_node(1);
    disk.boot();
}

/// Keys of node 1, of many lengths.
fn contents() -> BTreeMap<String, Vec<u8>> {
    let lens = [0, 1, 100, 5000, 70_000, 300_000, 3 * MIB];
    let content = |number: usize| (0..lens[number % lens.len()]).map(|at| (at * 31 + number) as u8).collect();
    (0..40).map(|number| (format!("s4://b/d{}/{}_k{number}", number % 3, 2 * number + 1), content(number))).collect()
}

/// Those of `contents` that are not whole on the disk of node 1.
fn damaged(cluster: &Cluster, contents: &BTreeMap<String, Vec<u8>>) -> usize {
    let on_disk = |key: &str| std::fs::read(cluster.data(1).join(key.strip_prefix("s4://").unwrap()));
    contents.iter().filter(|(key, bytes)| on_disk(key).is_ok_and(|found| found != **bytes)).count()
}

#[test]
fn keys_that_a_power_cut_damaged_are_taken_away_at_the_start() {
    let Some(disk) = Mounted::ext4(128 << 20) else { return };
    let mut cluster = Cluster::on_disk(&disk, &["--reserve", "0"]);
    let contents = contents();
    for (key, bytes) in &contents {
        cluster.put(key, bytes);
    }
    disk.commit_names();
    cut_and_boot(&mut cluster, &disk);
    let damaged = damaged(&cluster, &contents);
    assert!(damaged > 0, "the names are there and the bytes are not, or this shows nothing");
    cluster.start_node(1);
    let whole = listed(&cluster, "s4://b/");
    assert!(whole.len() < contents.len());
    for key in &whole {
        let key = format!("s4://b/{}", key.trim_start_matches("s4://b/").trim_start_matches("b/"));
        assert!(Some(&cluster.get(&key)) == contents.get(&key), "{key}");
    }
    let health = cluster.ok(&["health"]);
    assert!(health.contains(&format!("{damaged} keys that a power cut damaged")), "{health}");
    assert!(cluster.log_text(1).contains("not whole, taken away"), "{}", cluster.log_text(1));
    for (key, bytes) in &contents {
        let put = cluster.put_output(key, bytes);
        assert!(put.status.success() || text(&put.stderr).contains("already exists"), "{}", text(&put.stderr));
        assert!(cluster.get(key) == *bytes, "{key}");
    }
    // What was made later is on the disk by an orderly stop and boot, and none of it is in question then.
    cluster.stop_node(1);
    disk.boot();
    cluster.start_node(1);
    assert_eq!(listed(&cluster, "s4://b/").len(), contents.len());
    assert!(!cluster.ok(&["health"]).contains("power cut"));
}

#[test]
fn a_daemon_that_is_killed_reads_nothing_at_its_start() {
    let mut cluster = Cluster::start(1);
    cluster.put("s4://b/0_k", &vec![7; 3 * MIB]);
    cluster.kill_node(0);
    cluster.start_node(0);
    assert!(!cluster.log_text(0).contains("are read"), "{}", cluster.log_text(0));
    assert_eq!(cluster.get("s4://b/0_k").len(), 3 * MIB);
}

#[test]
fn a_damaged_note_of_the_last_sync_has_every_key_read() {
    let mut cluster = Cluster::start(1);
    cluster.put("s4://b/0_whole", b"whole");
    cluster.put("s4://b/0_cut", b"to be cut");
    cluster.kill_node(0);
    std::fs::write(cluster.data(0).join(".s4/synced"), "").unwrap();
    let cut = cluster.data(0).join("b/0_cut");
    std::fs::write(&cut, "to").unwrap();
    cluster.start_node(0);
    assert!(!cut.exists(), "{}", cluster.log_text(0));
    assert_eq!(cluster.get("s4://b/0_whole"), b"whole");
}

#[test]
fn with_fsync_a_power_cut_loses_no_key_and_not_whose_the_directory_is() {
    let Some(disk) = Mounted::ext4(128 << 20) else { return };
    let mut cluster = Cluster::on_disk(&disk, &["--reserve", "0", "--fsync"]);
    let contents = contents();
    for (key, bytes) in &contents {
        cluster.put(key, bytes);
    }
    cut_and_boot(&mut cluster, &disk);
    cluster.start_node(1);
    assert_eq!(listed(&cluster, "s4://b/").len(), contents.len());
    for (key, bytes) in &contents {
        assert!(cluster.get(key) == *bytes, "{key}");
    }
    assert!(!cluster.log_text(1).contains(".s4/node"), "{}", cluster.log_text(1));
}
