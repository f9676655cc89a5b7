//! What a daemon makes of requests that no client of ours sends: a refusal, and nothing else.

use crate::harness::{Cluster, text};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

const KEY: &str = "/v1/keys/in/000_new";

/// A daemon of two nodes, and what it held before the strangers came.
struct Target {
    cluster: Cluster,
    digest: String,
    before: String,
}

impl Target {
    fn start() -> Self {
        let cluster = Cluster::start(2);
        cluster.put("s4://in/000_old", b"kept\n");
        let (digest, before) = (cluster.digest(), cluster.ok(&["ls", "-r"]));
        Self { cluster, digest, before }
    }

    /// A request as our client frames it, with `body` of the announced length.
    fn request(&self, method: &str, path: &str, headers: &str, body: &[u8]) -> Vec<u8> {
        let headers = format!("s4-cluster: {}\r\ncontent-length: {}\r\n{headers}", self.digest, body.len());
        with_body(&head(method, path, &headers), body)
    }

    fn ask(&self, method: &str, path: &str, headers: &str, body: &[u8]) -> String {
        self.cluster.raw(0, &self.request(method, path, headers, body))
    }

    /// Asks for each of `rows` (method, path, status); an error names the node and is one line of JSON.
    fn refuse_all(&self, rows: &[(&str, &str, u16)]) {
        let wrong = rows.iter().filter_map(|(method, path, status)| {
            let answer = self.ask(method, path, "", b"");
            (!is_refusal(&answer, *status)).then(|| format!("{method} {path}: wanted {status}: {answer}"))
        });
        let wrong: Vec<String> = wrong.collect();
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        self.is_unharmed();
    }

    /// The daemons serve, and no key came or went.
    fn is_unharmed(&self) {
        self.cluster.ok(&["health"]);
        assert_eq!(self.cluster.ok(&["ls", "-r"]), self.before);
        assert_eq!(self.cluster.get("s4://in/000_old"), b"kept\n");
        for node in 0..2 {
            assert!(!self.cluster.log_text(node).contains("panicked"), "{}", self.cluster.log_text(node));
        }
    }
}

fn head(method: &str, path: &str, headers: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nhost: s4\r\nconnection: close\r\n{headers}\r\n")
}

fn with_body(head: &str, body: &[u8]) -> Vec<u8> {
    [head.as_bytes(), body].concat()
}

fn status_of(answer: &str) -> Option<u16> {
    answer.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()
}

/// An error with our JSON, naming the node.
fn is_refusal(answer: &str, status: u16) -> bool {
    status_of(answer) == Some(status) && answer.contains("{\"kind\":\"") && answer.contains("\"message\":\"node 0 (")
}

fn is_client_error(answer: &str) -> bool {
    status_of(answer).is_some_and(|status| (400..500).contains(&status))
}

/// Sends all, then says that nothing more comes.
fn raw_and_close(port: u16, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let _ = stream.write_all(request);
    let _ = stream.shutdown(Shutdown::Write);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    text(&answer)
}

#[test]
fn unknown_routes_and_wrong_methods_are_refused() {
    Target::start().refuse_all(&[
        ("GET", "/", 404),
        ("GET", "/v1", 404),
        ("GET", "/v1/", 404),
        ("GET", "/v2/health", 404),
        ("GET", "/v1/nothing", 404),
        ("GET", "/v1/health/x", 404),
        ("GET", "//v1/health", 404),
        ("GET", "/V1/HEALTH", 404),
        ("OPTIONS", "*", 404),
        ("GET", "/v1/jobs/example-0001/frobnicate", 404),
        ("GET", "/v1/pack/frobnicate", 404),
        ("POST", "/v1/health", 405),
        ("DELETE", "/v1/list", 405),
        ("POST", KEY, 405),
        ("PATCH", KEY, 405),
        ("GET", "/v1/pack/put", 405),
        ("PUT", "/v1/pack/get", 405),
        ("GET", "/v1/eval/in/000_old", 405),
        ("GET", "/v1/delete?prefix=in", 405),
        ("GET", "/v1/jobs", 405),
        ("GET", "/v1/jobs/example-0001", 405),
        ("GET", "/v1/rename/in/000_old?to=in/000_new", 405),
        ("FROB", "/v1/health", 405),
    ]);
}

