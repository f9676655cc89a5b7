//! On several hosts: a client that is stopped for a while does not take its own pause for the nodes' silence; answers that are
//! lost; daemons that restart.

use crate::harness::eventually;
use crate::hosts::{Hosts, Running};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::{Duration, Instant};

/// Longer than the deadline of the commands here.
const PAUSE: Duration = Duration::from_secs(6);

fn pause(pid: u32) {
    let send = |signal| kill(Pid::from_raw(pid as i32), signal).unwrap();
    send(Signal::SIGSTOP);
    // A pause is a time: there is nothing to wait for.
    let until = Instant::now() + PAUSE;
    while let Some(left) = until.checked_duration_since(Instant::now()) {
        std::thread::park_timeout(left);
    }
    send(Signal::SIGCONT);
}

#[test]
fn a_client_that_was_stopped_goes_on_with_its_job() {
    let Some(hosts) = Hosts::start(3, &[]) else { return };
    (0..6).for_each(|n| drop(hosts.sh(&format!("echo {n} | s4 cp - s4://in/{n}_k"))));
    let command = hosts.s4(&["map", "s4://in/", "s4://out/", "sleep 8; cat", "--deadline", "3"]);
    let mapping = Running::start(command);
    eventually("node 1 runs its commands", || {
        (std::fs::read_dir(hosts.disk(1).join("data/.s4/tasks")).unwrap().count() > 0).then_some(())
    });
    pause(mapping.pid);
    mapping.end(Instant::now()).succeeds("map of a client that was stopped");
    assert_eq!(hosts.ok(&["ls", "-r", "s4://out/"]).lines().count(), 6);
}

#[test]
fn a_transfer_of_a_client_that_was_stopped_goes_on() {
    let Some(hosts) = Hosts::start(3, &[]) else { return };
    std::fs::File::create(hosts.dir().join("large")).unwrap().set_len(256 << 20).unwrap();
    let large = hosts.dir().join("large").display().to_string();
    let putting = Running::start(hosts.s4(&["cp", &large, "s4://b/1_large", "--deadline", "3"]));
    eventually("it is under way", || (crate::observe::longest_open(hosts.pid(1)) > 16 << 20).then_some(()));
    pause(putting.pid);
    putting.end(Instant::now()).succeeds("put of a client that was stopped");
    let out = hosts.dir().join("out").display().to_string();
    let getting = Running::start(hosts.s4(&["cp", "s4://b/1_large", &out, "--deadline", "3"]));
    eventually("it is under way", || (crate::observe::longest_open(getting.pid) > 16 << 20).then_some(()));
    pause(getting.pid);
    getting.end(Instant::now()).succeeds("get of a client that was stopped");
}

#[test]
fn nothing_is_stored_after_no_answer_was_said() {
    let Some(hosts) = Hosts::start(2, &[]) else { return };
    std::fs::create_dir(hosts.dir().join("tree")).unwrap();
    (0..20).for_each(|n| std::fs::write(hosts.dir().join(format!("tree/{n}_k")), vec![b'x'; 5000]).unwrap());
    let tree = hosts.dir().join("tree").display().to_string();
    let file = hosts.dir().join("tree/1_k").display().to_string();
    // The daemon hears nothing of the client's end either, since the client's host has lost its network by then.
    hosts.signal(1, Signal::SIGSTOP);
    let began = Instant::now();
    let puts: [&[&str]; 3] =
        [&["cp", "-r", &tree, "s4://pack/"], &["cp", &file, "s4://one/1_k"], &["eval", "s4://none/1_k", "cat"]];
    let running: Vec<_> = puts
        .iter()
        .map(|args| {
            let mut command = hosts.s4(args);
            command.args(["--deadline", "2"]);
            Running::start(command)
        })
        .collect();
    eventually("the requests are sent", || (began.elapsed() > Duration::from_secs(1)).then_some(()));
    hosts.lose(hosts.client(), 1);
    for running in running {
        running.end(began).fails_within("put to a daemon that is stopped", Duration::from_secs(2));
    }
    hosts.signal(1, Signal::SIGCONT);
    // It answers others once it has dealt with what waited for it.
    let asked =
        "until s4 health > /dev/null; do :; done; s4 ls -r s4://pack/ | grep -c [13579]_k; s4 ls s4://one/ | wc -l";
    let mut other = hosts.on(0, "bash");
    let programs = std::path::Path::new(env!("CARGO_BIN_EXE_s4")).parent().unwrap().display().to_string();
    other.args(["-c", asked]).env("PATH", format!("{programs}:/usr/bin:/bin"));
    let odd_keys = String::from_utf8(other.output().unwrap().stdout).unwrap();
    assert_eq!(odd_keys, "0\n0\n", "keys of node 1 that came to be after the client had given up");
}

/// Stands before node 1, and loses each answer by which a put would know that it is done.
const LOSES_ANSWERS: &str = r#"
import socket, threading
def forward(source, sink, is_lost):
    try:
        while data := source.recv(1 << 16):
            if is_lost(data):
                break
            sink.sendall(data)
    except OSError:
        pass
    for end in source, sink:
        try:
            end.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
