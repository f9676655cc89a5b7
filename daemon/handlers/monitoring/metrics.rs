//! `/metrics`: the Prometheus text format. Every metric is a row of one table; docs/metrics.md describes the same rows.

use crate::app::App;
use crate::handlers::{Answer, health_now};
use crate::monitoring::Totals;
use hyper::Response;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use s4::body;
use s4::client::blocking;
use s4::error::Result;
use s4::protocol::Health;
use s4::protocol::node::{Counted, Sample};
use std::fmt::Write;
use std::sync::Arc;

/// The values that a scrape reads. `health` may wait a second for the disk.
struct Readings<'a> {
    app: &'a App,
    health: Health,
    counted: Option<Counted>,
    last: Sample,
    totals: Totals,
}

/// The values of one metric. Each may have a label as `name="value"`.
type Values = Vec<(String, f64)>;

struct Metric {
    name: &'static str,
    kind: &'static str,
    help: &'static str,
    read: fn(&Readings) -> Values,
}

const fn gauge(name: &'static str, help: &'static str, read: fn(&Readings) -> Values) -> Metric {
    Metric { name, kind: "gauge", help, read }
}

const fn counter(name: &'static str, help: &'static str, read: fn(&Readings) -> Values) -> Metric {
    Metric { name, kind: "counter", help, read }
}

/// The table of all metrics.
const METRICS: &[Metric] = &[
    gauge("s4_build_info", "Always 1; the version is a label.", |r| {
        vec![(format!("version=\"{}\"", r.health.version), 1.0)]
    }),
    gauge("s4_uptime_seconds", "Seconds since the start of the daemon.", |r| one(r.health.uptime_seconds)),
    gauge("s4_keys", "Keys on this node when they were last counted; absent until then.", |r| {
        r.counted.map_or(Vec::new(), |counted| one(counted.usage.keys))
    }),
    gauge("s4_stored_bytes", "Bytes of the keys on this node when they were last counted.", |r| {
        r.counted.map_or(Vec::new(), |counted| one(counted.usage.bytes))
    }),
    gauge("s4_counted_timestamp_seconds", "When the keys were last counted, in seconds since 1970.", |r| {
        r.counted.map_or(Vec::new(), |counted| labelled("", counted.at as f64 / 1000.0))
    }),
    gauge("s4_disk_size_bytes", "Size of the data directory's disk.", |r| one(r.health.total_bytes)),
    gauge("s4_disk_free_bytes", "Bytes of the data directory's disk that ordinary users can still write.", |r| {
        one(r.health.free_bytes)
    }),
    gauge("s4_disk_reserve_bytes", "Below so many free bytes the node takes no more keys.", |r| {
        one(r.health.reserve_bytes)
    }),
    gauge("s4_jobs_running", "Jobs of which this node's part has not ended.", |r| one(r.app.jobs.running() as u64)),
    gauge("s4_tasks_running", "Commands that run now, of jobs and of eval.", |r| one(r.health.running_tasks)),
    counter("s4_tasks_total", "Tasks of jobs that have ended, by outcome.", |r| {
        let counts = &r.app.jobs.shared.task_counts;
        [("done", counts.done()), ("failed", counts.failed())]
            .map(|(outcome, count)| (format!("outcome=\"{outcome}\""), count as f64))
            .into()
    }),
    counter("s4_requests_total", "Requests, by the first part of their path.", |r| {
        let requests = r.app.watch.requests.by_kind();
        requests.map(|(kind, count)| (format!("kind=\"{kind}\""), count as f64)).collect()
    }),
    counter("s4_scrubbed_keys_total", "Files that scrubs have checked.", |r| one(r.app.watch.scrubs.keys())),
    counter("s4_scrubbed_bytes_total", "Bytes that scrubs have read.", |r| one(r.app.watch.scrubs.bytes())),
    counter("s4_scrub_findings_total", "Files in which scrubs have found a fault, by fault.", |r| {
        let findings = r.app.watch.scrubs.findings();
        findings.map(|(fault, count)| (format!("fault=\"{}\"", fault.name()), count as f64)).collect()
    }),
    gauge("s4_cpu_busy_ratio", "Share of the machine's CPUs that was busy in the last 2 seconds.", |r| {
        labelled("", r.last.cpu as f64 / 1000.0)
    }),
    counter(
        "s4_disk_read_bytes_total",
        "Read from the data directory's device, or all disks, by whatever program.",
        |r| one(r.totals.disk_read),
    ),
    counter(
        "s4_disk_written_bytes_total",
        "Written to the data directory's device, or all disks, by whatever program.",
        |r| one(r.totals.disk_written),
    ),
    counter(
        "s4_network_received_bytes_total",
        "Received by the machine; the loopback counts on a loopback node only.",
        |r| one(r.totals.net_in),
    ),
    counter("s4_network_sent_bytes_total", "Sent by the machine; the loopback counts on a loopback node only.", |r| {
        one(r.totals.net_out)
    }),
];

fn one(value: u64) -> Values {
    labelled("", value as f64)
}

fn labelled(label: &str, value: f64) -> Values {
    vec![(label.to_owned(), value)]
}

/// Answers a scrape.
pub async fn answer(app: &Arc<App>) -> Answer {
    let app = app.clone();
    let text = blocking(move || text(&app)).await?;
    let mut response = Response::new(body::full(text));
    let plain = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, plain);
    Ok(response)
}

/// Blocks: probes the disk.
fn text(app: &App) -> Result<String> {
    let sampler = &app.watch.sampler;
    let readings = Readings {
        app,
        health: health_now(app)?,
        counted: sampler.counted(),
        last: sampler.last().unwrap_or_default(),
        totals: sampler.totals(),
    };
    let mut text = String::new();
    for Metric { name, kind, help, read } in METRICS {
        // Writing to a string does not fail.
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
        for (label, value) in read(&readings) {
            let _ = match label.is_empty() {
                true => writeln!(text, "{name} {value}"),
                false => writeln!(text, "{name}{{{label}}} {value}"),
            };
        }
    }
    Ok(text)
}
