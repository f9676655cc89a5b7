//! The file system: what each operation means in the cluster. Knows no FUSE; every operation gives a result.

mod dirs;
mod files;
mod names;

pub use dirs::{DirEntry, DirStream};
pub use files::{Handle, OpenedFile};
pub use names::Wanted;

use crate::ahead::Sending;
use crate::control::Control;
use crate::errno::{Result, errno, io_errno};
use crate::inodes::{Ino, Inodes, Node};
use crate::local::LocalNodes;
use crate::readahead::Budget;
use crate::resting::Resting;
use nix::errno::Errno;
use s4::client::Client;
use s4::error::{Error, Result as S4Result};
use s4::key::{Key, MAX_KEY, MAX_PART};
use s4::placement::{self, NodeId};
use s4::protocol::{KeyStat, Stat};
use s4::stored;
use s4::time::from_nanoseconds;
use std::collections::HashMap;
use std::ffi::OsStr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

/// The time of every directory: the start of 2000, which no tool takes for a mistake.
const DIR_MTIME: i64 = 946_684_800_000_000_000;

/// How long df's figures may be used again.
const SPACE_FRESH: Duration = Duration::from_secs(1);

/// Looks at other processes at once.
const LOOKS: usize = 4;

/// How long the node of a key is waited for before the others are asked about its name too.
const HOME_FIRST: Duration = Duration::from_millis(20);

/// What stat shows.
#[derive(Debug, Clone, Copy)]
pub struct Attributes {
    pub ino: Ino,
    pub is_dir: bool,
    pub size: u64,
    /// Of 512 bytes.
    pub blocks: u64,
    pub mtime: SystemTime,
    pub mode: u32,
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
    /// Sends large files before they are closed.
    sending: Sending,
    /// Spools to be used again.
    pub resting: Resting,
    /// Where the mount is, as seen by its users.
    pub mountpoint: PathBuf,
    pub control: Control,
    pub budget: Budget,
    /// For looks at other processes under way.
    looks: Arc<Semaphore>,
    /// Subscribed to by each publish under way, so that the mount's end can wait for them.
    publishing: watch::Sender<()>,
    handles: Mutex<Handles>,
    space: Mutex<Option<(Instant, Space)>>,
    /// The directory in which a name was last looked for in vain. Where one is missing, others are about to be made.
    missed: Mutex<String>,
}

/// Guards what is open, by the number that the kernel knows.
#[derive(Default)]
struct Handles {
    next: u64,
    files: HashMap<u64, Arc<Handle>>,
    dirs: HashMap<u64, Arc<DirStream>>,
}

/// What a name turned out to be.
enum Found {
    Key(Key, KeyStat),
    Dir,
    Absent,
}

impl Fs {
    pub fn new(client: Client, local: LocalNodes, spool_dir: PathBuf, mountpoint: PathBuf) -> Self {
        Self {
            control: Control::new(client.clone(), mountpoint.clone()),
            sending: Sending::new(client.clone()),
            client,
            inodes: Inodes::default(),
            local,
            spool_dir,
            resting: Resting::default(),
            mountpoint,
            budget: Budget::new(),
            looks: Arc::new(Semaphore::new(LOOKS)),
            publishing: watch::Sender::new(()),
            handles: Mutex::default(),
            space: Mutex::default(),
            missed: Mutex::default(),
        }
    }

    /// Resolves when no file is being published.
    pub async fn all_published(&self) {
        self.publishing.closed().await;
    }

    fn node(&self, ino: Ino) -> Result<Node> {
        self.inodes.get(ino).ok_or(Errno::ESTALE)
    }

