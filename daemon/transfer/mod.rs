//! Node to node transfer of the outputs of 1:n tasks. Outputs are grouped by destination; many are sent in one exchange
//! over a pooled connection.

use crate::jobs::command::{WRITER_TIMEOUT, cut};
use crate::jobs::fence::Fence;
use crate::jobs::files::Installed;
use crate::jobs::job::Job;
use crate::jobs::taskdir::TaskDir;
use crate::store::{Sorter, Store, open_linked, open_within};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag};
use nix::sys::stat::{SFlag, fstat, fstatat};
use s4::attribute::Mark;
use s4::client::{Client, PutAnswers, Puts, blocking};
use s4::error::{Error, ErrorKind, Result, reason};
use s4::file::{AtPosition, is_written};
use s4::key::{Dir, Key};
use s4::placement::NodeId;
use s4::protocol::Delivery;
use s4::wire::LARGE;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// Outputs of one task that are handled at a time, so that memory does not grow with their number.
const WINDOW: usize = 4096;
/// Limit of simultaneous exchanges with one node.
const PER_NODE: usize = 2;

/// Limit of bytes of a line that names an output: longer than any path.
const LINE: u64 = 4096;

/// The results of a 1:n command: its directory, and the names that it printed.
pub struct Outputs {
    pub dir: TaskDir,
    pub names: File,
    /// Files that the job itself put into the directory. If the command prints their names (with `ls`, for example) and
    /// has not changed them, they are not outputs.
    pub installed: Vec<Installed>,
}

impl Outputs {
    fn is_installed(&self, name: &[u8]) -> bool {
        let mut installed = self.installed.iter();
        installed.any(|file| file.name.as_bytes() == name && file.is_untouched(self.dir.path()))
    }
}

/// The task whose outputs are sent.
pub struct Sender<'a> {
    pub job: &'a Arc<Job>,
    pub input: &'a Key,
    /// Digest of the names and checksums of the task's inputs.
    pub inputs: u64,
}

/// Sends outputs to all nodes. Clones share the state.
#[derive(Clone)]
pub struct Transfers(Arc<Inner>);

struct Inner {
    store: Arc<Store>,
    client: Client,
    node: NodeId,
    /// For each node, a semaphore for exchanges.
    turns: Vec<Semaphore>,
}

impl Transfers {
    pub fn new(store: Arc<Store>, client: Client, node: NodeId) -> Self {
        let turns = client.cluster().ids().map(|_| Semaphore::new(PER_NODE)).collect();
        Self(Arc::new(Inner { store, client, node, turns }))
    }
}

/// An output that is being sent.
#[derive(Clone)]
struct Output {
    key: Key,
    path: PathBuf,
    /// The task's directory, and the file's path in it.
    dir: Arc<OwnedFd>,
    name: PathBuf,
    /// The length in bytes, when it was checked.
    len: u64,
}

impl Output {
    /// Publishes the output on this node.
    fn publish(&self, store: &Store, mark: Mark) -> Result<()> {
        let (file, is_itself) = self.open_whole()?;
        store.publish_left(&file, is_itself, &self.key, mark)
    }

    /// Opens the file that the command left, after waiting until nobody can write to it, and never a file outside the
    /// task's directory. The second value is true if no link led to it. Errors: it is no regular file.
    fn open_whole(&self) -> Result<(File, bool)> {
        let failed = |e: std::io::Error| Error::io(self.path.display(), &e);
        let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
        let (file, is_itself) = match open_within(&*self.dir, &self.name, flags) {
            Err(Errno::ELOOP) => (open_linked(&*self.dir, &self.name, flags), false),
            opened => (opened, true),
        };
        let file = File::from(file.map_err(|errno| failed(errno.into()))?);
        if !file.metadata().map_err(failed)?.is_file() {
            return Err(failed(std::io::Error::other("is not a regular file")));
        }
        match is_written(&file, WRITER_TIMEOUT) {
            false => Ok((file, is_itself)),
            true => Err(Error::new(
                ErrorKind::Command,
                format!("another process still has the output '{}' open for writing", self.name.display()),
            )),
        }
    }
}

