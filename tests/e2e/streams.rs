//! Large keys over connections of frames, in both directions and broken off.

use crate::frames::{connect, data, exchange, message, put_end};
use crate::harness::{Cluster, eventually, text};
use crate::observe::{end_within, listed, longest_open, send, spawn};
use crate::programs::program;
use nix::sys::signal::Signal;
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::process::{Child, Command};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// More than what goes in an ordinary body.
const LARGE: usize = 5 << 20;
const SOON: Duration = Duration::from_secs(8);

fn content(len: usize) -> Vec<u8> {
    (0..len as u32 / 4 + 1).flat_map(|word| word.wrapping_mul(2_654_435_761).to_le_bytes()).take(len).collect()
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
fn a_sender_hears_at_once_that_its_key_exists() {
    let cluster = Cluster::apart(1);
    cluster.put("s4://in/0_new", b"another's\n");
    let file = std::fs::File::create(cluster.dir().join("file")).unwrap();
    // To send it would take for ever.
    file.set_len(1 << 43).unwrap();
    let client = spawn(&cluster, &["cp", "file", "s4://in/0_new"]);
    let end = end_within(SOON, client);
    assert!(text(&end.stderr).contains("key already exists"), "{}", text(&end.stderr));
    assert_eq!(cluster.get("s4://in/0_new"), b"another's\n");
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

/// The pause is longer than a node waits for the next bytes of a put.
#[test]
fn a_put_of_what_comes_slowly_is_stored() {
    let cluster = Cluster::apart(1);
    let script = "(head -c 100000 /dev/zero; sleep 32; head -c 7 /dev/zero) | \"$0\" cp - s4://in/0_key";
    let output = Command::new("bash")
        .args(["-c", script])
        .arg(program("s4"))
        .env("S4_CONF_PATH", cluster.conf())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(cluster.get("s4://in/0_key"), vec![0; 100_007]);
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
    let job = cluster.ok(&["map", "--detach", "s4://in/", "s4://other/", "sleep 1000"]);
    let delivery = format!(r#"{{"job":"{}","inputs":1,"outputs":1}}"#, job.trim());
    let mut stream = connect(&cluster, 0);
    stream.write_all(&message(&format!(r#"{{"put":{{"key":"in/0_new","delivery":{delivery}}}}}"#))).unwrap();
    cluster.ok(&["cancel", job.trim()]);
    let answer = exchange(&mut stream, &[data(b"hello\n"), put_end("99fc819aaba2462a 6")].concat());
    assert!(answer.contains("the job has ended"), "{answer}");
    assert_eq!(listed(&cluster, "s4://in/").len(), 3);
}
