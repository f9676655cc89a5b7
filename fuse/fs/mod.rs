//! The file system: what each operation means in the cluster. Knows no FUSE; every operation gives a result.

mod dirs;
mod files;
mod find;
mod names;
mod publish;

pub use dirs::{DirEntry, DirStream};
pub use files::{Handle, OpenedFile};
pub use names::Wanted;

use crate::ahead::Sending;
use crate::control::Control;
use crate::errno::{Result, errno, io_errno};
use crate::growing::Growing;
use crate::inodes::{Ino, Inodes, Node};
use crate::local::LocalNodes;
use crate::readahead::Budget;
use crate::specials::{Kind, Specials};
use crate::spool_files::SpoolFiles;
pub use find::DirStat;
use find::Found;
use nix::errno::Errno;
use s4::client::Client;
use s4::key::{Key, MAX_KEY, MAX_PART};
use s4::mounts::CLUSTER_ATTRIBUTE;
use s4::placement::NodeId;
use s4::time::from_nanoseconds;
use std::collections::HashMap;
use std::ffi::OsStr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::{Semaphore, watch};

/// How long df's figures may be used again.
const SPACE_FRESH: Duration = Duration::from_secs(1);

/// Looks at other processes at once.
const LOOKS: usize = 4;

/// What stat shows.
#[derive(Debug, Clone, Copy)]
pub struct Attributes {
    pub ino: Ino,
    pub is_dir: bool,
    /// Neither a directory nor a regular file.
    pub special: Option<Kind>,
    pub size: u64,
    /// Of 512 bytes.
    pub blocks: u64,
    pub mtime: SystemTime,
    pub mode: u32,
    /// It has no name any more.
    pub unlinked: bool,
    /// False for what changes while it is looked at, which the kernel must not cache.
    pub stable: bool,
}

/// Bytes in all and free, summed over the nodes.
#[derive(Debug, Clone, Copy, Default)]
pub struct Space {
    pub total: u64,
    pub free: u64,
}

pub struct Fs {
    pub client: Client,
    pub inodes: Inodes,
    pub local: LocalNodes,
    /// Where spools are whose key's node is not on this machine.
    pub spool_dir: PathBuf,
    /// Looks after files that become large before they are closed.
    growing: Growing,
    spool_files: SpoolFiles,
    pub control: Control,
    pub budget: Budget,
    /// The kernel may write files without asking us.
    pub passthrough: Arc<AtomicBool>,
    /// For looks at other processes under way.
    looks: Arc<Semaphore>,
    /// Subscribed to by each publish under way, so that the mount's end can wait for them.
    publishing: watch::Sender<()>,
    /// A publish has failed of which nobody was told.
    lost: AtomicBool,
    handles: Mutex<Handles>,
    space: Mutex<Option<(Instant, Space)>>,
    /// The time of the root, which has no home.
    mounted: SystemTime,
    specials: Specials,
}

/// Guards what is open, by the number that the kernel knows.
#[derive(Default)]
struct Handles {
    next: u64,
    files: HashMap<u64, Arc<Handle>>,
    dirs: HashMap<u64, Arc<DirStream>>,
}

impl Fs {
    pub fn new(client: Client, local: LocalNodes, spool_dir: PathBuf, mountpoint: PathBuf) -> Self {
        Self {
            control: Control::new(client.clone(), mountpoint),
            growing: Growing::new(Sending::new(client.clone())),
            client,
            inodes: Inodes::default(),
            spool_files: SpoolFiles::new(local.dirs(), &spool_dir),
            local,
            spool_dir,
            budget: Budget::new(),
            passthrough: Arc::default(),
            looks: Arc::new(Semaphore::new(LOOKS)),
            publishing: watch::Sender::new(()),
            lost: AtomicBool::default(),
            handles: Mutex::default(),
            space: Mutex::default(),
            mounted: SystemTime::now(),
            specials: Specials::default(),
        }
    }

    /// True while a file is being published.
    pub fn is_publishing(&self) -> bool {
        self.publishing.receiver_count() > 0
    }

    /// True if what was closed is in no key, and only the log tells.
    pub fn has_lost(&self) -> bool {
        self.lost.load(Ordering::Relaxed)
    }

    /// Resolves when no file is being published.
    pub async fn all_published(&self) {
        self.publishing.closed().await;
    }

