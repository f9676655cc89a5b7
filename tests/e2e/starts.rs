//! What a daemon refuses at its start: with one line that says why.

use crate::harness::{Cluster, text};
use crate::mounts::Mounted;
use crate::observe::end_within;
use crate::programs::program;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// `s4-server` as node `node` with another data directory.
fn server(cluster: &Cluster, node: usize, data: &Path) -> Command {
    let mut command = Command::new(program("s4-server"));
    command.arg("--conf").arg(cluster.conf()).args(["--port", &cluster.port(node).to_string()]).arg("--data").arg(data);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Starts node `node` on another data directory, which is to be refused; returns the reason.
fn refused(cluster: &Cluster, node: usize, data: &Path) -> String {
    refusal(server(cluster, node, data))
}

/// The same of making it.
fn not_made(cluster: &Cluster, node: usize, data: &Path) -> String {
    let mut command = server(cluster, node, data);
    command.arg("--init");
    refusal(command)
}

fn make(cluster: &Cluster, node: usize, data: &Path) -> String {
    let made = server(cluster, node, data).arg("--init").output().unwrap();
    assert!(made.status.success(), "{}", text(&made.stderr));
    text(&made.stdout)
}

fn refusal(mut command: Command) -> String {
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
    cluster.ok(&["cp", cluster.conf().to_str().unwrap(), "s4://0_b/0_x"]);
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
        assert_contains(&not_made(&cluster, 0, &data), &[name, "whitespace"]);
        std::fs::create_dir_all(data.join(".s4")).unwrap();
        assert_contains(&refused(&cluster, 0, &data), &[name, "whitespace"]);
    }
}

#[test]
fn a_data_directory_that_cannot_be_made_is_refused() {
    let mut cluster = Cluster::start(1);
    cluster.stop_node(0);
    assert_contains(&not_made(&cluster, 0, Path::new("/proc")), &["data directory /proc: "]);
    let file = cluster.conf();
    assert_contains(&not_made(&cluster, 0, &file), &[file.to_str().unwrap()]);
}

#[test]
fn a_data_directory_without_extended_attributes_is_refused() {
    let Some(disk) = Mounted::ramfs() else { return };
    let mut cluster = Cluster::start(1);
    cluster.stop_node(0);
    assert_contains(&not_made(&cluster, 0, &disk.data()), &[disk.data().to_str().unwrap(), "extended attributes"]);
}

#[test]
fn a_port_in_use_is_refused() {
    let cluster = Cluster::start(1);
    let other = cluster.dir().join("other");
    make(&cluster, 0, &other);
    let stderr = refused(&cluster, 0, &other);
    assert_contains(&stderr, &[&cluster.name(0), "in use"]);
    cluster.ok(&["health"]);
}

#[test]
fn a_data_directory_that_is_not_there_is_never_made_by_a_start() {
    let mut cluster = Cluster::start(1);
    cluster.stop_node(0);
    // As where its disk is not mounted: the directory is there, and another's.
    let (missing, mountpoint) = (cluster.dir().join("missing"), cluster.dir().join("mountpoint"));
    std::fs::create_dir(&mountpoint).unwrap();
    for data in [missing, mountpoint] {
        let command = format!("--init --data {}", data.display());
        assert_contains(&refused(&cluster, 0, &data), &["is its disk mounted?", &command]);
        assert!(!data.join(".s4").exists(), "nothing is made");
        assert_contains(&make(&cluster, 0, &data), &["node 0: made"]);
        assert_contains(&make(&cluster, 0, &data), &["node 0: was made before"]);
    }
}

#[test]
fn a_directory_that_holds_anything_and_does_not_say_whose_it_is_is_not_made_a_data_directory() {
    let mut cluster = Cluster::start(2);
    cluster.put("s4://b/1_x", b"x");
    cluster.stop_node(0);
    cluster.stop_node(1);
    let data = cluster.data(1);
    std::fs::write(data.join(".s4/node"), "node 1").unwrap();
    for node in [0, 1] {
        let stderr = not_made(&cluster, node, &data);
        assert_contains(
            &stderr,
            &[data.to_str().unwrap(), "holds 'b'", ".s4/node", "empty directory", "without --init"],
        );
    }
    std::fs::remove_dir_all(data.join(".s4")).unwrap();
    assert_contains(&not_made(&cluster, 0, &data), &["holds 'b'", ".s4/node"]);
    assert!(!data.join(".s4").exists(), "nothing is made");
    // What the message says to do.
    std::fs::create_dir(data.join(".s4")).unwrap();
    assert_contains(&refused(&cluster, 0, &data), &["belongs on node 1"]);
    cluster.start_node(1);
    assert_eq!(cluster.get("s4://b/1_x"), b"x");
    // A disk that was just formatted is empty.
    let formatted = cluster.dir().join("formatted");
    std::fs::create_dir_all(formatted.join("lost+found")).unwrap();
    assert_contains(&make(&cluster, 0, &formatted), &["made"]);
}

