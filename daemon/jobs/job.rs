//! One job on this node: its state, its failures, and the loop that runs its tasks.

use super::cgroup::Limits;
use super::command::{Control, Killed};
use super::failures::Failures;
use super::fence::Fence;
use super::journal::{self, Journal};
use super::logs::Logs;
use super::plan::{Task, Tasks};
use super::{Shared, mark_of};
use super::{process, task};
use s4::attribute::Mark;
use s4::client::blocking;
use s4::error::{Error, ErrorKind, Result};
use s4::file;
use s4::key::Key;
use s4::protocol::{Event, JobRecord, JobSpec, Outcome, Plan, Progress, RunningTask};
use s4::time::now_milliseconds;
use std::collections::{HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::task::JoinSet;

/// The name of the file that holds a job's record.
const RECORD: &str = "record";

/// Bytes of a record: a request that submits a job is shorter.
const LONGEST_RECORD: usize = 16 << 20;

/// Where a job stands.
#[derive(Debug, Clone, Copy, Default)]
pub struct State {
    /// Milliseconds since 1970.
    pub started: Option<i64>,
    pub progress: Progress,
    /// No more tasks are to start: one failed here or elsewhere.
    pub stopped: bool,
    /// The daemon is going down.
    pub closing: bool,
    /// What is to become of it, where it is ended from outside.
    pub ending: Option<Outcome>,
    /// How it ended, and when, in milliseconds since 1970.
    pub outcome: Option<Outcome>,
    pub ended: Option<i64>,
    /// Milliseconds from its start to the last sign of it, if it ended with an earlier daemon.
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
    dir: PathBuf,
    plan: Plan,
    /// What is the same of all its outputs' marks.
    mark: Mark,
    state: watch::Sender<State>,
    /// Guards the tasks that run now, by their number.
    running: Mutex<HashMap<u64, RunningNow>>,
    failures: Failures,
    /// The record is synced to the disk each time that it is written.
    sync: bool,
    /// Bytes that its spec takes in memory.
    pub bytes: usize,
}

struct RunningNow {
    control: Arc<Control>,
    key: Key,
    since: Instant,
}

/// Where the job in `dir` has its logs.
pub fn logs_dir(dir: &Path) -> PathBuf {
    dir.join("stderr")
}

impl Job {
    /// A planned job, whose files are in `dir`, with at most `log_bytes` of logs. Its record is synced if `sync`.
    pub fn new(spec: JobSpec, dir: PathBuf, plan: Plan, log_bytes: u64, sync: bool) -> Result<Self> {
        let progress = Progress { tasks: plan.tasks, bytes: plan.bytes, ..Progress::default() };
        let record = JobRecord { spec, plan, progress, started: None, ended: None, elapsed: None, outcome: None };
        let job = Self::open(record, dir, log_bytes, sync)?;
        job.save()?;
        Ok(job)
    }

    /// The job whose files are in `dir`, as an earlier daemon left it, and whether that daemon's end was the job's; `None` if
    /// it was not even planned. One that was planned and not started is interrupted too: others may have started it.
    pub fn load(dir: PathBuf, sync: bool) -> Result<Option<(Self, bool)>> {
        let failed = |e: std::io::Error| Error::io(dir.display(), &e);
        let text = match file::read_small(&dir.join(RECORD), LONGEST_RECORD) {
            Ok(text) => text,
            // Killed while it was planned.
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(failed(e)),
        };
        let mut record: JobRecord = serde_json::from_slice(&text).map_err(|e| failed(e.into()))?;
        let interrupted = record.outcome.is_none();
        if interrupted {
            let done = journal::sum(&dir)?;
            record.progress = Progress { tasks: record.plan.tasks, bytes: record.plan.bytes, ..done };
            record.outcome = Some(Outcome::Interrupted);
            record.ended = Some(now_milliseconds());
            // Not the time in which no daemon ran.
            let seen = |started: i64| (journal::last_sign(&dir).unwrap_or(started) - started).max(0);
            record.elapsed = record.started.map(seen);
        }
        let job = Self::open(record, dir, 0, sync)?;
        job.fence.shut();
        if interrupted {
            job.state.send_modify(|state| state.progress.failed = job.failures.count());
            // On a full disk the next daemon finds out the same.
            if let Err(error) = job.save() {
                tracing::warn!("{error}");
            }
        }
        Ok(Some((job, interrupted)))
    }

    fn open(record: JobRecord, dir: PathBuf, log_bytes: u64, sync: bool) -> Result<Self> {
        let JobRecord { spec, plan, progress, started, ended, elapsed, outcome } = record;
        let (mark, bytes) = (mark_of(&spec), spec.bytes());
        Ok(Self {
            spec: Arc::new(spec),
            journal: Journal::new(&dir)?,
            logs: Logs::new(logs_dir(&dir), log_bytes),
            fence: Arc::default(),
            plan,
            mark,
            state: watch::Sender::new(State { started, progress, ended, elapsed, outcome, ..State::default() }),
            running: Mutex::default(),
            failures: Failures::new(&dir)?,
            dir,
            sync,
            bytes,
        })
    }

    /// Writes down where the job stands, for the next daemon.
    fn save(&self) -> Result<()> {
        let failed = |e: std::io::Error| Error::io(format!("job {}", self.spec.id), &e);
        let text = serde_json::to_vec(&self.record()).expect("a record is plain JSON");
        file::replace(&self.dir.join(RECORD), &text, self.sync).map_err(failed)
    }

    /// The mark of an output of a task with these inputs and so many outputs.
    pub fn mark(&self, inputs: u64, outputs: u32) -> Mark {
        Mark { inputs, outputs, ..self.mark }
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

    /// Resolves once the job is cancelled, or ended as its daemon ends.
    pub async fn ended_from_outside(&self) {
        // The sender is the job's own.
        let _ = self.watch().wait_for(|state| state.ending.is_some()).await;
    }

    /// Claims the job's only start; false if it has been started.
    pub fn claim_start(&self) -> bool {
        self.state.send_if_modified(|state| {
            let fresh = state.started.is_none() && state.outcome.is_none();
            if fresh {
                state.started = Some(now_milliseconds());
            }
            fresh
        })
    }

    pub fn stop(&self) {
        self.state.send_modify(|state| state.stopped = true);
    }

    /// Starts no more tasks, since the daemon ends.
    pub fn close(&self) {
        self.state.send_modify(|state| (state.stopped, state.closing) = (true, true));
    }

    /// Starts no more tasks; `outcome` is what will be told of it.
    pub fn end(&self, outcome: Outcome) {
        self.state.send_modify(|state| {
            state.stopped = true;
            if state.outcome.is_none() {
                state.ending.get_or_insert(outcome);
            }
            // One that never started has nothing to end.
            if state.started.is_none() {
                state.outcome.get_or_insert(outcome);
                state.ended.get_or_insert_with(now_milliseconds);
            }
        });
    }

    /// Ends the job and kills what runs of it. Blocks until its processes are gone.
    pub fn cancel(&self) {
        match self.state().started {
            None => self.end_planned(Outcome::Cancelled),
            Some(_) => self.end(Outcome::Cancelled),
        }
        let controls: Vec<_> = self.lock_running().values().map(|running| running.control.clone()).collect();
        for control in controls {
            control.kill(Killed::Cancelled);
        }
        // Last, since it waits for what is being published now.
        self.fence.shut();
    }

    /// The `most` tasks that have run for longest, the longest first.
    pub fn slowest(&self, most: usize) -> Vec<RunningTask> {
        let running = self.lock_running();
        let mut tasks: Vec<_> = running.values().map(|task| (task.since, task.key.clone())).collect();
        drop(running);
        tasks.sort_by_key(|(since, _)| *since);
        let slow = tasks.into_iter().take(most);
        slow.map(|(since, key)| RunningTask { key, seconds: since.elapsed().as_secs_f64() }).collect()
    }

    /// Failures from byte `from` of their record on, and where they end.
    pub fn failures(&self, from: u64) -> Result<(Vec<Event>, u64)> {
        self.failures.read(from)
    }

    /// Ends a job that nobody has started here. What is written down of it says to whoever asks that it is not whole: others may have
    /// started it.
    pub fn end_planned(&self, outcome: Outcome) {
        self.end(outcome);
        if let Err(error) = self.save() {
            tracing::warn!("{error}");
        }
    }

    /// Runs every task of the plan to its end, which a panic is too.
    pub async fn run_to_end(self: Arc<Self>, shared: Arc<Shared>) {
        if tokio::spawn(self.clone().run(shared.clone())).await.is_err() {
            self.stop_with(&shared);
            self.record_failure(&shared, None, panicked()).await;
            self.finish().await;
        }
    }

    /// Runs every task of the plan to its end.
    async fn run(self: Arc<Self>, shared: Arc<Shared>) {
        // Where nothing is to be done, the end alone is written down.
        if self.plan.tasks > 0 {
            if let Err(error) = self.run_tasks(&shared).await {
                self.stop_with(&shared);
                self.record_failure(&shared, None, error).await;
            }
            self.clear_away(&shared).await;
        }
        self.finish().await;
    }

    /// Removes what the tasks have left in their directories, and where there are no control groups, ends their processes.
    async fn clear_away(&self, shared: &Arc<Shared>) {
        let (shared, leftovers) = (shared.clone(), shared.store.tasks_dir().join(self.spec.id.as_str()));
        blocking(move || {
            if !shared.running.has_groups() {
                process::kill_tree(&leftovers);
            }
            match shared.store.data_dir().remove_tree(&leftovers) {
                // Absent where no task ran.
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    tracing::warn!("cannot remove {}: {error}", leftovers.display());
                }
                _ => {}
            }
        })
        .await;
    }

    async fn finish(self: Arc<Self>) {
        self.state.send_modify(|state| {
            state.ended = Some(now_milliseconds());
            state.outcome = Some(outcome(state));
        });
        self.journal.close();
        self.failures.close();
        if let Err(error) = self.save_apart().await {
            tracing::warn!("{error}");
        }
    }

    async fn save_apart(self: Arc<Self>) -> Result<()> {
        blocking(move || self.save()).await
    }

    async fn run_tasks(self: &Arc<Self>, shared: &Arc<Shared>) -> Result<()> {
        let (job, store) = (self.clone(), shared.store.clone());
        let begin = move || {
            job.save()?;
            let mut tasks = Tasks::open(&job.dir.join("plan"))?;
            tasks.next_few(&store, &job.spec).map(|few| (few, tasks))
        };
        let (mut few, mut tasks) = blocking(begin).await?;
        let mut running = JoinSet::new();
        let mut failed = Ok(());
        while !self.state().stopped {
            let Some(slot) = self.await_slot(shared).await else {
                break;
            };
            if few.is_empty() {
                let (store, spec) = (shared.store.clone(), self.spec.clone());
                let (next, rest) = blocking(move || (tasks.next_few(&store, &spec), tasks)).await;
                tasks = rest;
                few = next.unwrap_or_else(|error| {
                    failed = Err(error);
                    self.stop_with(shared);
                    VecDeque::new()
                });
            }
            let Some(task) = few.pop_front() else {
                break;
            };
            self.state.send_modify(|state| state.progress.running += 1);
            running.spawn(self.clone().run_task(shared.clone(), task, slot));
            while running.try_join_next().is_some() {}
        }
        while running.join_next().await.is_some() {}
        failed
    }

    /// A place for one more command; `None` once the job is stopped, whoever has the places.
    async fn await_slot(&self, shared: &Arc<Shared>) -> Option<OwnedSemaphorePermit> {
        let mut state = self.watch();
        let stopped = async { state.wait_for(|state| state.stopped).await.map(drop) };
        tokio::select! {
            biased;
            _ = stopped => None,
            slot = shared.slots.clone().acquire_owned() => slot.ok(),
        }
    }

    async fn run_task(self: Arc<Self>, shared: Arc<Shared>, task: Task, slot: OwnedSemaphorePermit) {
        let (number, key, size) = (task.number, task.key.clone(), task.size);
        let (job, own) = (self.clone(), shared.clone());
        // As a task of its own, so that a panic in it has an end here.
        let worked = tokio::spawn(async move {
            let mut slot = Some(slot);
            (job.work_on(&own, task, &mut slot).await, slot)
        });
        // A failure is recorded before the slot is free, so that no task starts in between.
        let (result, _slot) = worked.await.unwrap_or_else(|_| (Err(panicked().into()), None));
        self.lock_running().remove(&number);
        self.state.send_modify(|state| {
            state.progress.running -= 1;
            match &result {
                Ok(outputs) => {
                    state.progress.done += 1;
                    state.progress.outputs += outputs;
                    state.progress.bytes_done += size;
                    shared.task_counts.add_done();
                }
                Err(failed) => {
                    state.progress.outputs += failed.published;
                    state.progress.bytes_failed += size;
                }
            }
        });
        if let Err(failed) = result {
            self.record_failure(&shared, Some(key), failed).await;
        }
    }

    async fn work_on(
        self: Arc<Self>,
        shared: &Arc<Shared>,
        task: Task,
        slot: &mut Option<OwnedSemaphorePermit>,
    ) -> std::result::Result<u64, task::Failed> {
        let (number, key) = (task.number, task.key.clone());
        let dir = shared.store.tasks_dir().join(self.spec.id.as_str()).join(number.to_string());
        let entered = shared.running.enter(dir.clone(), self.limits())?;
        let control = entered.control();
        let now = RunningNow { control: control.clone(), key, since: Instant::now() };
        self.lock_running().insert(number, now);
        // A cancel that came before the task was entered has not seen it.
        if self.state().ending.is_some() {
            let late = control.clone();
            blocking(move || late.kill(Killed::Cancelled)).await;
        }
        let result = task::run(shared.clone(), self.clone(), task, control, dir, slot).await;
        self.lock_running().remove(&number);
        // The last that holds its control group. One without limits is only put back; what was left in it has a thread of its own.
        match self.limits().is_none() {
            true => drop(entered),
            false => blocking(move || drop(entered)).await,
        }
        result
    }

    pub fn limits(&self) -> Limits {
        Limits { memory: self.spec.memory, cpus: self.spec.cpus }
    }

    /// Writes down that a task failed, or without a key, that the job could not go on.
    async fn record_failure(self: &Arc<Self>, shared: &Arc<Shared>, key: Option<Key>, failed: impl Into<task::Failed>) {
        // What fails because it is ended tells nothing new.
        if self.state().ending.is_some() {
            return;
        }
        // What befell the job as a whole is told under its own name.
        let Some(key) = key.or_else(|| self.spec.outdir.join(self.spec.id.as_str()).ok()) else {
            return;
        };
        let failure = failed.into().report(shared.node, key);
        let job = self.clone();
        blocking(move || {
            if let Err(error) = job.failures.append(&failure) {
                tracing::error!("job {}: cannot record a failure: {error}: {failure:?}", job.spec.id);
            }
        })
        .await;
        shared.task_counts.add_failed();
        self.state.send_modify(|state| state.progress.failed += 1);
        if !self.spec.keep_going {
            self.stop_with(shared);
        }
    }

    /// Stops this node's part, and the others'.
    fn stop_with(&self, shared: &Arc<Shared>) {
        if self.state.send_if_modified(|state| !std::mem::replace(&mut state.stopped, true)) {
            self.stop_others(shared);
        }
    }

    /// Has the other nodes start no more tasks.
    pub fn stop_others(&self, shared: &Arc<Shared>) {
        for node in shared.client.cluster().ids().filter(|&node| node != shared.node) {
            let (client, id) = (shared.client.clone(), self.spec.id.clone());
            tokio::spawn(async move {
                // A node that cannot be reached is the client's to report.
                let _ = client.stop_job(node, &id).await;
            });
        }
    }

    fn lock_running(&self) -> std::sync::MutexGuard<'_, HashMap<u64, RunningNow>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is told of a panic, which is a fault of this program.
fn panicked() -> Error {
    Error::new(ErrorKind::Io, "the daemon failed at it, and its log says how; please report this")
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
