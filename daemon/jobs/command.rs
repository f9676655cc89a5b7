//! Runs one command: starts its shell, forwards its output, and kills what is left when it ends. The caller prepares
//! the directory and decides what the result means.

use super::cgroup::Group;
use super::own_path::own_path;
use super::process;
use super::spawn::{Child, Spawn};
use super::taskdir::TaskDir;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, killpg};
use s4::body::Disconnected;
use s4::error::{Error, Result};
use s4::protocol::{CommandText, HEARTBEAT};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{PipeReader, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long to wait for another process that still has an output open for writing.
pub const WRITER_TIMEOUT: Duration = Duration::from_secs(1);

/// Characters of a command's text that an error message shows.
const MAX_SHOWN: usize = 200;

/// Why s4 killed a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Killed {
    Cancelled,
    Timeout,
    /// The client has disconnected.
    Disconnected,
}

/// A handle with which another thread kills a command, before or after its start.
pub struct Control {
    dir: PathBuf,
    /// `None` if the machine has no control groups.
    group: Option<Group>,
    /// Guards the reason of the kill. [`start`] reads it after the start, so that a kill before the start takes effect.
    killed: Mutex<Option<Killed>>,
    /// Guards how the command is asked to end by itself, if it can be.
    graceful: Mutex<Option<Graceful>>,
    ended: Condvar,
}

/// The end of the command's stdin asks it to end.
struct Graceful {
    /// `None` once it was asked, or has ended.
    stdin: Option<OwnedFd>,
    grace: Duration,
}

impl Control {
    pub fn new(dir: PathBuf, group: Option<Group>) -> Self {
        Self { dir, group, killed: Mutex::new(None), graceful: Mutex::new(None), ended: Condvar::new() }
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// From now on the command is asked to end by the end of its `stdin`, and killed only after `grace`.
    pub fn end_gracefully_by(&self, stdin: OwnedFd, grace: Duration) {
        // A kill that came before has not waited for it.
        let asked = self.killed().is_some();
        *self.lock_graceful() = (!asked).then_some(Graceful { stdin: Some(stdin), grace });
    }

    /// The command has ended.
    pub fn note_end(&self) {
        self.lock_graceful().take();
        self.ended.notify_all();
    }

    /// Asks the command to end, and waits for that until its time is over.
    fn ask_to_end(&self) {
        let mut graceful = self.lock_graceful();
        let Some(Graceful { stdin, grace }) = graceful.as_mut() else { return };
        *stdin = None;
        let grace = *grace;
        let _ = self.ended.wait_timeout_while(graceful, grace, |graceful| graceful.is_some());
    }

    fn lock_graceful(&self) -> std::sync::MutexGuard<'_, Option<Graceful>> {
        self.graceful.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Kills the command's whole process tree. Blocks until it has ended. If called again, the first reason is kept. A
    /// command that can be asked to end gets its time for that.
    pub fn kill(&self, why: Killed) {
        self.lock().get_or_insert(why);
        self.ask_to_end();
        if let Some(group) = &self.group {
            group.kill();
        }
        process::kill_tree(&self.dir);
    }

    pub fn killed(&self) -> Option<Killed> {
        *self.lock()
    }

    /// Prepares for another attempt. False if the command must not be run again, because it was killed for another
    /// reason than its timeout.
    pub fn renew(&self) -> bool {
        self.lock().take_if(|why| *why == Killed::Timeout);
        self.killed().is_none()
    }

    /// True if the kernel has killed the command for exceeding the memory limit.
    pub fn ran_out_of_memory(&self) -> bool {
        self.group.as_ref().is_some_and(Group::ran_out_of_memory)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Killed>> {
        self.killed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The environment of a command.
pub struct Setup<'a> {
    pub cmd: &'a CommandText,
    pub dir: &'a TaskDir,
    pub env: &'a [(String, String)],
    pub stdin: File,
    /// The file for stdout; `None` for a pipe to the [`OutputSink`].
    pub stdout: Option<File>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    Stdout,
    Stderr,
}

/// Receives what a command writes into its pipes. An error kills the command.
pub trait OutputSink {
    fn output(&mut self, stream: Stream, bytes: &[u8]) -> std::result::Result<(), Disconnected>;

    /// Called about once per heartbeat while the command writes nothing.
    fn idle(&mut self) -> std::result::Result<(), Disconnected>;
}

/// How a command ended.
pub struct Ended {
    /// The exit status of the shell.
    pub status: ExitStatus,
    /// A description of processes that kept running without doing work, and were killed.
    pub left: Option<String>,
}

/// How long a process that the shell has left may stay idle before it is killed.
const IDLE_LIMIT: Duration = Duration::from_secs(1);
/// The interval between two checks for processes left by the shell: at first, and later.
const POLL_INTERVAL: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(50));

/// A running command.
pub struct Running<'a> {
    child: Child,
    pipes: Vec<(Stream, PipeReader)>,
    control: &'a Control,
}

/// Starts `bash -c` with the command, in a new process group.
pub fn start<'a>(setup: Setup, control: &'a Control) -> Result<Running<'a>> {
    let failed = |e: std::io::Error| Error::io("cannot start bash", &e);
    let mut pipes = Vec::new();
    let mut pipe = |stream: Stream| -> std::io::Result<OwnedFd> {
        let (reader, writer) = std::io::pipe()?;
        fcntl(&reader, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        pipes.push((stream, reader));
        Ok(writer.into())
    };
    let stdout = setup.stdout.map_or_else(|| pipe(Stream::Stdout), |file| Ok(file.into())).map_err(failed)?;
    let stderr = pipe(Stream::Stderr).map_err(failed)?;
    let args = ["bash", "-euo", "pipefail", "-c", "--"].map(OsStr::new);
    let (dir, store) = (setup.dir.path(), process::store_of(setup.dir.path()));
    let own = [("LC_ALL", OsStr::new("C")), (process::MARK, dir.as_os_str()), (process::STORE, OsStr::new(&store))];
    let more = setup.env.iter().map(|(name, value)| (name.as_str(), OsStr::new(value)));
    // If the job sets PATH too, its value comes later and takes effect.
    let path = own_path().map(|path| ("PATH", path));
    let env: Vec<_> = path.into_iter().chain(own).chain(more).map(|(name, value)| (OsStr::new(name), value)).collect();
    let group = control.group.as_ref().map(Group::open).transpose()?;
    let spawn = Spawn {
        args: &[&args[..], &[setup.cmd.as_os_str()]].concat(),
        env: &env,
        dir,
        stdin: setup.stdin.as_fd(),
        stdout: stdout.as_fd(),
        stderr: stderr.as_fd(),
        group: group.as_ref().map(|group| group.as_fd()),
    };
    let child = spawn.start().map_err(failed)?;
    let running = Running { child, pipes, control };
    if running.control.killed().is_some() {
        process::kill_tree(&running.control.dir);
    }
    Ok(running)
}

