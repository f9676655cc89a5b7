//! `s4 scrub` finds what is wrong on the disks, and nothing else.

use crate::harness::{Cluster, eventually, text};
use crate::observe::spawn;
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

const MIB: usize = 1 << 20;

/// Lets the test change a key's file.
fn open_up(path: &Path) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

fn flip(path: &Path, at: usize) {
    open_up(path);
    let mut bytes = std::fs::read(path).unwrap();
    bytes[at] ^= 1;
    std::fs::write(path, bytes).unwrap();
}

fn cut(path: &Path, len: u64) {
    open_up(path);
    std::fs::OpenOptions::new().write(true).open(path).unwrap().set_len(len).unwrap();
}

/// Sets the checksum's attribute with Python, or removes it.
fn attribute(path: &Path, value: Option<&str>) {
    open_up(path);
    let code = match value {
        Some(value) => format!("os.setxattr(sys.argv[1], 'user.s4.key', b'{value}')"),
        None => "os.removexattr(sys.argv[1], 'user.s4.key')".to_owned(),
    };
    let done = Command::new("python3").args(["-c", &format!("import os, sys; {code}")]).arg(path).status().unwrap();
    assert!(done.success(), "{}", path.display());
}

fn metric(cluster: &Cluster, name: &str) -> u64 {
    let of = |node| {
        let answer = cluster.raw(node, b"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n");
        let value = answer.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')).map(str::to_owned);
        value.expect("the metric is there").trim().parse::<u64>().unwrap()
    };
    (0..cluster.len()).map(of).sum()
}

/// Twelve whole keys on three nodes, nested, large, small and empty.
fn whole_keys(cluster: &Cluster) {
    for (name, len) in [("0_a", 0), ("1_b", 1), ("2_c", 4096), ("d", 5000), ("0_e", 3 * MIB + 17), ("1_f", MIB)] {
        cluster.put(&format!("s4://b/{name}"), &vec![7; len]);
        cluster.put(&format!("s4://b/deep/er/{name}"), &vec![8; len]);
    }
}

#[test]
fn a_whole_cluster_has_no_findings() {
    let cluster = Cluster::start(3);
    whole_keys(&cluster);
    let output = cluster.run(&["scrub"]);
    let told = text(&output.stderr);
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(0), String::new()), "{told}");
    assert!(told.starts_with("s4: 12 keys checked, ") && told.ends_with(": no damage found\n"), "{told}");
    assert_eq!(
        (metric(&cluster, "s4_scrubbed_keys_total"), metric(&cluster, "s4_scrub_findings_total{fault=\"damaged\"}")),
        (12, 0)
    );
    assert_eq!(metric(&cluster, "s4_scrubbed_bytes_total"), 2 * (1 + 4096 + 5000 + 3 * MIB as u64 + 17 + MIB as u64));
}

