//! One command: its shell, its directory, its streams, and its end.

use super::cgroup::Group;
use super::own_path::own_path;
use super::process;
use super::spawn::{Child, Spawn};
use super::taskdir::TaskDir;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, killpg};
use s4::body::Hangup;
use s4::error::{Error, Result};
use s4::protocol::{CommandText, HEARTBEAT};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{PipeReader, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long a process that is not the command's may hold its output.
pub const WRITER: Duration = Duration::from_secs(1);

/// Characters of a command's own text that a reason shows.
const SHOWN: usize = 200;

/// Why s4 killed a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Killed {
    Cancelled,
    Timeout,
    /// Nobody listens to it any more.
    Hangup,
}

/// A handle by which another thread kills a command, before or after its start.
pub struct Control {
    dir: PathBuf,
    /// Where the machine has control groups.
    group: Option<Group>,
    /// Guards the reason of the kill, and so that no command starts after it unseen.
    killed: Mutex<Option<Killed>>,
}

impl Control {
    pub fn new(dir: PathBuf, group: Option<Group>) -> Self {
        Self { dir, group, killed: Mutex::new(None) }
    }

    /// Kills the command's whole process tree. Blocks until it is gone. The first reason stands.
    pub fn kill(&self, why: Killed) {
        self.lock().get_or_insert(why);
        if let Some(group) = &self.group {
            group.kill();
        }
        process::kill_tree(&self.dir);
    }

    pub fn killed(&self) -> Option<Killed> {
        *self.lock()
    }

    /// True if the command may be run again: nobody wanted it to end but for its time.
    pub fn renew(&self) -> bool {
        self.lock().take_if(|why| *why == Killed::Timeout);
        self.killed().is_none()
    }

    /// True if the kernel has killed it for using more memory than allowed.
    pub fn ran_out_of_memory(&self) -> bool {
        self.group.as_ref().is_some_and(Group::ran_out_of_memory)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Killed>> {
        self.killed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a command is run with.
pub struct Setup<'a> {
    pub cmd: &'a CommandText,
    pub dir: &'a TaskDir,
    pub env: &'a [(String, String)],
    pub stdin: File,
    /// Where stdout goes; `None` for a pipe to the [`Attendant`].
    pub stdout: Option<File>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    Stdout,
    Stderr,
}

/// Who takes what a command writes into its pipes. An error kills the command.
pub trait Attendant {
    fn output(&mut self, stream: Stream, bytes: &[u8]) -> std::result::Result<(), Hangup>;

    /// Called about once in a heartbeat while the command is silent.
    fn idle(&mut self) -> std::result::Result<(), Hangup>;
}

/// How a command ended.
pub struct Ended {
    /// Of its shell.
    pub status: ExitStatus,
    /// The processes that ran on and did nothing, when they were killed; as they are to be shown.
    pub left: Option<String>,
}

/// How long a process that the shell has left behind may do nothing before it is killed.
const MOMENT: Duration = Duration::from_secs(1);
/// Between two looks at what the shell has left: at first, and after a while.
const LOOKS: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(50));

/// A command that runs.
pub struct Running<'a> {
    child: Child,
    pipes: Vec<(Stream, PipeReader)>,
    control: &'a Control,
}