impl Running<'_> {
    /// Forwards the command's output to `sink` until all its processes have ended. Kills processes that outlive the
    /// shell and are idle for a moment, and the whole command if it exceeds `timeout`.
    pub fn forward_output(mut self, sink: &mut dyn OutputSink, timeout: Option<Duration>) -> Result<Ended> {
        let until = timeout.map(|timeout| Instant::now() + timeout);
        let mut block = vec![0; 64 * 1024];
        let mut last_active = Instant::now();
        while !self.wait_for_output(until)? {
            self.serve(&mut block, sink, until, &mut last_active);
        }
        let status = self.child.wait().map_err(|e| Error::io("bash", &e))?;
        let rest = self.await_rest(&mut block, sink, until, &mut last_active);
        let left = rest.err().and_then(|left| {
            self.kill_rest();
            left
        });
        for at in (0..self.pipes.len()).rev() {
            // Output written before the end is still forwarded. If the client has disconnected, nothing is lost.
            while let Ok(true) = self.read_pipe(at, &mut block, sink) {}
        }
        Ok(Ended { status, left })
    }

    /// Forwards what can be read now. Kills the command if the client has disconnected or the time is over. True if
    /// there was anything to read.
    fn serve(
        &mut self,
        block: &mut [u8],
        sink: &mut dyn OutputSink,
        until: Option<Instant>,
        last_active: &mut Instant,
    ) -> bool {
        let mut has_read = false;
        for at in (0..self.pipes.len()).rev() {
            match self.read_pipe(at, block, sink) {
                Ok(true) => has_read = true,
                Ok(false) => {}
                Err(Disconnected) => self.control.kill(Killed::Disconnected),
            }
        }
        if has_read {
            *last_active = Instant::now();
        }
        if last_active.elapsed() >= HEARTBEAT {
            *last_active = Instant::now();
            if sink.idle().is_err() {
                self.control.kill(Killed::Disconnected);
            }
        }
        if until.is_some_and(|until| Instant::now() >= until) {
            self.control.kill(Killed::Timeout);
        }
        has_read
    }

    /// Waits for the processes that the shell has left, as long as they are not idle. Errors: an idle process must be
    /// killed. The error describes those that may still write to an output.
    fn await_rest(
        &mut self,
        block: &mut [u8],
        sink: &mut dyn OutputSink,
        until: Option<Instant>,
        last_active: &mut Instant,
    ) -> std::result::Result<(), Option<String>> {
        // Usually this reads the end of the pipes.
        let mut has_read = self.serve(block, sink, until, last_active);
        let (mut worked, mut pause) = (Instant::now(), POLL_INTERVAL.0);
        while self.has_rest() {
            if self.control.killed().is_some() {
                return Err(None);
            }
            let rest = if pause < POLL_INTERVAL.1 { Vec::new() } else { self.rest() };
            if rest.is_empty() && pause >= POLL_INTERVAL.1 && self.pipes.is_empty() {
                return Err(None);
            }
            if has_read || rest.iter().any(|process| process.is_at_work) {
                worked = Instant::now();
            }
            if worked.elapsed() >= IDLE_LIMIT {
                return Err((!rest.is_empty()).then(|| process::describe(&rest)));
            }
            // Output ends this sleep early.
            let mut fds: Vec<PollFd> =
                self.pipes.iter().map(|(_, pipe)| PollFd::new(pipe.as_fd(), PollFlags::POLLIN)).collect();
            let _ = poll(&mut fds, PollTimeout::try_from(pause).unwrap_or(PollTimeout::ZERO));
            pause = (pause * 2).min(POLL_INTERVAL.1);
            has_read = self.serve(block, sink, until, last_active);
        }
        Ok(())
    }

    /// True while a process of the command runs, as far as that is known without a search in /proc.
    fn has_rest(&self) -> bool {
        match &self.control.group {
            Some(group) => group.is_populated(),
            // The shell was waited for, so only other processes are in its group.
            None => !self.pipes.is_empty() || killpg(self.child.pid(), None).is_ok(),
        }
    }

    fn rest(&self) -> Vec<process::Process> {
        let known = self.control.group.as_ref().map(Group::processes).unwrap_or_default();
        let dir = &self.control.dir;
        // `.s4` contains the command's directory, and the file that receives its stdout.
        let own = dir.ancestors().find(|parent| parent.file_name().is_some_and(|name| name == ".s4")).unwrap_or(dir);
        process::left(dir, own, self.child.pid(), &known)
    }

    fn kill_rest(&self) {
        match &self.control.group {
            Some(group) => group.clear(),
            None if self.has_rest() => {
                let _ = killpg(self.child.pid(), Signal::SIGKILL);
                process::kill_tree(&self.control.dir);
            }
            None => {}
        }
    }

    /// Waits for output, for the next heartbeat, or for the end of the shell; true at the end.
    fn wait_for_output(&self, until: Option<Instant>) -> Result<bool> {
        let left = until.map_or(HEARTBEAT, |until| until.saturating_duration_since(Instant::now()).min(HEARTBEAT));
        let timeout = PollTimeout::try_from(left.as_millis() as i32 + 1).unwrap_or(PollTimeout::MAX);
        let pipes = self.pipes.iter().map(|(_, pipe)| pipe.as_fd());
        let watched = [self.child.as_fd()].into_iter().chain(pipes);
        let mut fds: Vec<PollFd> = watched.map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
        match poll(&mut fds, timeout) {
            Ok(_) | Err(Errno::EINTR) => Ok(fds[0].any().unwrap_or(false)),
            Err(errno) => Err(Error::io("poll", &errno.into())),
        }
    }

    /// Reads once from a pipe, and drops the pipe at end of file. True if there was any data.
    fn read_pipe(
        &mut self,
        at: usize,
        block: &mut [u8],
        sink: &mut dyn OutputSink,
    ) -> std::result::Result<bool, Disconnected> {
        let (stream, pipe) = &mut self.pipes[at];
        match pipe.read(block) {
            Ok(0) => {
                self.pipes.remove(at);
                Ok(false)
            }
            Ok(n) => sink.output(*stream, &block[..n]).map(|()| true),
            Err(_) => Ok(false),
        }
    }
}

impl Drop for Running<'_> {
    /// The child is alive here only if `forward_output` failed.
    fn drop(&mut self) {
        if !self.child.has_ended() {
            self.control.kill(Killed::Cancelled);
        }
        // This does nothing if the child was waited for already.
        let _ = self.child.wait();
    }
}

/// The beginning of a text for a message. A command may have made the text arbitrarily long.
pub fn cut(text: &str) -> String {
    match text.char_indices().nth(MAX_SHOWN) {
        Some((at, _)) => format!("{}...", text[..at].escape_debug()),
        None => text.escape_debug().to_string(),
    }
}
