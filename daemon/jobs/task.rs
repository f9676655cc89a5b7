//! Runs one task of a map: the command, the verification of its inputs, and the publishing of its outputs.

use super::command::{self, Control, Killed, Setup, WRITER_TIMEOUT, cut};
use super::inputs::{Reading, TaskInputs};
use super::job::Job;
use super::logs::TaskLog;
use super::rerun::may_replace;
use super::shared::{Shared, Slot};
use super::tasks::Task;
use crate::store::{Store, Watch};
use crate::transfer::{self, Outputs, Sender};
use s4::checksum::Checksum;
use s4::client::blocking;
use s4::error::{Error, Result};
use s4::file::{self, AtPosition};
use s4::hasher;
use s4::key::{Key, Prefix};
use s4::protocol::{JobSpec, TaskFailure};
use s4::time::seconds;
use std::fs::File;
use std::io::{BufRead, BufReader, Seek};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Why a task failed: one line for the user, and the end of the command's stderr.
pub struct Failed {
    reason: String,
    stderr: Vec<u8>,
    /// Outputs that were published nevertheless.
    pub published: u64,
    /// The command itself failed, so that a retry may help.
    by_command: bool,
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self { reason: error.to_string(), stderr: Vec::new(), published: 0, by_command: false }
    }
}

impl Failed {
    pub fn of_command(reason: String, stderr: Vec<u8>) -> Self {
        Self { reason, stderr, published: 0, by_command: true }
    }

    pub fn report(self, node: usize, key: Key) -> TaskFailure {
        let mut reason = self.reason;
        if let Some((at, _)) = reason.char_indices().nth(LONGEST_REASON) {
            reason.truncate(at);
            reason.push_str("...");
        }
        TaskFailure { node, key, reason, stderr: String::from_utf8_lossy(&self.stderr).into_owned() }
    }
}

/// Limit of characters of an error message, whatever the command has printed.
const LONGEST_REASON: usize = 4096;

pub type TaskResult<T> = std::result::Result<T, Failed>;

/// The data that the thread of a running command needs.
struct Work {
    shared: Arc<Shared>,
    job: Arc<Job>,
    task: Task,
    control: Arc<Control>,
    /// The directory of the command.
    dir: PathBuf,
}

/// Runs one task in `dir`, publishes its outputs, and returns their number. `slot` is released when only the delivery
/// is left.
pub async fn run(
    shared: Arc<Shared>,
    job: Arc<Job>,
    task: Task,
    control: Arc<Control>,
    dir: PathBuf,
    slot: &mut Option<Slot>,
) -> TaskResult<u64> {
    let work = Arc::new(Work { shared, job, task, control, dir });
    let (shared, job, task) = (&work.shared, &work.job, &work.task);
    let ended = {
        let work = work.clone();
        blocking(move || work.run_with_retries()).await?
    };
    let (outputs, inputs) = match ended {
        Ended::Published(inputs) => (1, inputs),
        Ended::Elsewhere { output, file, inputs } => {
            work.clear_away().await?;
            let sender = Sender { job, input: &task.key, inputs: inputs.digest() };
            shared.transfers.send_output(sender, &output, file).await?;
            (1, inputs)
        }
        Ended::Named { outputs, inputs } => {
            // The slot is kept while waiting to deliver, so that finished directories do not pile up.
            let delivery = shared.deliveries.acquire().await;
            drop(slot.take());
            work.clear_away().await?;
            let sender = Sender { job, input: &task.key, inputs: inputs.digest() };
            let (published, result) = transfer::shuffle(&shared.transfers, sender, outputs).await;
            drop(delivery);
            result.map_err(|error| Failed { published, ..error.into() })?;
            (published, inputs)
        }
    };
    let done = job.journal.done(outputs, task.size, inputs);
    done.map(|()| outputs).map_err(|error| Failed { published: outputs, ..error.into() })
}

enum Ended {
    Published(TaskInputs),
    /// stdout is to become a key on another node.
    Elsewhere {
        output: Key,
        file: File,
        inputs: TaskInputs,
    },
    /// A 1:n command has printed the names of its outputs.
    Named {
        outputs: Outputs,
        inputs: TaskInputs,
    },
}

impl Work {
    /// Deletes what earlier runs left of this task on other nodes. Only a command that has succeeded replaces anything.
    async fn clear_away(&self) -> Result<()> {
        let (shared, job, task) = (&self.shared, &self.job, &self.task);
        let Some(inputs) = task.clean else {
            return Ok(());
        };
        let Some(output) = &task.output else {
            return clean_everywhere(shared, job, task.key.basename(), Some(inputs)).await;
        };
        let (node, prefix) = (shared.client.cluster().node_of(output), Prefix::parse(output.as_str())?);
        shared.client.clean_job(node, &job.spec.id, &prefix, Some(inputs)).await
    }