#[test]
fn a_data_directory_in_or_around_another_is_refused() {
    let mut cluster = Cluster::start(2);
    cluster.put("s4://b/1_x", b"x");
    cluster.stop_node(0);
    let (inner, outer) = (cluster.data(1).join("b/inner"), cluster.data(1));
    assert_contains(
        &not_made(&cluster, 0, &inner),
        &[inner.to_str().unwrap(), outer.to_str().unwrap(), "another node"],
    );
    // One that was made before that was refused.
    std::fs::create_dir_all(inner.join(".s4")).unwrap();
    assert_contains(&refused(&cluster, 0, &inner), &[inner.to_str().unwrap(), outer.to_str().unwrap(), "another node"]);
    assert_contains(&not_made(&cluster, 0, cluster.dir()), &["data-", "another node"]);
}

#[test]
fn a_damaged_mark_of_whose_a_data_directory_is_is_made_anew_where_the_keys_tell() {
    let mut cluster = Cluster::start(2);
    for number in 0..10 {
        cluster.put(&format!("s4://b/d/{number}_x"), b"x");
    }
    let mark = cluster.data(1).join(".s4/node");
    let whole = std::fs::read(&mark).unwrap();
    for damaged in [&b""[..], b"node 1", b"node 1 of \n", b"\0\0\0\0", b"\xff\xfe", b"node 7 of 2\n"] {
        cluster.stop_node(1);
        std::fs::write(&mark, damaged).unwrap();
        cluster.start_node(1);
        assert_eq!(std::fs::read(&mark).unwrap(), whole, "{damaged:?}");
    }
    cluster.stop_node(1);
    std::fs::remove_file(&mark).unwrap();
    cluster.start_node(1);
    assert_eq!(std::fs::read(&mark).unwrap(), whole);
    assert!(cluster.log_text(1).contains(".s4/node"), "it is in the log");
    cluster.stop_node(0);
    cluster.stop_node(1);
    std::fs::write(&mark, "").unwrap();
    let data = cluster.data(1);
    assert_contains(&refused(&cluster, 0, &data), &[".s4/node", "damaged", "s4://b/d/1_x", "node 1", "node 0 of 2"]);
    assert_eq!(std::fs::read(&mark).unwrap(), b"", "the refused start has changed nothing");
}

#[test]
fn a_data_directory_is_closed_to_other_users() {
    use std::os::unix::fs::PermissionsExt;
    let mut cluster = Cluster::start(1);
    let modes = |cluster: &Cluster| {
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        [mode(&cluster.data(0)), mode(&cluster.data(0).join(".s4"))].map(|mode| format!("{mode:o}"))
    };
    assert_eq!(modes(&cluster), ["700", "700"], "made by the daemon");
    cluster.stop_node(0);
    for dir in [cluster.data(0), cluster.data(0).join(".s4")] {
        std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    cluster.start_node(0);
    assert_eq!(modes(&cluster), ["700", "700"], "found by the daemon");
}

#[test]
fn a_name_that_only_this_machine_understands_is_refused() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let dir = tempfile::Builder::new().prefix("s4-test-").tempdir().unwrap();
    let (hosts, conf, data) = (dir.path().join("hosts"), dir.path().join("conf"), dir.path().join("data"));
    std::fs::write(&hosts, "127.0.0.1 localhost\n127.0.1.1 ourselves\n").unwrap();
    std::fs::write(&conf, "ourselves:8080\n10.255.255.1:8080\n").unwrap();
    let server = program("s4-server");
    let script = format!(
        "mount --bind {} /etc/hosts && exec {server} --conf {} --data {}",
        hosts.display(),
        conf.display(),
        data.display()
    );
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c", &script]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let end = end_within(Duration::from_secs(10), command.spawn().unwrap());
    let stderr = text(&end.stderr);
    assert_eq!(end.status.code(), Some(1), "{stderr}");
    assert_contains(&stderr, &["node 0 (ourselves:8080)", "127.0.1.1", "no other machine can reach"]);
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
}

#[test]
fn the_unit_is_one_that_systemd_takes() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/units/s4-server.service");
    let unit = std::fs::read_to_string(path).unwrap();
    for needed in
        ["Delegate=yes", "RequiresMountsFor=", "RestartSec=", "OOMPolicy=continue", "KillMode=mixed", "StartLimit"]
    {
        assert!(unit.contains(needed), "{needed} is not in the unit");
    }
    let dir = tempfile::Builder::new().prefix("s4-test-").tempdir().unwrap();
    let path = dir.path().join("s4-server.service");
    // What is not on this machine is not what is looked at.
    let unit = unit.replace("/usr/bin/s4-server", program("s4-server")).replace("User=s4", "User=root");
    let unit = unit.replace("Group=s4", "Group=root");
    std::fs::write(&path, unit).unwrap();
    let Ok(verified) = Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&path).output() else {
        eprintln!("no systemd-analyze here");
        return;
    };
    let told = text(&verified.stderr);
    let ours: Vec<&str> = told.lines().filter(|line| line.contains("s4-server.service")).collect();
    assert!(ours.is_empty(), "{}", ours.join("\n"));
}
