//! One job on this node: its record on disk, its state and its failures. `run` runs its tasks.

use super::cgroup::Limits;
use super::command::{Control, Killed};
use super::failures::Failures;
use super::fence::Fence;
use super::journal::Journal;
use super::logs::Logs;
use super::marks::{mark_of, owner_of};
use super::sent::Sent;
use crate::store::Store;
use s4::attribute::Mark;
use s4::client::{Client, blocking};
use s4::error::{Error, Result};
use s4::file;
use s4::key::Key;
use s4::placement::NodeId;
use s4::protocol::{Credentials, Event, JobRecord, JobSpec, Outcome, Plan, Progress, RunningTask};
use s4::time::now_milliseconds;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Instant, UNIX_EPOCH};
use tokio::sync::watch;

/// The file name of a job's record.
const RECORD: &str = "record";

/// Limit of bytes of a record. Requests that submit a job are shorter.
const MAX_RECORD: usize = 16 << 20;

/// The state of a job.
#[derive(Debug, Clone, Copy, Default)]
pub struct State {
    /// Milliseconds since 1970.
    pub started: Option<i64>,
    pub progress: Progress,
    /// No more tasks start, because one failed on this or another node.
    pub stopped: bool,
    /// The daemon is ending.
    pub closing: bool,
    /// The outcome that was decided from outside, by a cancel or the daemon's end.
    pub ending: Option<Outcome>,
    /// How the job ended, and when, in milliseconds since 1970.
    pub outcome: Option<Outcome>,
    pub ended: Option<i64>,
    /// Milliseconds from the start to the last write, if the job ended together with an earlier daemon.
    pub elapsed: Option<i64>,
}

impl State {
    pub fn is_running(&self) -> bool {
        self.started.is_some() && self.outcome.is_none()
    }
}

pub struct Job {
    pub spec: Arc<JobSpec>,
    pub journal: Journal,
    pub logs: Arc<Logs>,
    pub fence: Arc<Fence>,
    pub(super) dir: PathBuf,
    pub(super) plan: Plan,
    /// The mark of all its outputs, except inputs and number.
    mark: Mark,
    pub(super) state: watch::Sender<State>,
    /// Guards the running tasks, by their number.
    running: Mutex<HashMap<u64, RunningNow>>,
    pub(super) failures: Failures,
    /// True if the record is synced to the disk after each write.
    sync: bool,
    /// Bytes of memory that the spec takes.
    pub bytes: usize,
    pub sent: Sent,
    /// Guards what a client has handed to the worker of a copy, until the worker has it.
    credentials: Mutex<Option<Credentials>>,
}

pub(super) struct RunningNow {
    pub control: Arc<Control>,
    pub key: Key,
    pub since: Instant,
}

/// The directory for the logs of the job in `dir`.
pub fn logs_dir(dir: &Path) -> PathBuf {
    dir.join("stderr")
}

impl Job {
    /// A planned job whose files are in `dir`, with at most `log_bytes` of logs.
    pub fn new(store: &Store, spec: JobSpec, dir: PathBuf, plan: Plan, log_bytes: u64) -> Result<Self> {
        let progress = Progress { tasks: plan.tasks, bytes: plan.bytes, ..Progress::default() };
        let record = JobRecord { spec, plan, progress, started: None, ended: None, elapsed: None, outcome: None };
        let job = Self::open(store, record, dir, log_bytes)?;
        job.save()?;
        Ok(job)
    }

    /// Loads the job whose files are in `dir`, as an earlier daemon left it. The second value is true if that daemon's
    /// end also ended the job. `None` if the planning had not finished. A job that was planned and not started counts
    /// as interrupted: other nodes may have started it.
    pub fn load(store: &Store, dir: PathBuf) -> Result<Option<(Self, bool)>> {
        let failed = |e: std::io::Error| Error::io(dir.display(), &e);
        let text = match file::read_small(&dir.join(RECORD), MAX_RECORD) {
            Ok(text) => text,
            // The daemon was killed during the planning.
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(failed(e)),
        };
        let mut record: JobRecord = serde_json::from_slice(&text).map_err(|e| failed(e.into()))?;
        let interrupted = record.outcome.is_none();
        if interrupted {
            let journal = Journal::new(store, owner_of(&record.spec.id))?;
            let done = journal.sum()?;
            record.progress = Progress { tasks: record.plan.tasks, bytes: record.plan.bytes, ..done };
            record.outcome = Some(Outcome::Interrupted);
            record.ended = Some(now_milliseconds());
            // The time until the next daemon started does not count.
            let seen = |started: i64| (last_sign(&dir, &journal).unwrap_or(started) - started).max(0);
            record.elapsed = record.started.map(seen);
        }
        let job = Self::open(store, record, dir, 0)?;
        job.fence.shut();
        if interrupted {
            job.state.send_modify(|state| state.progress.failed = job.failures.count());
            // If the disk is full, the next daemon comes to the same result.
            if let Err(error) = job.save() {
                tracing::warn!("{error}");
            }
        }
        Ok(Some((job, interrupted)))
    }