#[test]
fn names_that_leave_the_store_or_break_a_rule_are_refused() {
    let target = Target::start();
    let long = format!("/v1/keys/in/{}", "a".repeat(256));
    let mut rows: Vec<(&str, &str, u16)> = vec![("GET", &long, 400), ("PUT", &long, 400)];
    let paths = [
        "..",
        "../x",
        "in",
        "in/",
        "in/..",
        "in/../../../etc/passwd",
        "in//x",
        "/etc/passwd",
        ".s4/lock",
        "_x/y",
        "%2e%2e/x",
        "in/%2e%2e/%2E%2E/x",
        "in%2f%2e%2e%2fx",
        "%2e%2e%2f%2e%2e%2fetc%2fpasswd",
        "in/%00",
        "in/x%00y",
        "in/x%0ay",
        "in/x%20y",
        "in/%ff",
        "in/%c3%28",
        "%2es4/lock",
        "in/x%7f",
        "",
    ];
    let routes: [(&str, &str); 6] = [
        ("GET", "/v1/keys/"),
        ("PUT", "/v1/keys/"),
        ("DELETE", "/v1/keys/"),
        ("POST", "/v1/eval/"),
        ("POST", "/v1/rename/"),
        ("GET", "/v1/range/"),
    ];
    let owned: Vec<(&str, String)> = routes
        .iter()
        .flat_map(|(method, route)| paths.iter().map(move |path| (*method, format!("{route}{path}"))))
        .map(|(method, path)| match path {
            path if path.contains("rename") => (method, path + "?to=in/000_new"),
            path if path.contains("range") => (method, path + "?checksum=0000000000000000%200&offset=0&len=1"),
            path => (method, path),
        })
        .collect();
    rows.extend(owned.iter().map(|(method, path)| (*method, &**path, 400)));
    target.refuse_all(&rows);
}

#[test]
fn directories_and_queries_with_bad_names_are_refused() {
    Target::start().refuse_all(&[
        ("GET", "/v1/stat/", 400),
        ("GET", "/v1/stat/..", 400),
        ("GET", "/v1/stat/in/%2e%2e/x", 400),
        ("GET", "/v1/stat/.s4", 400),
        ("GET", "/v1/stat/%ff", 400),
        ("PUT", "/v1/dirs/", 400),
        ("PUT", "/v1/dirs/..", 400),
        ("PUT", "/v1/dirs/in/%2e%2e/%2e%2e/x", 400),
        ("PUT", "/v1/dirs/.s4/x", 400),
        ("DELETE", "/v1/dirs/in//x", 400),
        ("DELETE", "/v1/dirs/.s4", 400),
        ("GET", "/v1/dirs/in/%00", 400),
        ("GET", "/v1/list?prefix=%2e%2e/", 400),
        ("GET", "/v1/list?prefix=.s4/", 400),
        ("GET", "/v1/list?prefix=in/%ff", 400),
        ("GET", "/v1/list?prefix=/etc", 400),
        ("POST", "/v1/delete", 400),
        ("POST", "/v1/delete?prefix=", 400),
        ("POST", "/v1/delete?prefix", 400),
        ("POST", "/v1/delete?prefix=%00", 400),
        ("POST", "/v1/delete?prefix=..", 400),
        ("POST", "/v1/delete?prefix=.s4", 400),
        ("POST", "/v1/delete?Prefix=in", 400),
        ("POST", "/v1/rename/in/000_old", 400),
        ("POST", "/v1/rename/in/000_old?to=", 400),
        ("POST", "/v1/rename/in/000_old?to=in/../x", 400),
        ("POST", "/v1/rename/in/000_old?to=../../tmp/x", 400),
        ("POST", "/v1/rename/in/000_old?to=%ff", 400),
        ("POST", "/v1/rename/in/000_old?to=in/001_new", 421),
        ("GET", "/v1/range/in/000_old", 400),
        ("GET", "/v1/range/in/000_old?checksum=x&offset=0&len=1", 400),
        ("GET", "/v1/range/in/000_old?checksum=0000000000000000%205&offset=-1&len=1", 400),
        ("GET", "/v1/range/in/000_old?checksum=0000000000000000%205&offset=0&len=99999999999", 400),
        ("GET", "/v1/range/in/000_old?checksum=0000000000000000%205&offset=99999999999999999999&len=1", 400),
    ]);
}

#[test]
fn a_key_of_another_node_is_refused() {
    Target::start().refuse_all(&[
        ("PUT", "/v1/keys/in/001_new", 421),
        ("GET", "/v1/keys/in/001_new", 421),
        ("DELETE", "/v1/keys/in/001_new", 421),
    ]);
}

#[test]
fn who_does_not_know_the_cluster_is_refused() {
    let target = Target::start();
    let rows = [
        (String::new(), 403),
        ("s4-cluster: \r\n".to_owned(), 412),
        ("s4-cluster: 0000000000000000\r\n".to_owned(), 412),
        (format!("s4-cluster: {}\r\n", target.digest.to_uppercase() + "0"), 412),
        (format!("s4-cluster: {}\r\norigin: http://evil.example\r\n", target.digest), 403),
        (format!("s4-cluster: {}\r\nOrigin: null\r\n", target.digest), 403),
        ("origin: http://evil.example\r\n".to_owned(), 403),
    ];
    for (headers, status) in rows {
        for (method, path) in [("GET", "/v1/health"), ("PUT", KEY), ("POST", "/v1/delete?prefix=in"), ("GET", "/x")] {
            let answer =
                target.cluster.raw(0, head(method, path, &format!("content-length: 0\r\n{headers}")).as_bytes());
            assert!(is_refusal(&answer, status), "{method} {path} {headers:?}: wanted {status}: {answer}");
            assert!(!answer.to_lowercase().contains("access-control"), "{answer}");
        }
    }
    target.is_unharmed();
}

