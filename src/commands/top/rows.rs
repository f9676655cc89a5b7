//! Nodes and jobs as text, for both displays.

use crate::commands::format::{seconds_text, size_text};
use s4::client::cluster_view::{ClusterView, JobView, NodeView};
use s4::protocol::node::Sample;
use std::cmp::Reverse;

/// The columns of the nodes, with their widths.
pub const COLUMNS: [(&str, usize); 11] = [
    ("node", 5),
    ("state", 7),
    ("CPU", 5),
    ("read/s", 8),
    ("write/s", 8),
    ("in/s", 8),
    ("out/s", 8),
    ("tasks", 5),
    ("keys", 8),
    ("bytes", 7),
    ("free", 7),
];

/// The column by which nodes are sorted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Order {
    #[default]
    Number,
    Cpu,
    Running,
    Bytes,
    State,
}

impl Order {
    pub fn name(self) -> &'static str {
        match self {
            Self::Number => "number",
            Self::Cpu => "CPU",
            Self::Running => "tasks",
            Self::Bytes => "bytes",
            Self::State => "state",
        }
    }

    pub fn next(self) -> Self {
        match self {
            Self::Number => Self::Cpu,
            Self::Cpu => Self::Running,
            Self::Running => Self::Bytes,
            Self::Bytes => Self::State,
            Self::State => Self::Number,
        }
    }

    /// The nodes in this order, largest first; equal ones by number.
    pub fn sort(self, nodes: &[NodeView]) -> Vec<&NodeView> {
        let mut sorted: Vec<&NodeView> = nodes.iter().collect();
        let sample = |node: &NodeView| node.last_sample().unwrap_or_default();
        match self {
            Self::Number => {}
            Self::Cpu => sorted.sort_by_key(|node| Reverse(sample(node).cpu)),
            Self::Running => sorted.sort_by_key(|node| Reverse(running(node))),
            Self::Bytes => sorted.sort_by_key(|node| Reverse(node.usage.map(|counted| counted.usage.bytes))),
            Self::State => sorted.sort_by_key(|node| Reverse(node.state)),
        }
        sorted
    }
}

/// The number of commands that run on the node now.
pub fn running(node: &NodeView) -> u64 {
    node.health.as_ref().map_or(0, |health| health.running_tasks)
}

/// The cells of a node, one for each of [`COLUMNS`]. An unknown value is a dash.
pub fn cells(node: &NodeView) -> [String; COLUMNS.len()] {
    let dash = || "-".to_owned();
    let sampled = |read: fn(Sample) -> String| node.last_sample().map_or_else(dash, read);
    let (health, usage) = (node.health.as_ref(), node.usage.map(|counted| counted.usage));
    [
        node.node.to_string(),
        node.state.name().to_owned(),
        sampled(|sample| format!("{}%", (sample.cpu + 5) / 10)),
        sampled(|sample| size_text(sample.disk_read)),
        sampled(|sample| size_text(sample.disk_written)),
        sampled(|sample| size_text(sample.net_in)),
        sampled(|sample| size_text(sample.net_out)),
        health.map_or_else(dash, |health| health.running_tasks.to_string()),
        usage.map_or_else(dash, |usage| usage.keys.to_string()),
        usage.map_or_else(dash, |usage| size_text(usage.bytes)),
        health.map_or_else(dash, |health| size_text(health.free_bytes)),
    ]
}

/// The summary of the cluster, in one line.
pub fn summary(view: &ClusterView) -> String {
    let up = view.nodes.iter().filter(|node| node.health.is_some()).count();
    let tasks: u64 = view.nodes.iter().map(running).sum();
    let jobs = view.jobs.iter().filter(|job| job.is_running()).count();
    format!("{up} of {} nodes up, {tasks} tasks running, {jobs} jobs running", view.nodes.len())
}

/// The jobs as they are shown: running ones first.
pub fn jobs_in_order(view: &ClusterView) -> Vec<&JobView> {
    let (running, ended): (Vec<_>, Vec<_>) = view.jobs.iter().partition(|job| job.is_running());
    running.into_iter().chain(ended).collect()
}

/// For example `123 of 500 done, 2 failed, 8 running`.
pub fn counts(job: &JobView) -> String {
    let progress = &job.progress;
    let mut text = format!("{} of {} done", progress.done, progress.tasks);
    for (count, what) in [(progress.failed, "failed"), (progress.running, "running")] {
        if count > 0 {
            text += &format!(", {count} {what}");
        }
    }
    text
}

/// How long the job has run, and an estimate of the rest; empty if unknown.
pub fn time(job: &JobView) -> String {
    let Some(elapsed) = job.elapsed else {
        return String::new();
    };
    let taken = seconds_text(elapsed as f64 / 1000.0);
    match job.seconds_left {
        Some(left) => format!("{taken}, {} left", seconds_text(left)),
        None => taken,
    }
}

/// The command in one line.
pub fn command_line(job: &JobView) -> String {
    job.cmd.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use s4::client::cluster_view::NodeState;
    use s4::protocol::{FailureGroups, Progress};

    /// A cluster whose node 1 is down, with a job that runs.
    pub fn view(nodes: usize) -> ClusterView {
        let nodes = (0..nodes).map(|node| NodeView {
            node,
            address: format!("10.0.0.{node}:80"),
            state: if node == 1 { NodeState::Down } else { NodeState::Up },
            why: None,
            health: None,
            usage: None,
            samples: Vec::new(),
        });
        let job = JobView {
            id: "20260101-000000-000-000000".into(),
            kind: "map".into(),
            indir: "s4://in/".into(),
            outdir: "s4://out/".into(),
            cmd: "sort".into(),
            state: "running",
            started: Some(0),
            ended: None,
            elapsed: Some(5000),
            seconds_left: Some(5.0),
            progress: Progress { tasks: 100, done: 50, failed: 1, running: 2, ..Progress::default() },
            done_before: 0,
            parts: Vec::new(),
            crowded: None,
            failures: FailureGroups::default(),
        };
        ClusterView { now: 5000, nodes: nodes.collect(), crowded: None, jobs: vec![job] }
    }

    #[test]
    fn the_orders_form_a_cycle() {
        let mut order = Order::default();
        let names: Vec<&str> = std::iter::repeat_with(|| {
            order = order.next();
            order.name()
        })
        .take(5)
        .collect();
        assert_eq!(names, ["CPU", "tasks", "bytes", "state", "number"]);
    }
}
