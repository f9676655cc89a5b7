//! The pages of one job and of one node, as lines.

use super::rows::{cells, command_line, counts, time};
use crate::commands::format::{counted, seconds_text, size_text};
use ratatui::style::Stylize;
use ratatui::text::Line;
use s4::bounds::one_line;
use s4::client::cluster_view::{ClusterView, JobView, NodeView};
use s4::protocol::Progress;
use s4::time::utc;

/// The page of a job. A job may have been forgotten meanwhile.
pub fn job_lines(view: &ClusterView, id: &str) -> Vec<Line<'static>> {
    let Some(job) = view.jobs.iter().find(|job| job.id == id) else {
        return vec![format!("job {id} is not known any more").into()];
    };
    let mut lines = vec![
        Line::from(format!("{} {}", job.id, job.state)).bold(),
        format!("{} {} -> {}", job.kind, job.indir, job.outdir).into(),
        command_line(job).into(),
        Line::default(),
        field("started", started(job)),
        field("time", time(job)),
        field("tasks", format!("{}{}", percent(&job.progress), counts(job))),
        field("outputs", job.progress.outputs.to_string()),
        field("read", read(job)),
        Line::default(),
    ];
    lines.extend(job.parts.iter().map(|part| {
        let Progress { tasks, done, failed, running, .. } = part.progress;
        let address = view.nodes.get(part.node).map_or("", |node| node.address.as_str());
        Line::from(format!(
            "node {} ({address}): {done} of {tasks} done, {failed} failed, {running} running",
            part.node
        ))
    }));
    for group in job.failures.by_count() {
        lines.push(Line::default());
        let text = format!("{} failed: {}", counted(group.count, "task"), group.kind());
        lines.push(Line::from(text).red());
        lines.extend(group.tasks.iter().map(|task| Line::from(format!("  {} on node {}", task.key, task.node))));
        lines.extend(group.hint.iter().map(|hint| Line::from(format!("  hint: {hint}"))));
        lines.extend(group.stderr.lines().map(|line| Line::from(format!("    {}", one_line(line.to_owned())))));
    }
    lines
}

/// The page of a node.
pub fn node_lines(node: &NodeView) -> Vec<Line<'static>> {
    let [_, state, cpu, read, written, received, sent, tasks, keys, bytes, free] = cells(node);
    let mut lines = vec![
        Line::from(format!("node {} {} {state}", node.node, node.address)).bold(),
        node.why.clone().unwrap_or_default().into(),
        field("CPU", cpu),
        field("disk", format!("{read} read, {written} written per second")),
        field("network", format!("{received} in, {sent} out per second")),
        field("tasks", format!("{tasks} running")),
        field("keys", format!("{keys}, {bytes}")),
        field("free", free),
    ];
    if let Some(health) = &node.health {
        lines.push(field("version", health.version.clone()));
        lines.push(field("up", seconds_text(health.uptime_seconds as f64)));
        lines.extend(health.trouble.iter().map(|trouble| Line::from(trouble.clone()).red()));
    }
    lines
}

fn field(name: &str, value: impl Into<String>) -> Line<'static> {
    Line::from(vec![format!("{name:<10}").dim(), value.into().into()])
}

fn started(job: &JobView) -> String {
    job.started.map_or_else(
        || "not yet".to_owned(),
        |started| {
            let (date, clock) = utc(started.div_euclid(1000));
            format!("{date} {clock} UTC")
        },
    )
}

/// The ended share of a job, if it has tasks.
fn percent(progress: &Progress) -> String {
    match progress.tasks {
        0 => String::new(),
        _ => format!("{:.0}%, ", (progress.share() * 100.0).floor()),
    }
}

fn read(job: &JobView) -> String {
    let bytes = job.progress.bytes_done;
    match job.elapsed {
        Some(elapsed @ 1..) => {
            format!("{}, {} per second", size_text(bytes), size_text((bytes as f64 * 1000.0 / elapsed as f64) as u64))
        }
        _ => size_text(bytes),
    }
}
