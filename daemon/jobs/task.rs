//! One task of a map: its command, and what becomes of its output.

use super::Shared;
use super::command::{self, Attendant, Control, Killed, Setup, Stream, TaskDir};
use super::plan::Task;
use crate::store::Store;
use crate::transfer::{self, Outputs};
use s4::body::Hangup;
use s4::checksum::{self, Checksum};
use s4::client::blocking;
use s4::error::{Error, Result};
use s4::file::AtPosition;
use s4::key::Key;
use s4::protocol::{JobSpec, MapKind, TaskFailure};
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::OwnedSemaphorePermit;

/// Bytes of a command's stderr that a failure shows.
const STDERR_SHOWN: usize = 4096;

/// Why a task failed: a line for people, and the end of its command's stderr.
pub struct Failed {
    reason: String,
    stderr: Vec<u8>,
    /// Outputs that were published all the same.
    pub published: u64,
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self { reason: error.to_string(), stderr: Vec::new(), published: 0 }
    }
}

impl Failed {
    pub fn report(self, node: usize, key: Key) -> TaskFailure {
        TaskFailure { node, key, reason: self.reason, stderr: String::from_utf8_lossy(&self.stderr).into_owned() }
    }
}

/// Runs one task to its published outputs, and returns their number. `slot` is given back once only delivery is left.
pub async fn run(
    shared: Arc<Shared>,
    spec: Arc<JobSpec>,
    task: Task,
    control: Arc<Control>,
    dir: TaskDir,
    slot: &mut Option<OwnedSemaphorePermit>,
) -> std::result::Result<u64, Failed> {
    let key = task.key.clone();
    let ended = {
        let (shared, spec) = (shared.clone(), spec.clone());
        blocking(move || run_command(&shared, &spec, task, &control, dir)).await?
    };
    match ended {
        Ended::Published => Ok(1),
        Ended::Named(outputs) => {
            // A command that waits to deliver holds its slot, so that finished directories do not pile up.
            let delivery = shared.deliveries.acquire().await;
            drop(slot.take());
            let (published, result) = transfer::shuffle(&shared.transfers, &spec.outdir, &key, outputs).await;
            drop(delivery);
            match result {
                Ok(()) => Ok(published),
                Err(error) => Err(Failed { published, ..error.into() }),
            }
        }
    }
}

enum Ended {
    Published,
    /// A 1:n command has printed the names of its outputs.
    Named(Outputs),
}

fn run_command(
    shared: &Shared,
    spec: &JobSpec,
    task: Task,
    control: &Control,
    dir: TaskDir,
) -> std::result::Result<Ended, Failed> {
    let store = &*shared.store;
    let refused = |e: std::io::Error| Error::io(&task.key, &e);
    match &task.output {
        Some(output) => store.check_new(output)?,
        None => store.check_space(&task.key)?,
    }
    let inputs = match task.paths {
        Some(paths) => Inputs::Many(paths),
        None => {
            let opened = store.open_key(&task.key)?;
            Inputs::One(opened.file, opened.checksum)
        }
    };
    let stdout = store.unnamed_file().map_err(refused)?;
    let env = environment(&task.key, spec.id.as_str(), task.number, shared);
    let setup = Setup {
        cmd: &spec.cmd,
        dir: &dir,
        env: &env,
        stdin: inputs.stdin().map_err(refused)?,
        stdout: Some(stdout.try_clone().map_err(refused)?),
    };
    let running = command::start(setup, control)?;
    let mut tail = Tail::default();
    let timeout = spec.timeout.map(Duration::from_secs_f64);
    // The command runs while its input is checked; nothing is published before both are well.
    let verify = || {
        let verified = inputs.verify(store, &task.key, control);
        if verified.is_err() {
            control.kill(Killed::Cancelled);
        }
        verified
    };
    let (verified, status) = match inputs.is_small() {
        true => (verify(), running.attend(&mut tail, timeout)),
        false => std::thread::scope(|scope| {
            let verifying = scope.spawn(verify);
            let status = running.attend(&mut tail, timeout);
            (join(verifying), status)
        }),
    };
    let status = status?;
    verified?;
    if let Some(reason) = failure(status, control, spec) {
        return Err(Failed { reason, stderr: tail.0, published: 0 });
    }
    match (spec.kind, &task.output) {
        (MapKind::Map | MapKind::MapFromN, Some(output)) => {
            store.publish_file(&stdout, output)?;
            Ok(Ended::Published)
        }
        (MapKind::MapToN, _) | (_, None) => Ok(Ended::Named(Outputs { dir, names: stdout })),
    }
}