    fn node(&self, ino: Ino) -> Result<Node> {
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

    /// What this mount alone has at `path`: a file being written, a FIFO or a socket.
    fn own_at(&self, path: &str) -> Option<Node> {
        let spool = self.inodes.spool_at(path).map(Node::Spool);
        spool.or_else(|| self.specials.at(path).map(Node::Special))
    }

    /// The key of `name` in directory `parent`.
    fn key_in(&self, parent: Ino, name: &OsStr) -> Result<Key> {
        Key::parse(&self.path_in(parent, name)?).map_err(|_| Errno::EINVAL)
    }

    /// `bucket/dir/name` of `name` in directory `parent`. Only its length is checked.
    fn path_in(&self, parent: Ino, name: &OsStr) -> Result<String> {
        let dir = self.dir_path(parent)?;
        if name.len() > MAX_PART || dir.len() + 1 + name.len() > MAX_KEY {
            return Err(Errno::ENAMETOOLONG);
        }
        let name = name.to_str().ok_or(Errno::EINVAL)?;
        Ok(if dir.is_empty() { name.to_owned() } else { format!("{dir}/{name}") })
    }

    fn attributes(&self, node: &Node, ino: Ino) -> Result<Attributes> {
        let dir = Attributes {
            ino,
            is_dir: true,
            special: None,
            size: 4096,
            blocks: 8,
            mtime: self.mounted,
            mode: 0o755,
            unlinked: false,
            stable: true,
        };
        Ok(match node {
            Node::Dir(path, _) if path.is_empty() => dir,
            Node::Dir(_, stat) => Attributes { mtime: from_nanoseconds(stat.mtime), mode: stat.mode, ..dir },
            Node::Key(_, stat) => Attributes {
                ino,
                is_dir: false,
                special: None,
                size: stat.checksum.len,
                blocks: stat.checksum.len.div_ceil(512),
                mtime: from_nanoseconds(stat.mtime),
                mode: stat.mode,
                unlinked: self.inodes.is_unlinked(ino),
                stable: true,
            },
            Node::Spool(spool) => {
                let (size, blocks, mtime) = spool.look().map_err(io_errno)?;
                let (mode, unlinked) = (spool.mode(), self.inodes.is_unlinked(ino));
                Attributes { ino, is_dir: false, special: None, size, blocks, mtime, mode, unlinked, stable: false }
            }
            Node::Special(special) => {
                let (mode, mtime) = special.attributes();
                let (special, unlinked) = (Some(special.kind), self.inodes.is_unlinked(ino));
                Attributes { ino, is_dir: false, special, size: 0, blocks: 0, mtime, mode, unlinked, stable: true }
            }
            Node::Control(path) => match path.is_dir() {
                true => Attributes { mode: 0o700, ..dir },
                false => Attributes {
                    ino,
                    is_dir: false,
                    special: None,
                    size: 0,
                    blocks: 0,
                    mtime: SystemTime::now(),
                    mode: 0o600,
                    unlinked: false,
                    stable: false,
                },
            },
        })
    }

    /// Bytes in all and free of the whole cluster.
    pub async fn space(&self) -> Result<Space> {
        let known = *self.space.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, space)) = known
            && at.elapsed() < SPACE_FRESH
        {
            return Ok(space);
        }
        let mut sum = Space::default();
        for health in self.client.on_every_node(|client, node| async move { client.health(node).await }).await {
            let health = health.map_err(|e| errno(&e))?;
            // Whatever a node says.
            sum.total = sum.total.saturating_add(health.total_bytes);
            sum.free = sum.free.saturating_add(health.free_bytes.saturating_sub(health.reserve_bytes));
        }
        *self.space.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), sum));
        Ok(sum)
    }

    /// The value of an extended attribute; `None` for one that is not there. Only those of users can be there at all:
    /// told so of its access lists and labels, `ls -l` asks once and not for each file.
    pub fn xattr(&self, ino: Ino, name: &OsStr) -> Result<Option<Vec<u8>>> {
        if !name.as_encoded_bytes().starts_with(b"user.") {
            return Err(Errno::ENOTSUP);
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

    fn home(&self, key: &Key) -> NodeId {
        self.client.cluster().node_of(key)
    }

    fn handles(&self) -> MutexGuard<'_, Handles> {
        self.handles.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Handles {
    fn add_file(&mut self, handle: Handle) -> u64 {
        self.next += 1;
        self.files.insert(self.next, Arc::new(handle));
        self.next
    }

    fn add_dir(&mut self, stream: DirStream) -> u64 {
        self.next += 1;
        self.dirs.insert(self.next, Arc::new(stream));
        self.next
    }
}
