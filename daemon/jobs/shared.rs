//! What all tasks of this node share.

use super::cgroup::Cgroups;
use super::files::JobFiles;
use super::process;
use super::running::RunningTasks;
use super::taskdir::TaskDirs;
use crate::monitoring::counters::TaskCounts;
use crate::mounts::Mounts;
use crate::names::Names;
use crate::store::Store;
use crate::transfer::Transfers;
use s4::checksum::hash;
use s4::client::Client;
use s4::error::Result;
use s4::placement::NodeId;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Limit of evals that run at once; more wait.
const MAX_EVALS: usize = 64;

/// The right to run one more command of a job.
pub struct Slot {
    /// A slot of the node.
    _node: OwnedSemaphorePermit,
    /// A slot of the job, if it has its own limit.
    _job: Option<OwnedSemaphorePermit>,
}

/// What all tasks of this node share.
pub struct Shared {
    pub store: Arc<Store>,
    pub client: Client,
    pub names: Arc<Names>,
    pub node: NodeId,
    /// The number of commands of maps that run at the same time, and a permit for each.
    pub max_running: usize,
    pub slots: Arc<Semaphore>,
    /// One for each task that may deliver its outputs at the same time.
    pub deliveries: Semaphore,
    pub transfers: Transfers,
    pub running: RunningTasks,
    pub files: JobFiles,
    pub dirs: Arc<TaskDirs>,
    /// File systems that commands have mounted.
    pub mounts: Mounts,
    /// One for each eval that may run at the same time.
    pub evals: Semaphore,
    /// Counts of all jobs since the daemon's start.
    pub task_counts: TaskCounts,
    evals_begun: AtomicU64,
    /// Locked while a task of another cluster is written to its journal: several tasks of one job may arrive at the
    /// same time.
    pub importing: Mutex<()>,
}

impl Shared {
    /// `slots`: the number of commands of maps that run at the same time.
    pub fn new(store: Arc<Store>, client: Client, names: Arc<Names>, node: NodeId, slots: usize) -> Result<Self> {
        let cgroups = Cgroups::open(&format!("s4-{:016x}", hash(process::store_of(&store.tasks_dir()).as_bytes())));
        Ok(Self {
            files: JobFiles::open(&store),
            dirs: TaskDirs::open(store.data_dir().clone(), store.idle_dirs(), cgroups.are_there())?,
            mounts: Mounts::new(store.root().to_owned()),
            transfers: Transfers::new(store.clone(), client.clone(), node),
            store,
            client,
            names,
            node,
            max_running: slots,
            slots: Arc::new(Semaphore::new(slots)),
            deliveries: Semaphore::new(slots),
            running: RunningTasks::new(cgroups),
            evals: Semaphore::new(MAX_EVALS),
            task_counts: TaskCounts::default(),
            evals_begun: AtomicU64::new(0),
            importing: Mutex::default(),
        })
    }

    /// Waits for a slot of a job. `own` are the job's own slots, if it has a limit. `None` after the slots are closed.
    pub async fn slot(&self, own: Option<&Arc<Semaphore>>) -> Option<Slot> {
        // The job's slot first, so that no slot of the node is held by a job that may not use it.
        let job = match own {
            Some(own) => Some(own.clone().acquire_owned().await.ok()?),
            None => None,
        };
        Some(Slot { _node: self.slots.clone().acquire_owned().await.ok()?, _job: job })
    }

    pub fn next_eval(&self) -> u64 {
        self.evals_begun.fetch_add(1, Ordering::Relaxed)
    }
}
