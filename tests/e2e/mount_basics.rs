//! A mount's first promise: what was closed is a key, and what is a key can be read.

use crate::harness::Cluster;
use crate::mounting::{Mount, no_mounts};

#[test]
fn a_closed_file_is_a_key_and_a_key_is_a_file() {
    if let Some(reason) = no_mounts() {
        eprintln!("skipped: {reason}");
        return;
    }
    let cluster = Cluster::start(3);
    let mount = Mount::new(&cluster, "mnt", &[]);
    mount.ok("mkdir b && echo hello > b/k && (cat b/k; echo two) > b/k2");
    assert_eq!(cluster.get("s4://b/k2"), b"hello\ntwo\n");
    cluster.put("s4://b/dir/name", b"put");
    assert_eq!(mount.ok("cat b/dir/name"), "put");
}
