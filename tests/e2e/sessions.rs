//! Small exchanges in sessions: what a mount makes of them, and what a node does with whatever is said in one.

use crate::harness::{Cluster, eventually, text};
use crate::scripting::{Setup, setup, setup_with};
use crate::streams::{ask, ask_node};
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// A message of a session.
pub fn message(json: &str, bytes: &[u8]) -> Vec<u8> {
    let lengths = [json.len(), bytes.len()].map(|len| (len as u32).to_le_bytes()).concat();
    [&lengths, json.as_bytes(), bytes].concat()
}

fn put(key: &str, checksum: &str, bytes: &[u8]) -> Vec<u8> {
    message(&format!(r#"{{"ask":"put","key":"{key}","checksum":"{checksum}"}}"#), bytes)
}

/// A session with node 0.
fn open(cluster: &Cluster) -> TcpStream {
    open_with(cluster, 0)
}

/// A session with `node`.
pub fn open_with(cluster: &Cluster, node: usize) -> TcpStream {
    let (stream, head) = ask_node(cluster, node, "POST", "/v1/session");
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    stream
}

/// What is answered in a session; empty once it has ended.
pub fn exchange(session: &mut TcpStream, said: &[u8]) -> String {
    session.write_all(said).unwrap();
    let mut lengths = [0; 8];
    match session.read_exact(&mut lengths) {
        Err(e) if e.kind() == ErrorKind::WouldBlock => panic!("no answer, and no end"),
        Err(_) => return String::new(),
        Ok(()) => {}
    }
    let mut json = vec![0; u32::from_le_bytes(lengths[..4].try_into().unwrap()) as usize];
    session.read_exact(&mut json).unwrap();
    text(&json)
}

const HELLO: &str = "99fc819aaba2462a 6";

#[test]
fn a_session_answers_one_question_after_the_other() {
    let cluster = Cluster::start(2);
    let mut session = open(&cluster);
    let stat = message(r#"{"ask":"stat","path":"b/0_k"}"#, b"");
    assert_eq!(exchange(&mut session, &stat), r#"{"reply":"stat","stat":{"is":"absent"}}"#);
    assert_eq!(exchange(&mut session, &put("b/0_k", HELLO, b"hello\n")), r#"{"reply":"stored"}"#);
    let found = exchange(&mut session, &stat);
    assert!(found.contains(r#""is":"key""#) && found.contains(HELLO), "{found}");
    let directory = exchange(&mut session, &message(r#"{"ask":"stat","path":"b"}"#, b""));
    assert!(directory.contains(r#""is":"dir""#), "{directory}");
    assert_eq!(cluster.get("s4://b/0_k"), b"hello\n");
}

#[test]
fn a_session_refuses_what_a_request_refuses_and_goes_on() {
    let cluster = Cluster::start(2);
    let mut session = open(&cluster);
    exchange(&mut session, &put("b/0_k", HELLO, b"hello\n"));
    for (said, kind) in [
        (put("b/0_k", HELLO, b"hello\n"), "already_exists"),
        (put("b", HELLO, b"hello\n"), "bad_request"),
        (message("nonsense", b""), "bad_request"),
        (message(r#"{"ask":"stat","path":"../etc"}"#, b""), "bad_request"),
        (message(r#"{"ask":"stat","path":"b//k"}"#, b""), "bad_request"),
        (message(r#"{"ask":"stat","path":".s4/token"}"#, b""), "bad_request"),
        (message(r#"{"ask":"other"}"#, b""), "bad_request"),
        (put("b/0_k/0_below", HELLO, b"hello\n"), "already_exists"),
        (put("b/1_k", HELLO, b"hello\n"), "wrong_node"),
        (put("b/0_other", HELLO, b"hallo\n"), "bad_request"),
        (put("b/0_other", HELLO, b"hello"), "bad_request"),
    ] {
        let answer = exchange(&mut session, &said);
        assert!(answer.contains(&format!(r#""kind":"{kind}""#)) && answer.contains("node 0"), "{answer}");
    }
    assert_eq!(cluster.ok(&["ls", "-r", "s4://b/"]).lines().count(), 1);
}

#[test]
fn a_session_ends_where_a_message_is_too_long() {
    let cluster = Cluster::start(1);
    for said in
        [[u32::MAX.to_le_bytes(), 0u32.to_le_bytes()].concat(), [2u32.to_le_bytes(), u32::MAX.to_le_bytes()].concat()]
    {
        assert_eq!(exchange(&mut open(&cluster), &said), "");
    }
    let (_, head) = ask(&cluster, "GET", "/v1/session");
    assert!(head.starts_with("HTTP/1.1 405"), "{head}");
    let digest = cluster.digest();
    let head =
        format!("POST /v1/session HTTP/1.1\r\nhost: 127.0.0.1\r\ns4-cluster: {digest}\r\nconnection: close\r\n\r\n");
    assert!(cluster.raw(0, head.as_bytes()).starts_with("HTTP/1.1 400"));
    cluster.put("s4://b/0_k", b"goes on");
}

/// As for a request: who hangs up before the answer has told its user that there is no such key.
#[test]
fn a_key_whose_sender_hangs_up_is_not_stored() {
    let cluster = Cluster::start(1);
    let mut session = open(&cluster);
    cluster.signal(0, "STOP");
    session.write_all(&put("b/0_k", HELLO, b"hello\n")).unwrap();
    drop(session);
    cluster.signal(0, "CONT");
    eventually("it was asked", || (requests(&cluster, 0, "keys") > 0).then_some(()));
    // What is asked later is answered later.
    cluster.put("s4://b/0_other", b"content");
    assert_eq!(cluster.ok(&["ls", "s4://b/"]).lines().count(), 1);
}

/// How many requests of a kind a node has counted.
fn requests(cluster: &Cluster, node: usize, kind: &str) -> u64 {
    let metrics = cluster.raw(node, b"GET /metrics HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n");
    let name = format!("s4_requests_total{{kind=\"{kind}\"}} ");
    metrics.lines().find_map(|line| line.strip_prefix(&name)).expect("it is counted").parse().unwrap()
}

/// What has been asked before the node is told to end is done and answered.
#[test]
fn a_node_that_ends_stores_what_it_was_asked_to() {
    let mut cluster = Cluster::start(1);
    for round in 0..5 {
        let mut session = open(&cluster);
        let key = format!("b/0_{round}");
        exchange(&mut session, &message(r#"{"ask":"stat","path":"b"}"#, b""));
        cluster.signal(0, "STOP");
        session.write_all(&put(&key, HELLO, b"hello\n")).unwrap();
        cluster.signal(0, "TERM");
        cluster.signal(0, "CONT");
        assert_eq!(exchange(&mut session, b""), r#"{"reply":"stored"}"#);
        cluster.stop_node(0);
        cluster.start_node(0);
        assert_eq!(cluster.get(&format!("s4://{key}")), b"hello\n");
    }
}

#[test]
fn a_node_grants_so_many_sessions_and_serves_on() {
    let cluster = Cluster::start(1);
    let mut sessions: Vec<TcpStream> = (0..256).map(|_| open(&cluster)).collect();
    let (_, head) = ask(&cluster, "POST", "/v1/session");
    assert!(head.starts_with("HTTP/1.1 500"), "{head}");
    cluster.put("s4://b/0_k", b"content");
    assert!(exchange(&mut sessions[255], &message(r#"{"ask":"stat","path":"b/0_k"}"#, b"")).contains("key"));
}

/// Files of a mount that are enough for it to open a session with node 1.
fn warm_up(setup: &Setup) {
    setup.bash("for i in $(seq 40); do echo $i > b/1_warm$i; done");
    assert!(requests(&setup.cluster, 1, "session") > 0);
}

#[test]
fn a_mount_asks_and_stores_in_sessions() {
    let Some(setup) = setup() else { return };
    warm_up(&setup);
    for i in [1, 20, 40] {
        assert_eq!(setup.key(&format!("b/1_warm{i}")), format!("{i}\n").as_bytes());
    }
    // Each limit of what goes in one: a byte less, as much, more.
    setup.bash(
        "for n in 65535 65536 65537 300000; do head -c $n /dev/zero > b/1_$n; cmp <(head -c $n /dev/zero) b/1_$n; done",
    );
    assert_eq!(setup.bash_output("set -C; echo other > b/1_warm1").status.code(), Some(1));
    setup.bash("seq 200 | xargs -P 8 -I{} sh -c 'echo {} > b/1_at_once{}'; test $(ls b | grep -c at_once) = 200");
}

/// A session that nobody uses must not hold up its node's end, nor its node's new start the mount.
#[test]
fn a_node_ends_at_once_and_comes_back_under_open_sessions() {
    let Some(mut setup) = setup() else { return };
    warm_up(&setup);
    let began = Instant::now();
    setup.cluster.stop_node(1);
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    setup.cluster.start_node(1);
    assert_eq!(setup.bash("echo again > b/1_again; cat b/1_again b/1_warm7"), "again\n7\n");
    setup.cluster.kill_node(1);
    let failed = setup.bash_output("echo lost > b/1_lost");
    assert!(text(&failed.stderr).contains("Input/output error"), "{}", text(&failed.stderr));
    setup.cluster.start_node(1);
    assert_eq!(setup.bash("echo found > b/1_found; cat b/1_found; ls b/1_lost || true"), "found\n");
}

#[test]
fn a_node_that_hangs_in_a_session_holds_up_only_who_needs_it() {
    let Some(setup) = setup_with(2, &[1], &["--deadline", "2"]) else { return };
    // In a directory of its own: who makes a file has the kernel hold up others in its directory.
    setup.bash("mkdir a; echo content > a/0_k");
    warm_up(&setup);
    setup.cluster.signal(1, "STOP");
    let script = r#"
import time
found = []
def needs(n):
    found.append(errno_of(make, f'b/1_new{n}'))
threads = [threading.Thread(target=needs, args=[n]) for n in range(4)]
[thread.start() for thread in threads]
slowest = 0
while any(thread.is_alive() for thread in threads):
    began = time.monotonic()
    assert read('a/0_k') == b'content\n'
    slowest = max(slowest, time.monotonic() - began)
assert slowest < 1, slowest
assert found == ['EIO'] * 4, found
"#;
    let began = Instant::now();
    setup.python(script, &[]);
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    setup.cluster.signal(1, "CONT");
    assert_eq!(setup.bash("echo new > b/1_after; cat b/1_after"), "new\n");
}
