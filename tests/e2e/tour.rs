//! The small tour of the README and the contract.

use crate::harness::Cluster;

#[test]
fn the_tour_maps_shuffles_and_merges() {
    let cluster = Cluster::start(4);
    cluster.put("s4://inputs/000_machine0", b"hello\n");
    cluster.put("s4://inputs/001_machine1", b"world\n");
    for node in [0, 1] {
        assert!(cluster.data(node).join(format!("inputs/00{node}_machine{node}")).is_file());
    }
    cluster.ok(&["map", "s4://inputs/", "s4://step1/", "sed s/o/0/"]);
    assert_eq!(cluster.get("s4://step1/000_machine0"), b"hell0\n");
    let spread = "cat > 002_machine2; cp 002_machine2 003_machine3; ls";
    cluster.ok(&["map-to-n", "s4://step1/", "s4://step2/", spread]);
    for node in [2, 3] {
        assert!(cluster.data(node).join(format!("step2/000_machine0/00{node}_machine{node}")).is_file());
    }
    cluster.ok(&["map-from-n", "s4://step2/", "s4://step3/", "xargs -d '\\n' cat"]);
    assert_eq!(cluster.get("s4://step3/002_machine2"), b"hell0\nw0rld\n");
    assert_eq!(cluster.get("s4://step3/003_machine3"), b"hell0\nw0rld\n");
}
