//! `s4 map`, `s4 map-to-n`, `s4 map-from-n`: submit a job to every node, start it, and follow it to its end.

use super::on_every_node;
use crate::cli::MapArgs;
use s4::client::Client;
use s4::error::{Error, ErrorKind, ExitStatus, Result};
use s4::key::Dir;
use s4::pattern::Pattern;
use s4::placement::NodeId;
use s4::protocol::{CommandText, Event, JobId, JobSpec, MapKind, Outcome, Progress, TaskFailure};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// How often progress is told where nobody watches live.
const PROGRESS: Duration = Duration::from_secs(5);
/// Between two tries to reach a node again.
const RETRY: Duration = Duration::from_millis(250);

pub async fn run(client: &Client, kind: MapKind, args: MapArgs) -> Result<ExitStatus> {
    let spec = JobSpec {
        id: JobId::new(),
        kind,
        indir: Pattern::parse_url(&args.indir)?,
        outdir: Dir::parse_url(&args.outdir)?,
        cmd: CommandText::new(args.cmd)?,
        keep_going: args.keep_going,
        timeout: args.timeout.map(|timeout| timeout.as_secs_f64()),
    };
    let job = async {
        let mut report = begin(client, &spec).await?;
        follow(client, &spec, &mut report).await?;
        Ok(report)
    };
    let ended = tokio::select! {
        ended = job => ended,
        _ = tokio::signal::ctrl_c() => Err(Error::new(ErrorKind::Cancelled, format!("{kind} cancelled"))),
    };
    match ended {
        Ok(report) => report.finish(&spec),
        Err(error) => {
            cancel(client, &spec.id).await;
            Err(error)
        }
    }
}

/// Plans the job on every node, then starts it on all.
async fn begin(client: &Client, spec: &JobSpec) -> Result<Report> {
    let plans = on_every_node(client, |client, node| {
        let spec = spec.clone();
        async move { client.submit_job(node, &spec).await }
    })
    .await;
    let plans = plans.into_iter().collect::<Result<Vec<_>>>()?;
    if plans.iter().all(|plan| plan.tasks == 0) {
        return Err(Error::new(ErrorKind::NotFound, format!("{}: no keys in it", spec.indir)));
    }
    let started = on_every_node(client, |client, node| {
        let id = spec.id.clone();
        async move { client.start_job(node, &id).await }
    })
    .await;
    started.into_iter().collect::<Result<()>>()?;
    Ok(Report::new(plans.iter().map(|plan| plan.tasks).sum(), client.cluster().len()))
}

/// Kills what runs of the job, on the nodes that can be reached.
async fn cancel(client: &Client, id: &JobId) {
    on_every_node(client, |client, node| {
        let id = id.clone();
        async move {
            // The error that led here is the one to tell.
            let _ = client.cancel_job(node, &id).await;
        }
    })
    .await;
}

/// Takes the events of every node into `report` until each has ended.
async fn follow(client: &Client, spec: &JobSpec, report: &mut Report) -> Result<()> {
    let (sender, mut events) = mpsc::channel(64);
    for node in client.cluster().ids() {
        let (client, id, sender) = (client.clone(), spec.id.clone(), sender.clone());
        tokio::spawn(async move {
            if let Err(error) = follow_node(&client, node, &id, &sender).await {
                // Nobody listens once another node's error has ended the job.
                let _ = sender.send((node, Err(error))).await;
            }
        });
    }
    drop(sender);
    while let Some((node, event)) = events.recv().await {
        report.take(client, spec, node, event?);
    }
    Ok(())
}

type Sender = mpsc::Sender<(NodeId, Result<Event>)>;

/// Hands on one node's events. A connection that breaks is made again, and what was told already is left out.
async fn follow_node(client: &Client, node: NodeId, id: &JobId, sender: &Sender) -> Result<()> {
    let mut failures = 0;
    let mut lost: Option<Instant> = None;
    loop {
        let mut told = 0;
        let broken = match client.follow_job(node, id).await {
            Err(error) => error,
            Ok(mut stream) => loop {
                match stream.next().await {
                    Ok(Some(event)) => {
                        lost = None;
                        if matches!(event, Event::Failure(_)) {
                            told += 1;
                            if told <= failures {
                                continue;
                            }
                            failures = told;
                        }
                        let ended = matches!(event, Event::Ended { .. });
                        if sender.send((node, Ok(event))).await.is_err() || ended {
                            return Ok(());
                        }
                    }
                    Ok(None) => {
                        break Error::new(
                            ErrorKind::Unreachable,
                            format!("{}: its daemon ended", client.cluster().name(node)),
                        );
                    }
                    Err(error) => break error,
                }
            },
        };
        let since = *lost.get_or_insert_with(Instant::now);
        if broken.kind() != ErrorKind::Unreachable || since.elapsed() >= client.deadline() {
            return Err(broken);
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// What the nodes have told so far.
struct Report {
    tasks: u64,
    nodes: Vec<(Progress, Option<Outcome>)>,
    began: Instant,
    told: Instant,
}

impl Report {
    fn new(tasks: u64, nodes: usize) -> Self {
        Self { tasks, nodes: vec![(Progress::default(), None); nodes], began: Instant::now(), told: Instant::now() }
    }

    fn take(&mut self, client: &Client, spec: &JobSpec, node: NodeId, event: Event) {
        match event {
            Event::Progress(progress) => self.nodes[node].0 = progress,
            Event::Failure(failure) => tell_failure(client, spec, &failure),
            Event::Ended { outcome, progress } => self.nodes[node] = (progress, Some(outcome)),
            Event::Alive | Event::Planned(_) | Event::Deleted { .. } | Event::Error(_) => {}
        }
        if self.told.elapsed() >= PROGRESS {
            self.told = Instant::now();
            let running = self.sum(|progress| progress.running);
            eprintln!(
                "s4: {}: {} of {} tasks done, {running} running",
                spec.kind,
                self.sum(|progress| progress.done),
                self.tasks
            );
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
            eprintln!("s4: {kind}: {tasks} tasks done, {outputs} outputs in {}, {seconds:.2} s", spec.outdir);
            return Ok(ExitStatus::Done);
        }
        let (done, failed) = (self.sum(|progress| progress.done), self.sum(|progress| progress.failed));
        let stand = match outputs {
            0 => "no output stands".to_owned(),
            _ => format!("{outputs} outputs stand; 's4 rm -r {}' removes them before another try", spec.outdir),
        };
        let message = format!("{kind} failed: {done} of {tasks} tasks done, {failed} failed; {stand}");
        Err(Error::new(ErrorKind::Command, message))
    }
}

fn tell_failure(client: &Client, spec: &JobSpec, failure: &TaskFailure) {
    let name = client.cluster().name(failure.node);
    let mut cmd = spec.cmd.to_string();
    if let Some((end, _)) = cmd.char_indices().nth(200) {
        cmd.truncate(end);
        cmd.push('…');
    }
    let mut text = format!("s4: {} on {name}: {}: {cmd}\n", failure.key, failure.reason);
    for line in failure.stderr.lines() {
        text += &format!("    {line}\n");
    }
    eprint!("{text}");
}
