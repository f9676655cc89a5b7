//! `eval`: one command on one key, its streams sent to the client as they come.

use super::Shared;
use super::command::{self, Attendant, Killed, Setup, Stream, TaskDir};
use super::task::{self, environment};
use s4::body::{ChunkSender, Hangup};
use s4::error::{Error, Result};
use s4::frame::{CommandEnd, FrameWriter};
use s4::key::Key;
use s4::protocol::{CommandText, HEARTBEAT, JobId};
use std::os::unix::process::ExitStatusExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Evals that run at once; more wait.
pub const AT_ONCE: usize = 64;

/// Between two looks at a check that is under way after the command's end.
const VERIFYING: Duration = Duration::from_millis(1);

/// Runs `cmd` with `key` as its stdin and its streams into `chunks`. Blocks until it has ended; a client that hangs up
/// ends it. An error is only of what comes before the start.
pub fn run(shared: &Arc<Shared>, key: &Key, cmd: &CommandText, chunks: ChunkSender) -> Result<()> {
    let opened = shared.store.open_key(key)?;
    let id = JobId::new();
    let dir = TaskDir::create(shared.store.tasks_dir().join(format!("eval-{id}-{}", shared.next_eval())))?;
    let control = shared.running.enter(dir.path())?;
    let env = environment(key, id.as_str(), 0, shared);
    let stdin = opened.file.try_clone().map_err(|e| Error::io(key, &e))?;
    let running = command::start(Setup { cmd, dir: &dir, env: &env, stdin, stdout: None }, &control)?;
    let mut streams = Streams { frames: FrameWriter::new(chunks), beaten: Instant::now() };
    let (status, verified) = std::thread::scope(|scope| {
        let verifying = scope.spawn(|| task::verify(&opened.file, opened.checksum, key, &control));
        let status = running.attend(&mut streams, None);
        while !verifying.is_finished() {
            std::thread::park_timeout(VERIFYING);
            // The check of a large key may take longer than the command did.
            if streams.beat_if_due().is_err() {
                control.kill(Killed::Hangup);
            }
        }
        (status, task::join(verifying))
    });
    let end = match status.and_then(|status| verified.map(|()| status)) {
        Ok(status) => {
            status.code().map_or_else(|| CommandEnd::Signal(status.signal().unwrap_or_default()), CommandEnd::Exit)
        }
        Err(error) => CommandEnd::Error(error),
    };
    // The directory goes before the client hears of the end, so that nothing is left once it knows.
    drop(dir);
    // A client that is gone needs no telling.
    let _ = streams.frames.exit(&end);
    Ok(())
}

struct Streams {
    frames: FrameWriter,
    beaten: Instant,
}

impl Streams {
    fn beat_if_due(&mut self) -> std::result::Result<(), Hangup> {
        if self.beaten.elapsed() < HEARTBEAT {
            return Ok(());
        }
        self.beaten = Instant::now();
        self.frames.beat()
    }
}

impl Attendant for Streams {
    fn output(&mut self, stream: Stream, bytes: &[u8]) -> std::result::Result<(), Hangup> {
        match stream {
            Stream::Stdout => self.frames.stdout(bytes),
            Stream::Stderr => self.frames.stderr(bytes),
        }
    }

    fn idle(&mut self) -> std::result::Result<(), Hangup> {
        self.frames.beat()
    }
}