    /// Publishes the output of a task whose output is on this node, in the place of what earlier runs left.
    fn publish(&self, file: &File, output: &Key, inputs: u64) -> Result<()> {
        let (store, job, task) = (&*self.shared.store, &self.job, &self.task);
        // Outside the fence: this may wait for other nodes, and a cancel must not wait for them.
        store.hold_for(output)?;
        job.fence.pass(|| {
            if let Some(inputs) = task.clean {
                let (rerun, ours) = (job.spec.rerun, job.mark(inputs, 1));
                let mut earlier = task.outdated.iter().chain([output]);
                earlier.try_for_each(|key| store.remove_output(key, |mark| may_replace(rerun, mark, ours)))?;
            }
            store.publish_output(file, output, job.mark(inputs, 1))
        })
    }

    fn run_with_retries(&self) -> TaskResult<Ended> {
        let spec = &self.job.spec;
        let mut log = self.job.logs.task(&self.task.key);
        let mut attempt = 1;
        loop {
            match self.run_command(&mut log) {
                Err(failed) if failed.by_command && attempt <= spec.retries && self.control.renew() => {
                    attempt += 1;
                    log.attempt(attempt);
                }
                Err(failed) if failed.by_command && attempt > 1 => {
                    return Err(Failed { reason: format!("{}, in attempt {attempt}", failed.reason), ..failed });
                }
                ended => return ended,
            }
        }
    }

    fn run_command(&self, log: &mut TaskLog) -> TaskResult<Ended> {
        let Self { shared, job, task, control, .. } = self;
        let (store, spec) = (&*shared.store, &*job.spec);
        let refused = |e: std::io::Error| Error::io(&task.key, &e);
        store.check_space(task.output.as_ref().unwrap_or(&task.key))?;
        let is_here = |output: &&Key| shared.client.cluster().node_of(output) == shared.node;
        if let Some(output) = task.output.as_ref().filter(is_here).filter(|_| task.clean.is_none()) {
            store.check_unused(output)?;
        }
        let inputs = Inputs::open(store, task)?;
        let watch = task.paths.as_ref().map(|_| store.watch(&spec.indir, task.key.merge_name()));
        let dir = shared.dirs.create(self.dir.clone())?;
        let installed = spec.files.iter().map(|file| shared.files.install(file, dir.path())).collect::<Result<_>>()?;
        // The only descriptor with write access goes to the command, so that open writers can be detected.
        let writer = store.unnamed_file().map_err(refused)?;
        let stdout = file::reopen_to_read(&writer).map_err(refused)?;
        let env = environment(&task.key, spec.id.as_str(), task.number, shared, &spec.env);
        let setup = Setup {
            cmd: &spec.cmd,
            dir: &dir,
            env: &env,
            stdin: inputs.stdin().map_err(refused)?,
            stdout: Some(writer),
        };
        let running = command::start(setup, control)?;
        let timeout = spec.timeout.and_then(seconds);
        // The input is verified while the command runs. Nothing is published before both have succeeded.
        let verify = || {
            let verified = inputs.verify(store, &task.key, control);
            if verified.is_err() {
                control.kill(Killed::Cancelled);
            }
            verified
        };
        let (verified, ended) = match inputs.is_small() {
            true => (verify(), running.forward_output(log, timeout)),
            false => std::thread::scope(|scope| {
                let verifying = scope.spawn(verify);
                let ended = running.forward_output(log, timeout);
                (join(verifying), ended)
            }),
        };
        let failed = |reason: String, by_command: bool| {
            Err(Failed { reason, stderr: log.end().to_vec(), published: 0, by_command })
        };
        if let Some(gone) = watch.as_ref().and_then(Watch::gone) {
            return failed(format!("{gone}: deleted, renamed or replaced while its merge ran"), true);
        }
        let (ended, inputs) = (ended?, verified?);
        if let Some(reason) = failure(&ended, control, spec) {
            return failed(reason, true);
        }
        if let Some(point) = shared.mounts.find(dir.path()) {
            let point = point.strip_prefix(dir.path()).unwrap_or(&point).display().to_string();
            return failed(format!("the command left a file system mounted at {}", cut(&point)), false);
        }
        if file::is_written(&stdout, WRITER_TIMEOUT) {
            return failed("another process still has the command's stdout open for writing".to_owned(), true);
        }
        let Some(output) = &task.output else {
            return Ok(Ended::Named { outputs: Outputs { dir, names: stdout, installed }, inputs });
        };
        if spec.to_name.is_some() {
            let (cluster, bytes) = (shared.client.cluster(), stdout.metadata().map_err(refused)?.len());
            job.sent.add(cluster.len(), std::iter::once((output, cluster.node_of(output), bytes)));
        }
        if !is_here(&output) {
            return Ok(Ended::Elsewhere { output: output.clone(), file: stdout, inputs });
        }
        self.publish(&stdout, output, inputs.digest())?;
        Ok(Ended::Published(inputs))
    }
}

/// Deletes the outputs of earlier runs of a 1:n task on all nodes. `input` is the basename of its input; `inputs` is
/// the digest, or `None` if the input no longer exists.
pub async fn clean_everywhere(shared: &Shared, job: &Job, input: &str, inputs: Option<u64>) -> Result<()> {
    let dir = job.spec.outdir.join(input)?;
    let prefix = Prefix::parse(&format!("{}/", dir.as_str()))?;
    let cleaned = shared.client.on_every_node(|client, node| {
        let (id, prefix) = (job.spec.id.clone(), prefix.clone());
        async move { client.clean_job(node, &id, &prefix, inputs).await }
    });
    cleaned.await.into_iter().collect()
}

