//! Bad bytes on a disk: never delivered as if they were good.

use crate::harness::Cluster;
use crate::observe::listed;
use std::fs::{OpenOptions, Permissions};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;

/// The key that is damaged; on node 1.
const KEY: &str = "s4://in/1_bad";

#[derive(Debug, Clone, Copy)]
pub enum Damage {
    Flip(u64),
    Truncate(u64),
    Extend,
}

impl Damage {
    /// Changes the file in place, so that its attribute stays.
    pub fn apply(self, path: &Path) {
        std::fs::set_permissions(path, Permissions::from_mode(0o644)).unwrap();
        let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
        let len = file.metadata().unwrap().len();
        match self {
            Self::Flip(offset) => {
                let mut byte = [0];
                file.read_exact_at(&mut byte, offset).unwrap();
                file.write_all_at(&[byte[0] ^ 1], offset).unwrap();
            }
            Self::Truncate(by) => file.set_len(len - by).unwrap(),
            Self::Extend => file.write_all_at(b"x", len).unwrap(),
        }
        std::fs::set_permissions(path, Permissions::from_mode(0o444)).unwrap();
    }
}

/// What of a refusal's promises `args` does not keep.
fn broken_promises(cluster: &Cluster, args: &[&str]) -> Vec<String> {
    let stderr = cluster.fails(1, args);
    let parts = ["checksum error".to_owned(), KEY.to_owned(), cluster.name(1)];
    let missing = parts.iter().filter(|part| !stderr.contains(*part));
    missing.map(|part| format!("{args:?}: no '{part}' in: {stderr}")).collect()
}

/// Damages a key of `len` bytes, and tries every way to read it.
fn check_every_way(len: usize, damage: Damage) {
    let cluster = Cluster::start(2);
    let how = format!("{damage:?} of {len} bytes");
    cluster.put(KEY, &vec![b'a'; len]);
    // Of the same merge name, and first in it.
    cluster.put("s4://in/1_a", b"good\n");
    cluster.put("s4://only/1_good", b"good\n");
    damage.apply(&cluster.data(1).join("in/1_bad"));

    let ways: [&[&str]; 9] = [
        &["cp", KEY, "file"],
        &["cp", KEY, "-"],
        &["cp", "-r", "s4://in/", "tree"],
        &["eval", KEY, "cat"],
        &["eval", KEY, "true"],
        &["map", "s4://in/*bad", "s4://out/map/", "cat"],
        &["map", "s4://in/*bad", "s4://out/map/", "true"],
        &["map-to-n", "s4://in/*bad", "s4://out/to/", "cat > 0_x; echo 0_x"],
        &["map-from-n", "s4://in/", "s4://out/from/", "xargs -d '\\n' cat"],
    ];
    let broken: Vec<String> = ways.iter().flat_map(|way| broken_promises(&cluster, way)).collect();
    assert!(!cluster.dir().join("file").exists(), "{how}: cp made a file");
    let tree = std::fs::read_dir(cluster.dir().join("tree")).unwrap();
    let tree: Vec<_> = tree.map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(tree, ["1_a"], "{how}: cp -r brings the other key and nothing else");
    assert_eq!(listed(&cluster, "s4://out/"), [""; 0], "{how}: outputs");
    assert_eq!(cluster.get("s4://only/1_good"), b"good\n", "{how}");
    assert_eq!(cluster.ok(&["eval", "s4://only/1_good", "cat"]), "good\n", "{how}");
    cluster.ok(&["rm", KEY]);
    cluster.put(KEY, b"made again");
    assert_eq!(cluster.get(KEY), b"made again", "{how}: after what the message advises");
    assert!(broken.is_empty(), "{how}: {broken:#?}");
}

#[test]
fn a_flipped_byte_is_a_checksum_error_everywhere() {
    check_every_way(100, Damage::Flip(0));
    check_every_way(1, Damage::Flip(0));
}

#[test]
fn a_flipped_byte_of_a_large_key_is_a_checksum_error_everywhere() {
    check_every_way(3_000_000, Damage::Flip(2_999_999));
    check_every_way(3_000_000, Damage::Flip(1_500_000));
}

#[test]
fn a_truncated_key_is_a_checksum_error_everywhere() {
    check_every_way(100, Damage::Truncate(1));
    check_every_way(3_000_000, Damage::Truncate(1_000_000));
    check_every_way(100, Damage::Truncate(100));
}

#[test]
fn an_extended_key_is_a_checksum_error_everywhere() {
    check_every_way(100, Damage::Extend);
    check_every_way(0, Damage::Extend);
}

#[test]
fn a_damaged_key_fails_no_other_task() {
    let cluster = Cluster::start(2);
    for name in ["0_a", "1_a", "1_bad", "1_c"] {
        cluster.put(&format!("s4://in/{name}"), name.as_bytes());
    }
    Damage::Flip(2).apply(&cluster.data(1).join("in/1_bad"));
    let broken = broken_promises(&cluster, &["map", "--keep-going", "s4://in/", "s4://out/", "cat"]);
    assert!(broken.is_empty(), "{broken:#?}");
    for name in ["0_a", "1_a", "1_c"] {
        assert_eq!(cluster.get(&format!("s4://out/{name}")), name.as_bytes());
    }
    assert!(!cluster.data(1).join("out/1_bad").exists());
}
