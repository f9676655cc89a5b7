//! Control files under `.s4/`: the cluster's nodes as text, and maps that are started by writing and followed by
//! reading. It knows paths below `.s4/` only; inode numbers, and where `.s4` is, are left to the file system.

mod job;
pub mod path;

use crate::errno::Result;
use crate::proc::{AfterClose, Caller};
use bytes::Bytes;
use job::{Follower, MountJob};
use nix::errno::Errno;
use path::{ControlPath, JobFile};
use s4::client::Client;
use s4::protocol::{JobId, MapKind};
use std::ffi::OsStr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The longest text that starts a job, in bytes: what one argument of a program may hold.
const MAX_TEXT: usize = 128 * 1024;
/// How many jobs are listed: the latest.
const REMEMBERED: usize = 200;

const KINDS: [MapKind; 3] = [MapKind::Map, MapKind::MapToN, MapKind::MapFromN];

const JOB_FILES: [(&str, JobFile); 4] = [
    ("status", JobFile::Status),
    ("failed", JobFile::Failed),
    ("stderr", JobFile::Stderr),
    ("cancel", JobFile::Cancel),
];

/// An open control file.
pub enum ControlFile {
    /// Its text when it was opened.
    Text(Bytes),
    /// A map that the written text will start.
    Start {
        control: Control,
        kind: MapKind,
        name: String,
        writer: u32,
        text: Mutex<Vec<u8>>,
        /// The last process that closed it was killed.
        killed: AtomicBool,
    },
    Follow(Follower),
    Cancel {
        client: Client,
        id: JobId,
        written: Mutex<bool>,
    },
}

/// The control files of a mount. Clones share their jobs.
#[derive(Clone)]
pub struct Control {
    client: Client,
    mountpoint: PathBuf,
    /// Guards the jobs that were started here, oldest first.
    jobs: Arc<Mutex<Vec<Arc<MountJob>>>>,
}

impl Control {
    pub fn new(client: Client, mountpoint: PathBuf) -> Self {
        Self { client, mountpoint, jobs: Arc::default() }
    }

    /// The entry `name` of a control directory.
    pub fn child(&self, dir: &ControlPath, name: &OsStr) -> Result<ControlPath> {
        let child = self.children(dir).into_iter().find(|(child, _)| name == &**child);
        child.map(|(_, path)| path).ok_or(Errno::ENOENT)
    }

    /// The control file that creating `name` in a control directory opens.
    pub fn created(dir: &ControlPath, name: &OsStr) -> Result<ControlPath> {
        match dir {
            ControlPath::Maps(kind) => {
                let name = name.to_str().ok_or(Errno::EINVAL)?;
                Ok(ControlPath::Map(*kind, name.to_owned()))
            }
            ControlPath::Root
            | ControlPath::Nodes
            | ControlPath::Map(..)
            | ControlPath::Jobs
            | ControlPath::Job(_)
            | ControlPath::JobFile(..) => Err(Errno::EPERM),
        }
    }

    /// The entries of a control directory. A file has none.
    pub fn children(&self, dir: &ControlPath) -> Vec<(String, ControlPath)> {
        match dir {
            ControlPath::Root => {
                let maps = KINDS.iter().map(|kind| (kind.to_string(), ControlPath::Maps(*kind)));
                let others = [("nodes".to_owned(), ControlPath::Nodes), ("jobs".to_owned(), ControlPath::Jobs)];
                others.into_iter().chain(maps).collect()
            }
            ControlPath::Maps(kind) => {
                let jobs = self.lock();
                let mut names: Vec<&str> = jobs.iter().filter(|job| job.kind == *kind).map(|job| &*job.name).collect();
                names.sort_unstable();
                names.dedup();
                names.into_iter().map(|name| (name.to_owned(), ControlPath::Map(*kind, name.to_owned()))).collect()
            }
            ControlPath::Jobs => {
                let jobs = self.lock();
                // A refused job has no id that a node knows.
                let started = jobs.iter().filter(|job| job.was_started());
                started.map(|job| (job.id.to_string(), ControlPath::Job(job.id.clone()))).collect()
            }
            ControlPath::Job(id) => JOB_FILES
                .iter()
                .map(|(name, file)| ((*name).to_owned(), ControlPath::JobFile(id.clone(), *file)))
                .collect(),
            ControlPath::Nodes | ControlPath::Map(..) | ControlPath::JobFile(..) => Vec::new(),
        }
    }

    pub async fn open(&self, path: &ControlPath, writes: bool, caller: Caller) -> Result<ControlFile> {
        match (path, writes) {
            (ControlPath::Nodes, false) => Ok(ControlFile::Text(self.nodes().await.into())),
            (ControlPath::Map(kind, name), true) => {
                let (text, killed) = (Mutex::default(), AtomicBool::new(false));
                let writer = caller.process();
                Ok(ControlFile::Start { control: self.clone(), kind: *kind, name: name.clone(), writer, text, killed })
            }
            (ControlPath::Map(kind, name), false) => {
                let latest = |job: &&Arc<MountJob>| job.kind == *kind && job.name == *name;
                let job = self.lock().iter().rev().find(latest).cloned().ok_or(Errno::ENOENT)?;
                Ok(ControlFile::Follow(Follower::new(job)))
            }
            (ControlPath::JobFile(id, JobFile::Cancel), true) => {
                Ok(ControlFile::Cancel { client: self.client.clone(), id: id.clone(), written: Mutex::new(false) })
            }
            (ControlPath::JobFile(id, file), false) => {
                let job = self.lock().iter().find(|job| job.id == *id).cloned().ok_or(Errno::ENOENT)?;
                Ok(ControlFile::Text(match file {
                    JobFile::Status => job.status().into(),
                    JobFile::Failed => job.failed().into(),
                    JobFile::Stderr => job.stderr().into(),
                    JobFile::Cancel => Bytes::new(),
                }))
            }
            (ControlPath::Nodes | ControlPath::JobFile(..), true) => Err(Errno::EPERM),
            (ControlPath::Root | ControlPath::Maps(_) | ControlPath::Jobs | ControlPath::Job(_), _) => {
                Err(Errno::EISDIR)
            }
        }
    }

