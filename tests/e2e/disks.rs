//! Disks that fill.

use crate::harness::{Cluster, text};
use crate::mounts::Mounted;
use crate::observe::{end_within, leftovers, spawn};
use std::time::Duration;

const MIB: usize = 1 << 20;
/// What directories and the records of jobs may keep.
const SLACK: u64 = 256 << 10;

fn assert_says_no_space(cluster: &Cluster, stderr: &str) {
    assert!(stderr.to_lowercase().contains("no space"), "{stderr}");
    assert!(stderr.contains(&cluster.name(1)), "{stderr}");
}

#[test]
fn a_put_that_fills_the_disk_fails_and_leaves_what_was_there() {
    let Some(disk) = Mounted::ext4(64 << 20) else { return };
    let cluster = Cluster::on_disk(&disk, &["--reserve", "0"]);
    let stays = vec![5; 20 * MIB];
    cluster.put("s4://b/1_stays", &stays);
    let free = disk.free_bytes();
    std::fs::write(cluster.dir().join("1_large"), vec![6; 60 * MIB]).unwrap();
    for args in [["cp", "1_large", "s4://b/"], ["cp", "1_large", "s4://b/dir/1_again"]] {
        assert_says_no_space(&cluster, &cluster.fails(1, &args));
        // What ended before may give back its last block only now.
        assert!(disk.free_bytes() >= free, "the bytes of the put that failed are given back");
    }
    let put = cluster.put_output("s4://b/1_stream", &vec![7; 60 * MIB]);
    assert_eq!(put.status.code(), Some(1));
    assert_says_no_space(&cluster, &text(&put.stderr));
    std::fs::create_dir(cluster.dir().join("tree")).unwrap();
    std::fs::rename(cluster.dir().join("1_large"), cluster.dir().join("tree/1_large")).unwrap();
    // Some are sent before the large one and some behind it, over the same connection.
    (0..10).for_each(|n| std::fs::write(cluster.dir().join(format!("tree/1_small{n}")), "small").unwrap());
    assert_says_no_space(&cluster, &cluster.fails(1, &["cp", "-r", "tree", "s4://b/tree/"]));
    for n in 0..10 {
        assert_eq!(cluster.get(&format!("s4://b/tree/1_small{n}")), b"small", "those that fit are put");
    }

    assert!(cluster.get("s4://b/1_stays") == stays);
    let names = cluster.ok(&["ls", "-r", "s4://b/"]);
    assert_eq!(names.lines().count(), 11, "{names}");
    cluster.ok(&["rm", "s4://b/1_stays"]);
    cluster.put("s4://b/1_more", &vec![8; 40 * MIB]);
    cluster.put("s4://b/0_other", b"the other node's disk has nothing to do with it");
}

#[test]
fn a_map_that_fills_the_disk_fails_and_leaves_no_temporary_files() {
    let Some(disk) = Mounted::ext4(64 << 20) else { return };
    let cluster = Cluster::on_disk(&disk, &["--reserve", "0"]);
    for number in [1, 3, 5, 7] {
        cluster.put(&format!("s4://in/{number}_k"), b"x");
    }
    let free = disk.free_bytes();
    let maps = [
        ("map", "s4://in/", "s4://out/a/", "head -c 30M /dev/zero"),
        ("map-to-n", "s4://in/", "s4://out/b/", "head -c 30M /dev/zero > 1_x; echo 1_x"),
        ("map-from-n", "s4://in/", "s4://out/c/", "head -c 30M /dev/zero"),
    ];
    for (kind, indir, outdir, cmd) in maps {
        let end = end_within(Duration::from_secs(60), spawn(&cluster, &[kind, indir, outdir, cmd]));
        assert_eq!(end.status.code(), Some(1), "{kind}");
        assert_says_no_space(&cluster, &text(&end.stderr));
        assert_eq!(leftovers(&cluster), Vec::<std::path::PathBuf>::new(), "{kind}");
        for line in text(&cluster.run(&["ls", "-r", outdir]).stdout).lines() {
            assert!(line.contains(&(30 * MIB).to_string()), "{kind}: an output that is not whole: {line}");
        }
        cluster.run(&["rm", "-r", outdir]);
        assert!(disk.free_bytes() + SLACK > free, "{kind}: {} of {free} bytes are back", disk.free_bytes());
    }
    cluster.ok(&["map", "s4://in/", "s4://out/d/", "head -c 1M /dev/zero"]);
}

