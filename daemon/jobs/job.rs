//! One job on this node: its state, its failures, and the loop that runs its tasks.

use super::Shared;
use super::command::{Control, Killed, TaskDir, remove_tree};
use super::plan::{Task, Tasks};
use super::{process, task};
use s4::client::blocking;
use s4::error::{Error, Result};
use s4::protocol::{Event, JobRecord, JobSpec, Outcome, Plan, Progress, TaskFailure};
use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::task::JoinSet;

/// Where a job stands.
#[derive(Debug, Clone, Copy, Default)]
pub struct State {
    pub started: bool,
    pub progress: Progress,
    /// No more tasks are to start: one failed here or elsewhere.
    pub stopped: bool,
    pub cancelled: bool,
    pub outcome: Option<Outcome>,
}

pub struct Job {
    pub spec: Arc<JobSpec>,
    dir: PathBuf,
    plan: Plan,
    state: watch::Sender<State>,
    /// Guards the commands that run now, by task number.
    controls: Mutex<HashMap<u64, Arc<Control>>>,
    /// Failures as lines of JSON, appended whole.
    failures: File,
}

impl Job {
    /// A planned job, whose files are in `dir`.
    pub fn new(spec: JobSpec, dir: PathBuf, plan: Plan) -> Result<Self> {
        let path = dir.join("failures");
        let failures = OpenOptions::new().create(true).append(true).read(true).open(&path);
        let failures = failures.map_err(|e| Error::io(path.display(), &e))?;
        let state = State { progress: Progress { tasks: plan.tasks, ..Progress::default() }, ..State::default() };
        Ok(Self {
            spec: Arc::new(spec),
            dir,
            plan,
            state: watch::Sender::new(state),
            controls: Mutex::default(),
            failures,
        })
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    pub fn state(&self) -> State {
        *self.state.borrow()
    }

    pub fn record(&self) -> JobRecord {
        let state = self.state();
        JobRecord {
            spec: (*self.spec).clone(),
            plan: self.plan,
            progress: state.progress,
            started: state.started.then_some(0),
            ended: None,
            outcome: state.outcome,
        }
    }

    pub fn watch(&self) -> watch::Receiver<State> {
        self.state.subscribe()
    }

    /// Claims the job's only start; false if it has been started.
    pub fn claim_start(&self) -> bool {
        self.state.send_if_modified(|state| !std::mem::replace(&mut state.started, true))
    }

    pub fn stop(&self) {
        self.state.send_modify(|state| state.stopped = true);
    }

    /// Starts no more tasks and kills those that run. Blocks until their processes are gone.
    pub fn cancel(&self) {
        self.state.send_modify(|state| {
            state.stopped = true;
            state.cancelled = true;
            // One that never started has nothing to end.
            if !state.started {
                state.outcome.get_or_insert(Outcome::Cancelled);
            }
        });
        let controls: Vec<_> = self.lock_controls().values().cloned().collect();
        for control in controls {
            control.kill(Killed::Cancelled);
        }
    }

    /// Failures from byte `from` of their record on, and where they end.
    pub fn failures(&self, from: u64) -> Result<(Vec<Event>, u64)> {
        let failed = |e: std::io::Error| Error::io("the job's failures", &e);
        let len = self.failures.metadata().map_err(failed)?.len();
        let end = len.min(from + (1 << 20));
        let mut bytes = vec![0; (end - from) as usize];
        self.failures.read_exact_at(&mut bytes, from).map_err(failed)?;
        let whole = bytes.iter().rposition(|&b| b == b'\n').map_or(0, |at| at + 1);
        let events = bytes[..whole].split(|&b| b == b'\n').filter(|line| !line.is_empty());
        let events = events.filter_map(|line| serde_json::from_slice::<TaskFailure>(line).ok()).map(Event::Failure);
        Ok((events.collect(), from + whole as u64))
    }

    /// Runs every task of the plan to its end.
    pub async fn run(self: Arc<Self>, shared: Arc<Shared>) {
        let ended = self.run_tasks(&shared).await;
        if let Err(error) = ended {
            tracing::error!("job {}: {error}", self.spec.id);
            self.stop_with(&shared);
            self.state.send_modify(|state| state.progress.failed += 1);
        }
        let leftovers = shared.store.tasks_dir().join(self.spec.id.as_str());
        blocking(move || {
            process::kill_tree(&leftovers);
            // Absent where no task ran.
            let _ = remove_tree(&leftovers);
        })
        .await;
        self.state.send_modify(|state| state.outcome = Some(outcome(state)));
    }

    async fn run_tasks(self: &Arc<Self>, shared: &Arc<Shared>) -> Result<()> {
        let plan = self.dir.join("plan");
        let mut tasks = Tasks::open(&plan)?;
        let mut running = JoinSet::new();
        let mut failed = Ok(());
        while !self.state().stopped {
            let Some(slot) = self.await_slot(shared).await else {
                break;
            };
            let (store, spec) = (shared.store.clone(), self.spec.clone());
            let (task, rest) = blocking(move || (tasks.next(&store, &spec), tasks)).await;
            tasks = rest;
            let task = match task {
                Ok(Some(task)) => task,
                Ok(None) => break,
                Err(error) => {
                    failed = Err(error);
                    self.stop_with(shared);
                    break;
                }
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
        // A failure is recorded before the slot is free, so that no task starts in between.
        let mut slot = Some(slot);
        let (number, key) = (task.number, task.key.clone());
        let path = shared.store.tasks_dir().join(self.spec.id.as_str()).join(number.to_string());
        let entered = TaskDir::create(path).and_then(|dir| Ok((shared.running.enter(dir.path())?, dir)));
        let result = match entered {
            Ok((entered, dir)) => {
                self.lock_controls().insert(number, entered.control());
                // A cancel that came before the control was entered has not seen it.
                if self.state().cancelled {
                    entered.kill(Killed::Cancelled);
                }
                task::run(shared.clone(), self.spec.clone(), task, entered.control(), dir, &mut slot).await
            }
            Err(error) => Err(error.into()),
        };
        self.lock_controls().remove(&number);
        match result {
            Ok(outputs) => {
                shared.task_counts.add_done();
                self.state.send_modify(|state| {
                    state.progress.running -= 1;
                    state.progress.done += 1;
                    state.progress.outputs += outputs;
                });
            }
            Err(failed) => {
                self.state.send_modify(|state| state.progress.outputs += failed.published);
                self.record_failure(&shared, failed.report(shared.node, key));
            }
        }
    }

    fn record_failure(&self, shared: &Arc<Shared>, failure: TaskFailure) {
        if self.state().cancelled {
            self.state.send_modify(|state| state.progress.running -= 1);
            return;
        }
        shared.task_counts.add_failed();
        let mut line = serde_json::to_vec(&failure).expect("a failure is plain JSON");
        line.push(b'\n');
        if let Err(error) = (&self.failures).write_all(&line) {
            tracing::error!("job {}: cannot record that {} failed: {error}", self.spec.id, failure.key);
        }
        self.state.send_modify(|state| {
            state.progress.running -= 1;
            state.progress.failed += 1;
        });
        if !self.spec.keep_going {
            self.stop_with(shared);
        }
    }

    /// Stops this node's part, and the others'.
    fn stop_with(&self, shared: &Arc<Shared>) {
        if !self.state.send_if_modified(|state| !std::mem::replace(&mut state.stopped, true)) {
            return;
        }
        for node in shared.client.cluster().ids().filter(|&node| node != shared.node) {
            let (client, id) = (shared.client.clone(), self.spec.id.clone());
            tokio::spawn(async move {
                // A node that cannot be reached is the client's to report.
                let _ = client.stop_job(node, &id).await;
            });
        }
    }

    fn lock_controls(&self) -> std::sync::MutexGuard<'_, HashMap<u64, Arc<Control>>> {
        self.controls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn outcome(state: &State) -> Outcome {
    let Progress { tasks, done, failed, .. } = state.progress;
    match (state.cancelled, failed, done == tasks) {
        (true, ..) => Outcome::Cancelled,
        (false, 1.., _) => Outcome::Failed,
        (false, 0, true) => Outcome::Done,
        (false, 0, false) => Outcome::Stopped,
    }
}
