//! Jobs and `eval` over HTTP.

use super::{Answer, EventSender, Pulse, done, json};
use crate::app::App;
use crate::jobs::{self, Job, Shared, State};
use http_body_util::BodyExt;
use hyper::Response;
use s4::body::{self, ChunkSender, Hangup};
use s4::client::blocking;
use s4::error::{Error, ErrorKind};
use s4::frame::{CommandEnd, FrameWriter};
use s4::key::Key;
use s4::protocol::{CommandText, Event, HEARTBEAT, JobId, JobSpec, Progress};
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{SemaphorePermit, watch};
use tokio::time::Instant;

/// How often a follower is told of progress.
const NEWS: Duration = Duration::from_millis(200);

/// Answers with the command's streams. What fails before its start is an error like any other.
pub async fn eval(app: &Arc<App>, key: Key, cmd: Vec<u8>) -> Answer {
    let cmd = CommandText::new(OsString::from_vec(cmd))?;
    let shared = app.jobs.shared.clone();
    {
        let (store, key) = (shared.store.clone(), key.clone());
        blocking(move || store.open_key(&key).map(drop)).await?;
    }
    let (sender, body) = body::channel();
    tokio::spawn(async move {
        let Some(_turn) = await_turn(&shared, &sender).await else {
            return;
        };
        let late = sender.clone();
        let ran = {
            let shared = shared.clone();
            blocking(move || jobs::eval::run(&shared, &key, &cmd, sender)).await
        };
        if let Err(error) = ran {
            // A client that hung up needs no end.
            let _ = blocking(move || FrameWriter::new(late).exit(&CommandEnd::Error(error))).await;
        }
    });
    Ok(Response::new(body.boxed_unsync()))
}

/// Waits until one more eval may run, with signs of life for the client; `None` once it has hung up.
async fn await_turn<'s>(shared: &'s Shared, sender: &ChunkSender) -> Option<SemaphorePermit<'s>> {
    let mut turn = std::pin::pin!(shared.evals.acquire());
    loop {
        match tokio::time::timeout(HEARTBEAT, &mut turn).await {
            Ok(turn) => return turn.ok(),
            Err(_) => {
                let sender = sender.clone();
                blocking(move || FrameWriter::new(sender).beat()).await.ok()?;
            }
        }
    }
}

/// Answers with signs of life while the job is planned, then with the plan or the refusal.
pub fn submit(app: &Arc<App>, json: &[u8]) -> Answer {
    let malformed = |e: serde_json::Error| Error::new(ErrorKind::BadRequest, format!("malformed job: {e}"));
    let spec: JobSpec = serde_json::from_slice(json).map_err(malformed)?;
    let (sender, body) = body::channel();
    let app = app.clone();
    tokio::task::spawn_blocking(move || {
        let events = EventSender(sender);
        let mut pulse = Pulse::new();
        let planned = app.jobs.submit(spec, &mut || !pulse.is_due() || events.send(&Event::Alive).is_ok());
        // A client that hung up needs no answer.
        let _ = events.send(&planned.map_or_else(Event::Error, Event::Planned));
    });
    Ok(Response::new(body.boxed_unsync()))
}

/// Answers with every job that this node knows, one a line.
pub fn list(app: &Arc<App>) -> Answer {
    let records = app.jobs.records();
    let (sender, body) = body::channel();
    tokio::spawn(async move {
        let events = EventSender(sender);
        for record in records {
            // A client that hung up needs no more.
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

pub fn start(app: &Arc<App>, id: &JobId) -> Answer {
    app.jobs.start(id).map(|()| done())
}

pub fn stop(app: &Arc<App>, id: &JobId) -> Answer {
    app.jobs.find(id)?.stop();
    Ok(done())
}

pub async fn cancel(app: &Arc<App>, id: &JobId) -> Answer {
    let job = app.jobs.find(id)?;
    blocking(move || job.cancel()).await;
    Ok(done())
}

/// Answers with the job's failures from its beginning, progress while it runs, and its end.
pub fn follow(app: &Arc<App>, id: &JobId) -> Answer {
    let job = app.jobs.find(id)?;
    let (sender, body) = body::channel();
    tokio::spawn(async move {
        // A client that hung up hears no more.
        let _ = tell(job, &EventSender(sender)).await;
    });
    Ok(Response::new(body.boxed_unsync()))
}

async fn tell(job: Arc<Job>, events: &EventSender) -> std::result::Result<(), Hangup> {
    let mut watch = job.watch();
    let (mut told, mut told_at) = (Progress::default(), Instant::now());
    let mut heard = 0;
    loop {
        let ended = ended_within(&mut watch, NEWS).await;
        let state = job.state();
        loop {
            let reading = job.clone();
            let (failures, end) = match blocking(move || reading.failures(heard)).await {
                Ok(read) => read,
                Err(error) => return events.send_async(&Event::Error(error)).await,
            };
            heard = end;
            if failures.is_empty() {
                break;
            }
            for failure in &failures {
                events.send_async(failure).await?;
            }
        }
        if let (true, Some(outcome)) = (ended, state.outcome) {
            return events.send_async(&Event::Ended { outcome, progress: state.progress }).await;
        }
        if state.progress != told || told_at.elapsed() >= HEARTBEAT {
            (told, told_at) = (state.progress, Instant::now());
            events.send_async(&Event::Progress(told)).await?;
        }
    }
}

async fn ended_within(watch: &mut watch::Receiver<State>, time: Duration) -> bool {
    let ended = watch.wait_for(|state| state.outcome.is_some());
    matches!(tokio::time::timeout(time, ended).await, Ok(Ok(_)))
}
