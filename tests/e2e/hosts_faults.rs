//! Faults of whole machines, each with its own disk.

use crate::harness::{eventually, text};
use crate::hosts::Hosts;
use crate::sites::{NODES, Site};

/// A cluster of machines, with a key on each.
fn machines(nodes: usize) -> Option<Hosts> {
    let hosts = Hosts::machines(nodes)?;
    let names: Vec<String> = (0..nodes).map(|node| format!("node{node}")).collect();
    let mut up = vec!["cluster", "up", "--data", "/data/s4"];
    up.extend(names.iter().map(String::as_str));
    hosts.ok(&up);
    hosts.sh(&format!("for n in $(seq 0 {}); do seq $n 10000 | s4 cp - s4://in/${{n}}_k; done", nodes - 1));
    Some(hosts)
}

fn fails(hosts: &Hosts, args: &[&str]) -> String {
    let output = hosts.s4(args).output().unwrap();
    assert!(!output.status.success(), "s4 {args:?} succeeded");
    text(&output.stderr) + &text(&output.stdout)
}

#[test]
fn a_full_disk_refuses_puts_and_keeps_what_is_there() {
    let Some(hosts) = machines(2) else { return };
    hosts.fill(1, 1 << 10);
    assert!(fails(&hosts, &["cp", "/shared/programs/s4", "s4://in/1_big"]).contains("no space"));
    assert!(fails(&hosts, &["health"]).contains("1 10.99.0.2:8080 full: "));
    assert!(fails(&hosts, &["cluster", "status"]).contains("1 node1 10.99.0.2:8080 full: "));
    hosts.sh("s4 cp s4://in/1_k - | cmp - <(seq 1 10000) && s4 cp /shared/programs/s4 s4://in/0_big");
    hosts.empty(1);
    hosts.ok(&["cp", "/shared/programs/s4", "s4://in/1_big"]);
}

#[test]
fn a_failing_disk_is_an_error_and_never_an_empty_listing() {
    let Some(hosts) = machines(2) else { return };
    hosts.fail(1);
    let is_told = || text(&hosts.s4(&["health"]).output().unwrap().stdout).contains("1 10.99.0.2:8080 failing: ");
    eventually("the failing disk is told", || is_told().then_some(()));
    // The kernel may still know the names.
    let listed = hosts.s4(&["ls", "s4://in/"]).output().unwrap();
    assert!(!listed.status.success() || text(&listed.stdout).lines().count() == 2, "{}", text(&listed.stdout));
    for args in [&["cp", "/etc/hostname", "s4://in/1_new"][..], &["map", "s4://in/", "s4://out/", "cat"]] {
        assert!(fails(&hosts, args).contains("node 1 (10.99.0.2:8080)"), "{args:?}");
    }
    hosts.sh("s4 cp s4://in/0_k - | cmp - <(seq 0 10000)");
}

#[test]
fn what_was_synced_is_there_after_a_power_cut_and_a_boot() {
    let Some(mut hosts) = machines(2) else { return };
    hosts.sh_on(1, "sync -f /data");
    hosts.sh("seq 100000 | s4 cp - s4://in/1_late");
    hosts.power_cut(1);
    assert!(fails(&hosts, &["--deadline", "1", "cp", "s4://in/1_k", "-"]).contains("node 1 (10.99.0.2:8080)"));
    hosts.boot(1);
    // Without systemd, nothing starts the daemon at a boot.
    hosts.ok(&["cluster", "up"]);
    hosts.sh("s4 cp s4://in/1_k - | cmp - <(seq 1 10000)");
    // The late key is whole, or not there.
    hosts.sh("if s4 cp s4://in/1_late late; then cmp late <(seq 100000); else ! s4 ls s4://in/1_late; fi");
}

/// The mount and node 0 have connections to node 1 from before, and nothing has told them that these are dead.
#[test]
fn connections_from_before_a_power_cut_fail_nothing_after_it() {
    let Some(mut site) = Site::new(&[]) else { return };
    let write = |dir: &str| format!("mkdir mnt/{dir} && for n in 0 1 2; do seq $n 9999 > mnt/{dir}/${{n}}_k; done");
    let shuffle = |from: &str, to: &str| {
        format!(
            "s4 $D map-to-n s4://{from}/ s4://{to}/ 'cat > in; for n in 0 1 2; do cat in > ${{n}}_x; echo ${{n}}_x; done'"
        )
    };
    site.ok(&write("before")).unwrap();
    site.ok(&shuffle("before", "shuffled")).unwrap();
    (0..NODES).for_each(|node| site.hosts.sync(node));
    for round in 0..3 {
        site.hosts.power_cut(1);
        // For the whole deadline: no machine is back in an instant.
        assert!(!site.output("s4 $D cp s4://before/1_k -").status.success());
        site.hosts.boot(1);
        eventually("node 1 is back", || site.ok("s4 $D health").ok());
        let (dir, to) = (format!("after{round}"), format!("shuffled{round}"));
        site.ok(&write(&dir)).unwrap();
        site.ok(&shuffle(&dir, &to)).unwrap();
        site.ok(&format!("[ $(s4 $D ls -r s4://{to}/ | wc -l) = 9 ] && seq 1 9999 | cmp - mnt/{to}/1_k/1_x")).unwrap();
    }
}

#[test]
fn nodes_that_do_not_hear_each_other_fail_a_shuffle_that_names_one() {
    let Some(hosts) = machines(3) else { return };
    hosts.partition(0, 1);
    let shuffle =
        ["--deadline", "2", "map-to-n", "s4://in/", "s4://out/", "for n in 0 1 2; do cat > ${n}_x; echo ${n}_x; done"];
    assert!(fails(&hosts, &shuffle).contains("node "));
    hosts.sh("for n in 0 1 2; do s4 cp s4://in/${n}_k - | cmp - <(seq $n 10000); done");
    hosts.heal();
    hosts.ok(&["map-to-n", "--resume", "s4://in/", "s4://out/", shuffle[5]]);
}

#[test]
fn a_frozen_daemon_is_an_error_within_the_deadline_and_no_loss() {
    let Some(hosts) = machines(2) else { return };
    hosts.freeze(1, "s4-server");
    assert!(fails(&hosts, &["--deadline", "1", "cp", "s4://in/1_k", "-"]).contains("no answer within 1 s"));
    hosts.thaw(1, "s4-server");
    hosts.sh("s4 cp s4://in/1_k - | cmp - <(seq 1 10000)");
}

#[test]
fn a_slow_link_is_no_fault() {
    let Some(hosts) = machines(2) else { return };
    if hosts.slow(1, "8mbit") {
        hosts.sh("head -c 2M /dev/zero | s4 cp - s4://in/1_z && s4 --deadline 2 cp s4://in/1_z - | cmp - <(head -c 2M /dev/zero)");
    }
}
