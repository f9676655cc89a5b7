//! The log of a daemon: what is in it at each level, and what never is.

use crate::harness::{Cluster, eventually, text};

const SECRET: &str = "correct horse battery staple";

/// A cluster with a secret, and its environment variable for clients.
fn with_secret(nodes: usize, options: &[&str]) -> (Cluster, tempfile::TempDir, String) {
    let home = tempfile::Builder::new().prefix("s4-test-").tempdir().unwrap();
    let path = home.path().join("secret").to_str().unwrap().to_owned();
    std::fs::write(&path, SECRET).unwrap();
    let cluster = Cluster::with_options(nodes, &[&["--reserve", "0", "--secret", &path], options].concat());
    (cluster, home, path)
}

/// The lines of a node's log, and nothing that was printed at the start.
fn lines(cluster: &Cluster, node: usize) -> Vec<String> {
    let log = cluster.log_text(node);
    log.lines().filter(|line| !line.starts_with("s4-server: ")).map(str::to_owned).collect()
}

/// Waits for a line that has all of `parts`: an answer may come before its line.
fn line_with(cluster: &Cluster, node: usize, parts: &[&str]) -> String {
    let what = format!("a line with {parts:?}");
    eventually(&what, || lines(cluster, node).into_iter().find(|line| parts.iter().all(|part| line.contains(part))))
}

fn request(path: &str, headers: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n{headers}\r\n").into_bytes()
}

#[test]
fn each_refused_request_is_a_line_with_its_reason_and_where_it_comes_from() {
    let (cluster, _home, _) = with_secret(1, &[]);
    let secret = format!("s4-secret: {SECRET}\r\n");
    let ours = format!("{secret}s4-cluster: {}\r\n", cluster.digest());
    for (request, parts) in [
        (request("/v1/health", ""), ["GET /v1/health from 127.0.0.1:", "the shared secret is missing"]),
        (request("/v1/jobs", "s4-secret: wrong horse battery\r\n"), ["GET /v1/jobs from", "missing or wrong"]),
        (request("/v1/list", &secret), ["GET /v1/list from", "the header s4-cluster is missing"]),
        (request("/v1/usage", &format!("{secret}s4-cluster: 0\r\n")), ["GET /v1/usage", "has another node list"]),
        (request("/metrics", "origin: http://evil.example\r\n"), ["GET /metrics from", "a browser's page"]),
        (request("/v1/none?a=%0Ab", &ours), ["GET /v1/none?a=%0Ab from", "/v1/none"]),
        (b"no HTTP at all\r\n\r\n".to_vec(), ["a request from 127.0.0.1:", "invalid HTTP"]),
    ] {
        cluster.raw(0, &request);
        let line = line_with(&cluster, 0, &parts);
        assert!(line.contains(" WARN ") && line.contains(" refused: "), "{line}");
    }
    nothing_secret(&cluster, &[SECRET, "wrong horse"]);
}

/// Every line has time, level and the node, and none has any of `secrets`.
fn nothing_secret(cluster: &Cluster, secrets: &[&str]) {
    for node in 0..cluster.len() {
        for line in lines(cluster, node) {
            let mut words = line.split_whitespace();
            assert!(words.next().is_some_and(|time| time.ends_with('Z')), "{line}");
            assert!(["ERROR", "WARN", "INFO", "DEBUG"].contains(&words.next().unwrap()), "{line}");
            assert!(line.contains(&cluster.name(node)), "{line}");
            assert!(!secrets.iter().any(|secret| line.contains(secret)), "{line}");
        }
    }
}

#[test]
fn a_flood_of_refused_requests_is_a_bounded_number_of_lines_and_a_count() {
    const SENT: usize = 300;
    let (mut cluster, _home, _) = with_secret(1, &[]);
    let one = b"GET /v1/health HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n".repeat(SENT - 1);
    let answers = cluster.raw(0, &[one, request("/v1/health", "")].concat());
    assert_eq!(answers.matches("HTTP/1.1 403").count(), SENT);
    cluster.stop_node(0);
    let log = lines(&cluster, 0);
    let single = log.iter().filter(|line| line.contains("GET /v1/health from")).count();
    let counts =
        log.iter().filter_map(|line| line.split_once(" more like the ")?.0.rsplit(' ').next()?.parse::<usize>().ok());
    let counts: Vec<usize> = counts.collect();
    // A slow machine may need several windows.
    assert!(single < SENT / 2 && !counts.is_empty(), "{log:#?}");
    assert_eq!(single + counts.iter().sum::<usize>(), SENT, "{log:#?}");
}

