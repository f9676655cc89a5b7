//! `s4 cluster probe`: run on every host before anything is changed, by the programs that are to be installed. It listens where
//! the daemon would, and connects to all other hosts.
//!
//! It reads a [`Question`] of one line, prints `listening`, waits for a line, and prints `done`, each after lines `problem WHY` and
//! `unreachable NODE WHY`. It ends with its stdin.

use s4::cluster::Cluster;
use s4::error::{Error, ExitStatus, Result, reason};
use s4::listen_address;
use s4::stored;
use serde::{Deserialize, Serialize};
use std::io::{BufRead, Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::time::Duration;
use tokio::net::TcpStream;

/// How long another host may take to answer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Connections that are made at once.
const AT_ONCE: usize = 64;
/// Bytes of a question that are read.
const MAX_QUESTION: u64 = 1 << 20;

/// What a host is asked.
#[derive(Serialize, Deserialize)]
pub struct Question {
    pub node: usize,
    /// The lines of the cluster file.
    pub nodes: Vec<String>,
    /// The data directory, or where it will be.
    pub data: String,
    /// The daemon runs, and listens.
    pub is_listening: bool,
}

pub async fn run() -> Result<ExitStatus> {
    let mut stdin = std::io::stdin().lock();
    let mut line = String::new();
    let failed = |e: std::io::Error| Error::io("stdin", &e);
    stdin.by_ref().take(MAX_QUESTION).read_line(&mut line).map_err(failed)?;
    let question: Question = serde_json::from_str(&line).map_err(|e| Error::usage(format!("the question: {e}")))?;
    let cluster = Cluster::parse(&(question.nodes.join("\n") + "\n"), Path::new("the nodes"))?;
    let listening = listen(&cluster, &question);
    let file_system = stored::probe(existing(Path::new(&question.data)));
    let problems = listening.as_ref().err().into_iter().chain(file_system.as_ref().err());
    problems.into_iter().try_for_each(|why| print(&format!("problem {why}")))?;
    print("listening")?;
    // All others listen once this comes.
    line.clear();
    stdin.by_ref().take(MAX_QUESTION).read_line(&mut line).map_err(failed)?;
    for (other, why) in unreachable(&cluster, question.node).await {
        print(&format!("unreachable {other} {why}"))?;
    }
    print("done")?;
    // The others may still connect.
    line.clear();
    let _ = stdin.take(1).read_to_string(&mut line);
    drop(listening);
    Ok(ExitStatus::Done)
}

fn print(line: &str) -> Result<()> {
    writeln!(std::io::stdout(), "{line}").map_err(|e| Error::io("stdout", &e))
}

/// Listens at the node's address. Errors: why a daemon could not.
fn listen(cluster: &Cluster, question: &Question) -> std::result::Result<Option<TcpListener>, String> {
    let address = cluster.address(question.node);
    let local = listen_address::find(cluster, Some(address.port())).map_err(|e| e.to_string())?;
    if local.node != question.node {
        return Err(format!("{address} is no address of it; {} is", cluster.address(local.node)));
    }
    match TcpListener::bind(local.address) {
        Ok(listener) => Ok(Some(listener)),
        Err(e) if e.kind() == std::io::ErrorKind::AddrInUse && question.is_listening => Ok(None),
        Err(e) if e.kind() == std::io::ErrorKind::AddrInUse => Err(format!("its port {} is taken", address.port())),
        Err(e) => Err(format!("it cannot listen on {}: {}", local.address, reason(&e))),
    }
}

/// The nearest directory at or above a path.
fn existing(path: &Path) -> &Path {
    path.ancestors().find(|path| path.is_dir()).unwrap_or(Path::new("/"))
}

/// The nodes that cannot be reached, and why.
async fn unreachable(cluster: &Cluster, node: usize) -> Vec<(usize, String)> {
    let others: Vec<usize> = cluster.ids().filter(|&other| other != node).collect();
    let mut problems = Vec::new();
    for some in others.chunks(AT_ONCE) {
        let tasks: Vec<_> =
            some.iter().map(|&other| (other, tokio::spawn(connect(cluster.address(other).to_string())))).collect();
        for (other, task) in tasks {
            if let Ok(Err(why)) = task.await {
                problems.push((other, why));
            }
        }
    }
    problems
}

async fn connect(address: String) -> std::result::Result<(), String> {
    match tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(e)) if e.kind() == std::io::ErrorKind::ConnectionRefused => {
            Err("the port is filtered, or nothing listens there".to_owned())
        }
        Ok(Err(e)) => Err(reason(&e)),
        Err(_) => Err(format!("no answer within {CONNECT_TIMEOUT:?}; is the port filtered?")),
    }
}