#[test]
fn huge_or_malformed_heads_are_refused_or_cut_off() {
    let target = Target::start();
    let cluster = format!("s4-cluster: {}\r\n", target.digest);
    let many: String = (0..200).map(|n| format!("x-{n}: y\r\n")).collect();
    let rows = [
        head("GET", "/v1/health", &format!("{cluster}x-long: {}\r\n", "a".repeat(1 << 20))),
        head("GET", "/v1/health", &(cluster.clone() + &many)),
        head("GET", &format!("/v1/keys/in/{}", "a".repeat(1 << 20)), &cluster),
        head("GET", "/v1/health", &format!("{cluster}no colon here\r\n")),
        head("GET", "/v1/health", &format!("{cluster}bad\0name: x\r\n")),
        head("PUT", KEY, &format!("{cluster}content-length: five\r\n")),
        head("PUT", KEY, &format!("{cluster}content-length: -1\r\n")),
        head("PUT", KEY, &format!("{cluster}content-length: 1\r\ncontent-length: 2\r\n")) + "xy",
        head("PUT", KEY, &format!("{cluster}content-length: 99999999999999999999999\r\n")),
        head("GET", "/v1/keys/in/a b", &cluster),
    ];
    for request in rows {
        let answer = raw_and_close(target.cluster.port(0), request.as_bytes());
        let shown: String = request.chars().take(200).collect();
        assert!(answer.is_empty() || is_client_error(&answer), "{shown}: {answer}");
    }
    target.is_unharmed();
}

#[test]
fn what_is_no_http_is_cut_off() {
    let target = Target::start();
    let hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03abcdefghijklmnopqrstuvwxyz012345\x20";
    let rows: [&[u8]; 8] = [
        b"",
        b"\r\n\r\n",
        b"hello\r\n\r\n",
        hello,
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /v1/health\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        &[0xff; 4096],
    ];
    for bytes in rows {
        let answer = raw_and_close(target.cluster.port(0), bytes);
        assert!(answer.is_empty() || is_client_error(&answer), "{:?}: {answer}", text(bytes));
    }
    target.is_unharmed();
}

#[test]
fn a_body_of_another_length_than_announced_makes_no_key() {
    let target = Target::start();
    let announce = |headers: &str| head("PUT", KEY, &format!("s4-cluster: {}\r\n{headers}\r\n", target.digest));
    let bodies = [
        announce("content-length: 100") + "short",
        announce("transfer-encoding: chunked") + "5\r\nshort\r\n",
        announce("transfer-encoding: chunked") + "zz\r\nshort\r\n0\r\n\r\n",
        announce("transfer-encoding: chunked") + "ffffffffffffffffff\r\nshort",
    ];
    for request in bodies {
        let answer = raw_and_close(target.cluster.port(0), request.as_bytes());
        assert!(answer.is_empty() || is_client_error(&answer), "{request}: {answer}");
        target.is_unharmed();
    }
    // What is beyond the announced length belongs to no request.
    let path = "/v1/keys/in/000_long";
    let long = head("PUT", path, &format!("s4-cluster: {}\r\ncontent-length: 2\r\n", target.digest)) + "hi there";
    let answer = target.cluster.raw(0, long.as_bytes());
    assert_eq!(status_of(&answer), Some(201), "{answer}");
    assert_eq!(target.cluster.get("s4://in/000_long"), b"hi");
    target.cluster.ok(&["rm", "s4://in/000_long"]);
    target.is_unharmed();
}

#[test]
fn a_malformed_or_wrong_checksum_makes_no_key() {
    let target = Target::start();
    for (value, status) in [
        ("", 400),
        ("99fc819aaba2462a", 400),
        ("99fc819aaba2462a six", 400),
        ("99fc819aaba2462a -6", 400),
        ("xyfc819aaba2462a 6", 400),
        ("+9fc819aaba2462a 6", 400),
        ("99fc819aaba2462a 99999999999999999999999", 400),
        ("0000000000000000 6", 500),
        ("99fc819aaba2462a 7", 500),
    ] {
        let answer = target.ask("PUT", KEY, &format!("s4-checksum: {value}\r\n"), b"hello\n");
        let told = status_of(&answer);
        assert!(told == Some(status) || (status == 500 && is_client_error(&answer)), "{value:?}: {answer}");
        assert!(answer.contains("checksum"), "{value:?}: {answer}");
    }
    target.is_unharmed();
}