    fn open(store: &Store, record: JobRecord, dir: PathBuf, log_bytes: u64) -> Result<Self> {
        let JobRecord { spec, plan, progress, started, ended, elapsed, outcome } = record;
        let (mark, bytes) = (mark_of(&spec), spec.bytes());
        Ok(Self {
            spec: Arc::new(spec),
            journal: Journal::new(store, mark.job)?,
            logs: Logs::new(logs_dir(&dir), log_bytes),
            fence: Arc::default(),
            plan,
            mark,
            state: watch::Sender::new(State { started, progress, ended, elapsed, outcome, ..State::default() }),
            running: Mutex::default(),
            failures: Failures::new(&dir)?,
            dir,
            sync: store.syncs(),
            bytes,
            sent: Sent::default(),
            credentials: Mutex::default(),
        })
    }

    /// Records the state of the job, for the next daemon.
    pub(super) fn save(&self) -> Result<()> {
        let failed = |e: std::io::Error| Error::io(format!("job {}", self.spec.id), &e);
        let text = serde_json::to_vec(&self.record()).expect("a record is plain JSON");
        file::replace(&self.dir.join(RECORD), &text, self.sync).map_err(failed)
    }

    /// The mark of an output of a task with these inputs and this number of outputs.
    pub fn mark(&self, inputs: u64, outputs: u32) -> Mark {
        Mark { inputs, outputs, ..self.mark }
    }

