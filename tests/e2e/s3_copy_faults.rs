//! Copies with S3 while things fail: nothing wrong is published on either side, `--resume` finishes, no upload in parts is
//! left behind, and no secret is anywhere.

use crate::harness::{Cluster, eventually, text};
use crate::mounts::Mounted;
use crate::s3_copy::{bytes, copied, copy, get_object, put_object, with_credentials};
use crate::s3_servers::{Fault, Proxy, S3Server, SECRET_KEY};
use std::path::Path;
use std::process::{Child, Stdio};

const LARGE: usize = 40_000_000;

/// A server with a large object and some small ones below `src/`, and the cluster to copy to and from.
fn prepared(server: &S3Server) -> Cluster {
    let output = put_object(&server.url(), "src/large", &bytes(LARGE));
    assert!(output.status.success(), "{}", text(&output.stderr));
    for number in 0..20 {
        assert!(put_object(&server.url(), &format!("src/f{number}"), &bytes(1000 + number)).status.success());
    }
    Cluster::start(2)
}

/// All that is there below `in/` is right; true if nothing is missing.
fn check_keys(cluster: &Cluster) -> bool {
    let listed = text(&cluster.run(&["ls", "-r", "s4://in/"]).stdout);
    let names: Vec<&str> = listed.lines().filter_map(|line| line.split_whitespace().last()).collect();
    for name in &names {
        let wanted = match name.strip_prefix('f') {
            Some(number) => bytes(1000 + number.parse::<usize>().unwrap()),
            None => bytes(LARGE),
        };
        assert!(cluster.get(&format!("s4://in/{name}")) == wanted, "{name}");
    }
    names.len() == 21
}

/// The same of the objects below `out/`.
fn check_objects(server: &S3Server) -> bool {
    let keys: Vec<String> = server.keys().into_iter().filter(|key| key.starts_with("out/")).collect();
    for key in &keys {
        let wanted = match key.strip_prefix("out/f") {
            Some(number) => bytes(1000 + number.parse::<usize>().unwrap()),
            None => bytes(LARGE),
        };
        assert!(get_object(&server.url(), key).stdout == wanted, "{key}");
    }
    keys.len() == 21
}

/// Every third request of those that `concern` fails.
fn every_third(
    fault: Fault,
    concerns: impl Fn(&str) -> bool + Send + 'static,
) -> impl FnMut(&str) -> Option<Fault> + Send {
    let mut count = 0;
    move |request| {
        count += u32::from(concerns(request));
        (concerns(request) && count % 3 == 0).then_some(fault)
    }
}

#[test]
fn copies_go_through_faults_of_the_network() {
    for server in S3Server::all() {
        let cluster = prepared(&server);
        let of_objects = |request: &str| request.contains("/data/");
        for fault in [Fault::Busy, Fault::Expired, Fault::Reset, Fault::Cut, Fault::LoseAnswer] {
            let proxy = Proxy::before(&server, every_third(fault, of_objects));
            copied(&cluster, &proxy.url(), &["s3://data/src/", "s4://in/"]);
            assert!(check_keys(&cluster), "{fault:?}");
            copied(&cluster, &proxy.url(), &["s4://in/", "s3://data/out/"]);
            assert!(check_objects(&server), "{fault:?}");
            assert_eq!(server.unfinished_uploads(), 0, "{fault:?}");
            assert!(proxy.seen().len() > 20);
            cluster.ok(&["rm", "-r", "s4://in/"]);
            for key in server.keys().into_iter().filter(|key| key.starts_with("out/")) {
                server.curl(&["-X", "DELETE"], &format!("data/{key}"));
            }
        }
    }
}

#[test]
fn wrong_bytes_become_no_key() {
    for server in S3Server::all() {
        let cluster = prepared(&server);
        // moto knows no checksum of what was written in parts.
        let what = if server.knows_parts() { "GET /data/src/" } else { "GET /data/src/f" };
        let gets_objects = move |request: &str| request.starts_with(what).then_some(Fault::Garble);
        let proxy = Proxy::before(&server, gets_objects);
        let output = copy(&cluster, &proxy.url(), &["s3://data/src/", "s4://in/", "--jobs", "32"]);
        let told = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{told}");
        assert!(told.contains("do not match"), "{told}");
        assert!(!check_keys(&cluster), "and what is there is right");
        proxy.heal();
        copied(&cluster, &proxy.url(), &["s3://data/src/", "s4://in/", "--resume"]);
        assert!(check_keys(&cluster));
    }
}

