//! What every request is answered from.

use crate::connections::Connections;
use crate::jobs::Jobs;
use crate::monitoring::Monitoring;
use crate::names::Names;
use crate::upgrades::Upgrades;
use s4::body::{self, ChannelBody, ChunkSender};
use s4::budget::MemoryBudget;
use s4::client::Secret;
use s4::cluster::Cluster;
use s4::error::Error;
use s4::placement::NodeId;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A request body that makes no progress for this long is given up.
pub const BODY_DEADLINE: Duration = Duration::from_secs(30);

/// What every request is answered from.
pub struct App {
    pub jobs: Arc<Jobs>,
    pub names: Arc<Names>,
    pub cluster: Cluster,
    pub node: NodeId,
    pub digest: String,
    pub secret: Option<Secret>,
    pub started: Instant,
    pub watch: Monitoring,
    pub upgrades: Upgrades,
    pub connections: Connections,
    /// For what waits in memory to be read by peers.
    pub in_flight: MemoryBudget,
}

/// Bytes that may wait in memory to be read by peers, besides a little for each of them.
pub const IN_FLIGHT: usize = 64 << 20;

impl App {
    /// A body that is filled chunk by chunk.
    pub fn channel(&self) -> (ChunkSender, ChannelBody) {
        body::channel_within(Some(self.in_flight.clone()))
    }

    /// An error as it leaves here: naming this node.
    pub fn named(&self, error: Error) -> Error {
        let error = error.by(self.cluster.name(self.node));
        if error.kind().http_status() >= 500 {
            tracing::warn!("{error}");
        }
        error
    }
}
