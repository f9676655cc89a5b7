//! On several hosts: the answer to a put is lost, or the put itself comes too late. Its sender is told that the key is there, or that it
//! is not, and that stays true.

use crate::harness::{eventually, text};
use crate::hosts::{Hosts, Running, print_now};
use crate::mounting::no_mounts;
use crate::programs::program;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdout, Stdio};
use std::time::{Duration, Instant};

const DEADLINE: Duration = Duration::from_secs(2);

/// Stands before node 1. It loses each answer that tells a put that it is done, and breaks the connection off (`break`) or says nothing
/// more (`stall`), also over any other connection from then on (`mute`). Or it hands the end of each put on only once it is told to on its
/// stdin, as if nobody had hung up, and says what the node answers (`late`).
const PROXY: &str = r#"
import socket, sys, threading
how, told, mute = sys.argv[1], threading.Event(), threading.Event()
def await_word():
    sys.stdin.readline()
    told.set()
threading.Thread(target=await_word, daemon=True).start()
def is_done(data, asked):
    return (b' 201 Created' in data or b'"stored"' in data
            or (b'POST /v1/adopt/' in asked and data.startswith(b'HTTP/1.1 200')))
def is_end(data):
    small = data.startswith(b'PUT /v1/keys/') and b's4-checksum' in data
    return small or b'"put_end"' in data or b'POST /v1/adopt/' in data
def close(*ends):
    for end in ends:
        try:
            end.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
def to_node(client, node, asked):
    try:
        while data := client.recv(1 << 16):
            asked[0] = data[:64]
            if how == 'late' and is_end(data):
                # The node is not told that the sender has hung up.
                asked[0] = None
                told.wait()
                node.sendall(data)
                return
            node.sendall(data)
    except OSError:
        pass
    if asked[0] is not None:
        close(client, node)
def to_client(client, node, asked):
    try:
        while data := node.recv(1 << 16):
            if asked[0] is None:
                break
            if mute.is_set():
                return
            if how != 'late' and is_done(data, asked[0]):
                if how == 'mute':
                    mute.set()
                if how != 'break':
                    return
                break
            client.sendall(data)
    except OSError:
        pass
    if asked[0] is None:
        print('late:', data[:200].replace(b'\n', b' '), flush=True)
    close(client, node)
server = socket.create_server(('', 4401))
print('ready', flush=True)
while True:
    client, _ = server.accept()
    node = socket.create_connection(('10.99.0.2', 4400), source_address=('127.0.0.1', 0))
    asked = [b'']
    threading.Thread(target=to_node, args=(client, node, asked), daemon=True).start()
    threading.Thread(target=to_client, args=(client, node, asked), daemon=True).start()
"#;

