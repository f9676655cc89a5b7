//! What every request is answered from, and who may ask.

use crate::connections::Connections;
use crate::jobs::Jobs;
use crate::names::Names;
use crate::strangers;
use crate::streams::Streams;
use crate::watch::Watch;
use hyper::header::HeaderMap;
use s4::body::{self, ChannelBody, ChunkSender};
use s4::budget::MemoryBudget;
use s4::client::Secret;
use s4::cluster::Cluster;
use s4::error::{Error, ErrorKind, Result};
use s4::placement::NodeId;
use s4::protocol::{CLUSTER_HEADER, SECRET_HEADER};
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
    pub watch: Watch,
    pub streams: Streams,
    /// Connections for small exchanges.
    pub sessions: Streams,
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

    /// Refuses strangers: browsers, other clusters, and who does not know the secret.
    pub fn admit(&self, headers: &HeaderMap) -> Result<()> {
        let forbid = |why: &str| Err(Error::new(ErrorKind::Forbidden, why));
        strangers::check(&self.cluster, headers)?;
        if let Some(secret) = &self.secret
            && !headers.get(SECRET_HEADER).is_some_and(|given| secret.matches(given))
        {
            return forbid("the shared secret is missing or wrong; set S4_SECRET_PATH to its file");
        }
        match headers.get(CLUSTER_HEADER) {
            None => forbid("the header s4-cluster is missing; its value is what 's4 config --digest' prints"),
            Some(digest) if digest.as_bytes() != self.digest.as_bytes() => {
                Err(Error::new(ErrorKind::ClusterMismatch, "this node has another node list")
                    .with_nodes(self.cluster.lines()))
            }
            Some(_) => Ok(()),
        }
    }
}