#[test]
fn outputs_that_fill_another_nodes_disk_fail_the_shuffle_naming_that_node() {
    let Some(disk) = Mounted::ext4(64 << 20) else { return };
    let cluster = Cluster::on_disk(&disk, &["--reserve", "0"]);
    cluster.put("s4://in/0_k", b"x");
    let free = disk.free_bytes();
    let cmd = "head -c 80M /dev/zero > 1_x; echo 1_x";
    assert_says_no_space(&cluster, &cluster.fails(1, &["map-to-n", "s4://in/", "s4://out/", cmd]));
    assert!(disk.free_bytes() + SLACK > free, "{} of {free} bytes are back", disk.free_bytes());
    assert_eq!(leftovers(&cluster), Vec::<std::path::PathBuf>::new());
    cluster.fails(1, &["ls", "-r", "s4://out/"]);
    // Whoever deletes on this node waits until it has heard what the other holds.
    cluster.ok(&["rm", "s4://in/0_k"]);
    for node in 0..2 {
        assert!(
            !cluster.data(node).join("out").exists(),
            "node {node} keeps a directory in which nothing was published"
        );
    }
}

#[test]
fn below_the_default_reserve_puts_are_refused_and_deletes_work() {
    let Some(disk) = Mounted::ext4(64 << 20) else { return };
    let cluster = Cluster::on_disk(&disk, &[]);
    let refused = (0..64).map(|number| cluster.put_output(&format!("s4://b/1_{number}"), &vec![1; MIB]));
    let refused = refused.into_iter().find(|put| !put.status.success()).expect("a put is refused");
    assert_eq!(refused.status.code(), Some(1));
    assert_says_no_space(&cluster, &text(&refused.stderr));
    assert!(disk.free_bytes() > MIB as u64, "there was space for one more, but for the reserve");
    assert_says_no_space(&cluster, &cluster.fails(1, &["map", "s4://b/", "s4://out/", "true"]));
    assert_eq!(cluster.get("s4://b/1_0"), vec![1; MIB]);
    for number in 0..4 {
        cluster.ok(&["rm", &format!("s4://b/1_{number}")]);
    }
    cluster.put("s4://b/1_new", b"new");
    cluster.ok(&["rm", "-r", "s4://b"]);
}

/// What is recorded with a key lies in its inode, of an output too.
#[test]
fn a_small_key_takes_one_block_and_an_empty_one_none() {
    use std::os::unix::fs::MetadataExt;
    let Some(disk) = Mounted::ext4(64 << 20) else { return };
    let cluster = Cluster::on_disk(&disk, &["--reserve", "0"]);
    cluster.put("s4://b/1_empty", b"");
    cluster.put("s4://b/1_small", b"small");
    cluster.ok(&["map", "s4://b/", "s4://map/", "cat"]);
    cluster.ok(&["map-from-n", "s4://b/", "s4://from/", "true"]);
    cluster.ok(&["map-to-n", "s4://b/", "s4://to/", "cat > 1_x; echo 1_x"]);
    let blocks = |key: &str| std::fs::metadata(disk.data().join(key)).unwrap().blocks() * 512;
    for key in ["b/1_empty", "map/1_empty", "from/1", "to/1_empty/1_x"] {
        assert_eq!(blocks(key), 0, "{key}");
    }
    for key in ["b/1_small", "map/1_small", "to/1_small/1_x"] {
        assert!(blocks(key) <= 4096, "{key}: {}", blocks(key));
    }
}

#[test]
fn a_file_that_travels_with_a_job_leaves_the_reserve() {
    let Some(disk) = Mounted::ext4(160 << 20) else { return };
    let cluster = Cluster::on_disk(&disk, &["--reserve", "60M"]);
    cluster.put("s4://in/1_k", b"k");
    let free = disk.free_bytes();
    std::fs::write(cluster.dir().join("table"), vec![5; 120 * MIB]).unwrap();
    let stderr = cluster.fails(1, &["map", "--file", "table", "s4://in/", "s4://out/", "cat"]);
    assert_says_no_space(&cluster, &stderr);
    assert!(disk.free_bytes() + SLACK >= free, "what was sent of it is given back");
    cluster.put("s4://in/1_l", b"there is room for keys");
}
