//! Large bodies over connections of their own, in both directions and broken off.

use crate::harness::{Cluster, eventually, text};
use crate::observe::{end_within, listed, longest_open, send, spawn};
use nix::sys::signal::Signal;
use std::fs::File;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::process::Child;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// More than what goes in an ordinary body.
const LARGE: usize = 5 << 20;
const SOON: Duration = Duration::from_secs(8);

fn content(len: usize) -> Vec<u8> {
    (0..len as u32 / 4 + 1).flat_map(|word| word.wrapping_mul(2_654_435_761).to_le_bytes()).take(len).collect()
}

/// Asks node 0 for a stream, and returns the connection with the head of the answer read.
pub fn ask(cluster: &Cluster, method: &str, path: &str) -> (TcpStream, String) {
    ask_node(cluster, 0, method, path)
}

/// The same of `node`.
pub fn ask_node(cluster: &Cluster, node: usize, method: &str, path: &str) -> (TcpStream, String) {
    let mut stream = TcpStream::connect(("127.0.0.1", cluster.port(node))).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ns4-cluster: {}\r\nconnection: upgrade\r\nupgrade: s4-stream\r\n\r\n",
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

/// A number of an upload, and a piece of its bytes.
fn number(n: u64) -> Vec<u8> {
    n.to_le_bytes().to_vec()
}

fn piece(bytes: &[u8]) -> Vec<u8> {
    [&number(bytes.len() as u64), bytes].concat()
}

fn ending(json: &str) -> Vec<u8> {
    [number(u64::MAX), piece(json.as_bytes())].concat()
}

/// What a node says to an upload of `in/0_new` that is sent over a stream, and then `ends` or waits.
fn upload(cluster: &Cluster, body: &[u8], ends: bool) -> String {
    let (mut stream, head) = ask(cluster, "PUT", "/v1/keys/in/0_new");
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    if ends {
        // The end is there when the node looks at what came before it.
        cluster.signal(0, "STOP");
    }
    // The node may answer before it has taken all.
    let _ = stream.write_all(body);
    if ends {
        let _ = stream.shutdown(Shutdown::Write);
        cluster.signal(0, "CONT");
    }
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    text(&answer)
}

#[test]
fn a_large_key_goes_to_a_remote_node_and_comes_back() {
    let cluster = Cluster::apart(2);
    let file = cluster.dir().join("file");
    for len in [(1 << 20) - 1, 1 << 20, (1 << 20) + 1, LARGE] {
        std::fs::write(&file, content(len)).unwrap();
        cluster.ok(&["cp", "file", &format!("s4://in/001_{len}")]);
        assert_eq!(cluster.get(&format!("s4://in/001_{len}")), content(len), "{len} bytes");
    }
    let told = cluster.fails(1, &["cp", "file", &format!("s4://in/001_{LARGE}")]);
    assert!(told.contains("key already exists") && told.contains(&cluster.name(1)), "{told}");
}

#[test]
fn a_large_key_of_a_node_of_this_machine_is_copied_there() {
    let cluster = Cluster::start(1);
    std::fs::write(cluster.dir().join("file"), content(LARGE)).unwrap();
    cluster.ok(&["cp", "file", "s4://in/0_key"]);
    assert_eq!(cluster.get("s4://in/0_key"), content(LARGE));
    let told = cluster.fails(1, &["cp", "file", "s4://in/0_key"]);
    assert!(told.contains("key already exists"), "{told}");
    // The checksum that is stored with it is that of its bytes: a map compares the two.
    cluster.ok(&["map", "s4://in/", "s4://out/", "cat"]);
    assert_eq!(cluster.get("s4://out/0_key"), content(LARGE));
}

#[test]
fn a_stream_that_is_no_upload_stores_nothing() {
    let cluster = Cluster::start(1);
    cluster.put("s4://in/0_old", b"kept\n");
    let hello = piece(b"hello\n");
    let sum = r#"{"checksum":"99fc819aaba2462a 6","change":{}}"#;
    let bodies = [
        vec![],
        b"garbage".to_vec(),
        hello.clone(),
        hello[..10].to_vec(),
        number(1 << 60),
        [&hello[..], &ending("garbage")].concat(),
        [&hello[..], &number(u64::MAX), &number(1 << 40)].concat(),
        [&hello[..], &ending(&sum.replace("99", "00"))].concat(),
        [&hello[..], &ending(&sum.replace(" 6", " 7"))].concat(),
        ending(sum),
    ];
    for body in bodies {
        let answer = upload(&cluster, &body, true);
        assert!(answer.contains("\"kind\":\"bad_request\""), "{:?}: {answer}", text(&body));
        assert_eq!(listed(&cluster, "s4://in/"), ["0_old"]);
    }
    // Who hangs up does not want it any more.
    let answer = upload(&cluster, &[&hello[..], &ending(sum)].concat(), true);
    assert!(answer.contains("\"kind\":\"cancelled\""), "{answer}");
    assert_eq!(listed(&cluster, "s4://in/"), ["0_old"]);
    // So it is none of the others that was wrong with them.
    let beat = number(0);
    let whole =
        [&beat[..], &piece(b"hel"), &beat, &piece(b"lo\n"), &ending(&sum.replace("{}", r#"{"mode":365}"#))].concat();
    assert_eq!(upload(&cluster, &whole, false), "null");
    assert_eq!(cluster.get("s4://in/0_new"), b"hello\n");
    let found = std::fs::metadata(cluster.data(0).join("in/0_new")).unwrap();
    assert_eq!(found.permissions().mode() & 0o7777, 0o555);
}

#[test]
fn a_sender_hears_at_once_that_its_key_exists() {
    let cluster = Cluster::apart(1);
    let (mut stream, _) = ask(&cluster, "PUT", "/v1/keys/in/0_new");
    cluster.put("s4://in/0_new", b"another's\n");
    let sum = r#"{"checksum":"99fc819aaba2462a 6","change":{}}"#;
    stream.write_all(&[piece(b"hello\n"), ending(sum)].concat()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    assert!(text(&answer).contains("\"kind\":\"already_exists\""), "{}", text(&answer));
    assert_eq!(cluster.get("s4://in/0_new"), b"another's\n");
    let file = std::fs::File::create(cluster.dir().join("file")).unwrap();
    // To send it would take for ever.
    file.set_len(1 << 43).unwrap();
    let client = spawn(&cluster, &["cp", "file", "s4://in/0_new"]);
    let end = end_within(SOON, client);
    assert!(text(&end.stderr).contains("key already exists"), "{}", text(&end.stderr));
}

#[test]
fn a_stream_without_the_node_list_or_of_no_key_is_refused_before_it_begins() {
    let cluster = Cluster::start(1);
    cluster.put("s4://in/0_small", b"small\n");
    for (method, path, status) in [
        ("GET", "/v1/keys/in/0_absent", 404),
        ("GET", "/v1/rest/in/0_small?checksum=0000000000000000%206&offset=0", 404),
        ("GET", "/v1/rest/in/0_small?offset=0", 400),
        ("GET", "/v1/rest/in/0_small?checksum=x&offset=0", 400),
        // Too small to be worth a stream.
        ("GET", "/v1/keys/in/0_small", 200),
        ("PUT", "/v1/keys/in/0_small", 409),
        ("PUT", "/v1/keys/in", 400),
        ("PUT", "/v1/keys/in/0_new?mode=555", 400),
    ] {
        let (_, head) = ask(&cluster, method, path);
        assert!(head.starts_with(&format!("HTTP/1.1 {status}")), "{method} {path}: {head}");
    }
    let answer = cluster.raw(
        0,
        b"GET /v1/keys/in/0_small HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: upgrade\r\nupgrade: s4-stream\r\n\r\n",
    );
    assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
}

#[test]
fn a_get_whose_node_dies_is_an_error_and_no_short_file() {
    let mut cluster = Cluster::start(1);
    // More than the sockets' buffers hold.
    std::fs::write(cluster.dir().join("file"), content(64 << 20)).unwrap();
    cluster.ok(&["cp", "file", "s4://in/0_key"]);
    let mut client = spawn(&cluster, &["cp", "s4://in/0_key", "-"]);
    let mut stdout = client.stdout.take().unwrap();
    stdout.read_exact(&mut [0; 1000]).unwrap();
    cluster.kill_node(0);
    let rest = std::io::copy(&mut stdout, &mut std::io::sink()).unwrap();
    let end = end_within(SOON, client);
    assert_eq!(end.status.code(), Some(1), "after {rest} more bytes");
    let told = text(&end.stderr);
    assert!(told.contains(&cluster.name(0)) && told.contains("broke off"), "{told}");
}

/// Puts `file` as `in/0_key`, and returns once the node takes it. No disk holds the file, so that the put does not end before
/// something happens to it.
fn put_under_way(cluster: &Cluster) -> (File, Child) {
    let file = File::create(cluster.dir().join("file")).unwrap();
    file.set_len(1 << 43).unwrap();
    let client = spawn(cluster, &["--deadline", "1", "cp", "file", "s4://in/0_key"]);
    let pid = cluster.pid(0);
    eventually("the node takes the key", || (longest_open(pid) > LARGE as u64).then_some(()));
    (file, client)
}

#[test]
fn a_put_whose_node_dies_or_hangs_is_an_error_that_names_it() {
    for signal in [Signal::SIGKILL, Signal::SIGSTOP] {
        let mut cluster = Cluster::apart(1);
        let (_, client) = put_under_way(&cluster);
        let pid = cluster.pid(0);
        send(pid, signal);
        let end = end_within(SOON, client);
        assert_eq!(end.status.code(), Some(1));
        assert!(text(&end.stderr).contains(&cluster.name(0)), "{}", text(&end.stderr));
        if signal == Signal::SIGKILL {
            cluster.kill_node(0);
            cluster.start_node(0);
        } else {
            send(pid, Signal::SIGCONT);
        }
        assert_eq!(listed(&cluster, "s4://in/"), Vec::<String>::new());
    }
}

#[test]
fn a_file_that_becomes_shorter_while_it_is_put_is_an_error_that_names_it() {
    let cluster = Cluster::apart(1);
    let (file, client) = put_under_way(&cluster);
    file.set_len(10).unwrap();
    let end = end_within(SOON, client);
    assert_eq!(
        (end.status.code(), text(&end.stderr)),
        (Some(1), "s4: file: it became shorter while it was read\n".to_owned())
    );
    assert_eq!(listed(&cluster, "s4://in/"), Vec::<String>::new());
}

#[test]
fn a_file_that_changes_while_it_is_put_is_stored_as_it_was_hashed() {
    let cluster = Cluster::apart(1);
    let file = File::create(cluster.dir().join("file")).unwrap();
    file.set_len(64 << 20).unwrap();
    let (done, began) = (AtomicBool::new(false), Instant::now());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for n in 0u64.. {
                // A test that has failed does not say that it is done.
                if done.load(Ordering::Relaxed) || began.elapsed() > 8 * SOON {
                    break;
                }
                file.write_all_at(&n.to_le_bytes(), (n * 65_537) % (64 << 20)).unwrap();
            }
        });
        for attempt in 0..4 {
            let key = format!("s4://in/0_{attempt}");
            cluster.ok(&["cp", "file", &key]);
            // It would not be given out with another checksum.
            cluster.ok(&["cp", &key, "/dev/null"]);
        }
        done.store(true, Ordering::Relaxed);
    });
}

#[test]
fn a_daemon_that_ends_gives_streams_under_way_a_moment() {
    let mut cluster = Cluster::apart(1);
    std::fs::write(cluster.dir().join("file"), content(64 << 20)).unwrap();
    cluster.ok(&["cp", "file", "s4://in/0_key"]);
    let mut client = spawn(&cluster, &["cp", "s4://in/0_key", "-"]);
    let mut stdout = client.stdout.take().unwrap();
    let mut begun = vec![0; 1000];
    stdout.read_exact(&mut begun).unwrap();
    cluster.signal(0, "TERM");
    let mut rest = begun;
    stdout.read_to_end(&mut rest).unwrap();
    assert!(end_within(SOON, client).status.success());
    assert!(rest == content(64 << 20), "{} bytes", rest.len());
    cluster.stop_node(0);
}

#[test]
fn large_outputs_of_a_shuffle_go_over_streams_and_only_to_a_job_that_goes_on() {
    let cluster = Cluster::apart(3);
    for (number, len) in [(0, LARGE), (1, 1 << 20), (2, 10)] {
        cluster.put(&format!("s4://in/00{number}_k"), &content(len));
    }
    cluster.ok(&["map-to-n", "s4://in/", "s4://out/", "tee 0_a 1_b 2_c small > /dev/null; echo x > small; ls"]);
    for (number, len) in [(0, LARGE), (1, 1 << 20), (2, 10)] {
        for name in ["0_a", "1_b", "2_c"] {
            assert!(cluster.get(&format!("s4://out/00{number}_k/{name}")) == content(len), "{number} {name}");
        }
        assert_eq!(cluster.get(&format!("s4://out/00{number}_k/small")), b"x\n");
    }
    let told = cluster.fails(1, &["map-to-n", "s4://in/", "s4://out/", "tee 0_a 1_b 2_c > /dev/null; ls"]);
    assert!(told.contains("already exist"), "{told}");
    let sum = r#"{"checksum":"99fc819aaba2462a 6"}"#;
    let (_, head) =
        ask(&cluster, "PUT", "/v1/keys/in/0_new?job=20200101-000000-001-000000&inputs=0000000000000001&outputs=1");
    assert!(head.starts_with("HTTP/1.1 404"), "{head}");
    let job = cluster.ok(&["map", "--detach", "s4://in/", "s4://other/", "sleep 1000"]);
    let path = format!("/v1/keys/in/0_new?job={}&inputs=0000000000000001&outputs=1", job.trim());
    let (mut stream, head) = ask(&cluster, "PUT", &path);
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    cluster.ok(&["cancel", job.trim()]);
    stream.write_all(&[piece(b"hello\n"), ending(sum)].concat()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    assert!(text(&answer).contains("the job has ended"), "{}", text(&answer));
    assert_eq!(listed(&cluster, "s4://in/").len(), 3);
}
