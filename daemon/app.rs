//! The state that all request handlers share.

use crate::connections::Connections;
use crate::jobs::Jobs;
use crate::monitoring::Monitoring;
use crate::names::Names;
use crate::request_log::RequestLog;
use crate::resize::Resize;
use crate::upgrades::Upgrades;
use s4::body::{self, ChannelBody, ChunkSender};
use s4::budget::MemoryBudget;
use s4::client::Secret;
use s4::cluster::Cluster;
use s4::error::{Error, ErrorKind};
use s4::placement::NodeId;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// How long a request body may make no progress before the request is aborted.
pub const BODY_DEADLINE: Duration = Duration::from_secs(30);

/// The state that all request handlers share.
pub struct App {
    pub jobs: Arc<Jobs>,
    pub names: Arc<Names>,
    pub cluster: Cluster,
    pub node: NodeId,
    pub digest: String,
    pub secret: Option<Secret>,
    pub started: Instant,
    /// During a resize.
    pub resize: Option<Arc<Resize>>,
    /// The cluster file.
    pub conf: PathBuf,
    /// Ends the daemon once it has a value.
    pub ending: watch::Sender<Option<Ending>>,
    pub watch: Monitoring,
    pub upgrades: Upgrades,
    pub connections: Connections,
    /// Locked while a scrub of this node runs.
    pub scrubbing: Arc<Mutex<()>>,
    pub requests: Arc<RequestLog>,
    /// The budget for bytes in memory that peers have not read yet.
    pub in_flight: MemoryBudget,
}

/// How the daemon ends by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    Stop,
    /// It starts again, as the same process.
    Restart,
}

/// Limit of bytes in memory that peers have not read yet, besides a small amount per peer.
pub const IN_FLIGHT: usize = 64 << 20;

impl App {
    /// A body that is filled in chunks.
    pub fn channel(&self) -> (ChunkSender, ChannelBody) {
        body::channel_within(Some(self.in_flight.clone()))
    }

    /// The refusal of one more connection.
    pub fn crowded(&self) -> Error {
        let count = self.connections.count();
        Error::new(ErrorKind::Busy, format!("it has {count} connections, and takes no more for now; try again later"))
    }

    /// The error of everything that is not served during a resize, if one is under way.
    pub fn refused_by_resize(&self) -> Option<Error> {
        self.resize.as_ref().map(|resize| resize.refusal())
    }

    /// Adds this node's name to an error before it is sent.
    pub fn named(&self, error: Error) -> Error {
        error.by(self.cluster.name(self.node))
    }
}