    /// True if this is the job whose id has this hash.
    pub fn is_of(&self, hash: u64) -> bool {
        self.mark.job == hash
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    pub fn state(&self) -> State {
        *self.state.borrow()
    }

    pub fn record(&self) -> JobRecord {
        let State { started, progress, ended, elapsed, outcome, .. } = self.state();
        let since = |started: i64| (ended.unwrap_or_else(now_milliseconds) - started).max(0);
        let elapsed = elapsed.or_else(|| started.map(since));
        JobRecord { spec: (*self.spec).clone(), plan: self.plan, progress, started, ended, elapsed, outcome }
    }

    pub fn watch(&self) -> watch::Receiver<State> {
        self.state.subscribe()
    }

    /// Resolves when the job is cancelled, or the daemon ends.
    pub async fn ended_from_outside(&self) {
        // This cannot fail: the job owns the sender.
        let _ = self.watch().wait_for(|state| state.ending.is_some()).await;
    }

    /// Claims the start of the job; false if it was started before.
    pub fn claim_start(&self) -> bool {
        self.state.send_if_modified(|state| {
            let fresh = state.started.is_none() && state.outcome.is_none();
            if fresh {
                state.started = Some(now_milliseconds());
            }
            fresh
        })
    }

    pub(super) fn hand(&self, credentials: Option<Credentials>) {
        *self.credentials.lock().unwrap_or_else(PoisonError::into_inner) = credentials;
    }

    pub(super) fn take_credentials(&self) -> Option<Credentials> {
        self.credentials.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    pub fn stop(&self) {
        self.state.send_modify(|state| state.stopped = true);
    }

    /// Starts no more tasks, because the daemon ends.
    pub fn close(&self) {
        self.state.send_modify(|state| (state.stopped, state.closing) = (true, true));
    }

    /// Starts no more tasks. The job will have this `outcome`.
    pub fn end(&self, outcome: Outcome) {
        self.state.send_modify(|state| {
            state.stopped = true;
            if state.outcome.is_none() {
                state.ending.get_or_insert(outcome);
            }
            // A job that never started has no tasks that could end it.
            if state.started.is_none() {
                state.outcome.get_or_insert(outcome);
                state.ended.get_or_insert_with(now_milliseconds);
            }
        });
    }

    /// Cancels the job and kills its commands. Blocks until their processes have ended.
    pub fn cancel(&self) {
        match self.state().started {
            None => self.end_planned(Outcome::Cancelled),
            Some(_) => self.end(Outcome::Cancelled),
        }
        let controls: Vec<_> = self.lock_running().values().map(|running| running.control.clone()).collect();
        for control in controls {
            control.kill(Killed::Cancelled);
        }
        // Last, because it waits for publishes in progress.
        self.fence.shut();
    }

    /// The `most` tasks that have run for the longest time, longest first.
    pub fn slowest(&self, most: usize) -> Vec<RunningTask> {
        let running = self.lock_running();
        let mut tasks: Vec<_> = running.values().map(|task| (task.since, task.key.clone())).collect();
        drop(running);
        tasks.sort_by_key(|(since, _)| *since);
        let slow = tasks.into_iter().take(most);
        slow.map(|(since, key)| RunningTask { key, seconds: since.elapsed().as_secs_f64() }).collect()
    }

    /// Failures from byte `from` of the record on, and the byte at which they end.
    pub fn failures(&self, from: u64) -> Result<(Vec<Event>, u64)> {
        self.failures.read(from)
    }

    /// Logs the begin. A command and its variables may hold secrets, and are not logged.
    pub fn log_begin(&self) {
        let JobSpec { id, kind, indir, outdir, .. } = &*self.spec;
        tracing::info!("job {id} begins: {kind} {indir} {outdir}, {} tasks here", self.plan.tasks);
    }

    /// Logs the end.
    fn log_end(&self) {
        let State { started, ended, outcome, progress, .. } = self.state();
        let (Some(outcome), Some(ended)) = (outcome, ended) else { return };
        let outcome = format!("{outcome:?}").to_lowercase();
        let took = started.map_or(0, |started| (ended - started).max(0)) as f64 / 1e3;
        let Progress { done, failed, outputs, .. } = progress;
        tracing::info!(
            "job {} ended: {outcome}, {done} done, {failed} failed, {outputs} outputs, {took:.1} s",
            self.spec.id
        );
    }

    /// Ends a job that was not started on this node. Its record says that it is incomplete, since other nodes may have
    /// started it.
    pub fn end_planned(&self, outcome: Outcome) {
        self.end(outcome);
        self.log_end();
        if let Err(error) = self.save() {
            tracing::warn!("{error}");
        }
    }

    pub(super) async fn finish(self: Arc<Self>) {
        self.sent.close();
        self.state.send_modify(|state| {
            state.ended = Some(now_milliseconds());
            state.outcome = Some(outcome(state));
        });
        self.failures.close();
        self.log_end();
        if let Err(error) = self.save_apart().await {
            tracing::warn!("{error}");
        }
    }

    async fn save_apart(self: Arc<Self>) -> Result<()> {
        blocking(move || self.journal.close(self.sync).and_then(|()| self.save())).await
    }

    pub fn limits(&self) -> Limits {
        Limits::of(&self.spec)
    }

    /// Tells the other nodes to start no more tasks.
    pub fn stop_others(&self, client: &Client, own: NodeId) {
        for node in client.cluster().ids().filter(|&node| node != own) {
            let (client, id) = (client.clone(), self.spec.id.clone());
            tokio::spawn(async move {
                // The client reports nodes that cannot be reached.
                let _ = client.stop_job(node, &id).await;
            });
        }
    }

    pub(super) fn lock_running(&self) -> std::sync::MutexGuard<'_, HashMap<u64, RunningNow>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The time of the last write to a file of the job in `dir`, in milliseconds since 1970: at that time a killed daemon
/// was alive. `None` if it is not known.
fn last_sign(dir: &Path, journal: &Journal) -> Option<i64> {
    let entries = std::fs::read_dir(dir).ok()?.flatten();
    let written = entries.filter_map(|entry| entry.metadata().ok()?.modified().ok()).chain(journal.modified());
    written.filter_map(|time| time.duration_since(UNIX_EPOCH).ok()).max().map(|since| since.as_millis() as i64)
}

fn outcome(state: &State) -> Outcome {
    let Progress { tasks, done, failed, .. } = state.progress;
    match (state.ending, failed, done == tasks) {
        (Some(ending), ..) => ending,
        (None, 1.., _) => Outcome::Failed,
        (None, 0, true) => Outcome::Done,
        (None, 0, false) if state.closing => Outcome::Interrupted,
        (None, 0, false) => Outcome::Stopped,
    }
}