/// Starts `bash -c` on the command, in a process group of its own.
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
    let own = [("LC_ALL", OsStr::new("C")), (process::MARK, setup.dir.path().as_os_str())];
    let more = setup.env.iter().map(|(name, value)| (name.as_str(), OsStr::new(value)));
    // A job's own PATH, which comes later, counts instead.
    let path = own_path().map(|path| ("PATH", path));
    let env: Vec<_> = path.into_iter().chain(own).chain(more).map(|(name, value)| (OsStr::new(name), value)).collect();
    let group = control.group.as_ref().map(Group::open).transpose()?;
    let spawn = Spawn {
        args: &[&args[..], &[setup.cmd.as_os_str()]].concat(),
        env: &env,
        dir: setup.dir.path(),
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
    /// Hands the command's output to `attendant` until all its processes have ended. Those that go on after its shell, and do
    /// nothing for a moment, are killed, and so is a command that outlasts `timeout`.
    pub fn attend(mut self, attendant: &mut dyn Attendant, timeout: Option<Duration>) -> Result<Ended> {
        let until = timeout.map(|timeout| Instant::now() + timeout);
        let mut block = vec![0; 64 * 1024];
        let mut heard = Instant::now();
        while !self.wait_for_output(until)? {
            self.serve(&mut block, attendant, until, &mut heard);
        }
        let status = self.child.wait().map_err(|e| Error::io("bash", &e))?;
        let rest = self.await_rest(&mut block, attendant, until, &mut heard);
        let left = rest.err().and_then(|left| {
            self.kill_rest();
            left
        });
        for at in (0..self.pipes.len()).rev() {
            // What was written before the end still counts; a listener that is gone loses nothing.
            while let Ok(true) = self.read_pipe(at, &mut block, attendant) {}
        }
        Ok(Ended { status, left })
    }

    /// Hands over what can be read now, and kills the command if nobody listens any more or its time is over. True if there was
    /// anything to read.
    fn serve(
        &mut self,
        block: &mut [u8],
        attendant: &mut dyn Attendant,
        until: Option<Instant>,
        heard: &mut Instant,
    ) -> bool {
        let mut has_read = false;
        for at in (0..self.pipes.len()).rev() {
            match self.read_pipe(at, block, attendant) {
                Ok(true) => has_read = true,
                Ok(false) => {}
                Err(Hangup) => self.control.kill(Killed::Hangup),
            }
        }
        if has_read {
            *heard = Instant::now();
        }
        if heard.elapsed() >= HEARTBEAT {
            *heard = Instant::now();
            if attendant.idle().is_err() {
                self.control.kill(Killed::Hangup);
            }
        }
        if until.is_some_and(|until| Instant::now() >= until) {
            self.control.kill(Killed::Timeout);
        }
        has_read
    }

    /// Waits for what the shell has left behind as long as it works. Errors: something is to be killed; what of it may still
    /// write to an output is told.
    fn await_rest(
        &mut self,
        block: &mut [u8],
        attendant: &mut dyn Attendant,
        until: Option<Instant>,
        heard: &mut Instant,
    ) -> std::result::Result<(), Option<String>> {
        // Mostly the end of the pipes is what is read here.
        let mut has_read = self.serve(block, attendant, until, heard);
        let (mut worked, mut pause) = (Instant::now(), LOOKS.0);
        while self.has_rest() {
            if self.control.killed().is_some() {
                return Err(None);
            }
            let rest = if pause < LOOKS.1 { Vec::new() } else { self.rest() };
            if rest.is_empty() && pause >= LOOKS.1 && self.pipes.is_empty() {
                return Err(None);
            }
            if has_read || rest.iter().any(|process| process.is_at_work) {
                worked = Instant::now();
            }
            if worked.elapsed() >= MOMENT {
                return Err((!rest.is_empty()).then(|| process::describe(&rest)));
            }
            // Output wakes it.
            let mut fds: Vec<PollFd> =
                self.pipes.iter().map(|(_, pipe)| PollFd::new(pipe.as_fd(), PollFlags::POLLIN)).collect();
            let _ = poll(&mut fds, PollTimeout::try_from(pause).unwrap_or(PollTimeout::ZERO));
            pause = (pause * 2).min(LOOKS.1);
            has_read = self.serve(block, attendant, until, heard);
        }
        Ok(())
    }

    /// True while a process of the command runs, as far as can be told without looking for it.
    fn has_rest(&self) -> bool {
        match &self.control.group {
            Some(group) => group.is_populated(),
            // The shell has been waited for, so that only others are in its group.
            None => !self.pipes.is_empty() || killpg(self.child.pid(), None).is_ok(),
        }
    }

    fn rest(&self) -> Vec<process::Process> {
        let known = self.control.group.as_ref().map(Group::processes).unwrap_or_default();
        let dir = &self.control.dir;
        // Its own directory is there, and the file that its stdout goes to.
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

    /// Waits for output, for the next heartbeat, or for the end; true at the end.
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

    /// Reads once from a pipe, which is dropped at its end. True if there was something.
    fn read_pipe(
        &mut self,
        at: usize,
        block: &mut [u8],
        attendant: &mut dyn Attendant,
    ) -> std::result::Result<bool, Hangup> {
        let (stream, pipe) = &mut self.pipes[at];
        match pipe.read(block) {
            Ok(0) => {
                self.pipes.remove(at);
                Ok(false)
            }
            Ok(n) => attendant.output(*stream, &block[..n]).map(|()| true),
            Err(_) => Ok(false),
        }
    }
}

impl Drop for Running<'_> {
    /// Reached with a living child only when attending failed.
    fn drop(&mut self) {
        if !self.child.has_ended() {
            self.control.kill(Killed::Cancelled);
        }
        // A child that has been waited for is not waited for again.
        let _ = self.child.wait();
    }
}

/// The beginning of a text that a command may have made as long as it likes, to be shown.
pub fn cut(text: &str) -> String {
    match text.char_indices().nth(SHOWN) {
        Some((at, _)) => format!("{}...", text[..at].escape_debug()),
        None => text.escape_debug().to_string(),
    }
}