/// Publishes every named output on its node, as `outdir/<input basename>/<file basename>`. Sends nothing unless all
/// named files exist. Also returns the number of published outputs, after a failure too.
pub async fn shuffle(transfers: &Transfers, sender: Sender<'_>, outputs: Outputs) -> (u64, Result<()>) {
    let mut published = 0;
    let result = shuffle_windows(transfers, &sender, outputs, &mut published).await;
    (published, result)
}

async fn shuffle_windows(
    transfers: &Transfers,
    sender: &Sender<'_>,
    outputs: Outputs,
    published: &mut u64,
) -> Result<()> {
    let outdir = Dir::try_from(format!("{}/{}", sender.job.spec.outdir.as_str(), sender.input.basename()))?;
    let (store, fence) = (transfers.0.store.clone(), sender.job.fence.clone());
    let mut names = blocking(move || Names::open(&store, outputs, outdir, fence)).await?;
    let id = sender.job.spec.id.clone();
    let delivery = Arc::new(Delivery { job: id, inputs: sender.inputs, outputs: names.count });
    let result = loop {
        let (window, rest) = blocking(move || (names.window(), names)).await;
        names = rest;
        match window {
            Ok(window) if window.is_empty() => break Ok(()),
            Ok(window) => match transfers.send(sender.job, &delivery, window, published).await {
                Ok(()) => {}
                failed => break failed,
            },
            Err(error) => break Err(error),
        }
    };
    // Dropping the names also empties the task's directory.
    blocking(move || drop(names)).await;
    result
}

/// Reads the names that a command printed, from a position on.
struct Names {
    outputs: Outputs,
    /// The directory of the command.
    dir: Arc<OwnedFd>,
    outdir: Dir,
    fence: Arc<Fence>,
    position: u64,
    count: u32,
}

impl Names {
    /// Checks that every named file exists, and that no name is repeated. Blocks.
    fn open(store: &Store, outputs: Outputs, outdir: Dir, fence: Arc<Fence>) -> Result<Self> {
        let path = outputs.dir.path();
        let dir = store.data_dir().open_at(path, OFlag::O_PATH | OFlag::O_DIRECTORY);
        let dir = Arc::new(dir.map_err(|errno| Error::io(path.display(), &errno.into()))?);
        let mut names = Self { outputs, dir, outdir, fence, position: 0, count: 0 };
        let count = names.check_all(store)?;
        let too_many = |_| Error::new(ErrorKind::TooLarge, format!("the command printed {count} names"));
        names.count = u32::try_from(count).map_err(too_many)?;
        names.position = 0;
        Ok(names)
    }

    /// Returns the number of names.
    fn check_all(&mut self, store: &Store) -> Result<u64> {
        let mut names = Sorter::new(store.root());
        let mut count = 0;
        loop {
            let window = self.window()?;
            if window.is_empty() {
                break;
            }
            count += window.len() as u64;
            for output in window {
                names.push(output.key.basename().as_bytes().to_vec())?;
            }
        }
        let mut last = None;
        for name in names.finish()? {
            let name = Some(name?);
            if name == last {
                let name = String::from_utf8_lossy(name.as_deref().unwrap_or_default()).into_owned();
                return Err(Error::new(
                    ErrorKind::BadName,
                    format!("the command printed two files of the name '{name}'"),
                ));
            }
            last = name;
        }
        Ok(count)
    }

    /// The next outputs; empty at the end. Errors: a name that does not exist, is no file, or gives no valid key.
    fn window(&mut self) -> Result<Vec<Output>> {
        let mut reader = BufReader::new(AtPosition::new(&self.outputs.names, self.position));
        let mut window = Vec::new();
        let mut line = Vec::new();
        while window.len() < WINDOW {
            line.clear();
            let read = reader.by_ref().take(LINE).read_until(b'\n', &mut line);
            let n = read.map_err(|e| Error::io("the names that the command printed", &e))? as u64;
            if n == 0 {
                break;
            }
            if n == LINE && !line.ends_with(b"\n") {
                return Err(printed(
                    &line,
                    "which is longer than any name; print the names of the outputs, one a line",
                ));
            }
            if !self.fence.is_open() {
                return Err(Error::new(ErrorKind::Cancelled, "the job has ended"));
            }
            self.position += n;
            let name = line.strip_suffix(b"\n").unwrap_or(&line);
            if !name.is_empty() && !self.outputs.is_installed(name.strip_prefix(b"./").unwrap_or(name)) {
                window.push(self.output(name)?);
            }
        }
        Ok(window)
    }
}

