//! Connections of frames: what a node does with whatever is said over one, and what a mount makes of them.

use crate::harness::{Cluster, eventually, resident_kib, text};
use crate::observe::{Random, listed};
use crate::scripting::{Setup, setup, setup_with};
use s4::wire::frame::{self, HEADER, Header, Kind};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(8);

/// Asks `node` for a connection, and returns it with the head of the answer read.
pub fn ask(cluster: &Cluster, node: usize, method: &str, path: &str, headers: &str) -> (TcpStream, String) {
    let mut stream = TcpStream::connect(("127.0.0.1", cluster.port(node))).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ns4-cluster: {}\r\nconnection: upgrade\r\nupgrade: s4-frames\r\n{headers}\r\n",
        cluster.digest(),
    );
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        answer.push(byte[0]);
    }
    (stream, text(&answer))
}

/// A connection with `node`.
pub fn connect(cluster: &Cluster, node: usize) -> TcpStream {
    let (stream, head) = ask(cluster, node, "POST", "/v1/connect", "");
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    stream
}

pub fn of_kind(kind: Kind, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    frame::encode(kind, payload, &mut bytes);
    bytes
}

pub fn message(json: &str) -> Vec<u8> {
    of_kind(Kind::Message, json.as_bytes())
}

pub fn data(bytes: &[u8]) -> Vec<u8> {
    of_kind(Kind::Data, bytes)
}

/// A put of `bytes`, whose checksum is said to be `sum`.
pub fn put(key: &str, sum: &str, bytes: &[u8]) -> Vec<u8> {
    [put_begin(key), data(bytes), put_end(sum)].concat()
}

