//! How the nodes are, by `s4 health --json` on one of the hosts: their ports may be closed to this machine.

use super::facts;
use super::ssh::Host;
use super::steps::script;
use s4::error::{Error, ErrorKind, Result};
use serde::Deserialize;
use std::time::{Duration, Instant};

/// How long a cluster may take to become healthy.
const HEALTHY_TIMEOUT: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(200);

/// A line of `s4 health --json`, as far as it is needed here.
#[derive(Debug, Clone, Deserialize)]
pub struct NodeHealth {
    pub node: usize,
    pub state: String,
    pub why: Option<String>,
    pub version: Option<String>,
    pub protocol: Option<u32>,
    pub total_bytes: Option<u64>,
    pub free_bytes: Option<u64>,
    pub uptime_seconds: Option<u64>,
}

impl NodeHealth {
    /// It serves; that it is full is no fault of a start.
    pub fn is_up(&self) -> bool {
        matches!(self.state.as_str(), "healthy" | "full")
    }
}

/// Asks one of the hosts, the first that answers.
pub fn ask(hosts: &[&Host], data: Option<&str>) -> std::result::Result<Vec<NodeHealth>, String> {
    let mut failed = "no host to ask".to_owned();
    for host in hosts {
        match host.run(&script(data, "health")).and_then(|text| parse(&text)) {
            Ok(nodes) => return Ok(nodes),
            Err(why) => failed = format!("{}: {why}", host.name),
        }
    }
    Err(failed)
}

fn parse(text: &str) -> std::result::Result<Vec<NodeHealth>, String> {
    let lines = text.lines().filter(|line| line.starts_with('{'));
    let nodes: std::result::Result<Vec<NodeHealth>, _> = lines.map(serde_json::from_str).collect();
    match nodes {
        Ok(nodes) if !nodes.is_empty() => Ok(nodes),
        Ok(_) => Err("'s4 health' said nothing".to_owned()),
        Err(e) => Err(format!("'s4 health': {e}")),
    }
}

/// Waits until all nodes serve. `hosts`: of all nodes.
pub fn wait(hosts: &[&Host], data: Option<&str>) -> Result<Vec<NodeHealth>> {
    let began = Instant::now();
    loop {
        let asked = ask(hosts, data);
        if let Ok(nodes) = &asked
            && nodes.len() == hosts.len()
            && nodes.iter().all(NodeHealth::is_up)
        {
            return asked.map_err(|why| Error::new(ErrorKind::Config, why));
        }
        if began.elapsed() > HEALTHY_TIMEOUT {
            return Err(Error::new(ErrorKind::Config, why(hosts, data, asked)));
        }
        std::thread::sleep(PAUSE);
    }
}

/// Why the nodes are not up: the first that is not, with the end of its log.
fn why(hosts: &[&Host], data: Option<&str>, asked: std::result::Result<Vec<NodeHealth>, String>) -> String {
    let nodes = match asked {
        Ok(nodes) => nodes,
        Err(why) => return why,
    };
    let Some(down) = nodes.iter().find(|node| !node.is_up()).filter(|node| node.node < hosts.len()) else {
        return format!("{} nodes answer, and not {}", nodes.len(), hosts.len());
    };
    let host = hosts[down.node];
    let said = host.run(&script(data, "last_words")).ok();
    let said =
        said.as_deref().and_then(|text| facts::lines(text).ok()).and_then(|lines| Some(lines.first()?.1.to_owned()));
    let log = said
        .filter(|said| !said.is_empty())
        .map_or(String::new(), |said| format!("; its log ends with: {}", said.escape_debug()));
    format!(
        "{}: it is {} after {HEALTHY_TIMEOUT:?}: {}{log}",
        host.name,
        down.state,
        down.why.as_deref().unwrap_or("no reason")
    )
}
