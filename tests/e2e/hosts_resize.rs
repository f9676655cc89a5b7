//! `s4 cluster resize` on machines, each with its own disk.

use crate::harness::text;
use crate::hosts::{Hosts, print_now};
use std::time::Instant;

const KEYS: usize = 10_000;

/// Prints name and checksum of every file of a copy of all keys, as it was made by the client.
const SUMS: &str = "rm -rf /tmp/copy && s4 cp -r s4://in/ /tmp/copy && cd /tmp/copy && \
                    find . -type f -print0 | sort -z | xargs -0 sha256sum && rm -rf /tmp/copy";

/// Resizes to the first `nodes` machines, as a dry run said before, and prints how long that took.
fn resize(hosts: &Hosts, nodes: usize) -> String {
    let names: Vec<String> = (0..nodes).map(|node| format!("node{node}")).collect();
    let mut args = vec!["cluster", "resize"];
    args.extend(names.iter().map(String::as_str));
    let tried = hosts.s4(&[&args[..], &["--dry-run"]].concat()).output().unwrap();
    let (tried, is_done) = (text(&tried.stderr), tried.status.success());
    let foreseen = tried.lines().find_map(|line| {
        line.strip_prefix("s4: would move ")?.split_once("; nothing was changed").map(|(what, _)| what)
    });
    let foreseen = foreseen.filter(|_| is_done).unwrap_or_else(|| panic!("{tried}"));
    let began = Instant::now();
    let output = hosts.s4(&args).output().unwrap();
    let told = text(&output.stderr);
    assert!(output.status.success(), "{args:?}: {told}");
    let moved = told.lines().find(|line| line.contains(" moved ")).unwrap_or_else(|| panic!("{told}"));
    assert!(moved.contains(&format!(" moved {foreseen}, in ")), "{foreseen}: {moved}");
    print_now(&format!("to {nodes} machines in {:.1} s: {moved}", began.elapsed().as_secs_f64()));
    tried + &told
}

fn health(hosts: &Hosts) -> usize {
    hosts.ok(&["health"]).lines().filter(|line| line.contains(" healthy")).count()
}

#[test]
fn machines_are_added_and_taken_with_the_checksum_of_every_key() {
    let Some(hosts) = Hosts::machines(5) else { return };
    hosts.ok(&["cluster", "up", "--data", "/data/s4", "node0", "node1", "node2"]);
    hosts.sh(&format!(
        "mkdir -p /tmp/tree/hash /tmp/tree/num && cd /tmp/tree && \
         for n in $(seq {half}); do echo hashed $n > hash/name$n; echo numbered $n > num/${{n}}_k; done && \
         s4 cp -r /tmp/tree s4://in/ && rm -rf /tmp/tree",
        half = KEYS / 2
    ));
    let sums = hosts.sh(SUMS);
    assert_eq!(sums.lines().count(), KEYS);

    let output = hosts.s4(&["cluster", "up", "node0", "node1", "node2", "node3"]).output().unwrap();
    assert!(text(&output.stderr).contains("'s4 cluster resize' adds nodes at the end"), "{}", text(&output.stderr));
    let output = hosts.s4(&["cluster", "resize", "node0", "node2", "node1", "node3"]).output().unwrap();
    assert!(text(&output.stderr).contains("node 1 is 10.99.0.2:8080 now"), "{}", text(&output.stderr));

    hosts.sh("for n in 0 1 2; do echo $n | s4 cp - s4://few/${n}_k; done; s4 map s4://few/ s4://mapped/ cat");
    hosts.sh("s4 map --detach s4://few/ s4://slow/ 'sleep 1000'");
    let output = hosts.s4(&["cluster", "resize", "node0", "node1", "node2", "node3"]).output().unwrap();
    let told = text(&output.stderr);
    assert!(told.contains("1 job running; wait for the end or cancel, then resize"), "{told}");
    assert!(!told.contains("copying"), "{told}");
    hosts.ok(&["cancel", "last"]);

    resize(&hosts, 5);
    assert_eq!(health(&hosts), 5);
    // That no job is on the new nodes does not mean that a part of it is lost.
    hosts.sh("s4 map s4://mapped/ s4://again5/ cat && s4 rm -r s4://again5/");
    assert!(hosts.sh(SUMS) == sums, "a key differs on 5 machines");
    assert!(hosts.ok(&["cluster", "up"]).contains("export S4_CONF_PATH"), "nothing is left to do");

    let told = resize(&hosts, 4);
    assert!(told.contains("node4 would be no node any more") && told.contains("node4: no node any more"), "{told}");
    assert_eq!(health(&hosts), 4);
    assert!(hosts.sh(SUMS) == sums, "a key differs on 4 machines");
    hosts.sh("s4 map s4://mapped/ s4://again4/ cat");
    let left =
        hosts.sh_on(4, "find /data /etc/s4.conf /etc/s4.conf.secret /usr/local/bin/s4 2> /dev/null | grep s4; true");
    assert_eq!(left, "", "on a machine that left");
    hosts.ok(&["cluster", "status"]);
    hosts.ok(&["cluster", "destroy", "--yes"]);
}
