//! Jobs over HTTP.

use super::{Answer, EventSender, Pulse, done, json};
use crate::app::{App, BODY_DEADLINE};
use crate::jobs::{self, Job, State, logs};
use crate::peer::Peer;
use crate::request_log::Origin;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::{Request, Response};
use s4::body::{self, ChunkSender, Disconnected, Role};
use s4::client::blocking;
use s4::error::{Error, ErrorKind, Result};
use s4::key::{Dir, Key, Prefix};
use s4::placement::NodeId;
use s4::protocol::{Event, HEARTBEAT, JobId, JobSpec, Progress};
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// Running tasks that are listed by name for a client that follows a job.
const SLOWEST: usize = 5;
/// How long a cancelled job may take to end.
const ENDING: Duration = Duration::from_secs(5);
/// Events that end within this time are sent in one piece. Most steps of a script are this short.
const AT_ONCE: Duration = Duration::from_millis(50);
/// The interval between two reports of progress.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(200);

/// Plans the job. Sends keepalives meanwhile, and then the plan or the refusal. A dry run stores nothing.
pub async fn submit(app: &Arc<App>, peer: &Peer, json: &[u8], dry_run: bool) -> Answer {
    let spec = parse(json)?;
    let (origin, line) = (Origin::now(peer.address), format!("job {}", spec.id));
    let (sender, body) = app.channel();
    let app = app.clone();
    tokio::task::spawn_blocking(move || {
        let events = EventSender(sender);
        let mut pulse = Pulse::new();
        let mut alive = || !pulse.is_due() || events.send(&Event::Alive).is_ok();
        let planned = match dry_run {
            true => app.jobs.try_plan(spec, &mut alive),
            false => app.jobs.submit(spec, &mut alive),
        };
        // If the client has disconnected, nobody needs the answer.
        let _ = match planned {
            Ok((plan, sources)) => {
                let sent = sources.into_iter().try_for_each(|source| events.send(&Event::Source(source)));
                sent.and_then(|()| events.send(&Event::Planned(plan)))
            }
            Err(error) => {
                app.requests.refused(origin, &line, &error);
                events.send(&Event::Error(error))
            }
        };
    });
    Ok(Response::new(body.gather(AT_ONCE).await))
}

/// Parses a submitted job.
pub fn parse(json: &[u8]) -> Result<JobSpec> {
    let malformed = |e: serde_json::Error| Error::new(ErrorKind::BadRequest, format!("malformed job: {e}"));
    serde_json::from_slice(json).map_err(malformed)
}

/// Sends every job that this node knows, one per line.
pub fn list(app: &Arc<App>) -> Answer {
    let records = app.jobs.records();
    let (sender, body) = app.channel();
    tokio::spawn(async move {
        let events = EventSender(sender);
        for record in records {
            // The client has disconnected.
            if events.send_async(&Event::Job(Box::new(record))).await.is_err() {
                break;
            }
        }
    });
    Ok(Response::new(body.boxed_unsync()))
}

pub fn find(app: &Arc<App>, id: &JobId) -> Answer {
    Ok(json(&app.jobs.find(id)?.record()))
}

/// Starts the job. If `follows`, the answer is its events. `json` are credentials for the worker of a copy, or nothing.
pub async fn start(app: &Arc<App>, id: &JobId, follows: bool, json: &[u8]) -> Answer {
    // The error of the parser would show what it has read.
    let malformed = |_| Error::new(ErrorKind::BadRequest, "malformed credentials");
    let credentials = (!json.is_empty()).then(|| serde_json::from_slice(json).map_err(malformed)).transpose()?;
    app.jobs.start(id, credentials).await?;
    match follows {
        true => follow(app, id).await,
        false => Ok(done()),
    }
}

pub fn stop(app: &Arc<App>, id: &JobId) -> Answer {
    app.jobs.find(id)?.stop();
    Ok(done())
}

/// Answers after the job has ended here, or at least after its commands have ended.
pub async fn cancel(app: &Arc<App>, id: &JobId) -> Answer {
    let job = app.jobs.find(id)?;
    let cancelled = job.clone();
    blocking(move || cancelled.cancel()).await;
    ended_within(&mut job.watch(), ENDING).await;
    Ok(done())
}

pub async fn clean(app: &Arc<App>, id: JobId, prefix: Prefix, inputs: Option<u64>) -> Answer {
    let jobs = app.jobs.clone();
    blocking(move || jobs.clean(&id, &prefix, inputs)).await.map(|()| done())
}

/// Sends the existing outputs of a 1:n map, for the tasks of node `of`; without a node, every key in `outdir`.
pub fn existing_outputs(app: &Arc<App>, outdir: Dir, of: Option<NodeId>) -> Answer {
    let (sender, body) = app.channel();
    let store = app.jobs.shared.store.clone();
    tokio::task::spawn_blocking(move || {
        let events = EventSender(sender);
        let mut pulse = Pulse::new();
        let listed = store.existing_outputs(&outdir, of, &mut |found| {
            Ok(match found {
                Some(found) => events.send(&Event::Existing(found)).is_ok(),
                None => !pulse.is_due() || events.send(&Event::Alive).is_ok(),
            })
        });
        // If the client has disconnected, nobody needs the end.
        let _ = events.send(&listed.map_or_else(Event::Error, |()| Event::Complete));
    });
    Ok(Response::new(body.boxed_unsync()))
}

