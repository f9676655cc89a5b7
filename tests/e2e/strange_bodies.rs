//! Bodies that are not what the route takes, and the shared secret.

use crate::harness::{Cluster, text};

/// Sends a request with a body to node 0, and returns the whole answer.
pub fn ask(cluster: &Cluster, method: &str, path: &str, body: &[u8]) -> String {
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\ns4-cluster: {}\r\ncontent-length: {}\r\n\r\n",
        cluster.digest(),
        body.len()
    );
    cluster.raw(0, &[head.as_bytes(), body].concat())
}

/// Each of `rows` (method, path, body) is a 4xx, and the store is as it was.
fn refuse_all(rows: &[(&str, &str, &[u8])]) {
    let cluster = Cluster::start(1);
    cluster.put("s4://in/000_old", b"kept\n");
    let before = cluster.ok(&["ls", "-r"]);
    let wrong = rows.iter().filter_map(|(method, path, body)| {
        let answer = ask(&cluster, method, path, body);
        let shown: String = text(body).chars().take(200).collect();
        let refused = answer.starts_with("HTTP/1.1 4") && answer.contains("{\"kind\":\"");
        (!refused).then(|| format!("{method} {path} {shown:?}: {answer}"))
    });
    let wrong: Vec<String> = wrong.collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    cluster.ok(&["health"]);
    assert_eq!(cluster.ok(&["ls", "-r"]), before);
    assert_eq!(cluster.get("s4://in/000_old"), b"kept\n");
    assert!(!cluster.log_text(0).contains("panicked"), "{}", cluster.log_text(0));
}