/// SeaweedFS compares what it gets with the checksums beside it. moto does not, so nothing is said about it.
#[test]
fn wrong_bytes_become_no_object() {
    let Some(server) = S3Server::seaweed() else { return };
    let cluster = prepared(&server);
    copied(&cluster, &server.url(), &["s3://data/src/", "s4://in/"]);
    let puts = |request: &str| request.starts_with("PUT ");
    let proxy = Proxy::before(&server, every_third(Fault::GarbleRequest, puts));
    let _ = copy(&cluster, &proxy.url(), &["s4://in/", "s3://data/out/"]);
    check_objects(&server);
    proxy.heal();
    copied(&cluster, &proxy.url(), &["s4://in/", "s3://data/out/", "--resume"]);
    assert!(check_objects(&server));
    assert_eq!(server.unfinished_uploads(), 0);
}

/// Parts whose requests go nowhere, once the upload has begun: a copy that is under way until it is ended.
fn stuck(server: &S3Server) -> Proxy {
    let mut parts = 0;
    Proxy::before(server, move |request| {
        parts += u32::from(request.contains("partNumber="));
        (request.contains("partNumber=") && parts > 2).then_some(Fault::Busy)
    })
}

/// A copy out that hangs at its large object.
fn begun(cluster: &Cluster, server: &S3Server) -> (Proxy, Child) {
    copied(cluster, &server.url(), &["s3://data/src/", "s4://in/"]);
    let proxy = stuck(server);
    let mut command =
        with_credentials(cluster.command(&["cp", "-r", "--send-credentials", "--endpoint-url", &proxy.url()]));
    let child =
        command.args(["s4://in/", "s3://data/out/"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    eventually("a part is refused", || {
        let seen = proxy.seen();
        (seen.iter().filter(|request| request.contains("partNumber=")).count() > 2).then_some(())
    });
    (proxy, child)
}

#[test]
fn a_cancelled_copy_leaves_no_upload_behind_and_goes_on() {
    for server in S3Server::all() {
        let cluster = prepared(&server);
        let (proxy, child) = begun(&cluster, &server);
        assert_eq!(server.unfinished_uploads(), 1);
        cluster.ok(&["cancel", "last"]);
        assert_eq!(child.wait_with_output().unwrap().status.code(), Some(1));
        eventually("the upload is aborted", || (server.unfinished_uploads() == 0).then_some(()));
        assert!(!check_objects(&server));
        proxy.heal();
        copied(&cluster, &proxy.url(), &["s4://in/", "s3://data/out/", "--resume"]);
        assert!(check_objects(&server));
    }
}

#[test]
fn an_upload_that_a_killed_worker_left_goes_on() {
    for server in S3Server::all() {
        let cluster = prepared(&server);
        let (proxy, child) = begun(&cluster, &server);
        for pid in workers_of(&cluster) {
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).unwrap();
        }
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        assert!(text(&output.stderr).contains("SIGKILL"), "{}", text(&output.stderr));
        assert_eq!(server.unfinished_uploads(), 1);
        proxy.heal();
        let before = proxy.seen().len();
        copied(&cluster, &proxy.url(), &["s4://in/", "s3://data/out/", "--resume"]);
        assert!(check_objects(&server));
        assert_eq!(server.unfinished_uploads(), 0);
        let seen = proxy.seen();
        let sent = seen[before..].iter().filter(|request| request.contains("partNumber=")).count();
        assert!(sent < 3, "the parts that are there are not sent again: {seen:?}");
    }
}

#[test]
fn a_killed_daemon_takes_its_worker_along_and_resume_finishes() {
    for server in S3Server::all() {
        let mut cluster = prepared(&server);
        let (proxy, child) = begun(&cluster, &server);
        for node in 0..2 {
            cluster.kill_node(node);
        }
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
        eventually("the workers have ended", || workers_of(&cluster).is_empty().then_some(()));
        assert_eq!(server.unfinished_uploads(), 0, "they abort what they have begun");
        for node in 0..2 {
            cluster.start_node(node);
        }
        proxy.heal();
        copied(&cluster, &proxy.url(), &["s4://in/", "s3://data/out/", "--resume"]);
        assert!(check_objects(&server));
    }
}

#[test]
fn a_copy_goes_on_without_its_client() {
    let Some(server) = S3Server::moto() else { return };
    let cluster = prepared(&server);
    let (proxy, mut child) = begun(&cluster, &server);
    child.kill().unwrap();
    child.wait().unwrap();
    proxy.heal();
    let waited = cluster.run(&["wait", "last"]);
    assert!(waited.status.success(), "{}", text(&waited.stderr));
    assert!(check_objects(&server));
}

#[test]
fn an_interrupted_put_leaves_nothing() {
    for server in S3Server::all() {
        let proxy = stuck(&server);
        let mut command = crate::s3_copy::s4_s3(&proxy.url(), &["put", "s3://data/x"]);
        let mut child = command.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let writing = std::thread::spawn(move || _ = std::io::Write::write_all(&mut stdin, &bytes(60_000_000)));
        eventually("an upload has begun", || (server.unfinished_uploads() == 1).then_some(()));
        let pid = nix::unistd::Pid::from_raw(child.id() as i32);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
        assert_eq!(child.wait_with_output().unwrap().status.code(), Some(1));
        writing.join().unwrap();
        assert_eq!((server.unfinished_uploads(), server.keys().len()), (0, 0));
    }
}

#[test]
fn secrets_are_in_no_file_no_process_list_and_no_answer() {
    let Some(server) = S3Server::moto() else { return };
    let cluster = prepared(&server);
    let (proxy, child) = begun(&cluster, &server);
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        if entry.file_name().to_string_lossy().bytes().all(|b| b.is_ascii_digit()) {
            let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            // Other tests pass it to curl, at the same time.
            assert!(line.starts_with(b"curl\0") || !text(&line).contains(SECRET_KEY), "{}", text(&line));
        }
    }
    for pid in workers_of(&cluster) {
        let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        assert!(!String::from_utf8_lossy(&environment).contains(SECRET_KEY));
    }
    for args in [&["jobs", "--json"][..], &["jobs"], &["logs", "last"]] {
        assert!(!text(&cluster.run(args).stdout).contains(SECRET_KEY), "{args:?}");
    }
    let digest = cluster.digest();
    for node in 0..cluster.len() {
        for path in ["/", "/metrics", "/v1/status", "/v1/health", "/v1/jobs"] {
            let head =
                format!("GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\ns4-cluster: {digest}\r\n\r\n");
            let answer = cluster.raw(node, head.as_bytes());
            assert!(answer.starts_with("HTTP/1.1 200 ") && !answer.contains(SECRET_KEY), "{path}: {answer}");
        }
    }
    assert!(!cluster.ok(&["health", "--json"]).contains(SECRET_KEY));
    cluster.ok(&["cancel", "last"]);
    let output = child.wait_with_output().unwrap();
    assert!(!text(&output.stderr).contains(SECRET_KEY));
    drop(proxy);
    no_file_holds(cluster.dir(), SECRET_KEY.as_bytes());
}