/// The environment variables of every command, besides the daemon's own and those of the job.
pub fn environment(
    key: &Key,
    job: &str,
    task: u64,
    shared: &Shared,
    more: &[(String, String)],
) -> Vec<(String, String)> {
    let own = [
        ("filename", key.basename().to_owned()),
        ("S4_KEY", key.to_string()),
        ("S4_JOB", job.to_owned()),
        ("S4_TASK", task.to_string()),
    ];
    let own = own.map(|(name, value)| (name.to_owned(), value));
    more.iter().cloned().chain(own).chain(node_environment(shared)).collect()
}

/// The environment variables that describe this node.
pub fn node_environment(shared: &Shared) -> [(String, String); 2] {
    let (node, nodes) = (shared.node, shared.client.cluster().len());
    [("S4_NODE".to_owned(), node.to_string()), ("S4_NODES".to_owned(), nodes.to_string())]
}

pub fn failure(ended: &command::Ended, control: &Control, spec: &JobSpec) -> Option<String> {
    match (control.killed(), ended.status.code(), ended.status.signal()) {
        (Some(Killed::Timeout), ..) => {
            Some(format!("killed after its timeout of {} s", spec.timeout.unwrap_or_default()))
        }
        (Some(Killed::Cancelled | Killed::Disconnected), ..) => Some("cancelled".to_owned()),
        (None, Some(code), _) if spec.ok_exit.contains(&code) => ended.left.as_ref().map(|left| {
            format!("processes of the command ran on after its shell had ended: {left}; 'wait' for them, or end them")
        }),
        (None, code, signal) => {
            let ended = match code {
                Some(code) => format!("exit status {code}"),
                None => signal_name(signal.unwrap_or_default()),
            };
            Some(match (control.ran_out_of_memory(), spec.memory) {
                (true, Some(bytes)) => format!("out of memory: it used more than its {bytes} bytes ({ended})"),
                _ => ended,
            })
        }
    }
}

/// For example `signal 9 (SIGKILL)`.
fn signal_name(signal: i32) -> String {
    match nix::sys::signal::Signal::try_from(signal) {
        Ok(name) => format!("signal {signal} ({name})"),
        Err(_) => format!("signal {signal}"),
    }
}

/// The result of a thread. Continues its panic.
pub fn join<T>(thread: std::thread::ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Inputs up to this size are verified without a thread, which would take longer to start.
const SMALL: u64 = 256 * 1024;

/// The stdin of a command.
pub enum Inputs {
    One(File, Checksum),
    /// A file of local paths, one per line.
    Many(File),
}

impl Inputs {
    pub fn open(store: &Store, task: &Task) -> Result<Self> {
        let Some(paths) = &task.paths else {
            let opened = store.open_key(&task.key)?;
            return Ok(Self::One(opened.file, opened.checksum));
        };
        let mut paths = paths.try_clone().map_err(|e| Error::io(&task.key, &e))?;
        // An earlier attempt has moved the position.
        paths.rewind().map_err(|e| Error::io(&task.key, &e))?;
        Ok(Self::Many(paths))
    }

    fn is_small(&self) -> bool {
        matches!(self, Self::One(_, checksum) if checksum.len <= SMALL)
    }

    pub fn stdin(&self) -> std::io::Result<File> {
        match self {
            Self::One(file, _) | Self::Many(file) => file.try_clone(),
        }
    }

    /// Compares every input with its checksum.
    pub fn verify(&self, store: &Store, key: &Key, control: &Control) -> Result<TaskInputs> {
        let mut reading = Reading::new(store);
        let failed = |e: std::io::Error| Error::io(key, &e);
        match self {
            Self::One(file, checksum) => {
                verify(store, file, *checksum, key, control)?;
                reading.add(key, *checksum).map_err(failed)?;
            }
            Self::Many(paths) => {
                // The command has the same open file. Reading must not move its position.
                for path in BufReader::new(AtPosition::new(paths, 0)).lines() {
                    let path = path.map_err(|e| Error::io(key, &e))?;
                    let below = Path::new(&path).strip_prefix(store.root()).ok().and_then(Path::to_str);
                    let input = Key::parse(below.unwrap_or(""))?;
                    let opened = store.open_key(&input)?;
                    verify(store, &opened.file, opened.checksum, &input, control)?;
                    reading.add(&input, opened.checksum).map_err(failed)?;
                }
            }
        }
        Ok(reading.finish())
    }
}

/// Compares a whole file with its checksum. Stops if the command is killed.
pub fn verify(store: &Store, file: &File, recorded: Checksum, key: &Key, control: &Control) -> Result<()> {
    let found = hasher::of_file_unless(file, || control.killed().is_some());
    let found = found.map_err(|e| store.unreadable(key, &e))?;
    found.map_or(Ok(()), |found| recorded.verify(found, key))
}