    fn dir_path(&self, ino: Ino) -> Result<String> {
        match self.node(ino)? {
            Node::Dir(path) => Ok(path),
            Node::Control(_) => Err(Errno::EPERM),
            Node::Key(..) | Node::Spool(_) => Err(Errno::ENOTDIR),
        }
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

    /// What `path` is. A key is known to its own node, which is asked first; a directory is wherever it has keys, so that
    /// the others are asked only where the name is no key, or its node is slow, or no key is expected. The first answer that
    /// says what it is counts: a node that hangs holds up nothing that others know.
    async fn find(&self, path: &str) -> Result<Found> {
        let (dir, name) = path.rsplit_once('/').unwrap_or(("", path));
        let expects_key = *self.missed.lock().unwrap_or_else(PoisonError::into_inner) != dir;
        // A bucket is never a key, so no node knows it better than others.
        let home = (!dir.is_empty()).then(|| placement::node_of_basename(name, self.client.cluster().len()));
        let found = self.find_with(path, home, expects_key).await?;
        let mut missed = self.missed.lock().unwrap_or_else(PoisonError::into_inner);
        match found {
            Found::Absent => dir.clone_into(&mut missed),
            Found::Key(..) if *missed == dir => missed.clear(),
            Found::Key(..) | Found::Dir => {}
        }
        drop(missed);
        Ok(found)
    }

    async fn find_with(&self, path: &str, home: Option<NodeId>, expects_key: bool) -> Result<Found> {
        let nodes = self.client.cluster().len();
        let mut remote = Vec::new();
        for node in 0..nodes {
            match self.local.dir(node) {
                Some(dir) => match stored::stat(dir, path).map_err(io_errno)? {
                    Stat::Key(stat) if Some(node) == home => return Ok(Found::Key(parse(path)?, stat)),
                    Stat::Dir { .. } => return Ok(Found::Dir),
                    Stat::Key(_) | Stat::Absent => {}
                },
                None => remote.push(node),
            }
        }
        let mut asked = Answers::default();
        if let Some(home) = home.filter(|home| expects_key && remote.contains(home)) {
            remote.retain(|&node| node != home);
            asked.ask(&self.client, &[home], path);
            if let Ok(Some(found)) = tokio::time::timeout(HOME_FIRST, asked.answer(path, Some(home))).await {
                return found;
            }
        }
        asked.ask(&self.client, &remote, path);
        match asked.answer(path, home).await {
            Some(found) => found,
            None => asked.failed.map_or(Ok(Found::Absent), |error| Err(errno(&error))),
        }
    }

    fn attributes(&self, node: &Node, ino: Ino) -> Result<Attributes> {
        // A directory lies on many nodes, with a time on each, which a mount cannot tell without asking all. So it shows
        // one that is the same for all, everywhere and always.
        let dir = Attributes {
            ino,
            is_dir: true,
            size: 4096,
            blocks: 8,
            mtime: from_nanoseconds(DIR_MTIME),
            mode: 0o755,
            stable: true,
        };
        Ok(match node {
            Node::Dir(_) => dir,
            Node::Key(_, stat) => Attributes {
                ino,
                is_dir: false,
                size: stat.checksum.len,
                blocks: stat.checksum.len.div_ceil(512),
                mtime: from_nanoseconds(stat.mtime),
                mode: stat.mode,
                stable: true,
            },
            Node::Spool(spool) => {
                let (size, blocks, mtime) = spool.look().map_err(io_errno)?;
                Attributes { ino, is_dir: false, size, blocks, mtime, mode: spool.mode(), stable: false }
            }
            Node::Control(path) => match path.is_dir() {
                true => dir,
                false => Attributes {
                    ino,
                    is_dir: false,
                    size: 0,
                    blocks: 0,
                    mtime: SystemTime::now(),
                    mode: 0o644,
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
            sum.total += health.total_bytes;
            sum.free += health.free_bytes.saturating_sub(health.reserve_bytes);
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
        let Node::Key(key, stat) = self.node(ino)? else {
            return Ok(None);
        };
        Ok(match name.to_str() {
            Some("user.s4.node") => Some(self.home(&key).to_string().into_bytes()),
            Some("user.s4.checksum") => Some(stat.checksum.to_string().into_bytes()),
            _ => None,
        })
    }

    /// The names of the extended attributes, each ended by a NUL.
    pub fn xattr_names(&self, ino: Ino) -> Result<&'static [u8]> {
        Ok(match self.node(ino)? {
            Node::Key(..) => b"user.s4.node\0user.s4.checksum\0",
            Node::Dir(_) | Node::Spool(_) | Node::Control(_) => b"",
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

/// Nodes that were asked what a name is.
#[derive(Default)]
struct Answers {
    /// Those that are here.
    answered: Vec<(NodeId, S4Result<Stat>)>,
    answers: JoinSet<(NodeId, S4Result<Stat>)>,
    /// Why it is not known whether there is a key.
    failed: Option<Error>,
}

impl Answers {
    fn ask(&mut self, client: &Client, nodes: &[NodeId], path: &str) {
        let mut left = nodes.to_vec();
        for (node, soon) in client.stat_soon(nodes, path) {
            left.retain(|&other| other != node);
            match soon {
                Ok(stat) => self.answered.push((node, stat)),
                Err(later) => {
                    let (client, path) = (client.clone(), path.to_owned());
                    self.answers.spawn(async move { (node, client.stat_later(later, &path).await) });
                }
            }
        }
        for node in left {
            let (client, path) = (client.clone(), path.to_owned());
            self.answers.spawn(async move { (node, client.stat(node, &path).await) });
        }
    }

    async fn next(&mut self) -> Option<(NodeId, S4Result<Stat>)> {
        match self.answered.pop() {
            Some(answered) => Some(answered),
            None => self.answers.join_next().await?.ok(),
        }
    }

    /// The first answer that says what it is; `None` once none of those asked does.
    async fn answer(&mut self, path: &str, home: Option<NodeId>) -> Option<Result<Found>> {
        while let Some((node, stat)) = self.next().await {
            let found = match stat {
                Ok(Stat::Key(stat)) if Some(node) == home => parse(path).map(|key| Found::Key(key, stat)),
                Ok(Stat::Dir { .. }) => Ok(Found::Dir),
                Ok(Stat::Key(_) | Stat::Absent) => continue,
                // Where its own node says that there is no key, others could only tell of a directory. One that is on dead
                // nodes alone is as gone as its keys.
                Err(error) if home.is_none_or(|home| home == node) => {
                    self.failed = Some(error);
                    continue;
                }
                Err(error) => {
                    tracing::debug!("{error}");
                    continue;
                }
            };
            // A request that is broken off would cost its connection.
            self.answers.detach_all();
            return Some(found);
        }
        None
    }
}

fn parse(path: &str) -> Result<Key> {
    Key::parse(path).map_err(|_| Errno::EINVAL)
}
