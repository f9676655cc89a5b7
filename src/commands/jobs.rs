//! `s4 jobs`

use super::console::{print_message, stdout_width};
use super::format::{cut, seconds_text};
use crate::cli::JobsArgs;
use s4::client::Client;
use s4::client::job_table::ClusterJob;
use s4::error::{Error, ExitStatus, Result};
use s4::time;
use serde_json::json;
use std::io::Write;

pub async fn run(client: &Client, args: &JobsArgs) -> Result<ExitStatus> {
    let (jobs, errors) = client.all_jobs().await;
    let jobs: Vec<ClusterJob> = jobs.into_values().collect();
    let text = match args.json {
        true => jobs.iter().map(json_line).collect(),
        false => table(&jobs, stdout_width()),
    };
    std::io::stdout().write_all(text.as_bytes()).map_err(|e| Error::io("stdout", &e))?;
    for error in &errors {
        print_message(format_args!("{error}; its part of these jobs is not known"));
    }
    match errors.is_empty() {
        true => Ok(ExitStatus::Done),
        false => Ok(ExitStatus::Failed),
    }
}

const HEADER: [&str; 8] = ["ID", "KIND", "STATE", "DONE", "FAILED", "STARTED", "DURATION", "INDIR OUTDIR COMMAND"];
const STARTED: usize = 5;
/// On a narrower terminal the start is left out, which an id begins with: there would be no room for the command.
const WIDE: usize = 110;

/// The jobs as a table with a header; empty if there is no job.
fn table(jobs: &[ClusterJob], width: usize) -> String {
    let mut rows = vec![HEADER.map(str::to_owned)];
    rows.extend(jobs.iter().map(row));
    if jobs.is_empty() {
        rows.clear();
    }
    let widest = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let widths: [usize; HEADER.len()] = std::array::from_fn(widest);
    let line = |row: &[String; HEADER.len()]| {
        let columns = row.iter().zip(widths).take(HEADER.len() - 1).enumerate();
        let shown = columns.filter(|&(column, _)| column != STARTED || width >= WIDE);
        let padded: String = shown.map(|(_, (text, width))| format!("{text:<width$}  ")).collect();
        format!("{}\n", cut(&(padded + &row[HEADER.len() - 1]), width))
    };
    rows.iter().map(line).collect()
}

fn row(job: &ClusterJob) -> [String; HEADER.len()] {
    let progress = job.progress();
    let started = job.started().map(|started| {
        let (date, clock) = time::utc(started.div_euclid(1000));
        format!("{date} {clock}")
    });
    [
        job.spec.id.to_string(),
        job.spec.kind.to_string(),
        job.state().name().to_owned(),
        format!("{}/{}", progress.done, progress.tasks),
        progress.failed.to_string(),
        started.unwrap_or_else(|| "-".to_owned()),
        seconds(job).map_or_else(|| "-".to_owned(), seconds_text),
        format!("{} {} {}", job.spec.from(), job.spec.to(), job.spec.cmd),
    ]
}

/// Seconds from the start to the end, or to now.
fn seconds(job: &ClusterJob) -> Option<f64> {
    Some(job.elapsed()? as f64 / 1000.0)
}

fn json_line(job: &ClusterJob) -> String {
    let progress = job.progress();
    let nodes = job.nodes.iter().map(|(node, record)| {
        json!({
            "node": node,
            "outcome": record.outcome,
            "tasks": record.progress.tasks,
            "done": record.progress.done,
            "failed": record.progress.failed,
            "running": record.progress.running,
        })
    });
    let value = json!({
        "job": job.spec.id,
        "kind": job.spec.kind,
        "state": job.state().name(),
        "tasks": progress.tasks,
        "done": progress.done,
        "failed": progress.failed,
        "running": progress.running,
        "outputs": progress.outputs,
        "bytes": progress.bytes,
        "bytes_done": progress.bytes_done,
        "done_before": job.done_before(),
        "started": job.started(),
        "ended": job.ended(),
        "indir": job.spec.from(),
        "outdir": job.spec.to(),
        "cmd": job.spec.cmd.as_os_str().to_string_lossy(),
        "silent": job.silent,
        "nodes": nodes.collect::<Vec<_>>(),
    });
    format!("{value}\n")
}
