//! What names and inode numbers stand for. There are keys and directories of the cluster, and files of this mount
//! alone: files that are being written, FIFOs, sockets and control files. This module changes nothing in the cluster.

use super::attributes::{Attributes, attributes};
use crate::control::Control;
use crate::control::path::{CONTROL, ControlPath};
use crate::errno::{Result, errno, io_errno};
use crate::inodes::{DirStat, Ino, Inodes, Node};
use crate::local::LocalNodes;
use crate::specials::Specials;
use nix::errno::Errno;
use s4::client::Client;
use s4::key::{Dir, Key, MAX_KEY, MAX_PART};
use s4::mounts::CLUSTER_ATTRIBUTE;
use s4::placement::NodeId;
use s4::protocol::{KeyStat, Stat};
use s4::stored;
use std::ffi::OsStr;
use std::path::Path;
use std::time::SystemTime;

/// What a path stands for in the cluster.
pub enum Found {
    Key(Key, KeyStat),
    Dir(DirStat),
    Absent,
}

pub struct Namespace {
    pub client: Client,
    pub inodes: Inodes,
    pub local: LocalNodes,
    pub control: Control,
    pub specials: Specials,
    /// The time of the root, which has no home node.
    mounted: SystemTime,
}

impl Namespace {
    pub fn new(client: Client, local: LocalNodes, control: Control) -> Self {
        let (inodes, specials) = (Inodes::default(), Specials::default());
        Self { client, inodes, local, control, specials, mounted: SystemTime::now() }
    }

    pub fn node(&self, ino: Ino) -> Result<Node> {
        self.inodes.get(ino).ok_or(Errno::ESTALE)
    }

    pub fn is_control(&self, ino: Ino) -> bool {
        matches!(self.inodes.get(ino), Some(Node::Control(_)))
    }

    fn dir_path(&self, ino: Ino) -> Result<String> {
        match self.node(ino)? {
            Node::Dir(path, _) => Ok(path),
            Node::Control(_) => Err(Errno::EPERM),
            Node::Key(..) | Node::Spool(_) | Node::Special(_) => Err(Errno::ENOTDIR),
        }
    }

    /// The file of this mount alone at `path`: a file that is being written, a FIFO or a socket.
    pub fn own_at(&self, path: &str) -> Option<Node> {
        let spool = self.inodes.spool_at(path).map(Node::Spool);
        spool.or_else(|| self.specials.at(path).map(Node::Special))
    }

    /// The control file `name` in `parent`: `.s4` in the root, and what is below it. `None` if the name is no control file.
    pub fn control_child(&self, parent: Ino, name: &OsStr) -> Result<Option<ControlPath>> {
        match self.node(parent)? {
            Node::Dir(path, _) if path.is_empty() && name == CONTROL => Ok(Some(ControlPath::Root)),
            Node::Control(dir) => self.control.child(&dir, name).map(Some),
            Node::Dir(..) | Node::Key(..) | Node::Spool(_) | Node::Special(_) => Ok(None),
        }
    }

    /// The control file that creating `name` in `parent` opens; `None` if `parent` is not a control directory.
    pub fn control_created(&self, parent: Ino, name: &OsStr) -> Result<Option<ControlPath>> {
        match self.node(parent)? {
            Node::Control(dir) => Control::created(&dir, name).map(Some),
            Node::Dir(..) | Node::Key(..) | Node::Spool(_) | Node::Special(_) => Ok(None),
        }
    }

    /// The key of `name` in directory `parent`.
    pub fn key_in(&self, parent: Ino, name: &OsStr) -> Result<Key> {
        Key::parse(&self.path_in(parent, name)?).map_err(|_| Errno::EINVAL)
    }

    /// `bucket/dir/name` of `name` in directory `parent`. Only its length is checked.
    pub fn path_in(&self, parent: Ino, name: &OsStr) -> Result<String> {
        let dir = self.dir_path(parent)?;
        if name.len() > MAX_PART || dir.len() + 1 + name.len() > MAX_KEY {
            return Err(Errno::ENAMETOOLONG);
        }
        let name = name.to_str().ok_or(Errno::EINVAL)?;
        Ok(if dir.is_empty() { name.to_owned() } else { format!("{dir}/{name}") })
    }

    /// The node that a key belongs to.
    pub fn home(&self, key: &Key) -> NodeId {
        self.client.cluster().node_of(key)
    }

    /// The data directory of the node of a key, if it is on this machine.
    pub fn local_dir(&self, key: &Key) -> Option<&Path> {
        self.local.dir(self.home(key))
    }

    /// What `path` stands for: only its home node knows. Errors: the node does not answer, or `path` is not a valid
    /// name.
    pub async fn look_up(&self, path: &str) -> Result<Found> {
        let home = self.client.home_of(path);
        let here = self.local.dir(home).map(|data| stored::stat(data, path).map_err(io_errno)).transpose()?;
        let stat = match here {
            Some(stat) if stat != Stat::Absent || self.local.knows_absent(home) => stat,
            _ => {
                let name = Dir::try_from(path.to_owned()).map_err(|_| Errno::EINVAL)?;
                self.client.resolve(&name).await.map_err(|e| errno(&e))?
            }
        };
        Ok(match stat {
            Stat::Key(stat) => Found::Key(Key::parse(path).map_err(|_| Errno::EINVAL)?, stat),
            Stat::Dir { mtime, mode } => Found::Dir(DirStat { mtime, mode }),
            Stat::Absent => Found::Absent,
        })
    }

    /// Errors: EEXIST if anything has the name of `key`.
    pub async fn check_free(&self, key: &Key) -> Result<()> {
        if self.own_at(key.as_str()).is_some() {
            return Err(Errno::EEXIST);
        }
        match self.look_up(key.as_str()).await? {
            Found::Absent => Ok(()),
            Found::Key(..) | Found::Dir(_) => Err(Errno::EEXIST),
        }
    }

    pub fn attributes(&self, node: &Node, ino: Ino) -> Result<Attributes> {
        attributes(node, ino, self.inodes.is_unlinked(ino), self.mounted).map_err(io_errno)
    }

    /// The attributes of `node`. Counts one more lookup, since the caller is about to pass its number to the kernel.
    pub fn enter(&self, node: Node) -> Result<Attributes> {
        let ino = self.inodes.enter(node.clone());
        self.attributes(&node, ino)
    }

    /// The value of an extended attribute, if there is one. Returns EOPNOTSUPP for those of the system, such as access
    /// lists and labels, so that `ls -l` asks once and not for each file.
    pub fn xattr(&self, ino: Ino, name: &OsStr) -> Result<Option<Vec<u8>>> {
        if !name.as_encoded_bytes().starts_with(b"user.") {
            return Err(Errno::EOPNOTSUPP);
        }
        Ok(match (self.node(ino)?, name.to_str()) {
            (Node::Key(key, _), Some("user.s4.node")) => Some(self.home(&key).to_string().into_bytes()),
            (Node::Key(_, stat), Some("user.s4.checksum")) => Some(stat.checksum.to_string().into_bytes()),
            (Node::Dir(path, _), Some(CLUSTER_ATTRIBUTE)) if path.is_empty() => {
                Some(self.client.cluster().digest().into_bytes())
            }
            _ => None,
        })
    }
}
