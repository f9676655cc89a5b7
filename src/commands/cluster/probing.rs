//! Runs [`probe`](super::probe) on all hosts at once, each of which connects to all others.

use super::definition::Member;
use super::parallel::together;
use super::probe::Question;
use super::ssh::{Host, one_line};
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdout};
use std::sync::{Barrier, mpsc};
use std::time::Duration;

/// How long a host may take to begin to listen, and to say whom it reaches, for up to a thousand others.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(90);
/// Lines of an answer that are read, besides one for each host.
const MORE_LINES: usize = 20;
/// Hosts that another cannot reach and that are told; the others are counted.
const MAX_TOLD: usize = 3;

/// A host, the program `s4` on it, and what it is asked.
pub struct Asked<'a> {
    pub host: &'a Host,
    pub program: String,
    pub question: Question,
}

/// What one host has found.
#[derive(Default)]
struct Found {
    /// Why it cannot be a node.
    problems: Vec<String>,
    /// The nodes that it does not reach, and why.
    unreachable: Vec<(usize, String)>,
}

/// The problems that the hosts have found, each with its node.
pub fn problems(asked: &[Asked]) -> Vec<(usize, String)> {
    let (listening, done) = (Barrier::new(asked.len()), Barrier::new(asked.len()));
    let found = together(asked, |_, one| {
        let (mut found, limit) = (Found::default(), asked.len() + MORE_LINES);
        let mut probing = Probing::start(one).and_then(|mut probing| {
            probing.read_until("listening", limit, &mut found)?;
            Ok(probing)
        });
        // Also where one has failed: the others wait.
        listening.wait();
        let asked = probing.as_mut().map_err(|why| why.clone()).and_then(|probing| {
            probing.send("go\n")?;
            probing.read_until("done", limit, &mut found)
        });
        found.problems.extend(asked.err());
        done.wait();
        found
    });
    let mut problems = Vec::new();
    for (node, one) in found.iter().enumerate() {
        problems.extend(one.problems.iter().map(|why| (node, why.clone())));
        // Where nothing could listen, that is the reason.
        let told = one
            .unreachable
            .iter()
            .filter(|(other, _)| found.get(*other).is_some_and(|other| other.problems.is_empty()));
        let told: Vec<_> = told.collect();
        problems.extend(told.iter().take(MAX_TOLD).map(|(other, why)| {
            let address = &one_address(asked, *other);
            (node, format!("it cannot reach node {other} ({address}): {why}"))
        }));
        if told.len() > MAX_TOLD {
            problems.push((node, format!("it cannot reach {} more nodes", told.len() - MAX_TOLD)));
        }
    }
    problems
}

fn one_address<'a>(asked: &'a [Asked], node: usize) -> &'a str {
    asked[node].question.nodes[node].as_str()
}

/// The question for each node.
pub fn question(nodes: &[Member], node: usize, data: &str, is_listening: bool) -> Question {
    let nodes = nodes.iter().map(|node| node.address.clone()).collect();
    Question { node, nodes, data: data.to_owned(), is_listening }
}

impl Found {
    fn add(&mut self, line: &str) {
        let other = line.strip_prefix("unreachable ").and_then(|rest| rest.split_once(' '));
        if let Some((Ok(other), why)) = other.map(|(other, why)| (other.parse(), why)) {
            self.unreachable.push((other, one_line(why)));
        } else if let Some(why) = line.strip_prefix("problem ") {
            self.problems.push(one_line(why));
        }
    }
}

/// The program on one host. A drop ends it.
struct Probing {
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl Probing {
    fn start(asked: &Asked) -> Result<Self, String> {
        let mut child = asked.host.start(&[&asked.program, "cluster", "probe"])?;
        let lines = read_lines(child.stdout.take().expect("a pipe"));
        let mut probing = Self { child, lines };
        probing.send(&(serde_json::to_string(&asked.question).expect("plain JSON") + "\n"))?;
        Ok(probing)
    }

    fn send(&mut self, line: &str) -> Result<(), String> {
        let stdin = self.child.stdin.as_mut().expect("a pipe");
        stdin.write_all(line.as_bytes()).map_err(|_| Self::ended())
    }

    /// Reads what is found before the line `end`.
    fn read_until(&mut self, end: &str, limit: usize, found: &mut Found) -> Result<(), String> {
        for _ in 0..limit {
            match self.lines.recv_timeout(ANSWER_TIMEOUT) {
                Ok(line) if line == end => return Ok(()),
                Ok(line) => found.add(&line),
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    return Err(format!("its check did not end within {ANSWER_TIMEOUT:?}"));
                }
                Err(mpsc::RecvTimeoutError::Disconnected) => break,
            }
        }
        Err(Self::ended())
    }

    fn ended() -> String {
        "the programs do not run on it, or its connection broke".to_owned()
    }
}

impl Drop for Probing {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read_lines(stdout: ChildStdout) -> mpsc::Receiver<String> {
    let (sender, lines) = mpsc::sync_channel(MORE_LINES);
    std::thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    lines
}