fn printed(name: &[u8], why: &str) -> Error {
    Error::new(ErrorKind::BadName, format!("the command printed '{}', {why}", cut(&String::from_utf8_lossy(name))))
}

impl Names {
    fn output(&self, name: &[u8]) -> Result<Output> {
        let refuse = |why: &str| printed(name, why);
        let text = std::str::from_utf8(name).map_err(|_| refuse("which is not UTF-8"))?;
        if text.starts_with('/') {
            return Err(refuse("an absolute path; print the name as it is in the command's directory"));
        }
        let plain = |part: Component| matches!(part, Component::Normal(_) | Component::CurDir);
        if !Path::new(text).components().all(plain) {
            return Err(refuse("which is not in its directory"));
        }
        let path = self.outputs.dir.path().join(text);
        let basename = path.file_name().and_then(|name| name.to_str()).ok_or_else(|| refuse("which names no file"))?;
        let key = self.outdir.join(basename).map_err(|e| refuse(&format!("which makes no key: {e}")))?;
        let len = match self.len_of(Path::new(text)) {
            Ok(Some(len)) => len,
            Ok(None) => return Err(refuse("which is not a regular file")),
            Err(Errno::EXDEV) => {
                return Err(refuse("which leads out of its directory, or to a file system mounted in it"));
            }
            Err(Errno::ENOENT | Errno::ENOTDIR) => return Err(refuse("but there is no such file in its directory")),
            Err(errno) => return Err(refuse(&format!("which cannot be opened: {}", reason(&errno.into())))),
        };
        Ok(Output { len, key, path, dir: self.dir.clone(), name: text.into() })
    }

    /// The length of the file `name`; `None` if it is no regular file.
    fn len_of(&self, name: &Path) -> nix::Result<Option<u64>> {
        // A file in the directory itself, the usual case, takes one system call.
        let mut found = match name.components().count() {
            1 => fstatat(&*self.dir, name, AtFlags::AT_SYMLINK_NOFOLLOW)?,
            _ => fstat(open_linked(&*self.dir, name, OFlag::O_PATH)?)?,
        };
        if SFlag::from_bits_truncate(found.st_mode) & SFlag::S_IFMT == SFlag::S_IFLNK {
            found = fstat(open_linked(&*self.dir, name, OFlag::O_PATH)?)?;
        }
        let is_file = SFlag::from_bits_truncate(found.st_mode) & SFlag::S_IFMT == SFlag::S_IFREG;
        Ok(is_file.then_some(found.st_size.unsigned_abs()))
    }
}

impl Transfers {
    /// Sends the only output of a task to its node.
    pub async fn send_output(&self, sender: Sender<'_>, output: &Key, file: File) -> Result<()> {
        let delivery = Delivery { job: sender.job.spec.id.clone(), inputs: sender.inputs, outputs: 1 };
        tokio::select! {
            sent = self.0.client.send_file(output, Some(&delivery), file, output.as_str()) => sent.map(drop),
            // If the job ends, stop waiting for a silent node.
            () = sender.job.ended_from_outside() => Err(Error::new(ErrorKind::Cancelled, "the job has ended")),
        }
    }

    async fn send(
        &self,
        job: &Arc<Job>,
        delivery: &Arc<Delivery>,
        outputs: Vec<Output>,
        published: &mut u64,
    ) -> Result<()> {
        let mut groups: BTreeMap<NodeId, Vec<Output>> = BTreeMap::new();
        for output in outputs {
            groups.entry(self.0.client.cluster().node_of(&output.key)).or_default().push(output);
        }
        let each =
            groups.iter().flat_map(|(&node, group)| group.iter().map(move |output| (&output.key, node, output.len)));
        job.sent.add(self.0.client.cluster().len(), each);
        // The task's node is the home of the outputs' directory. It records the receivers as holders before it sends.
        let (store, own) = (self.0.store.clone(), self.0.node);
        let holders: Vec<NodeId> = groups.keys().copied().filter(|&node| node != own).collect();
        let outdir = groups.values().flatten().next().map(|output| output.key.parent().to_owned());
        let receivers = match outdir.map(Dir::try_from).transpose()? {
            Some(outdir) => Some(blocking(move || store.begin_sending(outdir, &holders)).await?),
            None => None,
        };
        let sent = self.send_groups(job, delivery, groups, published).await;
        if let (Ok(()), Some(receivers)) = (&sent, receivers) {
            receivers.end();
        }
        sent
    }

