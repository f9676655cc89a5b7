//! Runs a job's tasks, in parallel as far as slots are free.

use super::command::Killed;
use super::job::{Job, RunningNow};
use super::rerun::may_remove;
use super::shared::{Shared, Slot};
use super::tasks::{Task, Tasks};
use super::{orphans, plan, process, task};
use s4::client::blocking;
use s4::error::{Error, ErrorKind, Result};
use s4::key::Key;
use s4::protocol::MapKind;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// Outputs whose inputs are gone that are removed together: between two batches a cancel is seen.
const BATCH: usize = 64;

impl Job {
    /// Runs all tasks of the plan, and records the end of the job, also after a panic.
    pub async fn run_to_end(self: Arc<Self>, shared: Arc<Shared>) {
        if tokio::spawn(self.clone().run(shared.clone())).await.is_err() {
            self.stop_with(&shared);
            self.record_failure(&shared, None, panicked()).await;
            self.finish().await;
        }
    }

    /// Runs all tasks of the plan.
    async fn run(self: Arc<Self>, shared: Arc<Shared>) {
        // A job without work writes only its end, to save disk writes.
        if let Some(copy) = &self.spec.copy {
            if let Err(failed) = self.run_worker(&shared, copy).await {
                self.record_failure(&shared, None, failed).await;
            }
            self.clear_away(&shared).await;
        } else if self.plan.tasks + self.plan.gone > 0 {
            if let Err(error) = self.remove_and_run(&shared).await {
                self.stop_with(&shared);
                self.record_failure(&shared, None, error).await;
            }
            self.clear_away(&shared).await;
        }
        self.finish().await;
    }

