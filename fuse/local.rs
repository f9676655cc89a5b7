//! Nodes of this machine, whose data directories the mount reads directly. A directory is used only if its token proves
//! that it belongs to this cluster.

use s4::client::Client;
use s4::error::{ErrorKind, Result};
use s4::key::Key;
use s4::placement::NodeId;
use s4::protocol::KeyStat;
use s4::stored::{self, FoundDir, KNOWS_DIRS};
use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// The data directory of each node, if this process may read it directly.
pub struct LocalNodes(Vec<Option<FoundDir>>);

impl LocalNodes {
    /// Asks every node for its data directory, and keeps those that hold the token that the node reports. Errors: a
    /// node refuses us, since our node list or secret differs from its own. It would refuse all requests.
    pub async fn find(client: &Client) -> Result<Self> {
        let mut asked = Vec::new();
        for node in client.cluster().ids() {
            let client = client.clone();
            asked.push(tokio::spawn(async move { client.health(node).await }));
        }
        let mut nodes = Vec::new();
        for (node, health) in asked.into_iter().enumerate() {
            let dir = match health.await {
                Ok(Ok(health)) => client.local_dir(node, &health).and_then(|dir| FoundDir::find(dir.to_owned()).ok()),
                Ok(Err(error)) if matches!(error.kind(), ErrorKind::ClusterMismatch | ErrorKind::Forbidden) => {
                    return Err(error);
                }
                // A node that is down is reached over the network later.
                _ => None,
            };
            nodes.push(dir);
        }
        Ok(Self(nodes))
    }

    pub fn dir(&self, node: NodeId) -> Option<&Path> {
        self.0[node].as_ref().map(FoundDir::path)
    }

    /// True if the directory is still at its path.
    pub fn is_there(&self, node: NodeId) -> bool {
        self.0[node].as_ref().is_some_and(FoundDir::is_there)
    }

    /// True if a name that is absent in the directory is absent in the cluster: the directory is still at its path, and
    /// its node knows all directories whose home it is. Else the node must be asked.
    pub fn knows_absent(&self, node: NodeId) -> bool {
        let knows = |dir: &FoundDir| dir.path().join(KNOWS_DIRS).exists() && dir.is_there();
        self.0[node].as_ref().is_some_and(knows)
    }

    /// The data directories, in the order of their nodes.
    pub fn dirs(&self) -> impl Iterator<Item = &Path> {
        self.0.iter().flatten().map(FoundDir::path)
    }
}

/// Opens the file of a key, if it still is the key that `stat` describes.
pub fn open(dir: &Path, key: &Key, stat: &KeyStat) -> std::io::Result<Option<File>> {
    let flags = nix::libc::O_NOFOLLOW;
    let file = match OpenOptions::new().read(true).custom_flags(flags).open(dir.join(key.as_str())) {
        Ok(file) => file,
        Err(e) if stored::is_absent(&e) => return Ok(None),
        Err(e) => return Err(e),
    };
    Ok((stored::recorded(&file)? == Some(stat.checksum)).then_some(file))
}