    async fn send_groups(
        &self,
        job: &Arc<Job>,
        delivery: &Arc<Delivery>,
        groups: BTreeMap<NodeId, Vec<Output>>,
        published: &mut u64,
    ) -> Result<()> {
        let mut sending = JoinSet::new();
        for (node, group) in groups {
            let (transfers, job, delivery) = (self.clone(), job.clone(), delivery.clone());
            sending.spawn(async move {
                match node == transfers.0.node {
                    true => transfers.publish_here(job, &delivery, group).await,
                    false => transfers.send_to(node, job.fence.clone(), &delivery, group).await,
                }
            });
        }
        let ended = job.ended_from_outside();
        tokio::pin!(ended);
        let mut result = Ok(());
        loop {
            let sent = tokio::select! {
                sent = sending.join_next() => sent,
                // If the job ends, stop waiting for a silent node.
                () = &mut ended => return Err(Error::new(ErrorKind::Cancelled, "the job has ended")),
            };
            let Some(sent) = sent else {
                return result;
            };
            let (count, sent) = sent.unwrap_or_else(|e| (0, Err(Error::new(ErrorKind::Io, e.to_string()))));
            *published += count;
            result = result.and(sent);
        }
    }

    async fn publish_here(&self, job: Arc<Job>, delivery: &Delivery, group: Vec<Output>) -> (u64, Result<()>) {
        let (store, mark) = (self.0.store.clone(), job.mark(delivery.inputs, delivery.outputs));
        blocking(move || {
            let mut count = 0;
            let result = group.iter().try_for_each(|output| {
                job.fence.pass(|| output.publish(&store, mark))?;
                count += 1;
                Ok(())
            });
            (count, result)
        })
        .await
    }

    fn first_refusal(&self, node: NodeId, answers: PutAnswers) -> Result<()> {
        let first = answers.errors.into_first();
        first.map_or(Ok(()), |error| Err(error.of_peer(self.0.client.cluster().name(node))))
    }

    /// Sends each large output over its own connection, and the others over one.
    async fn send_to(
        &self,
        node: NodeId,
        fence: Arc<Fence>,
        delivery: &Delivery,
        group: Vec<Output>,
    ) -> (u64, Result<()>) {
        let _turn = self.0.turns[node].acquire().await;
        let (large, group): (Vec<_>, Vec<_>) = group.into_iter().partition(|output| output.len >= LARGE);
        let mut published = 0;
        for output in large {
            if let Err(error) = self.send_large(delivery, &output).await {
                return (published, Err(error));
            }
            published += 1;
        }
        if group.is_empty() {
            return (published, Ok(()));
        }
        let put = self.0.client.put_many(node, Some(delivery), move |puts| put_all(puts, &group, &fence));
        let (sent, answers) = put.await;
        let sent = sent.and_then(|sent| sent);
        (published + answers.published, self.first_refusal(node, answers).and(sent))
    }

    async fn send_large(&self, delivery: &Delivery, output: &Output) -> Result<()> {
        let opening = output.clone();
        let (file, _) = blocking(move || opening.open_whole()).await?;
        self.0.client.send_file(&output.key, Some(delivery), file, output.key.as_str()).await.map(drop)
    }
}

/// Puts outputs until one cannot be read; its error is the inner one.
fn put_all(puts: &mut Puts, group: &[Output], fence: &Fence) -> Result<Result<()>> {
    for output in group {
        if !fence.is_open() {
            return Ok(Err(Error::new(ErrorKind::Cancelled, "the job has ended")));
        }
        let failed = |e: std::io::Error| Error::io(output.path.display(), &e);
        let opened = output.open_whole().and_then(|(file, _)| Ok((file.metadata().map_err(failed)?.len(), file)));
        let (len, file) = match opened {
            Ok(opened) => opened,
            Err(error) => return Ok(Err(error)),
        };
        if let Err(error) = puts.put(&output.key, file, len, output.key.as_str())? {
            return Ok(Err(error));
        }
    }
    Ok(Ok(()))
}
