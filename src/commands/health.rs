//! `s4 health`

use super::format::size_text;
use crate::cli::HealthArgs;
use s4::client::Client;
use s4::error::{Error, ErrorKind, ExitStatus, Result};
use s4::placement::NodeId;
use s4::protocol::{Health, version};
use s4::time::now_milliseconds;
use serde::Serialize;
use std::io::Write;

/// A clock that is off by less is not mentioned: a busy machine may take that long to answer.
const CLOCK_OFF: i64 = 1000;

/// One node, as `--json` prints it.
#[derive(Serialize)]
struct Line {
    node: NodeId,
    address: String,
    /// One of `healthy`, `full`, `failing`, `down` and `refuses`.
    state: &'static str,
    /// Why it is not healthy.
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
    #[serde(flatten)]
    report: Option<Report>,
}

/// What a node says of itself.
#[derive(Serialize)]
struct Report {
    version: String,
    protocol: u32,
    total_bytes: u64,
    free_bytes: u64,
    reserve_bytes: u64,
    running_tasks: u64,
    lost_keys: u64,
    uptime_seconds: u64,
    /// How far the node's clock is ahead of this machine's, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    clock_offset_ms: Option<i64>,
}

pub async fn run(client: &Client, args: &HealthArgs) -> Result<ExitStatus> {
    let client = client.for_watching();
    let answers = client.on_every_node(|client, node| async move {
        let asked = now_milliseconds();
        let health = client.health(node).await?;
        let middle = asked + (now_milliseconds() - asked) / 2;
        Ok((health, middle))
    });
    let lines: Vec<Line> =
        answers.await.into_iter().enumerate().map(|(node, answer)| line_of(&client, node, answer)).collect();
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

/// `answer`: what the node reported, and the time here, halfway between question and answer.
fn line_of(client: &Client, node: NodeId, answer: Result<(Health, i64)>) -> Line {
    let (state, why, report) = match answer {
        Ok((health, now)) => {
            let (state, why) = match &health.trouble {
                Some(trouble) => ("failing", Some(trouble.clone())),
                None if health.free_bytes < health.reserve_bytes => {
                    let (free, reserve) = (size_text(health.free_bytes), size_text(health.reserve_bytes));
                    ("full", Some(format!("{free} free, {reserve} kept in reserve")))
                }
                None => ("healthy", None),
            };
            (state, why, Some(report_of(health, now)))
        }
        Err(error) => {
            let state = match error.kind() {
                ErrorKind::Unreachable | ErrorKind::Deadline => "down",
                ErrorKind::Io => "failing",
                _ => "refuses",
            };
            let (name, text) = (format!("{}: ", client.cluster().name(node)), error.to_string());
            (state, Some(text.strip_prefix(&name).unwrap_or(&text).to_owned()), None)
        }
    };
    Line { node, address: client.cluster().address(node).to_string(), state, why, report }
}

fn report_of(health: Health, now: i64) -> Report {
    Report {
        version: health.version,
        protocol: health.protocol,
        total_bytes: health.total_bytes,
        free_bytes: health.free_bytes,
        reserve_bytes: health.reserve_bytes,
        running_tasks: health.running_tasks,
        lost_keys: health.lost_keys,
        uptime_seconds: health.uptime_seconds,
        clock_offset_ms: (health.clock_ms != 0).then(|| health.clock_ms.saturating_sub(now)),
    }
}

fn as_text(line: &Line) -> String {
    let said = match (line.state, &line.why, &line.report) {
        (_, None, Some(report)) => healthy_text(report),
        ("refuses", why, _) => format!("refuses us: {}", why.as_deref().unwrap_or_default()),
        (state, why, _) => format!("{state}: {}", why.as_deref().unwrap_or_default()),
    };
    format!("{} {} {said}\n", line.node, line.address)
}

fn healthy_text(report: &Report) -> String {
    let free = size_text(report.free_bytes);
    let mut text = format!("healthy, {free} free, {} running, up {} s", report.running_tasks, report.uptime_seconds);
    if report.lost_keys > 0 {
        text += &format!(", {} keys that a power cut damaged were taken away at its start", report.lost_keys);
    }
    if report.version != version() {
        text += &format!(", version {}", report.version);
    }
    if let Some(offset) = report.clock_offset_ms.filter(|offset| offset.saturating_abs() > CLOCK_OFF) {
        let direction = if offset > 0 { "ahead" } else { "behind" };
        text += &format!(", clock {:.1} s {direction}", offset.unsigned_abs() as f64 / 1000.0);
    }
    text
}
