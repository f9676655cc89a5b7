//! `s4 map`, `s4 map-to-n`, `s4 map-from-n`: submit a job to every node, start it, and follow it to its end.

use super::say;
use crate::cli::MapArgs;
use s4::client::Client;
use s4::error::{Error, ErrorKind, ExitStatus, Result};
use s4::key::Dir;
use s4::pattern::Pattern;
use s4::placement::NodeId;
use s4::protocol::{CommandText, Event, JobSpec, MapKind, Outcome, Progress, TaskFailure};
use std::time::{Duration, Instant};
use tokio::signal::unix::{SignalKind, signal};

/// How often progress is told where nobody watches live.
const PROGRESS: Duration = Duration::from_secs(5);

pub async fn run(client: &Client, kind: MapKind, args: MapArgs) -> Result<ExitStatus> {
    let (indir, outdir) = (Pattern::parse_url(&args.indir)?, Dir::parse_url(&args.outdir)?);
    let spec = JobSpec {
        keep_going: args.keep_going,
        timeout: args.timeout.map(|timeout| timeout.as_secs_f64()),
        ..JobSpec::new(kind, indir, outdir, CommandText::new(args.cmd)?)
    };
    let mut report = Report::new(client.cluster().len());
    let ended = tokio::select! {
        ended = follow(client, &spec, &mut report) => ended,
        ended = interrupted() => ended.and(Err(Error::new(ErrorKind::Cancelled, format!("{kind} cancelled")))),
    };
    match ended {
        Ok(()) => report.finish(&spec),
        Err(error) => {
            client.cancel_everywhere(&spec.id).await;
            Err(report.explain(&spec, &error))
        }
    }
}

async fn follow(client: &Client, spec: &JobSpec, report: &mut Report) -> Result<()> {
    report.tasks = client.begin_job(spec).await?;
    let mut events = client.follow_everywhere(&spec.id);
    while let Some((node, event)) = events.recv().await {
        report.take(client, spec, node, event?);
    }
    Ok(())
}

/// Resolves at Ctrl-C or SIGTERM.
async fn interrupted() -> Result<()> {
    let mut terminate = signal(SignalKind::terminate()).map_err(|e| Error::io("cannot wait for signals", &e))?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
    Ok(())
}

/// What the nodes have told so far.
struct Report {
    tasks: u64,
    nodes: Vec<(Progress, Option<Outcome>)>,
    began: Instant,
    told: Instant,
}

impl Report {
    fn new(nodes: usize) -> Self {
        Self { tasks: 0, nodes: vec![(Progress::default(), None); nodes], began: Instant::now(), told: Instant::now() }
    }

    fn take(&mut self, client: &Client, spec: &JobSpec, node: NodeId, event: Event) {
        match event {
            Event::Progress(progress) => self.nodes[node].0 = progress,
            Event::Failure(failure) => tell_failure(client, spec, &failure),
            Event::Ended { outcome, progress } => self.nodes[node] = (progress, Some(outcome)),
            _ => {}
        }
        if self.told.elapsed() >= PROGRESS {
            self.told = Instant::now();
            let running = self.sum(|progress| progress.running);
            say(format_args!(
                "{}: {} of {} tasks done, {running} running",
                spec.kind,
                self.sum(|progress| progress.done),
                self.tasks
            ));
        }
    }

    fn sum(&self, count: impl Fn(&Progress) -> u64) -> u64 {
        self.nodes.iter().map(|(progress, _)| count(progress)).sum()
    }

    fn finish(self, spec: &JobSpec) -> Result<ExitStatus> {
        let (tasks, outputs) = (self.tasks, self.sum(|progress| progress.outputs));
        let all_done = self.nodes.iter().all(|(_, outcome)| *outcome == Some(Outcome::Done));
        let kind = spec.kind;
        if all_done {
            let seconds = self.began.elapsed().as_secs_f64();
            say(format_args!("{kind}: {tasks} tasks done, {outputs} outputs in {}, {seconds:.2} s", spec.outdir));
            return Ok(ExitStatus::Done);
        }
        let (done, failed) = (self.sum(|progress| progress.done), self.sum(|progress| progress.failed));
        let stand = self.what_stands(spec);
        let message = format!("{kind} failed: {done} of {tasks} tasks done, {failed} failed; {stand}");
        Err(Error::new(ErrorKind::Command, message))
    }

    /// The error that ended the job, and what it leaves.
    fn explain(&self, spec: &JobSpec, error: &Error) -> Error {
        match self.tasks {
            0 => error.clone(),
            _ => Error::new(error.kind(), format!("{error}; {}", self.what_stands(spec))),
        }
    }

    fn what_stands(&self, spec: &JobSpec) -> String {
        match self.sum(|progress| progress.outputs) {
            0 => "no output stands".to_owned(),
            n => format!("{n} outputs stand; 's4 rm -r {}' removes them before another try", spec.outdir),
        }
    }
}

fn tell_failure(client: &Client, spec: &JobSpec, failure: &TaskFailure) {
    let name = client.cluster().name(failure.node);
    let mut cmd = spec.cmd.to_string();
    if let Some((end, _)) = cmd.char_indices().nth(200) {
        cmd.truncate(end);
        cmd.push('…');
    }
    let mut text = format!("{} on {name}: {}: {cmd}\n", failure.key, failure.reason);
    for line in failure.stderr.lines() {
        text += &format!("    {line}\n");
    }
    say(text.trim_end());
}