pub fn put_begin(key: &str) -> Vec<u8> {
    message(&format!(r#"{{"put":{{"key":"{key}"}}}}"#))
}

pub fn put_end(sum: &str) -> Vec<u8> {
    message(&format!(r#"{{"put_end":{{"checksum":"{sum}"}}}}"#))
}

/// The next frame that the node sends but signs of life; `None` once it has closed.
pub fn receive(stream: &mut TcpStream) -> Option<(Kind, Vec<u8>)> {
    loop {
        let mut header = [0; HEADER];
        match stream.read_exact(&mut header) {
            Err(e) if e.kind() == ErrorKind::WouldBlock => panic!("no answer, and no end"),
            Err(_) => return None,
            Ok(()) => {}
        }
        let header = Header::parse(&header).unwrap();
        let mut payload = vec![0; header.len];
        stream.read_exact(&mut payload).unwrap();
        header.verify(&payload).unwrap();
        if header.kind != Kind::Alive {
            return Some((header.kind, payload));
        }
    }
}

/// What is answered by a message or an error; empty once the connection has ended.
pub fn exchange(stream: &mut TcpStream, said: &[u8]) -> String {
    // The node may end it before it has heard all.
    let _ = stream.write_all(said);
    receive(stream).map_or_else(String::new, |(_, payload)| text(&payload))
}

const HELLO: &str = "99fc819aaba2462a 6";

#[test]
fn a_connection_answers_one_request_after_the_other() {
    let cluster = Cluster::start(2);
    let mut stream = connect(&cluster, 0);
    let stat = message(r#"{"stat":{"path":"b/0_k"}}"#);
    assert_eq!(exchange(&mut stream, &stat), r#"{"stat":{"is":"absent"}}"#);
    assert_eq!(exchange(&mut stream, &put("b/0_k", HELLO, b"hello\n")), r#""stored""#);
    let found = exchange(&mut stream, &stat);
    assert!(found.contains(r#""is":"key""#) && found.contains(HELLO), "{found}");
    let directory = exchange(&mut stream, &message(r#"{"stat":{"path":"b"}}"#));
    assert!(directory.contains(r#""is":"dir""#), "{directory}");
    assert_eq!(cluster.get("s4://b/0_k"), b"hello\n");
    // Many at once, answered in their order.
    let get = message(r#"{"get":{"key":"b/0_k"}}"#);
    let many = [&stat[..], &put("b/0_2", HELLO, b"hello\n"), &get, &put("b/0_k", HELLO, b"hello\n"), &get].concat();
    stream.write_all(&many).unwrap();
    let answers: Vec<_> = (0..9).map(|_| receive(&mut stream).unwrap()).collect();
    let kinds: Vec<Kind> = answers.iter().map(|(kind, _)| *kind).collect();
    let got = [Kind::Message, Kind::Data, Kind::Message];
    assert_eq!(kinds, [&[Kind::Message; 2][..], &got, &[Kind::Error], &got].concat());
    assert_eq!(answers[3].1, b"hello\n");
    let head = text(&answers[2].1);
    assert_eq!((head, text(&answers[4].1)), (format!(r#"{{"key":"{HELLO}"}}"#), r#""end""#.to_owned()));
}

#[test]
fn the_first_request_may_come_with_the_upgrade() {
    let cluster = Cluster::start(1);
    cluster.put("s4://b/0_k", b"hello\n");
    let (mut stream, head) = ask(&cluster, 0, "POST", "/v1/connect", "s4-request: {\"get\":{\"key\":\"b/0_k\"}}\r\n");
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    let came: Vec<_> = (0..3).map(|_| receive(&mut stream).unwrap()).collect();
    assert_eq!(came[1], (Kind::Data, b"hello\n".to_vec()));
    for wrong in ["{}", "nonsense", "{\"get\":{\"key\":\"../x\"}}"] {
        let (_, head) = ask(&cluster, 0, "POST", "/v1/connect", &format!("s4-request: {wrong}\r\n"));
        assert!(head.starts_with("HTTP/1.1 400"), "{wrong}: {head}");
    }
}

#[test]
fn what_a_request_may_not_ask_is_refused_and_the_connection_goes_on() {
    let cluster = Cluster::start(2);
    let mut stream = connect(&cluster, 0);
    exchange(&mut stream, &put("b/0_k", HELLO, b"hello\n"));
    let eval = |key: &str, cmd: &[u8]| {
        [message(&format!(r#"{{"eval":{{"key":"{key}"}}}}"#)), data(cmd), message(r#""end""#)].concat()
    };
    let part = |key: &str, sum: &str, offset: &str| {
        message(&format!(r#"{{"get":{{"key":"{key}","part":{{"checksum":"{sum}","offset":{offset}}}}}}}"#))
    };
    let job = r#"{"job":"20200101-000000-001-000000","inputs":1,"outputs":1}"#;
    let delivered = message(&format!(r#"{{"put":{{"key":"b/0_x","delivery":{job}}}}}"#));
    let large = vec![b'x'; 300_000];
    for (said, kind) in [
        (put("b/0_k", HELLO, b"hello\n"), "already_exists"),
        (put("b/0_k/0_below", HELLO, b"hello\n"), "already_exists"),
        (put("b/1_k", HELLO, b"hello\n"), "wrong_node"),
        (put("b/0_other", HELLO, b"hallo\n"), "bad_request"),
        (put("b/0_other", HELLO, b"hello"), "bad_request"),
        (put("b/0_other", HELLO, &large), "bad_request"),
        (put("b/0_k", HELLO, &large), "already_exists"),
        (
            [put_begin("b/0_other"), data(b"hel"), of_kind(Kind::Error, br#"{"kind":"io","message":"no"}"#)].concat(),
            "bad_request",
        ),
        ([delivered, data(b"hello\n"), put_end(HELLO)].concat(), "not_found"),
        (message(r#"{"get":{"key":"b/0_none"}}"#), "not_found"),
        (message(r#"{"get":{"key":"b/1_k"}}"#), "wrong_node"),
        (part("b/0_k", "0000000000000000 6", "0"), "not_found"),
        (part("b/0_none", HELLO, "0"), "not_found"),
        (eval("b/0_none", b"cat"), "not_found"),
        (eval("b/1_k", b"cat"), "wrong_node"),
        (eval("b/0_k", b""), "usage"),
        (eval("b/0_k", b" \n"), "usage"),
        (eval("b/0_k", b"touch ran\0"), "usage"),
        ([message(r#"{"eval":{"key":"b/0_k"}}"#), data(&large).repeat(4), message(r#""end""#)].concat(), "too_large"),
        ([message(r#"{"try":{"key":"b/0_k"}}"#), data(b"{}"), message(r#""end""#)].concat(), "bad_request"),
    ] {
        let answer = exchange(&mut stream, &said);
        let shown: String = text(&said).chars().take(200).collect();
        assert!(answer.contains(&format!(r#""kind":"{kind}""#)) && answer.contains("node 0"), "{shown}: {answer}");
    }
    assert_eq!(cluster.ok(&["ls", "-r", "s4://b/"]).lines().count(), 1);
    // A part beyond the end has no data.
    for offset in ["6", "7", "18446744073709551615"] {
        stream.write_all(&part("b/0_k", HELLO, offset)).unwrap();
        assert_eq!(receive(&mut stream).unwrap().1, format!(r#"{{"key":"{HELLO}"}}"#).into_bytes());
        assert_eq!(receive(&mut stream).unwrap().1, br#""end""#);
    }
}

#[test]
fn what_is_no_request_is_refused_with_a_reason_and_the_connection_ends() {
    let cluster = Cluster::start(1);
    let bytes = |kind: u8, len: u32| [&[kind][..], &len.to_le_bytes(), &[0; 4]].concat();
    let mut flipped = put("b/0_k", HELLO, b"hello\n");
    *flipped.last_mut().unwrap() ^= 1;
    for said in [
        bytes(b'M', u32::MAX),
        bytes(b'D', u32::MAX),
        bytes(b'K', 0),
        bytes(b'A', 1),
        b"garbage that is long enough for a header".to_vec(),
        message("nonsense"),
        message("{}"),
        message(r#"{"stat":{"path":"../etc"}}"#),
        message(r#"{"stat":{"path":"b//k"}}"#),
        message(r#"{"stat":{"path":".s4/token"}}"#),
        message(r#"{"other":{}}"#),
        message(r#"{"put":{"key":"b"}}"#),
        message(&format!("{}1", "[".repeat(60_000))),
        message(r#""end""#),
        put_end(HELLO),
        data(b"of nothing"),
        flipped,
        [put_begin("b/0_k"), data(b"hello\n"), put_begin("b/0_l")].concat(),
        [put_begin("b/0_k"), data(b"hello\n"), message(r#""end""#)].concat(),
        [put_begin("b/0_k"), of_kind(Kind::Stderr, b"x")].concat(),
    ] {
        let mut stream = connect(&cluster, 0);
        let answer = exchange(&mut stream, &said);
        let shown: String = text(&said).chars().take(100).collect();
        assert!(answer.contains(r#""kind":"bad_request""#) && answer.contains("node 0"), "{shown}: {answer}");
        assert_eq!(receive(&mut stream), None, "{shown}");
    }
    for (method, status) in [("GET", 405), ("PUT", 405)] {
        let (_, head) = ask(&cluster, 0, method, "/v1/connect", "");
        assert!(head.starts_with(&format!("HTTP/1.1 {status}")), "{head}");
    }
    let digest = cluster.digest();
    let head =
        format!("POST /v1/connect HTTP/1.1\r\nhost: 127.0.0.1\r\ns4-cluster: {digest}\r\nconnection: close\r\n\r\n");
    assert!(cluster.raw(0, head.as_bytes()).starts_with("HTTP/1.1 400"));
    let stranger = "POST /v1/connect HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: upgrade\r\nupgrade: s4-frames\r\n\r\n";
    assert!(cluster.raw(0, stranger.as_bytes()).starts_with("HTTP/1.1 403"));
    assert_eq!(listed(&cluster, "s4://b/"), [""; 0]);
    assert!(!cluster.log_text(0).contains("panicked"), "{}", cluster.log_text(0));
}

/// Messages that were changed at random are answered, refused, or end the connection: nothing of the daemon grows, panics or stays.
#[test]
fn a_daemon_survives_messages_that_were_changed_at_random() {
    let cluster = Cluster::start(1);
    cluster.put("s4://b/0_k", &vec![7; 700_000]);
    let rounds = std::env::var("S4_TEST_FRAMES").map_or(4_000, |rounds| rounds.parse().unwrap());
    let sum = s4::checksum::Checksum::of(&vec![7; 700_000]).to_string();
    let said: Vec<Vec<u8>> = vec![
        message(r#"{"stat":{"path":"b/0_k"}}"#),
        message(r#"{"get":{"key":"b/0_k"}}"#),
        message(&format!(r#"{{"get":{{"key":"b/0_k","part":{{"checksum":"{sum}","offset":5,"len":9}}}}}}"#)),
        put("b/0_k", HELLO, b"hello\n"),
        put("c/0_k", HELLO, b"hallo\n"),
        [put_begin("c/0_k"), data(&[1; 5000]), data(&[2; 70_000]), put_end(HELLO)].concat(),
        [message(r#"{"eval":{"key":"b/0_k"}}"#), data(b""), message(r#""end""#)].concat(),
    ];
    let mut random = Random::new();
    let (threads, open) = (count(&cluster, "task"), count(&cluster, "fd"));
    let mut streams: Vec<TcpStream> = (0..8).map(|_| connect(&cluster, 0)).collect();
    for round in 0..rounds {
        let mut bytes: Vec<u8> = (0..=random.below(3)).flat_map(|_| said[random.below(7) as usize].clone()).collect();
        for _ in 0..random.below(4) {
            let at = random.below(bytes.len() as u64) as usize;
            match random.below(4) {
                0 => bytes[at] ^= 1 << random.below(8),
                1 => bytes.truncate(at.max(1)),
                2 => bytes.insert(at, random.below(256) as u8),
                _ => drop(bytes.drain(at..(at + random.below(9) as usize).min(bytes.len()))),
            }
            if bytes.is_empty() {
                bytes.push(b'M');
            }
        }
        let at = round % streams.len();
        let stream = &mut streams[at];
        // What comes back is thrown away, and what has ended begins again.
        stream.set_nonblocking(true).unwrap();
        let sent = stream.write_all(&bytes);
        let mut heard = vec![0; 1 << 16];
        let heard = stream.read(&mut heard);
        stream.set_nonblocking(false).unwrap();
        let is_over = sent.is_err() || matches!(heard, Ok(0)) || random.below(20) == 0;
        if is_over {
            streams[at] = connect(&cluster, 0);
        }
    }
    drop(streams);
    let left = || (count(&cluster, "fd"), count(&cluster, "task"));
    let began = Instant::now();
    // A few unnamed files are kept for the next keys. What was refused is waited for, should its sender go on, for 30 seconds.
    while left().0 > open + 16 || left().1 > threads + 40 {
        let links = || std::fs::read_dir(format!("/proc/{}/fd", cluster.pid(0))).unwrap().flatten();
        let links = || links().filter_map(|fd| std::fs::read_link(fd.path()).ok()).collect::<Vec<_>>();
        assert!(began.elapsed() < Duration::from_secs(40), "{:?} after {:?}: {:?}", left(), (open, threads), links());
        std::thread::park_timeout(Duration::from_millis(50));
    }
    assert!(resident_kib(cluster.pid(0)) < 100 * 1024, "{} KiB", resident_kib(cluster.pid(0)));
    assert!(!cluster.log_text(0).contains("panicked"), "{}", cluster.log_text(0));
    assert_eq!(cluster.get("s4://b/0_k").len(), 700_000);
}

/// Entries of a directory of the daemon in /proc.
fn count(cluster: &Cluster, dir: &str) -> usize {
    std::fs::read_dir(format!("/proc/{}/{dir}", cluster.pid(0))).unwrap().count()
}

#[test]
fn a_put_has_the_attributes_that_its_end_says() {
    let cluster = Cluster::start(1);
    let mut stream = connect(&cluster, 0);
    let alive = of_kind(Kind::Alive, b"");
    let end = message(&format!(r#"{{"put_end":{{"checksum":"{HELLO}","change":{{"mode":365}}}}}}"#));
    let said = [&alive[..], &put_begin("b/0_new"), &data(b"hel"), &alive, &data(b"lo\n"), &end].concat();
    assert_eq!(exchange(&mut stream, &said), r#""stored""#);
    assert_eq!(cluster.get("s4://b/0_new"), b"hello\n");
    let found = std::fs::metadata(cluster.data(0).join("b/0_new")).unwrap();
    assert_eq!(found.permissions().mode() & 0o7777, 0o555);
}

/// As for a request: who hangs up before the answer has told its user that there is no such key.
#[test]
fn a_key_whose_sender_hangs_up_is_not_stored() {
    let cluster = Cluster::start(1);
    let whole = put("b/0_k", HELLO, b"hello\n");
    let mut large = [put_begin("b/0_k"), data(&[7; 300_000])].concat();
    large.extend(put_end(&s4::checksum::Checksum::of(&[7; 300_000]).to_string()));
    for (said, how) in [(&whole, "whole"), (&whole[..whole.len() - 1].to_vec(), "cut off"), (&large, "large")] {
        let mut stream = connect(&cluster, 0);
        let before = requests(&cluster, 0, "keys");
        cluster.signal(0, "STOP");
        stream.write_all(said).unwrap();
        drop(stream);
        cluster.signal(0, "CONT");
        eventually("it was asked", || (requests(&cluster, 0, "keys") > before).then_some(()));
        // What is asked later is answered later.
        cluster.put(&format!("s4://other/0_{}", how.replace(' ', "_")), b"content");
        assert_eq!(listed(&cluster, "s4://b/"), [""; 0], "{how}");
    }
}

/// How many requests of a kind a node has counted.
pub fn requests(cluster: &Cluster, node: usize, kind: &str) -> u64 {
    let metrics = cluster.raw(node, b"GET /metrics HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n");
    let name = format!("s4_requests_total{{kind=\"{kind}\"}} ");
    metrics.lines().find_map(|line| line.strip_prefix(&name)).expect("it is counted").parse().unwrap()
}

/// What has been asked before the node is told to end is done and answered.
#[test]
fn a_node_that_ends_stores_what_it_was_asked_to() {
    let mut cluster = Cluster::start(1);
    for round in 0..5 {
        let mut stream = connect(&cluster, 0);
        let key = format!("b/0_{round}");
        exchange(&mut stream, &message(r#"{"stat":{"path":"b"}}"#));
        cluster.signal(0, "STOP");
        stream.write_all(&put(&key, HELLO, b"hello\n")).unwrap();
        cluster.signal(0, "TERM");
        cluster.signal(0, "CONT");
        assert_eq!(exchange(&mut stream, b""), r#""stored""#);
        cluster.stop_node(0);
        cluster.start_node(0);
        assert_eq!(cluster.get(&format!("s4://{key}")), b"hello\n");
    }
}

#[test]
fn connections_over_which_nothing_is_asked_take_no_threads_and_end() {
    let cluster = Cluster::start(1);
    let mut streams: Vec<TcpStream> = (0..500).map(|_| connect(&cluster, 0)).collect();
    let stat = message(r#"{"stat":{"path":"b/0_k"}}"#);
    for stream in &mut streams {
        assert!(exchange(stream, &stat).contains("absent"));
    }
    // Before the node gives them up.
    let began = Instant::now();
    eventually("few threads are left", || (count(&cluster, "task") < 100).then_some(()));
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    for stream in &mut streams {
        stream.shutdown(Shutdown::Write).unwrap();
        assert_eq!(receive(stream), None);
    }
}

/// Files of a mount that are enough for it to keep a connection with node 1.
fn warm_up(setup: &Setup) {
    setup.bash("for i in $(seq 40); do echo $i > b/1_warm$i; done");
    assert!(requests(&setup.cluster, 1, "connect") > 0);
}

#[test]
fn a_mount_asks_and_stores_over_connections() {
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

/// A connection that nobody uses must not hold up its node's end, nor its node's new start the mount.
#[test]
fn a_node_ends_at_once_and_comes_back_under_open_connections() {
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
fn a_node_that_hangs_holds_up_only_who_needs_it() {
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
