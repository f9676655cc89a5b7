//! `s4 health`

use super::format::size_text;
use s4::client::Client;
use s4::error::{Error, ErrorKind, ExitStatus, Result};
use s4::protocol::Health;
use std::io::Write;

pub async fn run(client: &Client) -> Result<ExitStatus> {
    let client = client.for_watching();
    let answers = client.on_every_node(|client, node| async move { client.health(node).await }).await;
    let mut status = ExitStatus::Done;
    let mut text = String::new();
    for (node, answer) in answers.into_iter().enumerate() {
        let address = client.cluster().address(node);
        let health = match answer {
            Ok(Health { trouble: Some(trouble), .. }) => {
                status = ExitStatus::Failed;
                format!("failing: {trouble}")
            }
            Ok(health) if health.free_bytes < health.reserve_bytes => {
                status = ExitStatus::Failed;
                format!(
                    "full: {} free, {} kept in reserve",
                    size_text(health.free_bytes),
                    size_text(health.reserve_bytes)
                )
            }
            Ok(health) => {
                let free = size_text(health.free_bytes);
                let lost = match health.lost_keys {
                    0 => String::new(),
                    lost => format!(", {lost} keys that a power cut damaged were taken away at its start"),
                };
                format!("healthy, {free} free, {} running, up {} s{lost}", health.running_tasks, health.uptime_seconds)
            }
            Err(error) => {
                status = ExitStatus::Failed;
                let name = format!("{}: ", client.cluster().name(node));
                let text = error.to_string();
                let state = match error.kind() {
                    ErrorKind::Unreachable | ErrorKind::Deadline => "down",
                    ErrorKind::Io => "failing",
                    _ => "refuses us",
                };
                format!("{state}: {}", text.strip_prefix(&name).unwrap_or(&text))
            }
        };
        text += &format!("{node} {address} {health}\n");
    }
    std::io::stdout().write_all(text.as_bytes()).map_err(|e| Error::io("stdout", &e))?;
    Ok(status)
}