server = socket.create_server(('', 4401))
print('ready', flush=True)
while True:
    client, _ = server.accept()
    node = socket.create_connection(('10.99.0.2', 4400))
    lost = lambda data: b'"published":1' in data or data.strip() == b'null'
    threading.Thread(target=forward, args=(client, node, lambda _: False), daemon=True).start()
    threading.Thread(target=forward, args=(node, client, lost), daemon=True).start()
"#;

#[test]
fn a_put_whose_answer_is_lost_asks_once_more() {
    let Some(hosts) = Hosts::start(2, &[]) else { return };
    for (name, len) in [("small", 5000), ("large", 8 << 20)] {
        std::fs::File::create(hosts.dir().join(name)).unwrap().set_len(len).unwrap();
    }
    let mut loser = hosts.on(1, "python3").args(["-S", "-c", LOSES_ANSWERS]).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(loser.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let redirect = "iptables -t nat -A PREROUTING -i eth0 -p tcp --dport 4400 -j REDIRECT --to-ports 4401";
    assert!(hosts.on(1, "sh").args(["-c", redirect]).status().unwrap().success());
    for name in ["small", "large"] {
        let file = hosts.dir().join(name).display().to_string();
        let key = format!("s4://b/1_{name}");
        let put = |key: &str| Running::start(hosts.s4(&["cp", &file, key, "--deadline", "3"])).end(Instant::now());
        put(&key).succeeds(&format!("put of a {name} file whose answer is lost"));
        // It is not taken for the key of another, nor another's for its own.
        let error = put(&key).fails_within(&format!("put of a {name} key that exists"), Duration::from_secs(3));
        assert!(error.contains("already exists"), "{error}");
    }
    loser.kill().unwrap();
    loser.wait().unwrap();
    assert_eq!(hosts.disk(1).join("data/b/1_large").metadata().unwrap().len(), 8 << 20);
}

/// Restarts node 1 under what `start` has begun, and tells since when it may have missed the daemon, as often as it takes until all of it
/// succeeds. It may fail only where the daemon was away for longer than a restart may take, as on a busy machine.
fn restarts_under<const N: usize>(
    hosts: &mut Hosts,
    what: [&str; N],
    mut start: impl FnMut(&mut Hosts) -> ([Running; N], Instant),
) {
    for _ in 0..30 {
        let (running, since) = start(hosts);
        if hosts.runs(1) {
            hosts.kill_node(1);
        }
        hosts.start_node(1);
        let was_quick = since.elapsed() < s4::protocol::RESTART;
        let ended = running.map(|running| running.end(since));
        if was_quick || ended.iter().all(|timed| timed.output.status.success()) {
            for (timed, what) in ended.into_iter().zip(what) {
                timed.succeeds(&format!("{what} while its daemon restarts"));
            }
            return;
        }
    }
    panic!("no restart took less than {:?}", s4::protocol::RESTART);
}

#[test]
fn a_daemon_that_restarts_breaks_no_get() {
    let Some(mut hosts) = Hosts::start(2, &[]) else { return };
    std::fs::File::create(hosts.dir().join("large")).unwrap().set_len(256 << 20).unwrap();
    let large = hosts.dir().join("large").display().to_string();
    hosts.ok(&["cp", &large, "s4://b/1_large"]);
    std::fs::create_dir(hosts.dir().join("tree")).unwrap();
    (0..40).for_each(|n| {
        std::fs::File::create(hosts.dir().join(format!("tree/{n}_f"))).unwrap().set_len(4 << 20).unwrap()
    });
    hosts.ok(&["cp", "-r", &hosts.dir().join("tree").display().to_string(), "s4://tree/"]);
    let one = hosts.dir().join("one").display().to_string();
    for (args, name) in [(&["cp", "s4://b/1_large"][..], "one"), (&["cp", "-r", "s4://tree/"], "all")] {
        let mut turn = 0;
        restarts_under(&mut hosts, [&args.join(" ")], |hosts| {
            turn += 1;
            let to = hosts.dir().join(format!("{name}{turn}")).display().to_string();
            let getting = Running::start(hosts.s4(&[args, &[&to]].concat()));
            eventually("it is under way", || (crate::observe::longest_open(getting.pid) > 1 << 20).then_some(()));
            ([getting], Instant::now())
        });
        let got = hosts.dir().join(format!("{name}{turn}"));
        match name {
            "one" => assert_eq!(got.metadata().unwrap().len(), 256 << 20),
            _ => assert_eq!(got.read_dir().unwrap().count(), 40),
        }
    }
    // Whatever begins while the daemon is away waits for it.
    let mut turn = 0;
    restarts_under(&mut hosts, ["cp", "ls -r", "cp to it", "eval"], |hosts| {
        turn += 1;
        let (file, key) = (hosts.dir().join("tree/1_f").display().to_string(), format!("s4://new{turn}/1_f"));
        hosts.kill_node(1);
        let commands: [&[&str]; 4] = [
            &["cp", "s4://tree/1_f", &one],
            &["ls", "-r", "s4://tree/"],
            &["cp", &file, &key],
            &["eval", "s4://tree/1_f", "wc -c"],
        ];
        let since = Instant::now();
        (commands.map(|args| Running::start(hosts.s4(args))), since)
    });
}
