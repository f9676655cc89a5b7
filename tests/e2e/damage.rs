//! Bad bytes on a disk: never delivered as if they were good.

use crate::harness::{Cluster, text};
use std::fs::{OpenOptions, Permissions};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;

/// The key that is damaged; on node 1.
const KEY: &str = "s4://in/1_bad";

#[derive(Debug, Clone, Copy)]
enum Damage {
    Flip(u64),
    Truncate(u64),
    Extend,
}

impl Damage {
    /// Changes the file in place, so that its attribute stays.
    fn apply(self, path: &Path) {
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

fn assert_refused(cluster: &Cluster, how: &str, args: &[&str]) {
    let stderr = cluster.fails(1, args);
    for part in ["checksum error", KEY, &cluster.name(1)] {
        assert!(stderr.contains(part), "{how}: {args:?}: no '{part}' in: {stderr}");
    }
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

    assert_refused(&cluster, &how, &["cp", KEY, "file"]);
    assert!(!cluster.dir().join("file").exists(), "{how}: cp made a file");
    assert_refused(&cluster, &how, &["cp", KEY, "-"]);
    assert_refused(&cluster, &how, &["cp", "-r", "s4://in/", "tree"]);
    let tree = cluster.dir().join("tree");
    assert!(!tree.join("1_bad").exists(), "{how}: cp -r made a file");
    assert_eq!(std::fs::read(tree.join("1_a")).unwrap(), b"good\n", "{how}: the other key comes");
    let entries: Vec<_> = std::fs::read_dir(&tree).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(entries, ["1_a"], "{how}: cp -r leaves nothing else");

    assert_refused(&cluster, &how, &["eval", KEY, "cat"]);
    assert_refused(&cluster, &how, &["eval", KEY, "true"]);
    for cmd in ["cat", "true"] {
        assert_refused(&cluster, &how, &["map", "s4://in/*bad", "s4://out/map/", cmd]);
    }
    assert_refused(&cluster, &how, &["map-to-n", "s4://in/*bad", "s4://out/to/", "cat > 0_x; echo 0_x"]);
    assert_refused(&cluster, &how, &["map-from-n", "s4://in/", "s4://out/from/", "xargs cat"]);
    let listed = cluster.run(&["ls", "-r", "s4://out/"]);
    assert_eq!(text(&listed.stdout), "", "{how}: outputs");

    assert_eq!(cluster.get("s4://only/1_good"), b"good\n", "{how}");
    assert_eq!(cluster.ok(&["eval", "s4://only/1_good", "cat"]), "good\n", "{how}");
    cluster.ok(&["rm", KEY]);
    cluster.put(KEY, b"made again");
    assert_eq!(cluster.get(KEY), b"made again", "{how}: after what the message advises");
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
    assert_refused(&cluster, "keep-going", &["map", "--keep-going", "s4://in/", "s4://out/", "cat"]);
    for name in ["0_a", "1_a", "1_c"] {
        assert_eq!(cluster.get(&format!("s4://out/{name}")), name.as_bytes());
    }
    assert!(!cluster.data(1).join("out/1_bad").exists());
}
