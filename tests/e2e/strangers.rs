//! What strangers ask: for names and routes that are not, with bodies that mean nothing, from browsers. A daemon refuses it, changes
//! nothing, and goes on.

use crate::harness::{Cluster, text};
use crate::observe::leftovers;
use std::path::PathBuf;

/// Method, path, body, and the status that answers them.
type Row<'a> = (&'a str, &'a str, &'a [u8], u16);

const ROUTES: &[Row] = &[
    ("POST", "/", b"", 405),
    ("GET", "/metrics/", b"", 404),
    ("POST", "/v1/status", b"", 405),
    ("GET", "/v1/status?samples=-1", b"", 400),
    ("GET", "/v1", b"", 404),
    ("GET", "/v1/", b"", 404),
    ("GET", "/v1/unknown", b"", 404),
    ("GET", "/v2/health", b"", 404),
    ("GET", "//v1/health", b"", 404),
    ("GET", "/v1//health", b"", 404),
    ("GET", "/v1/health/x", b"", 404),
    ("GET", "/../v1/health", b"", 404),
    ("GET", "/etc/passwd", b"", 404),
    ("POST", "/v1/health", b"", 405),
    ("get", "/v1/health", b"", 405),
    ("POST", "/v1/keys/held/0_k", b"x", 405),
    ("PATCH", "/v1/keys/held/0_k", b"x", 405),
    ("HEAD", "/v1/list", b"", 405),
    ("PUT", "/v1/list", b"", 405),
    ("GET", "/v1/delete?prefix=held/", b"", 405),
    ("GET", "/v1/adopt/held/0_k", b"", 405),
    ("GET", "/v1/connect", b"", 405),
    ("POST", "/v1/connect", b"", 400),
    ("POST", "/v1/connect/x", b"", 404),
    ("PUT", "/v1/jobs", b"{}", 405),
    ("OPTIONS", "/v1/keys/held/0_k", b"", 405),
    ("TRACE", "/v1/keys/held/0_k", b"", 405),
];

const NAMES: &[Row] = &[
    ("PUT", "/v1/keys/held/../../0_x", b"x", 400),
    ("PUT", "/v1/keys/../0_x", b"x", 400),
    ("PUT", "/v1/keys/held/%2e%2e/%2e%2e/0_x", b"x", 400),
    ("PUT", "/v1/keys/%2e%2e/0_x", b"x", 400),
    ("PUT", "/v1/keys/held%2f..%2f..%2f0_x", b"x", 400),
    ("PUT", "/v1/keys//etc/0_x", b"x", 400),
    ("PUT", "/v1/keys/%2fetc/0_x", b"x", 400),
    ("PUT", "/v1/keys/held/./0_x", b"x", 400),
    ("PUT", "/v1/keys/held//0_x", b"x", 400),
    ("PUT", "/v1/keys/held/0_x/", b"x", 400),
    ("PUT", "/v1/keys/held/0_x%00", b"x", 400),
    ("PUT", "/v1/keys/held/0_x%0a", b"x", 400),
    ("PUT", "/v1/keys/held/0_x%20y", b"x", 400),
    ("PUT", "/v1/keys/held/0_%ff", b"x", 400),
    ("PUT", "/v1/keys/held/0_%c3", b"x", 400),
    ("PUT", "/v1/keys/.s4/0_x", b"x", 400),
    ("PUT", "/v1/keys/_b/0_x", b"x", 400),
    ("PUT", "/v1/keys/0_x", b"x", 400),
    ("PUT", "/v1/keys/", b"x", 400),
    ("PUT", "/v1/keys/held/0_k", b"other", 409),
    ("PUT", "/v1/keys/held", b"x", 400),
    ("PUT", "/v1/keys/held/1_x", b"x", 421),
    ("GET", "/v1/keys/.s4/lock", b"", 400),
    ("GET", "/v1/keys/held/../.s4/lock", b"", 400),
    ("GET", "/v1/keys/held/%2e%2e/.s4/lock", b"", 400),
    ("GET", "/v1/keys/held/0_none", b"", 404),
    ("GET", "/v1/keys/held/1_k", b"", 421),
    ("DELETE", "/v1/keys/held/%2e%2e/held/0_k", b"", 400),
    ("DELETE", "/v1/keys/held/0_none", b"", 404),
    ("DELETE", "/v1/keys/held/1_k", b"", 421),
    ("GET", "/v1/stat/%2e%2e", b"", 400),
    ("GET", "/v1/stat/.s4", b"", 400),
    ("PUT", "/v1/dirs/%2e%2e/made", b"", 400),
    ("PUT", "/v1/dirs/.s4/made", b"", 400),
    ("DELETE", "/v1/dirs/held", b"", 421),
    ("DELETE", "/v1/dirs/held/0_none", b"", 404),
    ("GET", "/v1/list?prefix=../", b"", 400),
    ("GET", "/v1/list?prefix=held/%2e%2e/", b"", 400),
    ("GET", "/v1/list?prefix=.s4/", b"", 400),
    ("GET", "/v1/list?prefix=%00", b"", 400),
    ("GET", "/v1/list?prefix=%ff", b"", 400),
    ("POST", "/v1/delete", b"", 400),
    ("POST", "/v1/delete?prefix=", b"", 400),
    ("POST", "/v1/delete?prefix=%2e%2e", b"", 400),
    ("POST", "/v1/delete?prefix=%ff", b"", 400),
    ("POST", "/v1/delete?other=held/", b"", 400),
    ("POST", "/v1/rename/held/0_k", b"", 400),
    ("POST", "/v1/rename/held/0_k?to=../0_x", b"", 400),
    ("POST", "/v1/rename/held/0_k?to=%2e%2e/0_x", b"", 400),
    ("POST", "/v1/rename/held/0_k?to=held/1_x", b"", 421),
    ("POST", "/v1/rename/held/0_none?to=held/0_x", b"", 404),
];