/// Sends the stderr of one task, or of all tasks, each after a line that names its input.
pub async fn logs(app: &Arc<App>, id: JobId, key: Option<Key>) -> Answer {
    let dir = jobs::logs_dir(app.jobs.find(&id)?.dir());
    let below = dir.clone();
    let one = blocking(move || key.map(|key| logs::find(&below, &id, &key)).transpose()).await?;
    let (sender, body) = app.channel();
    tokio::task::spawn_blocking(move || {
        let sent = match one {
            Some(mut log) => send_rest(&mut log.content, &sender),
            None => send_all(&dir, &sender),
        };
        if let Err(error) = sent {
            sender.fail(error);
        }
    });
    Ok(Response::new(body.boxed_unsync()))
}

fn send_all(dir: &Path, sender: &ChunkSender) -> Result<()> {
    for log in logs::all(dir)? {
        let mut log = log?;
        // A disconnected client is noticed below.
        let _ = sender.send(format!("==> {} <==\n", log.key).into());
        send_rest(&mut log.content, sender)?;
        let _ = sender.send("\n".into());
    }
    Ok(())
}

fn send_rest(file: &mut impl Read, sender: &ChunkSender) -> Result<()> {
    loop {
        let mut block = vec![0; 64 * 1024];
        let n = file.read(&mut block).map_err(|e| Error::io("a task's log", &e))?;
        block.truncate(n);
        let disconnected = |_: Disconnected| Error::new(ErrorKind::Cancelled, "the reader hung up");
        match n {
            0 => return Ok(()),
            _ => sender.send(block.into()).map_err(disconnected)?,
        }
    }
}

/// Succeeds if the file is here and undamaged.
pub async fn has_file(app: &Arc<App>, digest: String) -> Answer {
    let shared = app.jobs.shared.clone();
    blocking(move || shared.files.check(&digest)).await.map(|()| done())
}

pub async fn put_file(app: &Arc<App>, digest: String, request: Request<Incoming>) -> Answer {
    let what = format!("file {digest}");
    let mut content = body::reader(request.into_body(), BODY_DEADLINE, Role::Server, what);
    let shared = app.jobs.shared.clone();
    blocking(move || shared.files.keep(&shared.store, &digest, &mut content)).await.map(|()| done())
}

/// Sends the job's failures so far, then progress while it runs, and its end.
pub async fn follow(app: &Arc<App>, id: &JobId) -> Answer {
    let job = app.jobs.find(id)?;
    let (sender, body) = app.channel();
    tokio::spawn(async move {
        // The client has disconnected.
        let _ = send_events(job, &EventSender(sender)).await;
    });
    Ok(Response::new(body.gather(AT_ONCE).await))
}

async fn send_events(job: Arc<Job>, events: &EventSender) -> std::result::Result<(), Disconnected> {
    let mut watch = job.watch();
    let (mut last, mut sent_at) = (Progress::default(), Instant::now());
    let mut running_sent = Instant::now();
    let mut failures_sent = 0;
    loop {
        let ended = ended_within(&mut watch, PROGRESS_INTERVAL).await;
        let state = job.state();
        // A failure is recorded before it is counted, so none is missed here.
        if state.progress.failed > 0 && !send_failures(&job, &mut failures_sent, events).await? {
            return Ok(());
        }
        if let (true, Some(outcome)) = (ended, state.outcome) {
            let spread = job.sent.spread().map(Box::new);
            return events.send_async(&Event::Ended { outcome, progress: state.progress, spread }).await;
        }
        if state.progress != last || sent_at.elapsed() >= HEARTBEAT {
            (last, sent_at) = (state.progress, Instant::now());
            events.send_async(&Event::Progress(last)).await?;
        }
        if running_sent.elapsed() >= HEARTBEAT {
            running_sent = Instant::now();
            events.send_async(&Event::Running { tasks: job.slowest(SLOWEST) }).await?;
        }
    }
}

/// Sends the failures from byte `failures_sent` of the record on. False if the record cannot be read.
async fn send_failures(
    job: &Arc<Job>,
    failures_sent: &mut u64,
    events: &EventSender,
) -> std::result::Result<bool, Disconnected> {
    loop {
        let (reading, from) = (job.clone(), *failures_sent);
        let (failures, end) = match blocking(move || reading.failures(from)).await {
            Ok(read) => read,
            Err(error) => return events.send_async(&Event::Error(error)).await.map(|()| false),
        };
        *failures_sent = end;
        if failures.is_empty() {
            return Ok(true);
        }
        for failure in &failures {
            events.send_async(failure).await?;
        }
    }
}

async fn ended_within(watch: &mut watch::Receiver<State>, time: Duration) -> bool {
    let ended = watch.wait_for(|state| state.outcome.is_some());
    matches!(tokio::time::timeout(time, ended).await, Ok(Ok(_)))
}