#[test]
fn a_malformed_job_list_or_handoff_is_refused() {
    let job = |id: &str, more: &str| {
        format!(r#"{{"id":"{id}","kind":"map","indir":"in","outdir":"out","cmd":"cat"{more}}}"#).into_bytes()
    };
    let large = vec![b' '; (1 << 20) + 1];
    let jobs: Vec<Vec<u8>> = vec![
        vec![],
        b"{}".to_vec(),
        b"[1]".to_vec(),
        b"{".repeat(100_000),
        b"[".repeat(100_000),
        large.clone(),
        job("example-0001", r#","frob":1"#),
        job("example-0001", r#","timeout":"soon""#),
        job("short", ""),
        job("../../../etc", ""),
        job(&"a".repeat(65), ""),
        br#"{"id":"example-0001","kind":"frob","indir":"in","outdir":"out","cmd":"cat"}"#.to_vec(),
        br#"{"id":"example-0001","kind":"map","indir":"../in","outdir":"out","cmd":"cat"}"#.to_vec(),
        br#"{"id":"example-0001","kind":"map","indir":"in/[","outdir":"out","cmd":"cat"}"#.to_vec(),
        br#"{"id":"example-0001","kind":"map","indir":"in","outdir":".s4","cmd":"cat"}"#.to_vec(),
        br#"{"id":"example-0001","kind":"map","indir":"in","outdir":"out","cmd":[300]}"#.to_vec(),
    ];
    let mut rows: Vec<(&str, &str, &[u8])> = jobs.iter().map(|body| ("POST", "/v1/jobs", &**body)).collect();
    rows.extend([
        ("POST", "/v1/jobs/short/start", &b""[..]),
        ("POST", "/v1/jobs/%2e%2e%2fx%2fx%2fx/start", b""),
        ("POST", "/v1/jobs/no-such-job-1/start", b""),
        ("GET", "/v1/jobs/no-such-job-1/events", b""),
        ("DELETE", "/v1/jobs/no-such-job-1", b""),
        ("POST", "/v1/change/in/000_old", b"{}garbage"),
        ("POST", "/v1/adopt/in/000_new", b""),
        ("POST", "/v1/adopt/in/000_new", b"null"),
        ("POST", "/v1/adopt/in/000_new", br#"{"pid":-1,"fd":-1}"#),
    ]);
    refuse_all(&rows);
}

/// As documented: the status is 200, and the event says why not.
#[test]
fn a_job_that_cannot_be_meant_is_answered_with_an_error_event() {
    let cluster = Cluster::start(1);
    cluster.put("s4://in/000_old", b"kept\n");
    for more in [r#""cmd":"cat","timeout":-1"#, r#""cmd":"cat","timeout":1e300"#, r#""cmd":"""#, r#""cmd":[0]"#] {
        let job = format!(r#"{{"id":"example-0001","kind":"map","indir":"in","outdir":"out",{more}}}"#);
        let answer = ask(&cluster, "POST", "/v1/jobs", job.as_bytes());
        assert!(answer.contains(r#"{"event":"error","kind":"#) || answer.starts_with("HTTP/1.1 4"), "{more}: {answer}");
        let answer = ask(&cluster, "POST", "/v1/jobs/example-0001/start", b"");
        assert!(answer.starts_with("HTTP/1.1 404"), "{more}: {answer}");
    }
    assert_eq!(cluster.ok(&["ls"]).lines().count(), 1);
}

#[test]
fn adopting_a_file_that_no_process_has_makes_no_key() {
    let cluster = Cluster::start(1);
    for (pid, fd) in
        [(0, 0), (1, 0), (std::process::id(), 9999), (u32::MAX, 3), (cluster.pid(0), 0), (cluster.pid(0), 1)]
    {
        let body = format!(r#"{{"pid":{pid},"fd":{fd},"device":0,"inode":0,"len":0}}"#);
        let answer = ask(&cluster, "POST", "/v1/adopt/in/000_new", body.as_bytes());
        assert!(answer.starts_with("HTTP/1.1 4") || answer.starts_with("HTTP/1.1 5"), "{body}: {answer}");
        assert!(cluster.fails(1, &["ls", "-r"]).contains("nothing found"), "{body}");
    }
    cluster.ok(&["health"]);
}

#[test]
fn daemons_with_a_secret_serve_only_who_knows_it() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, content: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (right, wrong) = (write("right", "correct-horse-battery\n"), write("wrong", "incorrect-horse-battery\n"));
    let cluster = Cluster::with_options(2, &["--reserve", "0", "--secret", &right]);
    std::fs::write(cluster.dir().join("file"), "hello\n").unwrap();
    let run = |secret: Option<&str>, args: &[&str]| {
        let mut command = cluster.command(args);
        command.env_remove("S4_SECRET_PATH");
        if let Some(path) = secret {
            command.env("S4_SECRET_PATH", path);
        }
        command.output().unwrap()
    };
    for secret in [None, Some(&*wrong)] {
        for args in [&["cp", "file", "s4://in/000_x"][..], &["ls"], &["rm", "-r", "s4://in"], &["health"]] {
            let output = run(secret, args);
            assert_eq!(output.status.code(), Some(1), "{secret:?} {args:?}");
            let told = text(&output.stdout) + &text(&output.stderr);
            assert!(told.contains("the shared secret is missing or wrong"), "{secret:?} {args:?}: {told}");
        }
    }
    let answer = ask(&cluster, "PUT", "/v1/keys/in/000_x", b"hello\n");
    assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
    let right = Some(&*right);
    assert!(run(right, &["ls"]).stdout.is_empty(), "nothing was stored");
    for args in [
        &["health"][..],
        &["cp", "file", "s4://in/000_x"],
        &["map-to-n", "s4://in/", "s4://out/", "cat > 001_y; ls"],
        &["rm", "s4://out/000_x/001_y"],
    ] {
        let output = run(right, args);
        assert!(output.status.success(), "{args:?}: {}", text(&output.stderr));
        assert!(!text(&output.stderr).contains("correct-horse"), "{args:?}: {}", text(&output.stderr));
    }
    for node in 0..2 {
        assert!(!cluster.log_text(node).contains("correct-horse"), "{}", cluster.log_text(node));
    }
}
