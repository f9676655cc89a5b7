//! The file `.s4/resize`, which exists from the beginning of a resize to its end.

use s4::cluster::Cluster;
use s4::error::{Error, ErrorKind, Result};
use s4::file::{read_small, write_durably};
use s4::placement::NodeId;
use s4::resize::Lists;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::path::{Path, PathBuf};

/// Limit of bytes of the file: two lists of some thousand nodes.
const LONGEST: usize = 4 << 20;

/// How far a node is.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    pub lists: Lists,
    /// All keys and directories are moved.
    pub is_moved: bool,
}

/// The state of the data directory `root`; `None` if it is not being resized. Errors: it cannot be read.
pub fn read(root: &Path) -> Result<Option<State>> {
    let path = path(root);
    let bytes = match read_small(&path, LONGEST) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        bytes => bytes.map_err(|e| Error::io(path.display(), &e))?,
    };
    let damaged = |e| Error::new(ErrorKind::Config, format!("{}: damaged: {e}", path.display()));
    serde_json::from_slice(&bytes).map(Some).map_err(damaged)
}

/// The node list by which `node` works, whose cluster file has `conf`.
pub fn list_of(state: Option<&State>, conf: Cluster, node: NodeId) -> Result<Cluster> {
    match state {
        None => Ok(conf),
        Some(State { lists, .. }) if lists.has(conf.digest().as_bytes()) => Ok(lists.of(node).clone()),
        Some(State { lists, .. }) => {
            let difference = lists.after().first_difference(&conf.lines());
            let message = format!("this node is being resized, and the cluster file has another list: {difference}");
            Err(Error::new(ErrorKind::Config, message))
        }
    }
}

impl State {
    /// Returns when it is on the disk.
    pub fn write(&self, root: &Path) -> Result<()> {
        let (path, json) = (path(root), serde_json::to_vec(self).expect("lists are plain JSON"));
        write_durably(&path, &json).map_err(|e| Error::io(path.display(), &e))
    }

    /// Returns when the removal is on the disk.
    pub fn remove(root: &Path) -> Result<()> {
        let path = path(root);
        std::fs::remove_file(&path)
            .and_then(|()| File::open(root.join(".s4"))?.sync_all())
            .map_err(|e| Error::io(path.display(), &e))
    }
}

fn path(root: &Path) -> PathBuf {
    root.join(".s4/resize")
}
