//! What a daemon and the worker of a copy say to each other. A daemon knows of a copy no more than this: a worker does it, which
//! counts objects and bytes.

use super::copy::{CopySpec, Credentials};
use super::job_report::Progress;
use crate::bounds;
use crate::key::Key;
use crate::placement::NodeId;
use serde::{Deserialize, Serialize};

/// Limit of bytes of a worker's task, so that a pipe has room for it.
pub const MAX_WORKER_TASK: usize = 32 << 10;

/// What a worker gets on its stdin, as one line. What follows is silence: its end tells the worker to end too.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorkerTask {
    pub copy: CopySpec,
    pub node: NodeId,
    /// Objects at a time.
    pub jobs: Option<u16>,
    /// The lines of the cluster file.
    pub cluster: Vec<String>,
    /// The cluster's secret, if it has one.
    pub secret: Option<String>,
    pub credentials: Option<Credentials>,
}

/// A line that a worker writes.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum WorkerEvent {
    /// Its counts so far. A task is an object.
    Progress(Progress),
    /// An object that was not copied.
    Failure {
        /// Its key; `None` if it can have none, and then the reason names it.
        key: Option<Key>,
        #[serde(deserialize_with = "bounds::line")]
        reason: String,
    },
}
