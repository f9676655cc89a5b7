//! `--json`: the events of a job, one JSON object per line on stdout. The topic `events` of the help documents the fields.

use s4::error::{Error, Result};
use s4::placement::NodeId;
use s4::protocol::{Event, JobId, JobSpec, Plan, Progress};
use serde_json::{Value, json};
use std::io::Write;

/// The plan of each node and of all nodes, as a line.
pub fn planned_line(spec: &JobSpec, plans: &[Plan]) -> String {
    let sum: Plan = plans.iter().sum();
    let node = |(node, plan): (usize, &Plan)| {
        json!({
            "node": node,
            "tasks": plan.tasks,
            "keys": plan.keys,
            "bytes": plan.bytes,
            "done_before": plan.done_before,
            "of_others": plan.of_others,
            "gone": plan.gone,
            "reasons": plan.reasons,
        })
    };
    line(&json!({
        "event": "planned",
        "job": spec.id,
        "kind": spec.kind,
        "indir": spec.from(),
        "outdir": spec.to(),
        "tasks": sum.tasks,
        "keys": sum.keys,
        "bytes": sum.bytes,
        "done_before": sum.done_before,
        "of_others": sum.of_others,
        "gone": sum.gone,
        "reasons": sum.reasons,
        "nodes": plans.iter().enumerate().map(node).collect::<Vec<_>>(),
    }))
}

/// An event of one node as a line; empty for events that are not printed.
pub fn event_line(node: NodeId, event: &Event) -> String {
    match event {
        Event::Progress(progress) => {
            let mut value = counts(progress);
            value["event"] = "progress".into();
            value["node"] = node.into();
            value["running"] = progress.running.into();
            line(&value)
        }
        Event::Failure(failure) => line(&json!({
            "event": "failure",
            "node": failure.node,
            "key": failure.key.to_string(),
            "reason": failure.reason,
            "stderr": failure.stderr,
        })),
        Event::Running { tasks } => {
            let task = |task: &s4::protocol::RunningTask| json!({"key": task.key.to_string(), "seconds": task.seconds});
            line(&json!({
                "event": "running",
                "node": node,
                "tasks": tasks.iter().map(task).collect::<Vec<_>>(),
            }))
        }
        Event::Alive
        | Event::Planned(_)
        | Event::Job(_)
        | Event::Source(_)
        | Event::Existing(_)
        | Event::Complete
        | Event::Ended { .. }
        | Event::Deleted { .. }
        | Event::Error(_) => String::new(),
    }
}

/// The last line. `seconds` is the duration of the job.
pub fn ended_line(
    job: &JobId,
    state: &str,
    (sum, done_before): (&Progress, u64),
    seconds: f64,
    error: Option<&Error>,
) -> String {
    let mut value = counts(sum);
    value["event"] = "ended".into();
    value["job"] = job.as_str().into();
    value["state"] = state.into();
    value["done_before"] = done_before.into();
    value["seconds"] = seconds.into();
    if let Some(error) = error {
        value["error"] = error.to_string().into();
    }
    line(&value)
}

fn counts(progress: &Progress) -> Value {
    json!({
        "tasks": progress.tasks,
        "done": progress.done,
        "failed": progress.failed,
        "outputs": progress.outputs,
        "bytes": progress.bytes,
        "bytes_done": progress.bytes_done,
    })
}

fn line(value: &Value) -> String {
    format!("{value}\n")
}

pub fn print(text: &str) -> Result<()> {
    std::io::stdout().write_all(text.as_bytes()).map_err(|e| Error::io("stdout", &e))
}