/// Reads every file below `dir`.
fn no_file_holds(dir: &Path, secret: &[u8]) {
    for entry in walk(dir) {
        let content = std::fs::read(&entry).unwrap_or_default();
        assert!(!content.windows(secret.len()).any(|window| window == secret), "{}", entry.display());
    }
}

fn walk(dir: &Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .flat_map(|entry| match entry.file_type() {
            Ok(kind) if kind.is_dir() => walk(&entry.path()),
            Ok(kind) if kind.is_file() => vec![entry.path()],
            _ => Vec::new(),
        })
        .collect()
}

/// The workers of the daemons of this cluster.
fn workers_of(cluster: &Cluster) -> Vec<i32> {
    let dir = cluster.dir().to_string_lossy().into_owned();
    let is_ours = |pid: &i32| {
        std::fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|path| path.to_string_lossy().starts_with(&dir))
    };
    workers().into_iter().filter(is_ours).collect()
}

fn workers() -> Vec<i32> {
    let pids =
        std::fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid: &i32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains("s4-s3\0copy-worker")
    })
    .collect()
}

#[test]
fn a_full_disk_gets_no_wrong_key_and_resume_finishes() {
    let (Some(disk), Some(server)) = (Mounted::ext4(64 << 20), S3Server::moto()) else { return };
    let cluster = Cluster::on_disk(&disk, &["--reserve", "0"]);
    cluster.put("s4://b/1_stays", &vec![5; 30 << 20]);
    for (key, len) in [("0_small", 10), ("1_small", 11), ("1_large", 40_000_000)] {
        assert!(put_object(&server.url(), &format!("src/{key}"), &bytes(len)).status.success());
    }
    let output = copy(&cluster, &server.url(), &["s3://data/src/", "s4://in/"]);
    let told = text(&output.stderr);
    assert!(output.status.code() == Some(1) && told.to_lowercase().contains("no space"), "{told}");
    assert_eq!(cluster.ok(&["ls", "-r", "s4://in/"]).lines().count(), 2, "those that fit");
    cluster.ok(&["rm", "s4://b/1_stays"]);
    copied(&cluster, &server.url(), &["s3://data/src/", "s4://in/", "--resume"]);
    for (key, len) in [("0_small", 10), ("1_small", 11), ("1_large", 40_000_000)] {
        assert!(cluster.get(&format!("s4://in/{key}")) == bytes(len), "{key}");
    }
}