/// The variables that every command gets besides the daemon's own.
pub fn environment(key: &Key, job: &str, task: u64, shared: &Shared) -> Vec<(&'static str, String)> {
    vec![
        ("filename", key.basename().to_owned()),
        ("S4_KEY", key.to_string()),
        ("S4_JOB", job.to_owned()),
        ("S4_TASK", task.to_string()),
        ("S4_NODE", shared.node.to_string()),
        ("S4_NODES", shared.client.cluster().len().to_string()),
    ]
}

fn failure(status: ExitStatus, control: &Control, spec: &JobSpec) -> Option<String> {
    match (control.killed(), status.code(), status.signal()) {
        (Some(Killed::Timeout), ..) => {
            Some(format!("killed after its timeout of {} s", spec.timeout.unwrap_or_default()))
        }
        (Some(Killed::Cancelled | Killed::Hangup), ..) => Some("cancelled".to_owned()),
        (None, Some(0), _) => None,
        (None, Some(code), _) => Some(format!("exit status {code}")),
        (None, None, signal) => Some(signal_name(signal.unwrap_or_default())),
    }
}

/// `signal 9 (SIGKILL)`.
fn signal_name(signal: i32) -> String {
    match nix::sys::signal::Signal::try_from(signal) {
        Ok(name) => format!("signal {signal} ({name})"),
        Err(_) => format!("signal {signal}"),
    }
}

/// The result of a thread, or its panic.
pub fn join<T>(thread: std::thread::ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Inputs up to this size are checked before anything else is done: that takes no longer than to start a thread for it.
const SMALL: u64 = 256 * 1024;

/// What a command reads.
enum Inputs {
    One(File, Checksum),
    /// A file of local paths, one a line.
    Many(File),
}

impl Inputs {
    fn is_small(&self) -> bool {
        matches!(self, Self::One(_, checksum) if checksum.len <= SMALL)
    }

    fn stdin(&self) -> std::io::Result<File> {
        match self {
            Self::One(file, _) | Self::Many(file) => file.try_clone(),
        }
    }

    /// Compares every input with its checksum.
    fn verify(&self, store: &Store, key: &Key, control: &Control) -> Result<()> {
        match self {
            Self::One(file, checksum) => verify(file, *checksum, key, control),
            Self::Many(paths) => {
                // The command reads the same open file, whose position is not to be moved under it.
                for path in BufReader::new(AtPosition::new(paths, 0)).lines() {
                    let path = path.map_err(|e| Error::io(key, &e))?;
                    let below =
                        std::path::Path::new(&path).strip_prefix(store.root()).ok().and_then(|path| path.to_str());
                    let input = Key::parse(below.unwrap_or(""))?;
                    let opened = store.open_key(&input)?;
                    verify(&opened.file, opened.checksum, &input, control)?;
                }
                Ok(())
            }
        }
    }
}

/// Compares a whole file with its checksum, unless the command is killed first.
pub fn verify(file: &File, recorded: Checksum, key: &Key, control: &Control) -> Result<()> {
    let found = checksum::of_file_unless(file, || control.killed().is_some()).map_err(|e| Error::io(key, &e))?;
    found.map_or(Ok(()), |found| recorded.verify(found, key))
}

/// Keeps the end of stderr.
#[derive(Default)]
struct Tail(Vec<u8>);

impl Attendant for Tail {
    fn output(&mut self, _: Stream, bytes: &[u8]) -> std::result::Result<(), Hangup> {
        let new = &bytes[bytes.len().saturating_sub(STDERR_SHOWN)..];
        let kept = STDERR_SHOWN - new.len();
        let old = self.0.len().saturating_sub(kept);
        self.0.drain(..old);
        self.0.extend_from_slice(new);
        Ok(())
    }

    fn idle(&mut self) -> std::result::Result<(), Hangup> {
        Ok(())
    }
}