/// Has all connections to node 1 lead through a proxy: those of other hosts, and those of its own.
struct Proxy {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Proxy {
    fn start(hosts: &Hosts, how: &str) -> Self {
        let mut child = hosts
            .on(1, "python3")
            .args(["-S", "-c", PROXY, how])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        let mut proxy = Self { child, lines };
        assert_eq!(proxy.line(), "ready");
        let to_node = "-p tcp --dport 4400 -j REDIRECT --to-ports 4401";
        let redirect = format!(
            "iptables -t nat -A PREROUTING -i eth0 {to_node} && iptables -t nat -A OUTPUT -o lo -s 10.99.0.2 {to_node}"
        );
        assert!(hosts.on(1, "sh").args(["-c", &redirect]).status().unwrap().success());
        proxy
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }
}

impl Proxy {
    /// Has all puts be handed on that were held back, and the node answer them.
    fn deliver(&mut self, puts: usize) {
        writeln!(self.child.stdin.as_mut().unwrap(), "go").unwrap();
        (0..puts).for_each(|_| print_now(&self.line()));
    }
}

/// Keys of node 1.
fn made(hosts: &Hosts) -> usize {
    std::fs::read_dir(hosts.disk(1).join("data/b")).map_or(0, Iterator::count)
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_put_whose_answer_is_lost_asks_once_more() {
    for how in ["break", "stall"] {
        let Some(hosts) = Hosts::start(2, &[]) else { return };
        let _proxy = Proxy::start(&hosts, how);
        for (name, len) in [("small", 5000), ("large", 8 << 20)] {
            let file = hosts.dir().join(name).display().to_string();
            std::fs::File::create(&file).unwrap().set_len(len).unwrap();
            let key = format!("s4://b/1_{name}");
            let put = |key: &str| Running::start(hosts.s4(&["cp", &file, key, "--deadline", "2"])).end(Instant::now());
            let done = put(&key);
            assert!(done.took <= DEADLINE + Duration::from_secs(1), "{how}, {name}: {:?}", done.took);
            done.succeeds(&format!("put of a {name} file whose answer is lost ({how})"));
            // It is not taken for the key of another, nor another's for its own.
            let error = put(&key).fails_within(&format!("put of a {name} key that exists ({how})"), DEADLINE);
            assert!(error.contains("already exists"), "{error}");
            assert_eq!(hosts.disk(1).join(format!("data/b/1_{name}")).metadata().unwrap().len(), len);
        }
    }
}

#[test]
fn a_put_that_comes_when_its_sender_has_given_up_makes_no_key() {
    let Some(hosts) = Hosts::start(2, &[]) else { return };
    let mut proxy = Proxy::start(&hosts, "late");
    for (name, len) in [("small", 5000), ("large", 8 << 20)] {
        let file = hosts.dir().join(name).display().to_string();
        std::fs::File::create(&file).unwrap().set_len(len).unwrap();
        let key = format!("s4://b/1_new/1_dir/1_{name}");
        let put = Running::start(hosts.s4(&["cp", &file, &key, "--deadline", "2"]));
        let error = put.end(Instant::now()).fails_within(&format!("put of a {name} file, held back"), DEADLINE);
        assert!(error.contains("was not stored"), "{error}");
    }
    proxy.deliver(2);
    assert!(!hosts.disk(1).join("data/b").exists(), "a key came to be later, or a directory for it");
}

/// A mount on `host`.
fn mounted(hosts: &Hosts, host: usize) -> Option<Running> {
    if let Some(reason) = no_mounts() {
        print_now(&format!("skipped: {reason}"));
        return None;
    }
    let mount = hosts.dir().join("mnt");
    std::fs::create_dir_all(&mount).unwrap();
    let mut command = hosts.on(host, program("s4-mount"));
    command.arg(&mount).args(["--deadline", "2"]);
    let running = Running::start(command);
    eventually("the mount is there", || {
        hosts.on(host, "mountpoint").arg("-q").arg(&mount).status().unwrap().success().then_some(())
    });
    Some(running)
}

/// Writes `mnt/b/1_SIZE` of each size, and another file of the same bytes, then closes them; tells how that ended, and how long each
/// close took.
const WRITE_AND_CLOSE: &str = r#"
import errno, os, sys, time
files = []
for size in map(int, sys.argv[2:]):
    for again in ('', '_again'):
        fd = os.open(f'{sys.argv[1]}/1_{size}{again}', os.O_CREAT | os.O_EXCL | os.O_WRONLY)
        for at in range(0, size, 1 << 20):
            os.write(fd, b'x' * min(1 << 20, size - at))
        files.append((size, again, fd))
for size, again, fd in files:
    began, told = time.monotonic(), 'ok'
    try:
        os.close(fd)
    except OSError as e:
        told = errno.errorcode[e.errno]
    print(size, again or '-', told, time.monotonic() - began, flush=True)
"#;

/// Sent in one request, as a stream, and while it is written; where the node is of this machine, the last two are linked.
const SIZES: [u64; 3] = [1000, 1 << 20, 20 << 20];

/// What closes in a mount on `host` come to.
fn closes(hosts: &Hosts, host: usize, how: &str, sizes: &[u64], check: impl Fn(u64, &str, &std::path::Path)) {
    let bucket = hosts.dir().join("mnt/b");
    let given = sizes.iter().map(|size| size.to_string());
    let output = hosts
        .on(host, "python3")
        .args(["-S", "-c", WRITE_AND_CLOSE])
        .arg(&bucket)
        .args(given)
        .output()
        .expect("python3 runs");
    let told = text(&output.stdout);
    print_now(&format!("{how}, on host {host}: {}", told.trim().replace('\n', "; ")));
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(told.lines().count(), 2 * sizes.len());
    for line in told.lines() {
        let [size, again, told, took] = line.split(' ').collect::<Vec<_>>()[..] else { panic!("{line}") };
        let took: f64 = took.parse().unwrap();
        // The deadline is for the answer: to send the bytes through the proxy takes its own time.
        let sends = size.parse::<f64>().unwrap() / 10e6;
        assert!(took <= DEADLINE.as_secs_f64() + 1.0 + sends, "{how}, on host {host}: {line}");
        let key = format!("data/b/1_{size}{}", again.trim_start_matches('-'));
        check(size.parse().unwrap(), told, &hosts.disk(1).join(key));
    }
}

/// On the host of the client, to which the node is remote, and on the node's own.
#[test]
fn a_close_whose_answer_is_lost_has_published() {
    for how in ["break", "stall"] {
        for host in [2, 1] {
            let Some(hosts) = Hosts::start(2, &[]) else { return };
            hosts.ok(&["cp", "/etc/passwd", "s4://b/0_k"]);
            let Some(_mount) = mounted(&hosts, host) else { return };
            let _proxy = Proxy::start(&hosts, how);
            closes(&hosts, host, how, &SIZES, |size, told, key| {
                assert_eq!(told, "ok", "{how}, on host {host}: the close of {size} bytes");
                assert_eq!(key.metadata().unwrap().len(), size, "{how}, on host {host}");
            });
        }
    }
}

/// The key never appears, also when the node gets the put at last.
#[test]
fn a_close_that_failed_since_its_put_was_late_publishes_nothing_later() {
    // A session ends by itself if nothing is asked in it for long, so the small ones are apart.
    for (host, sizes) in [(2, &SIZES[..1]), (2, &SIZES[1..]), (1, &SIZES[..1]), (1, &SIZES[1..])] {
        let Some(hosts) = Hosts::start(2, &[]) else { return };
        hosts.ok(&["cp", "/etc/passwd", "s4://b/0_k"]);
        let Some(_mount) = mounted(&hosts, host) else { return };
        let mut proxy = Proxy::start(&hosts, "late");
        closes(&hosts, host, "late", sizes, |size, told, key| {
            assert_eq!(told, "EIO", "on host {host}: the close of {size} bytes");
            assert!(!key.exists(), "on host {host}");
        });
        proxy.deliver(2 * sizes.len());
        assert_eq!(made(&hosts), 0, "keys came to be on host {host} after their closes had failed");
    }
}

/// Nor does the node answer when it is asked. The writer waits no longer for that, and is not told that all is well.
#[test]
fn a_close_of_which_nothing_can_be_known_fails_within_the_deadline() {
    for host in [2, 1] {
        for size in SIZES {
            let Some(hosts) = Hosts::start(2, &[]) else { return };
            hosts.ok(&["cp", "/etc/passwd", "s4://b/0_k"]);
            let Some(_mount) = mounted(&hosts, host) else { return };
            let _proxy = Proxy::start(&hosts, "mute");
            closes(&hosts, host, "mute", &[size], |size, told, _| {
                assert_eq!(told, "EIO", "on host {host}: the close of {size} bytes");
            });
        }
    }
}
