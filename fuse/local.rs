//! Nodes of this machine: their data directories, once it is sure that they are this cluster's.

use s4::client::Client;
use s4::key::Key;
use s4::placement::NodeId;
use s4::protocol::{KeyStat, Stat};
use std::fs::{File, Metadata, OpenOptions};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The data directory of each node that this process may read directly.
pub struct LocalNodes(Vec<Option<PathBuf>>);

impl LocalNodes {
    /// Asks every node where its data is, and keeps the directories that hold the token that the node names.
    pub async fn find(client: &Client) -> Self {
        let mut asked = Vec::new();
        for node in client.cluster().ids() {
            let client = client.clone();
            asked.push(tokio::spawn(async move { client.health(node).await }));
        }
        let mut nodes = Vec::new();
        for health in asked {
            let dir = match health.await {
                Ok(Ok(health)) => {
                    let token = std::fs::read_to_string(health.data.join(".s4/token")).ok();
                    (token.as_deref() == Some(&health.token)).then_some(health.data)
                }
                // A node that is down is asked over the network later.
                _ => None,
            };
            nodes.push(dir);
        }
        Self(nodes)
    }

    pub fn dir(&self, node: NodeId) -> Option<&Path> {
        self.0[node].as_deref()
    }

    /// The data directories, in the order of their nodes.
    pub fn dirs(&self) -> impl Iterator<Item = &Path> {
        self.0.iter().flatten().map(PathBuf::as_path)
    }
}

/// What `path` is in a node's data directory.
pub fn stat(dir: &Path, path: &str) -> std::io::Result<Stat> {
    let file = dir.join(path);
    let found = match std::fs::symlink_metadata(&file) {
        Ok(found) => found,
        Err(e) if matches!(e.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => {
            return Ok(Stat::Absent);
        }
        Err(e) => return Err(e),
    };
    if found.is_dir() {
        return Ok(Stat::Dir { mtime: mtime_of(&found) });
    }
    let recorded = xattr::get(&file, ATTRIBUTE)?;
    Ok(key_stat(recorded, &found).map_or(Stat::Absent, Stat::Key))
}

/// Opens a key's file if it still is the key that `stat` tells of.
pub fn open(dir: &Path, key: &Key, stat: &KeyStat) -> std::io::Result<Option<File>> {
    use xattr::FileExt;
    let flags = nix::libc::O_NOFOLLOW;
    let file = match OpenOptions::new().read(true).custom_flags(flags).open(dir.join(key.as_str())) {
        Ok(file) => file,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e),
    };
    let found = key_stat(file.get_xattr(ATTRIBUTE)?, &file.metadata()?);
    Ok(found.is_some_and(|found| found.checksum == stat.checksum).then_some(file))
}

/// Where a store records a key's checksum.
const ATTRIBUTE: &str = "user.s4.checksum";

fn key_stat(recorded: Option<Vec<u8>>, found: &Metadata) -> Option<KeyStat> {
    let text = String::from_utf8(recorded?).ok()?;
    Some(KeyStat { checksum: text.parse().ok()?, mtime: mtime_of(found), mode: found.mode() & 0o555 })
}

fn mtime_of(found: &Metadata) -> i64 {
    found.mtime() * 1_000_000_000 + found.mtime_nsec()
}