#[test]
fn stray_files_are_removed_on_request_and_no_key_of_their_names() {
    let cluster = Cluster::start(3);
    whole_keys(&cluster);
    let (key, stray) = (cluster.data(2).join("b/2_c"), cluster.data(1).join("b/2_c"));
    std::fs::copy(&key, &stray).unwrap();
    std::fs::create_dir(cluster.data(0).join("b/own")).unwrap();
    std::fs::write(cluster.data(0).join("b/own/1_other"), "by hand").unwrap();
    assert!(cluster.run(&["scrub"]).status.code() == Some(1) && stray.exists());
    let output = cluster.run(&["scrub", "--remove-strays"]);
    let lines = text(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{lines}");
    for line in [
        format!(
            "{}: s4://b/own/1_other: it lay here and belongs on node 1, so that it was no key; removed",
            cluster.name(0)
        ),
        format!("{}: s4://b/2_c: it lay here and belongs on node 2, so that it was no key; removed", cluster.name(1)),
    ] {
        assert!(lines.lines().any(|found| found == line), "{line}: {lines}");
    }
    assert!(!stray.exists() && !cluster.data(0).join("b/own").exists());
    assert_eq!(cluster.get("s4://b/2_c"), vec![7; 4096]);
    assert!(cluster.ok(&["scrub"]).is_empty());
}

#[test]
fn every_kind_of_damage_is_found_with_its_node_and_key() {
    let cluster = Cluster::start(3);
    whole_keys(&cluster);
    for name in ["0_flip", "1_short", "2_long", "0_bare", "1_garbled", "2_moved"] {
        cluster.put(&format!("s4://z/{name}"), &vec![9; 100_000]);
    }
    let file = |node, name: &str| cluster.data(node).join("z").join(name);
    flip(&file(0, "0_flip"), 99_999);
    flip(&cluster.data(0).join("b/deep/er/0_e"), 2 * MIB);
    cut(&file(1, "1_short"), 99_999);
    cut(&file(2, "2_long"), 100_001);
    attribute(&file(0, "0_bare"), None);
    attribute(&file(1, "1_garbled"), Some("what"));
    std::fs::rename(file(2, "2_moved"), file(0, "2_moved")).unwrap();
    std::fs::write(file(2, "2_copied"), "by hand").unwrap();

    let output = cluster.run(&["scrub"]);
    let told = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{told}");
    let lines = text(&output.stdout);
    let found: BTreeSet<&str> = lines.lines().collect();
    let (n0, n1, n2) = (cluster.name(0), cluster.name(1), cluster.name(2));
    let expected = [
        format!("{n0}: s4://b/deep/er/0_e: checksum error: its bytes are not those that were stored"),
        format!("{n0}: s4://z/0_bare: no checksum is recorded: s4 did not put this file"),
        format!("{n0}: s4://z/0_flip: checksum error: its bytes are not those that were stored"),
        format!("{n0}: s4://z/2_moved: it lies here and belongs on node 2, so that it is no key"),
        format!("{n1}: s4://z/1_garbled: no checksum is recorded: s4 did not put this file"),
        format!("{n1}: s4://z/1_short: checksum error: stored with 100000 bytes, the file has 99999"),
        format!("{n2}: s4://z/2_copied: no checksum is recorded: s4 did not put this file"),
        format!("{n2}: s4://z/2_long: checksum error: stored with 100000 bytes, the file has 100001"),
    ];
    assert_eq!(found, expected.iter().map(String::as_str).collect());
    assert_eq!(lines.lines().count(), expected.len(), "each once: {lines}");
    assert!(told.contains("19 keys checked") && told.contains(": 4 damaged, 3 unchecksummed, 1 stray\n"), "{told}");
    for (fault, count) in [("damaged", 4), ("unchecksummed", 3), ("stray", 1), ("unreadable", 0)] {
        assert_eq!(metric(&cluster, &format!("s4_scrub_findings_total{{fault=\"{fault}\"}}")), count, "{fault}");
    }

    let one = cluster.run(&["scrub", "--node", "1"]);
    assert_eq!(text(&one.stdout).lines().count(), 2, "{}", text(&one.stdout));
    assert!(cluster.fails(2, &["scrub", "--node", "3"]).contains("the nodes are 0 to 2"));
    assert_eq!(cluster.get("s4://b/deep/er/1_f"), vec![8; MIB], "nothing is changed");
}

#[test]
fn an_interrupted_scrub_is_resumed_and_what_was_deleted_is_no_finding() {
    let cluster = Cluster::start(2);
    cluster.put("s4://b/0_a", b"first");
    for name in ["0_m", "0_n", "0_x", "0_y"] {
        cluster.put(&format!("s4://b/{name}"), &vec![1; 4 * MIB]);
    }
    cluster.put("s4://b/1_other", b"on the other node");
    for name in ["0_a", "0_x", "0_y"] {
        flip(&cluster.data(0).join("b").join(name), 0);
    }
    // It takes minutes at this rate, so it ends here only with its client.
    let mut scrub = spawn(&cluster, &["scrub", "--rate", "100K"]);
    let mut lines = BufReader::new(scrub.stdout.take().unwrap()).lines();
    assert!(lines.next().unwrap().unwrap().contains("s4://b/0_a"));
    let other = cluster.fails(1, &["scrub", "--node", "0"]);
    assert!(other.contains("another scrub reads this node") && other.contains("1 of 1 node"), "{other}");
    cluster.ok(&["rm", "s4://b/0_x"]);
    cluster.put("s4://b/0_later", b"also checked, since it comes after 0_a");
    scrub.kill().unwrap();
    scrub.wait().unwrap();
    let noted =
        eventually("the node notes where it was", || std::fs::read_to_string(cluster.data(0).join(".s4/scrub")).ok());
    assert!(noted.contains("b/0_a"), "{noted}");

    let rest = eventually("the first scrub has ended", || {
        let output = cluster.run(&["scrub", "--resume", "--rate", "10G"]);
        (!text(&output.stderr).contains("another scrub")).then_some(output)
    });
    assert_eq!(rest.status.code(), Some(1));
    let found = text(&rest.stdout);
    assert!(found.lines().count() == 1 && found.contains("s4://b/0_y"), "{found}");
    let told = text(&rest.stderr);
    assert!(told.contains("6 keys checked") && told.contains("1 damaged, 1 more before the interruption"), "{told}");
    let again = cluster.run(&["scrub", "--resume"]);
    assert_eq!((again.status.code(), text(&again.stdout)), (Some(1), String::new()), "nothing is left to read");
    assert!(text(&again.stderr).contains("none found, 2 before"), "{}", text(&again.stderr));
}

#[test]
fn a_node_that_is_killed_is_named_and_the_others_are_checked() {
    let mut cluster = Cluster::start(2);
    for name in ["0_a", "0_b", "1_c"] {
        cluster.put(&format!("s4://b/{name}"), &vec![1; MIB]);
    }
    flip(&cluster.data(0).join("b/0_a"), 0);
    let mut scrub =
        cluster.command(&["scrub", "--rate", "700K"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(scrub.stdout.take().unwrap()).lines();
    assert!(lines.next().unwrap().unwrap().contains("s4://b/0_a"));
    cluster.kill_node(0);
    let end = scrub.wait_with_output().unwrap();
    let told = text(&end.stderr);
    assert_eq!(end.status.code(), Some(1), "{told}");
    assert!(told.contains(&cluster.name(0)) && told.contains("1 of 2 nodes not checked to the end"), "{told}");
    cluster.start_node(0);
    let rest = cluster.run(&["scrub", "--resume", "--rate", "10G"]);
    assert!(text(&rest.stderr).contains("3 keys checked"), "{}", text(&rest.stderr));
    assert_eq!(rest.status.code(), Some(1));
}
