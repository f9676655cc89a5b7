//! Jobs on this node: their admission and their table; commands and the three maps below.

pub mod command;
pub mod eval;
mod job;
mod plan;
pub mod process;
mod running;
mod task;

pub use job::{Job, State};

use crate::store::Store;
use crate::transfer::Transfers;
use crate::watch::TaskCounts;
use running::RunningTasks;
use s4::client::Client;
use s4::error::{Error, ErrorKind, Result};
use s4::placement::NodeId;
use s4::protocol::{JobId, JobRecord, JobSpec, Plan};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Semaphore;

/// A planned job that nobody starts is forgotten after this.
const UNSTARTED: Duration = Duration::from_secs(60);
/// Jobs that have ended and are still told of.
const REMEMBERED: usize = 50;

/// What all tasks of this node share.
pub struct Shared {
    pub store: Arc<Store>,
    pub client: Client,
    pub node: NodeId,
    /// One for each command that may run at once.
    pub slots: Arc<Semaphore>,
    /// One for each task that may deliver its outputs at once.
    pub deliveries: Semaphore,
    pub transfers: Transfers,
    pub running: RunningTasks,
    /// One for each eval that may run at once.
    pub evals: Semaphore,
    /// Of all jobs since the daemon's start.
    pub task_counts: TaskCounts,
    evals_begun: AtomicU64,
}

impl Shared {
    /// `slots`: commands of maps that run at once.
    pub fn new(store: Arc<Store>, client: Client, node: NodeId, slots: usize) -> Self {
        Self {
            transfers: Transfers::new(store.clone(), client.clone(), node),
            store,
            client,
            node,
            slots: Arc::new(Semaphore::new(slots)),
            deliveries: Semaphore::new(slots),
            running: RunningTasks::default(),
            evals: Semaphore::new(eval::AT_ONCE),
            task_counts: TaskCounts::default(),
            evals_begun: AtomicU64::new(0),
        }
    }

    fn next_eval(&self) -> u64 {
        self.evals_begun.fetch_add(1, Ordering::Relaxed)
    }
}

/// The jobs of this node.
pub struct Jobs {
    pub shared: Arc<Shared>,
    /// Guards the table only; jobs have their own state.
    table: Mutex<BTreeMap<JobId, Arc<Job>>>,
}

impl Jobs {
    pub fn new(shared: Arc<Shared>) -> Self {
        Self { shared, table: Mutex::default() }
    }

    /// Checks a job and lists its tasks; blocks. `alive` is called again and again, and ends the work by returning false.
    pub fn submit(self: &Arc<Self>, spec: JobSpec, alive: &mut dyn FnMut() -> bool) -> Result<Plan> {
        spec.cmd.check()?;
        if spec.timeout.is_some_and(|seconds| Duration::try_from_secs_f64(seconds).is_err()) {
            return Err(Error::usage("a timeout is a number of seconds"));
        }
        let id = spec.id.clone();
        let dir = self.shared.store.jobs_dir().join(id.as_str());
        std::fs::create_dir(&dir).map_err(|e| match e.kind() {
            std::io::ErrorKind::AlreadyExists => {
                Error::new(ErrorKind::AlreadyExists, format!("job {id}: submitted already"))
            }
            _ => Error::io(format!("job {id}"), &e),
        })?;
        let planned = plan::make(&self.shared.store, &spec, &dir.join("plan"), alive);
        let job = planned.and_then(|plan| Ok((plan, Job::new(spec, dir.clone(), plan)?)));
        match job {
            Ok((plan, job)) => {
                self.enter(job);
                Ok(plan)
            }
            Err(error) => {
                // The job's own error is the one to tell.
                let _ = std::fs::remove_dir_all(&dir);
                Err(error)
            }
        }
    }

    pub fn find(&self, id: &JobId) -> Result<Arc<Job>> {
        let job = self.lock().get(id).cloned();
        job.ok_or_else(|| {
            Error::new(ErrorKind::NotFound, format!("job {id}: unknown here; the daemon may have been restarted"))
        })
    }

    /// Every job that this node knows, in the order of their ids.
    pub fn records(&self) -> Vec<JobRecord> {
        self.lock().values().map(|job| job.record()).collect()
    }

    pub fn start(&self, id: &JobId) -> Result<()> {
        let job = self.find(id)?;
        if !job.claim_start() {
            return Err(Error::new(ErrorKind::AlreadyExists, format!("job {id}: started already")));
        }
        tokio::spawn(job.run(self.shared.clone()));
        Ok(())
    }

    /// Starts no more tasks and lets no more commands in.
    pub fn close(&self) {
        self.shared.running.close();
        for job in self.lock().values() {
            job.stop();
        }
    }

    /// Jobs that have been started and have not ended.
    pub fn running(&self) -> usize {
        let running = |job: &&Arc<Job>| job.state().started && job.state().outcome.is_none();
        self.lock().values().filter(running).count()
    }

    fn enter(self: &Arc<Self>, job: Job) {
        let job = Arc::new(job);
        let id = job.spec.id.clone();
        self.lock().insert(id.clone(), job);
        self.forget_old();
        let jobs = self.clone();
        tokio::runtime::Handle::current().spawn(async move {
            tokio::time::sleep(UNSTARTED).await;
            jobs.forget_if(&id, |state| !state.started);
        });
    }

    fn forget_old(&self) {
        let table = self.lock();
        let ended: Vec<JobId> =
            table.iter().filter(|(_, job)| job.state().outcome.is_some()).map(|(id, _)| id.clone()).collect();
        drop(table);
        for id in ended.iter().rev().skip(REMEMBERED) {
            self.forget_if(id, |state| state.outcome.is_some());
        }
    }

    fn forget_if(&self, id: &JobId, condition: impl Fn(State) -> bool) {
        let mut table = self.lock();
        if table.get(id).is_some_and(|job| condition(job.state()))
            && let Some(job) = table.remove(id)
            && let Err(error) = std::fs::remove_dir_all(job.dir())
        {
            tracing::warn!("cannot remove {}: {error}", job.dir().display());
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<JobId, Arc<Job>>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
