//! Peers that ask for much and read nothing, and peers that are gone.

use crate::harness::{Cluster, eventually, peak_kib, resident_kib, text};
use crate::observe::{end_within, spawn};
use crate::programs::program;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const MIB: u64 = 1024;
/// Streams that a daemon takes at once.
const MAX_CONNECTIONS: usize = 2048;
/// What `health` promises, and something for a busy machine.
const HEALTH: Duration = Duration::from_secs(10);

/// Sends a request, and reads nothing.
fn ask(cluster: &Cluster, path: &str, headers: &str) -> TcpStream {
    let mut stream = connect(cluster);
    send(&mut stream, &cluster.digest(), path, headers);
    stream
}

fn connect(cluster: &Cluster) -> TcpStream {
    TcpStream::connect(("127.0.0.1", cluster.port(0))).unwrap()
}

fn send(stream: &mut TcpStream, digest: &str, path: &str, headers: &str) {
    let head = format!("GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ns4-cluster: {digest}\r\n{headers}\r\n");
    stream.write_all(head.as_bytes()).unwrap();
}

/// A connection over which a part of a key was asked for, of which nothing is read.
fn ask_part(cluster: &Cluster, key: &str, sum: &str, offset: u64, len: u64) -> TcpStream {
    let mut stream = connect(cluster);
    let part = format!(r#"{{"checksum":"{sum}","offset":{offset},"len":{len}}}"#);
    let head = format!(
        "POST /v1/connect HTTP/1.1\r\nhost: 127.0.0.1\r\ns4-cluster: {}\r\nconnection: upgrade\r\nupgrade: s4-frames\r\n\
         s4-request: {{\"get\":{{\"key\":\"{key}\",\"part\":{part}}}}}\r\n\r\n",
        cluster.digest()
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream
}

/// A cluster of one with a key of 32 MiB, and the key's checksum.
fn cluster() -> (Cluster, String) {
    s4::limits::raise_descriptors();
    let cluster = Cluster::start(1);
    cluster.put("s4://b/0_large", &vec![7; 32 << 20]);
    let sum = checksum(&cluster, "b/0_large");
    (cluster, sum)
}

fn checksum(cluster: &Cluster, key: &str) -> String {
    let mut head = [0; 512];
    let n = ask(cluster, &format!("/v1/keys/{key}"), "").read(&mut head).unwrap();
    let head = text(&head[..n]);
    head.lines().find_map(|line| line.strip_prefix("s4-checksum: ")).unwrap().to_owned()
}

fn assert_healthy(cluster: &Cluster) {
    let end = end_within(HEALTH, spawn(cluster, &["health"]));
    assert!(end.status.success(), "{}{}", text(&end.stdout), text(&end.stderr));
}

#[test]
fn what_nobody_reads_takes_little_memory_and_none_afterwards() {
    let (cluster, sum) = cluster();
    let pid = cluster.pid(0);
    let part = |cluster: &Cluster| ask_part(cluster, "b/0_large", &sum, 0, 4 << 20);
    let whole = |cluster: &Cluster| ask(cluster, "/v1/keys/b/0_large", "");
    type Open<'a> = &'a dyn Fn(&Cluster) -> TcpStream;
    let ways: [(&str, Open, usize); 2] = [("a part", &part, 300), ("the key", &whole, 600)];
    for (path, open, count) in ways {
        let unread: Vec<TcpStream> = (0..count).map(|_| open(&cluster)).collect();
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(3) {
            assert_healthy(&cluster);
        }
        let peak = peak_kib(pid);
        assert!(peak < 200 * MIB, "{count} unread of {path}: {peak} KiB");
        // Others are served all the while.
        assert_eq!(cluster.get("s4://b/0_large").len(), 32 << 20);
        drop(unread);
        let little = || (resident_kib(pid) < 24 * MIB).then_some(());
        eventually("memory comes back", || little().or_else(|| cluster.log_text(0).contains("panicked").then_some(())));
        assert!(little().is_some(), "{}", cluster.log_text(0));
    }
}

#[test]
fn parts_whose_sums_are_not_known_take_little_memory() {
    let (cluster, _) = cluster();
    std::fs::File::create(cluster.dir().join("0_larger")).unwrap().set_len(512 << 20).unwrap();
    cluster.ok(&["cp", "0_larger", "s4://b/"]);
    let sum = checksum(&cluster, "b/0_larger");
    // Without the sums of its parts, all of it is read before the first part is given out, and the others wait for that.
    xattr::remove(cluster.data(0).join("b/0_larger"), s4::blocks::BLOCKS_ATTRIBUTE).unwrap();
    let asking: Vec<TcpStream> =
        (0..1000).map(|number| ask_part(&cluster, "b/0_larger", &sum, number * 300_000 + 1, 1)).collect();
    for mut stream in asking {
        let mut answer = Vec::new();
        let mut block = [0; 4096];
        while !answer.ends_with(b"\0") {
            let n = stream.read(&mut block).unwrap();
            assert!(n > 0, "{}", text(&answer));
            answer.extend_from_slice(&block[..n]);
        }
    }
    let peak = peak_kib(cluster.pid(0));
    assert!(peak < 200 * MIB, "{peak} KiB");
}

#[test]
fn more_unread_streams_than_a_daemon_has_room_for_keep_nobody_out_for_long() {
    let (cluster, _) = cluster();
    let upgrade = "connection: upgrade\r\nupgrade: s4-frames\r\n";
    let unread: Vec<TcpStream> = (0..2500).map(|_| ask(&cluster, "/v1/keys/b/0_large", upgrade)).collect();
    assert_healthy(&cluster);
    let threads = std::fs::read_dir(format!("/proc/{}/task", cluster.pid(0))).unwrap().count();
    assert!(threads < MAX_CONNECTIONS + 150, "{threads} threads");
    // At first there is no room, or there is again; then those who read nothing are cut off.
    let output = cluster.run(&["cp", "s4://b/0_large", "-"]);
    let stderr = text(&output.stderr);
    assert!(output.status.success() || (stderr.contains("node 0") && stderr.lines().count() == 1), "{stderr}");
    eventually("there is room again", || cluster.run(&["cp", "s4://b/0_large", "-"]).status.success().then_some(()));
    assert_healthy(&cluster);
    drop(unread);
}

/// A network namespace with one cable to this one. Dropped, both are gone.
struct Host {
    name: String,
    near: String,
}

fn ip(args: &[&str]) {
    let output = Command::new("ip").args(args).output().expect("ip runs");
    assert!(output.status.success(), "ip {args:?}: {}", text(&output.stderr));
}

impl Host {
    /// Addresses: `10.77.NET.1` here and `.2` there.
    fn new(net: u8) -> Self {
        let name = format!("s4t{}x{net}", std::process::id() % 100_000);
        let host = Self { near: format!("{name}n"), name };
        let far = format!("{}f", host.name);
        ip(&["netns", "add", &host.name]);
        ip(&["link", "add", &host.near, "type", "veth", "peer", "name", &far, "netns", &host.name]);
        ip(&["addr", "add", &format!("10.77.{net}.1/24"), "dev", &host.near]);
        ip(&["link", "set", &host.near, "up"]);
        ip(&["-n", &host.name, "addr", "add", &format!("10.77.{net}.2/24"), "dev", &far]);
        ip(&["-n", &host.name, "link", "set", &far, "up"]);
        host
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // Where they are gone, or never were, there is nothing to do.
        let _ = Command::new("ip").args(["link", "del", &self.near]).stderr(Stdio::null()).status();
        let _ = Command::new("ip").args(["netns", "del", &self.name]).stderr(Stdio::null()).status();
    }
}

/// A process that is killed with its group when it is dropped.
struct Running(std::process::Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn what_a_client_asked_for_whose_host_vanishes_ends_within_a_minute() {
    if !nix::unistd::geteuid().is_root() || Command::new("ip").arg("netns").output().is_err() {
        eprintln!("skipped: not root, or no network namespaces here");
        return;
    }
    let net = (std::process::id() % 250) as u8;
    let host = Host::new(net);
    let dir = tempfile::Builder::new().prefix("s4-test-").tempdir().unwrap();
    let port = crate::harness::Port::claim();
    let conf = dir.path().join("s4.conf");
    std::fs::write(&conf, format!("10.77.{net}.1:{}\n", port.number())).unwrap();
    let log = std::fs::File::create(dir.path().join("log")).unwrap();
    let server = || {
        let mut server = Command::new(program("s4-server"));
        server.arg("--conf").arg(&conf).arg("--data").arg(dir.path().join("data")).args(["--reserve", "0"]);
        server.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log.try_clone().unwrap());
        server
    };
    assert!(server().arg("--init").status().unwrap().success());
    let daemon = Running(server().spawn().unwrap());
    let s4 = |args: &[&str]| {
        let mut command = Command::new(program("s4"));
        command.args(args).env("S4_CONF_PATH", &conf).stdin(Stdio::null());
        command
    };
    eventually("the daemon answers", || s4(&["health"]).output().unwrap().status.success().then_some(()));
    let large = dir.path().join("0_large");
    std::fs::File::create(&large).unwrap().set_len(1 << 30).unwrap();
    assert!(s4(&["cp", large.to_str().unwrap(), "s4://b/"]).status().unwrap().success());
    let sockets = || {
        let open = std::fs::read_dir(format!("/proc/{}/fd", daemon.0.id())).unwrap().flatten();
        let open = open.filter_map(|fd| std::fs::read_link(fd.path()).ok());
        open.filter(|to| to.to_string_lossy().starts_with("socket:")).count()
    };
    let before = sockets();
    let mark = dir.path().join("runs");
    let cmd = format!("touch {}; trap 'rm {}' EXIT; yes", mark.display(), mark.display());
    let there = |args: &[&str]| {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &host.name, program("s4")]).args(args).env("S4_CONF_PATH", &conf);
        Running(command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap())
    };
    // One that is read, one that prints nothing, one that is not read.
    let mut read = there(&["eval", "s4://b/0_large", &cmd]);
    let mut stdout = read.0.stdout.take().unwrap();
    std::thread::spawn(move || std::io::copy(&mut stdout, &mut std::io::sink()));
    let _silent = there(&["eval", "s4://b/0_large", "sleep 1000"]);
    let _unread = there(&["cp", "s4://b/0_large", "-"]);
    eventually("the eval runs", || mark.exists().then_some(()));
    ip(&["-n", &host.name, "link", "set", &format!("{}f", host.name), "down"]);
    let began = Instant::now();
    let left = || (sockets().saturating_sub(before), commands_of(daemon.0.id()));
    while left() != (0, 0) {
        assert!(began.elapsed() < Duration::from_secs(60), "sockets and commands a minute later: {:?}", left());
        std::thread::park_timeout(Duration::from_millis(50));
    }
    eprintln!("all ended {:.1} s after the host vanished", began.elapsed().as_secs_f64());
}

/// Children of a process.
fn commands_of(pid: u32) -> usize {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
    let children = tasks.map(|task| std::fs::read_to_string(task.path().join("children")).unwrap_or_default());
    children.map(|children| children.split_whitespace().count()).sum()
}