    /// Removes the directories of the tasks, and kills their processes where there are no control groups.
    async fn clear_away(&self, shared: &Arc<Shared>) {
        let (shared, leftovers) = (shared.clone(), shared.store.tasks_dir().join(self.spec.id.as_str()));
        blocking(move || {
            if !shared.running.has_groups() {
                process::kill_tree(&leftovers);
            }
            match shared.store.data_dir().remove_tree(&leftovers) {
                // The directory does not exist if no task ran.
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    tracing::warn!("cannot remove {}: {error}", leftovers.display());
                }
                _ => {}
            }
        })
        .await;
    }

    async fn remove_and_run(self: &Arc<Self>, shared: &Arc<Shared>) -> Result<()> {
        self.remove_orphans(shared).await?;
        self.run_tasks(shared).await
    }

    /// Deletes the orphans.
    async fn remove_orphans(self: &Arc<Self>, shared: &Arc<Shared>) -> Result<()> {
        if self.plan.gone == 0 {
            return Ok(());
        }
        let dir = self.dir().to_owned();
        let mut left = blocking(move || orphans::read(&dir)).await?;
        while !self.state().stopped {
            let (batch, rest) = blocking(move || (left.by_ref().take(BATCH).collect::<Result<Vec<_>>>(), left)).await;
            left = rest;
            let batch = batch?;
            if batch.is_empty() {
                break;
            }
            match self.spec.kind {
                MapKind::MapToN => self.remove_of_inputs(shared, batch).await?,
                MapKind::Map | MapKind::MapFromN | MapKind::Copy => self.remove_keys(shared, batch).await?,
            }
        }
        Ok(())
    }

    /// Removes, on all nodes, the outputs of these inputs of a 1:n map.
    async fn remove_of_inputs(self: &Arc<Self>, shared: &Arc<Shared>, inputs: Vec<String>) -> Result<()> {
        let mut running = JoinSet::new();
        for input in inputs {
            let (job, shared) = (self.clone(), shared.clone());
            running.spawn(async move { task::clean_everywhere(&shared, &job, &input, None).await });
        }
        running.join_all().await.into_iter().collect()
    }

    async fn remove_keys(self: &Arc<Self>, shared: &Arc<Shared>, keys: Vec<String>) -> Result<()> {
        let (job, store) = (self.clone(), shared.store.clone());
        let (rerun, ours) = (self.spec.rerun, self.mark(0, 1));
        blocking(move || {
            let remove = |key: &String| store.remove_output(&Key::parse(key)?, |mark| may_remove(rerun, mark, ours));
            keys.iter().try_for_each(|key| job.fence.pass(|| remove(key)))
        })
        .await
    }

    async fn run_tasks(self: &Arc<Self>, shared: &Arc<Shared>) -> Result<()> {
        let (job, store) = (self.clone(), shared.store.clone());
        let begin = move || {
            job.save()?;
            job.journal.begin(&job.spec)?;
            let mut tasks = Tasks::open(&job.dir.join(plan::FILE))?;
            tasks.next_batch(&store, &job.spec).map(|few| (few, tasks))
        };
        let (mut few, mut tasks) = blocking(begin).await?;
        let own = self.spec.jobs.map(|jobs| Arc::new(Semaphore::new(jobs as usize)));
        let mut running = JoinSet::new();
        let mut failed = Ok(());
        while !self.state().stopped {
            let Some(slot) = self.await_slot(shared, own.as_ref()).await else {
                break;
            };
            if few.is_empty() {
                let (store, spec) = (shared.store.clone(), self.spec.clone());
                let (next, rest) = blocking(move || (tasks.next_batch(&store, &spec), tasks)).await;
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

    /// Waits for a slot for one more command; `None` if the job is stopped meanwhile.
    pub(super) async fn await_slot(&self, shared: &Shared, own: Option<&Arc<Semaphore>>) -> Option<Slot> {
        let mut state = self.watch();
        let stopped = async { state.wait_for(|state| state.stopped).await.map(drop) };
        tokio::select! {
            biased;
            _ = stopped => None,
            slot = shared.slot(own) => slot,
        }
    }

    async fn run_task(self: Arc<Self>, shared: Arc<Shared>, task: Task, slot: Slot) {
        let (number, key, size) = (task.number, task.key.clone(), task.size);
        let (job, own) = (self.clone(), shared.clone());
        // In its own async task, so that a panic ends only this task.
        let worked = tokio::spawn(async move {
            let mut slot = Some(slot);
            (job.work_on(&own, task, &mut slot).await, slot)
        });
        // A failure is recorded before the slot is released, so that no other task starts in between.
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
        slot: &mut Option<Slot>,
    ) -> std::result::Result<u64, task::Failed> {
        let (number, key) = (task.number, task.key.clone());
        let dir = shared.store.tasks_dir().join(self.spec.id.as_str()).join(number.to_string());
        let entered = shared.running.enter(dir.clone(), self.limits())?;
        let control = entered.control();
        let now = RunningNow { control: control.clone(), key, since: Instant::now() };
        self.lock_running().insert(number, now);
        // A cancel that came before this task was registered did not kill it.
        if self.state().ending.is_some() {
            let late = control.clone();
            blocking(move || late.kill(Killed::Cancelled)).await;
        }
        let result = task::run(shared.clone(), self.clone(), task, control, dir, slot).await;
        self.lock_running().remove(&number);
        // This drops the last reference to the control group. A group without limits is only put back; a thread kills
        // what is left in it.
        match self.limits().is_none() {
            true => drop(entered),
            false => blocking(move || drop(entered)).await,
        }
        result
    }

    /// Records that a task failed, or without a key, that the job cannot continue.
    async fn record_failure(self: &Arc<Self>, shared: &Arc<Shared>, key: Option<Key>, failed: impl Into<task::Failed>) {
        // Failures that a cancel causes are not reported.
        if self.state().ending.is_some() {
            return;
        }
        // A failure of the job as a whole is reported under OUTDIR and the job's id.
        let Some(key) = key.or_else(|| self.own_key().ok()) else {
            return;
        };
        let failure = failed.into().report(shared.node, key);
        let job = self.clone();
        blocking(move || {
            if let Err(error) = job.failures.append(&failure) {
                tracing::error!("job {}: cannot record the failure of {}: {error}", job.spec.id, failure.key);
            }
        })
        .await;
        shared.task_counts.add_failed();
        self.state.send_modify(|state| state.progress.failed += 1);
        if !self.spec.keep_going {
            self.stop_with(shared);
        }
    }

    /// Stops the job on this node and on the others.
    fn stop_with(&self, shared: &Arc<Shared>) {
        if self.state.send_if_modified(|state| !std::mem::replace(&mut state.stopped, true)) {
            self.stop_others(&shared.client, shared.node);
        }
    }
}

/// The error for a panic, which is a bug of this program.
fn panicked() -> Error {
    Error::new(ErrorKind::Io, "the daemon failed at it, and its log says how; please report this")
}
