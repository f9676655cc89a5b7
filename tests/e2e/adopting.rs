//! Files of other processes of the machine, which a daemon is asked to link as keys.

use crate::harness::{Cluster, eventually};
use crate::programs::program;
use crate::strange_bodies::ask;
use std::fs::{File, Metadata};
use std::io::Write;
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::process::{Command, Stdio};

fn adopt(cluster: &Cluster, pid: u32, fd: i32, found: &std::fs::Metadata) -> String {
    let (device, inode, len) = (found.dev(), found.ino(), found.len());
    let body = format!(r#"{{"pid":{pid},"fd":{fd},"device":{device},"inode":{inode},"len":{len}}}"#);
    ask(cluster, "POST", "/v1/adopt/in/000_new", body.as_bytes())
}

fn assert_refused(cluster: &Cluster, answer: &str) {
    assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("in/000_new: the file to be linked"), "{answer}");
    assert_eq!(cluster.fails(1, &["ls", "-r"]).lines().count(), 1, "nothing was published");
}

/// The descriptors of a process, with what they are.
fn descriptors(pid: u32) -> Vec<(i32, std::fs::Metadata)> {
    let dir = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
    let number = |entry: &std::fs::DirEntry| entry.file_name().to_str()?.parse().ok();
    dir.filter_map(|entry| Some((number(&entry)?, std::fs::metadata(entry.path()).ok()?))).collect()
}

fn threads(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().count()
}

#[test]
fn a_daemon_keeps_its_lock_whatever_it_is_asked_to_link() {
    let mut cluster = Cluster::start(1);
    let pid = cluster.pid(0);
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
    let tasks: Vec<u32> = tasks.map(|task| task.file_name().to_str().unwrap().parse().unwrap()).collect();
    for (fd, found) in descriptors(pid) {
        for &task in &tasks {
            assert_refused(&cluster, &adopt(&cluster, task, fd, &found));
        }
    }
    // The same file by way of another process that has it open.
    let lock = cluster.data(0).join(".s4/lock");
    let opened = File::open(&lock).unwrap();
    assert_refused(&cluster, &adopt(&cluster, std::process::id(), opened.as_raw_fd(), &opened.metadata().unwrap()));
    let second = Command::new(program("s4-server"))
        .arg("--conf")
        .arg(cluster.conf())
        .args(["--port", &cluster.port(0).to_string(), "--data"])
        .arg(cluster.data(0))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&second.stderr);
    assert!(!second.status.success() && stderr.contains("another s4-server uses it"), "{stderr}");
    cluster.stop_node(0);
    cluster.start_node(0);
}

/// What another client is just sending would become a key cut short.
#[test]
fn a_file_that_the_daemon_itself_is_writing_is_not_linked() {
    let cluster = Cluster::start(1);
    let mut putting = TcpStream::connect(("127.0.0.1", cluster.port(0))).unwrap();
    let head = format!("PUT /v1/keys/in/000_other HTTP/1.1\r\nhost: 127.0.0.1\r\ns4-cluster: {}\r\n", cluster.digest());
    putting.write_all(format!("{head}content-length: 9000000\r\n\r\n").as_bytes()).unwrap();
    putting.write_all(&[7; 100_000]).unwrap();
    let pid = cluster.pid(0);
    let is_draft = |(_, found): &(i32, Metadata)| found.is_file() && found.nlink() == 0 && found.len() > 0;
    let (fd, found) = eventually("it is being written", || descriptors(pid).into_iter().find(is_draft));
    let answer = adopt(&cluster, pid, fd, &found);
    assert!(answer.contains("is this daemon's own"), "{answer}");
    assert_refused(&cluster, &answer);
}

#[test]
fn what_would_block_or_act_when_it_is_opened_is_not_opened() {
    let cluster = Cluster::start(1);
    let fifo = cluster.dir().join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let open = |path: &Path| File::options().read(true).custom_flags(nix::libc::O_PATH).open(path).unwrap();
    cluster.ok(&["health"]);
    let before = threads(cluster.pid(0));
    for path in [&fifo, Path::new("/dev/null"), cluster.dir(), Path::new("/dev/ptmx"), &cluster.conf()] {
        let file = open(path);
        for _ in 0..100 {
            assert_refused(&cluster, &adopt(&cluster, std::process::id(), file.as_raw_fd(), &file.metadata().unwrap()));
        }
    }
    let after = threads(cluster.pid(0));
    assert!(after <= before + 8, "{before} threads before, {after} after");
}

#[test]
fn a_file_of_another_user_is_not_linked() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let cluster = Cluster::start(1);
    let theirs = tempfile::tempfile_in(cluster.dir()).unwrap();
    std::os::unix::fs::fchown(&theirs, Some(12_345), None).unwrap();
    assert_refused(&cluster, &adopt(&cluster, std::process::id(), theirs.as_raw_fd(), &theirs.metadata().unwrap()));
}