#[test]
fn a_job_begins_and_ends_in_the_log_by_its_id() {
    let cluster = Cluster::start(2);
    cluster.put("s4://in/0_a", b"x");
    cluster.put("s4://in/1_b", b"x");
    cluster.ok(&["map", "s4://in/", "s4://out/", "cat; : hunter2"]);
    cluster.fails(1, &["map", "s4://in/", "s4://bad/", "echo hunter2 >&2; exit 3"]);
    cluster.fails(1, &["map", "s4://in/", "s4://out/", "cat"]);
    let jobs = cluster.ok(&["jobs"]);
    let ids: Vec<&str> = jobs.lines().skip(1).filter_map(|line| line.split_whitespace().next()).collect();
    let done =
        ids.iter().find(|id| lines(&cluster, 0).iter().any(|line| line.contains(*id) && line.contains("s4://out/")));
    let failed =
        ids.iter().find(|id| lines(&cluster, 0).iter().any(|line| line.contains(*id) && line.contains("s4://bad/")));
    let (done, failed) = (format!("job {}", done.expect("a job")), format!("job {}", failed.expect("a job")));
    for node in 0..2 {
        line_with(&cluster, node, &[" INFO ", &done, "begins: map s4://in/ s4://out/, 1 tasks here"]);
        line_with(&cluster, node, &[" INFO ", &done, "ended: done, 1 done, 0 failed, 1 outputs"]);
        line_with(&cluster, node, &[" INFO ", &failed, "begins: map s4://in/ s4://bad/"]);
        line_with(&cluster, node, &[" INFO ", &failed, "ended: "]);
        line_with(&cluster, node, &[" WARN ", "job ", "refused: ", "exists"]);
    }
    nothing_secret(&cluster, &["hunter2"]);
}

#[test]
fn a_failed_request_is_a_warning_that_names_node_and_key() {
    let cluster = Cluster::start(2);
    cluster.put("s4://in/1_a", b"x");
    let path = cluster.data(1).join("in/1_a");
    xattr::remove(&path, "user.s4.key").unwrap();
    cluster.fails(1, &["cp", "s4://in/1_a", "-"]);
    let line = line_with(&cluster, 1, &[" WARN ", "s4://in/1_a", "failed: ", "no checksum is recorded"]);
    assert_eq!(line.matches(&cluster.name(1)).count(), 1, "{line}");
}

#[test]
fn at_debug_each_request_is_a_line() {
    let (cluster, _home, secret) = with_secret(1, &["--log", "debug"]);
    let run = |args: &[&str]| {
        let output = cluster.command(args).env("S4_SECRET_PATH", &secret).output().unwrap();
        assert!(output.status.success(), "{args:?}: {}", text(&output.stderr));
    };
    run(&["cp", "s4.conf", "s4://in/0_a"]);
    run(&["cp", "s4://in/0_a", "copy"]);
    run(&["ls", "s4://in/"]);
    run(&["eval", "s4://in/0_a", "echo hunter2"]);
    run(&["map", "--env", "PASSWORD=hunter2", "s4://in/", "s4://out/", "cat; : hunter2"]);
    run(&["rm", "s4://in/0_a"]);
    for parts in [
        ["request PUT /v1/keys/in/0_a from 127.0.0.1:", " ms: ok"],
        ["request GET /v1/keys/in/0_a from", " ms: ok"],
        ["request GET /v1/list?", " ms: ok"],
        ["eval s4://in/0_a from", " ms: ok"],
        ["request POST /v1/jobs from", " ms: ok"],
        ["request DELETE /v1/keys/in/0_a", " ms: ok"],
    ] {
        line_with(&cluster, 0, &[" DEBUG ", parts[0], parts[1]]);
    }
    nothing_secret(&cluster, &[SECRET, "hunter2"]);
}

#[test]
fn the_level_bounds_what_is_logged() {
    let (mut cluster, _home, _) = with_secret(1, &["--log", "error"]);
    cluster.raw(0, &request("/v1/health", ""));
    cluster.stop_node(0);
    assert_eq!(lines(&cluster, 0), [""; 0]);
    let with_env = |level: &str| cluster.server(0).arg("--init").env("S4_LOG", level).output().unwrap();
    assert!(with_env("debug").status.success());
    let refused = with_env("loud");
    assert_eq!(refused.status.code(), Some(2));
    assert!(text(&refused.stderr).contains("possible values: error, warn, info, debug"), "{}", text(&refused.stderr));
}