    /// A line for each node: number, address, state, keys, bytes, free, running tasks.
    async fn nodes(&self) -> String {
        let lines = self.client.on_every_node(|client, node| async move {
            let address = client.cluster().address(node).clone();
            match (client.health(node).await, client.usage(node).await) {
                (Ok(health), Ok(usage)) => {
                    let (keys, bytes, free) = (usage.keys, usage.bytes, health.free_bytes);
                    format!("{node} {address} up {keys} {bytes} {free} {}\n", health.running_tasks)
                }
                _ => format!("{node} {address} down - - - -\n"),
            }
        });
        lines.await.concat()
    }

    /// Starts the job that `text` describes.
    async fn start(&self, kind: MapKind, name: &str, text: &[u8]) -> Result<()> {
        let (job, started) = match self.try_start(kind, name, text).await {
            Ok(job) => (job, Ok(())),
            Err(error) => {
                tracing::warn!("{kind}/{name}: {error}");
                (MountJob::refused(kind, name.to_owned(), &error), Err(Errno::from_raw(error.kind().errno())))
            }
        };
        let mut jobs = self.lock();
        jobs.push(job);
        if jobs.len() > REMEMBERED {
            jobs.remove(0);
        }
        started
    }

    async fn try_start(&self, kind: MapKind, name: &str, text: &[u8]) -> s4::error::Result<Arc<MountJob>> {
        let spec = job::parse(kind, text, &self.mountpoint)?;
        match self.client.begin_job(&spec).await {
            Ok(tasks) => Ok(MountJob::follow(self.client.clone(), name.to_owned(), &spec, tasks)),
            Err(error) => {
                self.client.cancel_everywhere(&spec.id).await;
                Err(error)
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<MountJob>>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ControlFile {
    /// The text from `offset` on. A reader that follows a job waits for news, but never longer than a heartbeat.
    pub async fn read(&self, offset: u64, size: usize) -> Result<Bytes> {
        match self {
            Self::Text(text) => {
                let from = (offset as usize).min(text.len());
                Ok(text.slice(from..from.saturating_add(size).min(text.len())))
            }
            Self::Follow(follower) => follower.read(size).await,
            Self::Start { .. } | Self::Cancel { .. } => Err(Errno::EBADF),
        }
    }

    pub fn write(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        match self {
            Self::Start { text, .. } => {
                let mut text = text.lock().unwrap_or_else(PoisonError::into_inner);
                if offset != text.len() as u64 {
                    return Err(Errno::ESPIPE);
                }
                if text.len() + bytes.len() > MAX_TEXT {
                    // A part of a command must not run.
                    text.clear();
                    return Err(Errno::EFBIG);
                }
                text.extend_from_slice(bytes);
                Ok(())
            }
            Self::Cancel { written, .. } => {
                *written.lock().unwrap_or_else(PoisonError::into_inner) = true;
                Ok(())
            }
            Self::Text(_) | Self::Follow(_) => Err(Errno::EBADF),
        }
    }

    /// Executes the written text, once, at the close that would publish a regular file.
    pub async fn close(&self, ino: u64, caller: Caller) -> Result<()> {
        match self {
            Self::Start { writer, killed, .. } => {
                let left = caller.after_close(ino, false);
                killed.store(left == AfterClose::Killed, Ordering::Relaxed);
                match left == AfterClose::Closed && caller.is_of(*writer) {
                    true => self.start().await,
                    false => Ok(()),
                }
            }
            Self::Cancel { client, id, written } => {
                let written = std::mem::take(&mut *written.lock().unwrap_or_else(PoisonError::into_inner));
                if written {
                    client.cancel_everywhere(id).await;
                }
                Ok(())
            }
            Self::Text(_) | Self::Follow(_) => Ok(()),
        }
    }

    /// Called after the last descriptor was closed; errors can only be logged. Starts a map that no close has started,
    /// for example because a child process or execve(2) closed the file.
    pub async fn release(&self) {
        if let Self::Start { name, killed, .. } = self
            && !killed.load(Ordering::Relaxed)
            && let Err(errno) = self.start().await
        {
            tracing::error!("the map {name} is not started: {}", errno.desc());
        }
    }

    /// Starts the job that the written text describes, once.
    async fn start(&self) -> Result<()> {
        let Self::Start { control, kind, name, text, .. } = self else { return Ok(()) };
        let text = std::mem::take(&mut *text.lock().unwrap_or_else(PoisonError::into_inner));
        match text.is_empty() {
            true => Ok(()),
            false => control.start(*kind, name, &text).await,
        }
    }
}
