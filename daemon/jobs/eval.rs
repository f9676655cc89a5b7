//! `eval`, `run`, and `map --try`: commands whose output goes to the client at once, and is not published.

use super::cgroup::Limits;
use super::command::{self, Control, Ended, Killed, OutputSink, Setup, Stream};
use super::plan;
use super::running::Entered;
use super::shared::Shared;
use super::task::{self, Inputs, environment, node_environment};
use super::taskdir::TaskDir;
use s4::body::Disconnected;
use s4::error::{Error, Result};
use s4::key::Key;
use s4::protocol::{CommandText, HEARTBEAT, JobFile, JobId, JobSpec};
use s4::time::seconds;
use s4::wire::{CommandEnd, Connection, Kind};
use std::fs::File;
use std::os::unix::process::ExitStatusExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The interval between two checks whether the verification of the input has finished after the end of the command.
const POLL_INTERVAL: Duration = Duration::from_millis(1);

/// Runs `cmd` with `key` as its stdin, `files` in its directory, and its output sent over `connection`. Blocks until
/// the command has ended; it is killed if the client disconnects. Errors: it could not be started, or was killed.
pub fn run(
    shared: &Arc<Shared>,
    key: &Key,
    cmd: &CommandText,
    files: &[JobFile],
    connection: &mut Connection,
) -> Result<CommandEnd> {
    let opened = shared.store.open_key(key)?;
    let place = Place::enter(shared, JobId::new(), Limits::default(), files)?;
    let env = environment(key, place.id.as_str(), 0, shared, &[]);
    let stdin = opened.file.try_clone().map_err(|e| Error::io(key, &e))?;
    let verify = |control: &Control| task::verify(&shared.store, &opened.file, opened.checksum, key, control);
    stream(place, cmd, &env, stdin, None, verify, connection)
}

/// Like [`run`], but without a key: stdin is empty.
pub fn run_alone(
    shared: &Arc<Shared>,
    cmd: &CommandText,
    files: &[JobFile],
    connection: &mut Connection,
) -> Result<CommandEnd> {
    let place = Place::enter(shared, JobId::new(), Limits::default(), files)?;
    let stdin = File::open("/dev/null").map_err(|e| Error::io("/dev/null", &e))?;
    let env: Vec<_> = node_environment(shared).into();
    stream(place, cmd, &env, stdin, None, |_| Ok(()), connection)
}

/// Runs the command of a job on the task of `key`, as [`run`] does. Publishes nothing.
pub fn attempt(shared: &Arc<Shared>, spec: &JobSpec, key: &Key, connection: &mut Connection) -> Result<CommandEnd> {
    let limits = Limits::of(spec);
    shared.running.check(limits)?;
    let task = plan::one(&shared.store, spec, key)?;
    let inputs = Inputs::open(&shared.store, &task)?;
    let place = Place::enter(shared, spec.id.clone(), limits, &spec.files)?;
    let env = environment(key, spec.id.as_str(), 0, shared, &spec.env);
    let stdin = inputs.stdin().map_err(|e| Error::io(key, &e))?;
    let verify = |control: &Control| inputs.verify(&shared.store, key, control).map(drop);
    stream(place, &spec.cmd, &env, stdin, spec.timeout.and_then(seconds), verify, connection)
}

/// The directory and control group of a command.
struct Place {
    id: JobId,
    dir: TaskDir,
    control: Entered,
}

impl Place {
    /// Creates the directory, with `files` in it.
    fn enter(shared: &Arc<Shared>, id: JobId, limits: Limits, files: &[JobFile]) -> Result<Self> {
        let path = shared.store.tasks_dir().join(format!("eval-{id}-{}", shared.next_eval()));
        let control = shared.running.enter(path.clone(), limits)?;
        let place = Self { id, dir: shared.dirs.create(path)?, control };
        files.iter().try_for_each(|file| {
            shared.files.claim(&file.digest)?;
            shared.files.install(file, place.dir.path()).map(drop)
        })?;
        Ok(place)
    }
}

fn stream(
    place: Place,
    cmd: &CommandText,
    env: &[(String, String)],
    stdin: File,
    timeout: Option<Duration>,
    verify: impl FnOnce(&Control) -> Result<()> + Send,
    connection: &mut Connection,
) -> Result<CommandEnd> {
    let Place { dir, control, .. } = place;
    let running = command::start(Setup { cmd, dir: &dir, env, stdin, stdout: None }, &control)?;
    let mut streams = Streams { connection, last_sent: Instant::now() };
    let (status, verified) = std::thread::scope(|scope| {
        let verifying = scope.spawn(|| verify(&control));
        let status = running.forward_output(&mut streams, timeout);
        while !verifying.is_finished() {
            std::thread::park_timeout(POLL_INTERVAL);
            // Verifying a large key may take longer than the command.
            if streams.keepalive_if_due().is_err() {
                control.kill(Killed::Disconnected);
            }
        }
        (status, task::join(verifying))
    });
    // The directory is removed before the client receives the end, so that nothing is left when the client knows of it.
    drop(dir);
    let Ended { status, .. } = status.and_then(|status| verified.map(|()| status))?;
    Ok(status.code().map_or_else(|| CommandEnd::Signal(status.signal().unwrap_or_default()), CommandEnd::Exit))
}

struct Streams<'c> {
    connection: &'c mut Connection,
    last_sent: Instant,
}

impl Streams<'_> {
    fn keepalive_if_due(&mut self) -> std::result::Result<(), Disconnected> {
        if self.last_sent.elapsed() < HEARTBEAT {
            return Ok(());
        }
        self.last_sent = Instant::now();
        self.idle()
    }
}

impl OutputSink for Streams<'_> {
    fn output(&mut self, stream: Stream, bytes: &[u8]) -> std::result::Result<(), Disconnected> {
        let kind = match stream {
            Stream::Stdout => Kind::Data,
            Stream::Stderr => Kind::Stderr,
        };
        self.connection.put(kind, bytes).and_then(|()| self.connection.flush()).map_err(|_| Disconnected)
    }

    fn idle(&mut self) -> std::result::Result<(), Disconnected> {
        if self.connection.is_closed() {
            return Err(Disconnected);
        }
        self.connection.send_alive().map_err(|_| Disconnected)
    }
}
