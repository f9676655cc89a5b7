//! This node's status: its health, samples of the machine, its jobs, and the failures of each job.

use crate::app::App;
use crate::handlers::{Answer, health_now, json};
use s4::client::blocking;
use s4::error::Result;
use s4::protocol::JobRecord;
use s4::protocol::node::{JOBS_TOLD, JobStatus, NodeStatus, SAMPLES_KEPT, shortened};
use std::sync::Arc;

/// Bytes of a command that are sent.
const COMMAND: usize = 2000;
/// Exit statuses that are sent.
const OK_EXIT: usize = 16;
/// Limit of bytes of JSON for all records. The status must be shorter than what a client reads.
const RECORDS: usize = 384 * 1024;

/// `samples`: the number of last samples to send.
pub async fn answer(app: &Arc<App>, samples: Option<usize>) -> Answer {
    let app = app.clone();
    blocking(move || status(&app, samples.unwrap_or(SAMPLES_KEPT))).await.map(|status| json(&status))
}

/// Blocks: probes the disk.
fn status(app: &App, samples: usize) -> Result<NodeStatus> {
    let records = listed(app.jobs.records());
    let failures = app.watch.failures.of(&app.jobs, &records);
    Ok(NodeStatus {
        health: health_now(app)?,
        usage: app.watch.sampler.counted(),
        samples: app.watch.sampler.samples(samples),
        jobs: records.into_iter().zip(failures).map(|(record, failures)| JobStatus { record, failures }).collect(),
    })
}

/// The newest jobs and those that have not ended, newest first, up to the limit. Fields that may be long or secret are
/// cut or removed.
fn listed(records: Vec<JobRecord>) -> Vec<JobRecord> {
    let newest_first = records.into_iter().rev().enumerate();
    let kept = newest_first.filter(|(at, record)| *at < JOBS_TOLD || record.outcome.is_none());
    let mut room = RECORDS;
    let shortened = kept.map(|(_, mut record)| {
        record.spec.cmd = shortened(&record.spec.cmd, COMMAND);
        record.spec.env.clear();
        record.spec.files.clear();
        record.spec.ok_exit.truncate(OK_EXIT);
        record
    });
    let fitting = shortened.filter(|record| {
        let len = serde_json::to_string(record).map_or(usize::MAX, |json| json.len());
        let fits = len <= room;
        room -= if fits { len } else { 0 };
        fits
    });
    fitting.collect()
}
