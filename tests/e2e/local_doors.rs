//! `s4 local --s3`: a door comes and goes with the nodes.

use crate::harness::{assert_no_crash, text};
use crate::local::Local;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};

/// The status line with which the door at `url` answers a request that is not signed; `None` if nothing listens.
fn answer(url: &str) -> Option<String> {
    let mut stream = TcpStream::connect(url.strip_prefix("http://").unwrap()).ok()?;
    stream.write_all(b"GET / HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.lines().next().map(str::to_owned)
}

/// The value of a variable after a shell has evaluated what `s4 local` has printed.
fn variable(printed: &str, name: &str) -> String {
    let output = Command::new("bash").args(["-c", &format!("{printed}\nprintf %s \"${name}\"")]).output().unwrap();
    text(&output.stdout)
}

#[test]
fn a_door_is_started_with_the_nodes_and_stopped_with_them() {
    let local = Local::new();
    let started = local.local(&["-n", "2", "--s3", "--detach"]).output().unwrap();
    assert_no_crash(&started);
    assert!(started.status.success(), "{}", text(&started.stderr));
    let printed = text(&started.stdout);
    let url = variable(&printed, "AWS_ENDPOINT_URL");
    assert_eq!(answer(&url).as_deref(), Some("HTTP/1.1 403 Forbidden"), "{printed}");
    let secret = std::fs::read_to_string(local.dir.path().join("D/s4.conf.secret")).unwrap();
    assert_eq!(variable(&printed, "AWS_SECRET_ACCESS_KEY"), secret.trim());
    assert!(!printed.contains(secret.trim()), "the secret is read from its file");
    let stopped = local.local(&["--stop"]).output().unwrap();
    assert!(stopped.status.success(), "{}", text(&stopped.stderr));
    assert_eq!(answer(&url), None);
}

#[test]
fn a_door_ends_when_the_nodes_are_interrupted() {
    let local = Local::new();
    let mut running = local.local(&["-n", "1", "--s3"]).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let lines = BufReader::new(running.stdout.take().unwrap()).lines().take(5);
    let printed: Vec<String> = lines.map(Result::unwrap).collect();
    let url = variable(&printed.join("\n"), "AWS_ENDPOINT_URL");
    assert!(answer(&url).is_some(), "{printed:?}");
    let pid = nix::unistd::Pid::from_raw(running.id() as i32);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    assert!(running.wait().unwrap().success());
    assert_eq!(answer(&url), None);
}