const BODIES: &[Row] = &[
    ("POST", "/v1/adopt/held/0_x", b"", 400),
    ("POST", "/v1/adopt/held/0_x", b"{}", 400),
    ("POST", "/v1/adopt/held/0_x", br#"{"pid":1,"fd":0,"device":0,"inode":0,"len":0}"#, 400),
    ("POST", "/v1/adopt/held/0_x", br#"{"pid":1,"fd":-1,"device":0,"inode":0,"len":0,"more":1}"#, 400),
    ("POST", "/v1/change/held/0_k", b"", 400),
    ("POST", "/v1/change/held/0_k", br#"{"owner":0}"#, 400),
    ("POST", "/v1/change/held/0_none", br#"{"mode":0}"#, 404),
    ("POST", "/v1/jobs", b"", 400),
    ("POST", "/v1/jobs", b"{}", 400),
    ("POST", "/v1/jobs", b"[1, 2", 400),
    ("POST", "/v1/jobs", b"\xff\xfe", 400),
    ("POST", "/v1/jobs/short/start", b"", 400),
    ("POST", "/v1/jobs/..%2f..%2f..%2fetc/start", b"", 400),
    ("POST", "/v1/jobs/20260101_000000/start", b"", 400),
    ("POST", "/v1/jobs/20260101-000000-000-000000/start", b"", 404),
    ("DELETE", "/v1/jobs/20260101-000000-000-000000", b"", 404),
    ("GET", "/v1/jobs/20260101-000000-000-000000/events", b"", 404),
    ("GET", "/v1/jobs/20260101-000000-000-000000/other", b"", 404),
];

/// Jobs that are wrong in one thing. `…` stands for all that is right otherwise.
const JOBS: &[&str] = &[
    r#"{…,"unknown":1}"#,
    r#"{…,"id":"20260101-000000-000-000001"}"#,
    r#"{…,"timeout":"soon"}"#,
    r#"{…,"keep_going":1}"#,
    r#"{"id":"../../../etc","kind":"map","indir":"held","outdir":"out","cmd":"cat"}"#,
    r#"{"id":"20260101-000000-000-00000/","kind":"map","indir":"held","outdir":"out","cmd":"cat"}"#,
    r#"{"id":"20260101-000000-000-000000","kind":"reduce","indir":"held","outdir":"out","cmd":"cat"}"#,
    r#"{"id":"20260101-000000-000-000000","kind":"map","indir":"../held","outdir":"out","cmd":"cat"}"#,
    r#"{"id":"20260101-000000-000-000000","kind":"map","indir":"held","outdir":".s4/out","cmd":"cat"}"#,
    r#"{"id":"20260101-000000-000-000000","kind":"map","indir":"held/**","outdir":"out","cmd":"cat"}"#,
    r#"{"id":"20260101-000000-000-000000","kind":"map","indir":"held","outdir":"out","cmd":[1,256]}"#,
    r#"{"id":"20260101-000000-000-000000","kind":"map","indir":"held","outdir":"out"}"#,
];
const JOB: &str = r#""id":"20260101-000000-000-000000","kind":"map","indir":"held","outdir":"out","cmd":"cat""#;

pub fn cluster() -> Cluster {
    let cluster = Cluster::start(3);
    for key in ["held/0_k", "held/1_k", "held/2_k"] {
        cluster.put(&format!("s4://{key}"), b"content");
    }
    cluster
}

/// A request with the right header, and `headers` besides.
pub fn request(cluster: &Cluster, method: &str, path: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let own = format!("s4-cluster: {}\r\n{headers}", cluster.digest());
    bare_request(method, path, &own, body)
}

fn bare_request(method: &str, path: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let len = body.len();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nContent-Length: {len}\r\n{headers}\r\n"
    );
    [head.as_bytes(), body].concat()
}

pub fn status(answer: &str) -> Option<u16> {
    answer.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.parse().ok()
}

/// Every file in the nodes' data directories that is not s4's own.
fn stored(cluster: &Cluster) -> Vec<PathBuf> {
    let all = walkdir::WalkDir::new(cluster.dir()).sort_by_file_name().into_iter().flatten();
    let paths = all.map(|entry| entry.into_path());
    paths.filter(|path| !path.components().any(|part| part.as_os_str() == ".s4")).collect()
}

/// Sends requests by `send`; afterwards every node is healthy and holds what it held.
pub fn changes_nothing(cluster: &Cluster, send: impl FnOnce()) {
    let before = stored(cluster);
    send();
    assert_eq!(stored(cluster), before, "what the nodes hold has changed");
    assert_eq!(leftovers(cluster), [""; 0].map(PathBuf::from));
    cluster.ok(&["health"]);
    for node in 0..cluster.len() {
        assert_eq!(cluster.get(&format!("s4://held/{node}_k")), b"content");
        assert!(!cluster.log_text(node).contains("panicked"), "{}", cluster.log_text(node));
    }
}

/// True if `answer` is an error of `expected` status, told as JSON that names the node.
fn is_refusal(cluster: &Cluster, answer: &str, expected: u16, method: &str) -> bool {
    let told = answer.contains("\"kind\":") && answer.contains(&cluster.name(0));
    status(answer) == Some(expected) && (told || method == "HEAD")
}

fn check_rows(rows: &[Row]) {
    let cluster = cluster();
    changes_nothing(&cluster, || {
        let mut broken = Vec::new();
        for (method, path, body, expected) in rows {
            let answer = cluster.raw(0, &request(&cluster, method, path, "", body));
            if !is_refusal(&cluster, &answer, *expected, method) {
                broken.push(format!("{method} {path} {}: not {expected} but: {answer}", text(body)));
            }
        }
        assert!(broken.is_empty(), "{}", broken.join("\n"));
    });
}

#[test]
fn unknown_routes_and_methods_are_refused() {
    check_rows(ROUTES);
}

#[test]
fn no_name_leaves_the_data_directory() {
    check_rows(NAMES);
}

#[test]
fn malformed_bodies_are_refused() {
    check_rows(BODIES);
}

#[test]
fn malformed_jobs_are_refused() {
    let jobs: Vec<String> = JOBS.iter().map(|job| job.replace('…', JOB)).collect();
    let rows: Vec<Row> = jobs.iter().map(|job| ("POST", "/v1/jobs", job.as_bytes(), 400)).collect();
    check_rows(&rows);
}

#[test]
fn names_that_cannot_be_are_the_senders_mistake() {
    check_rows(&[
        ("PUT", "/v1/keys/held/0_k/0_x", b"x", 409),
        ("PUT", "/v1/dirs/held/0_k", b"", 409),
        ("PUT", "/v1/dirs/held/0_k/0_below", b"", 409),
        ("POST", "/v1/rename/held/0_k?to=held/0_k", b"", 409),
    ]);
}

#[test]
fn malformed_escapes_are_refused() {
    check_rows(&[
        ("PUT", "/v1/keys/held/0_%zz", b"x", 400),
        ("PUT", "/v1/keys/held/0_%4", b"x", 400),
        ("PUT", "/v1/keys/held/0_%", b"x", 400),
        ("GET", "/v1/list?prefix=%zz", b"", 400),
        ("POST", "/v1/delete?prefix=held%2", b"", 400),
    ]);
}

#[test]
fn large_bodies_are_refused_where_none_is_due() {
    let large = vec![b' '; (1 << 20) + 1];
    let nested = "[".repeat(100_000);
    let job = format!("{{{JOB},\"more\":\"{}\"}}", "x".repeat(2 << 20));
    check_rows(&[
        ("POST", "/v1/jobs", &large, 413),
        ("POST", "/v1/jobs", job.as_bytes(), 413),
        ("POST", "/v1/jobs", nested.as_bytes(), 400),
        ("POST", "/v1/change/held/0_k", &large, 413),
    ]);
}

#[test]
fn a_checksum_that_is_malformed_or_wrong_publishes_nothing() {
    let cluster = cluster();
    let malformed = "s4-checksum is not 16 hexadecimal digits, a space and a length";
    changes_nothing(&cluster, || {
        for (sum, part) in [
            ("", malformed),
            ("none", malformed),
            ("0000000000000000", malformed),
            ("000000000000000 3", malformed),
            ("00000000000000000 3", malformed),
            ("gggggggggggggggg 3", malformed),
            ("0000000000000000 -3", malformed),
            ("0000000000000000 three", malformed),
            ("0000000000000000 3 3", malformed),
            ("0000000000000000 99999999999999999999999", malformed),
            ("0000000000000000 3", "checksum error"),
            ("78af5f94892f3950 4", "checksum error"),
        ] {
            let headers = format!("s4-checksum: {sum}\r\n");
            let answer = cluster.raw(0, &request(&cluster, "PUT", "/v1/keys/held/0_x", &headers, b"abc"));
            assert!(is_refusal(&cluster, &answer, 400, "PUT") && answer.contains(part), "'{sum}': {answer}");
        }
    });
    // XXH3-64 of "abc": the right one is taken.
    let headers = "s4-checksum: 78af5f94892f3950 3\r\n";
    let answer = cluster.raw(0, &request(&cluster, "PUT", "/v1/keys/held/0_x", headers, b"abc"));
    assert_eq!(status(&answer), Some(201), "{answer}");
    assert_eq!(cluster.get("s4://held/0_x"), b"abc");
}

#[test]
fn a_checksum_with_a_sign_is_malformed() {
    let cluster = cluster();
    changes_nothing(&cluster, || {
        for sum in ["78af5f94892f3950 +3", "+000000000000000 3"] {
            let headers = format!("s4-checksum: {sum}\r\n");
            let answer = cluster.raw(0, &request(&cluster, "PUT", "/v1/keys/held/0_x", &headers, b"abc"));
            assert!(is_refusal(&cluster, &answer, 400, "PUT"), "'{sum}': {answer}");
            assert!(answer.contains("is not 16 hexadecimal digits"), "'{sum}': {answer}");
        }
    });
}

#[test]
fn who_lacks_the_header_or_comes_from_a_browser_is_refused() {
    let cluster = cluster();
    let right = format!("s4-cluster: {}\r\n", cluster.digest());
    let ran = cluster.dir().join("ran");
    let cmd = format!("touch {}", ran.display());
    changes_nothing(&cluster, || {
        for (headers, expected) in [
            (String::new(), 403),
            ("s4-cluster:\r\n".to_owned(), 412),
            ("s4-cluster: 0000000000000000\r\n".to_owned(), 412),
            (right.replace("\r\n", "0\r\n"), 412),
            (right.to_uppercase().replace("S4-CLUSTER", "s4-cluster").replace("\r\n", "X\r\n"), 412),
            ("s4-cluster: \u{e4}\r\n".to_owned(), 412),
            (format!("{right}Origin: http://x\r\n"), 403),
            (format!("{right}origin: null\r\n"), 403),
            (format!("{right}ORIGIN:\r\n"), 403),
        ] {
            for (method, path, body) in [
                ("GET", "/v1/health", ""),
                ("PUT", "/v1/keys/held/0_x", "x"),
                ("DELETE", "/v1/keys/held/0_k", ""),
                ("POST", "/v1/delete?prefix=held/", ""),
                ("POST", "/v1/connect", &cmd),
                ("GET", "/v1/unknown", ""),
            ] {
                let answer = cluster.raw(0, &bare_request(method, path, &headers, body.as_bytes()));
                assert!(is_refusal(&cluster, &answer, expected, method), "{headers}{method} {path}: {answer}");
            }
        }
    });
    assert!(!ran.exists(), "a command of a stranger has run");
}
