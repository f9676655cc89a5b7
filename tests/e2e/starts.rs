//! What a daemon refuses at its start: with one line that says why.

use crate::harness::{Cluster, text};
use crate::mounts::Mounted;
use crate::observe::end_within;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// Starts node `node` on another data directory, which is to be refused; returns the reason.
fn refused(cluster: &Cluster, node: usize, data: &Path) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_s4-server"));
    command.arg("--conf").arg(cluster.conf()).args(["--port", &cluster.port(node).to_string()]).arg("--data").arg(data);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let end = end_within(Duration::from_secs(10), command.spawn().unwrap());
    let stderr = text(&end.stderr);
    assert_eq!(end.status.code(), Some(1), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "one line: {stderr}");
    assert!(stderr.starts_with("s4-server: "), "{stderr}");
    stderr
}

fn assert_contains(stderr: &str, parts: &[&str]) {
    for part in parts {
        assert!(stderr.contains(part), "no '{part}' in: {stderr}");
    }
}

#[test]
fn a_data_directory_in_use_is_refused() {
    let mut cluster = Cluster::start(2);
    cluster.stop_node(1);
    let data = cluster.data(0);
    assert_contains(&refused(&cluster, 1, &data), &[data.to_str().unwrap(), "another s4-server uses it"]);
    cluster.ok(&["cp", cluster.conf().to_str().unwrap(), "s4://b/0_x"]);
}

#[test]
fn a_data_directory_of_another_node_is_refused() {
    let mut cluster = Cluster::start(2);
    cluster.put("s4://b/1_x", b"x");
    cluster.stop_node(0);
    cluster.stop_node(1);
    let data = cluster.data(1);
    assert_contains(&refused(&cluster, 0, &data), &[data.to_str().unwrap(), "node 1 of 2", "node 0 of 2"]);
    cluster.start_node(0);
    cluster.start_node(1);
    assert_eq!(cluster.get("s4://b/1_x"), b"x", "the refused start has changed nothing");
}

#[test]
fn a_data_directory_of_a_smaller_cluster_is_refused() {
    let mut small = Cluster::start(1);
    small.put("s4://b/1_x", b"x");
    small.stop_node(0);
    let mut large = Cluster::start(2);
    large.stop_node(0);
    assert_contains(&refused(&large, 0, &small.data(0)), &["node 0 of 1", "node 0 of 2"]);
}

#[test]
fn a_data_directory_with_a_space_is_refused() {
    let mut cluster = Cluster::start(1);
    cluster.stop_node(0);
    for name in ["with space", "with'quote", "with\\backslash"] {
        let data = cluster.dir().join(name);
        assert_contains(&refused(&cluster, 0, &data), &[name, "whitespace"]);
    }
}

#[test]
fn a_data_directory_that_cannot_be_made_is_refused() {
    let mut cluster = Cluster::start(1);
    cluster.stop_node(0);
    assert_contains(&refused(&cluster, 0, Path::new("/proc")), &["data directory /proc: "]);
    let file = cluster.conf();
    assert_contains(&refused(&cluster, 0, &file), &[file.to_str().unwrap()]);
}

#[test]
fn a_data_directory_without_extended_attributes_is_refused() {
    let Some(disk) = Mounted::ramfs() else { return };
    let mut cluster = Cluster::start(1);
    cluster.stop_node(0);
    assert_contains(&refused(&cluster, 0, &disk.data()), &[disk.data().to_str().unwrap(), "extended attributes"]);
}

#[test]
fn a_port_in_use_is_refused() {
    let cluster = Cluster::start(1);
    let stderr = refused(&cluster, 0, &cluster.dir().join("other"));
    assert_contains(&stderr, &[&cluster.name(0), "in use"]);
    cluster.ok(&["health"]);
}
