//! `s4 cluster status`

use super::definition::{Definition, Files};
use super::facts::{CLOCK_OFF, Facts, clocks_off};
use super::health::{self, NodeHealth};
use super::ssh::Host;
use super::steps::{connect, names};
use crate::cli::{Global, StatusArgs};
use crate::commands::console::print_message;
use crate::commands::format::size_text;
use s4::error::{Error, ExitStatus, Result};
use serde::Serialize;
use std::io::Write;

/// One node, as `--json` prints it.
#[derive(Serialize)]
struct Line<'a> {
    node: usize,
    host: &'a str,
    address: &'a str,
    /// As `s4 health` has it, or `stopped`, or `unreachable` by ssh.
    state: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    uptime_seconds: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    free_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    total_bytes: Option<u64>,
    /// How far its clock is ahead of those of most hosts, in milliseconds, as far as that is certain.
    #[serde(skip_serializing_if = "Option::is_none")]
    clock_offset_ms: Option<i64>,
}

pub fn run(global: &Global, args: &StatusArgs) -> Result<ExitStatus> {
    let definition = Files::find(global.conf_path.as_deref())?.existing()?;
    let connections = connect(&args.ssh, &definition, &names(&definition.nodes))?;
    let reached: Vec<&Host> = connections.hosts.iter().flatten().collect();
    let mut found = Facts::of_all(&reached, definition.data.as_deref()).into_iter();
    let facts: Vec<std::result::Result<Facts, String>> = connections
        .hosts
        .iter()
        .map(|host| match host {
            Ok(_) => found.next().unwrap_or_else(|| Err("it was not asked".to_owned())),
            Err(why) => Err(why.clone()),
        })
        .collect();
    let health = match health::ask(&reached, definition.data.as_deref()) {
        Ok(health) => health,
        Err(why) => {
            print_message(format_args!("no host could ask the nodes: {why}"));
            Vec::new()
        }
    };
    let lines = lines(&definition, &facts, &health);
    let text: String = match args.json {
        true => lines.iter().map(|line| serde_json::json!(line).to_string() + "\n").collect(),
        false => lines.iter().map(as_text).collect(),
    };
    std::io::stdout().write_all(text.as_bytes()).map_err(|e| Error::io("stdout", &e))?;
    match lines.iter().all(|line| line.state == "healthy") {
        true => Ok(ExitStatus::Done),
        false => Ok(ExitStatus::Failed),
    }
}

fn lines<'a>(
    definition: &'a Definition,
    facts: &[std::result::Result<Facts, String>],
    health: &[NodeHealth],
) -> Vec<Line<'a>> {
    let clocks: Vec<(i64, i64)> = facts.iter().flatten().map(|facts| facts.clock).collect();
    let mut clocks = clocks_off(&clocks).into_iter();
    let mut lines = Vec::new();
    for (node, (member, facts)) in definition.nodes.iter().zip(facts).enumerate() {
        let health = health.iter().find(|health| health.node == node);
        let clock = facts.as_ref().ok().and_then(|_| clocks.next());
        let (state, why) = match (health, facts) {
            (Some(health), _) if health.version.is_some() => (health.state.clone(), health.why.clone()),
            (_, Err(why)) => ("unreachable".to_owned(), Some(why.clone())),
            (_, Ok(facts)) if facts.pid.is_none() => ("stopped".to_owned(), None),
            (Some(health), _) => (health.state.clone(), health.why.clone()),
            (None, Ok(_)) => ("running".to_owned(), None),
        };
        lines.push(Line {
            node,
            host: &member.host,
            address: &member.address,
            state,
            why,
            version: health.and_then(|health| health.version.clone()),
            uptime_seconds: health.and_then(|health| health.uptime_seconds),
            free_bytes: health.and_then(|health| health.free_bytes),
            total_bytes: health.and_then(|health| health.total_bytes),
            clock_offset_ms: clock,
        });
    }
    lines
}

fn as_text(line: &Line) -> String {
    let mut parts = vec![match &line.why {
        Some(why) => format!("{}: {why}", line.state),
        None => line.state.clone(),
    }];
    parts.extend(line.version.as_ref().map(|version| format!("version {version}")));
    parts.extend(line.uptime_seconds.map(|seconds| format!("up {seconds} s")));
    if let (Some(free), Some(total)) = (line.free_bytes, line.total_bytes) {
        parts.push(format!("{} of {} free", size_text(free), size_text(total)));
    }
    let off = line.clock_offset_ms.filter(|off| off.abs() > CLOCK_OFF);
    parts.extend(off.map(|off| format!("clock {:+.1} s", off as f64 / 1000.0)));
    format!("{} {} {} {}\n", line.node, line.host, line.address, parts.join(", "))
}
