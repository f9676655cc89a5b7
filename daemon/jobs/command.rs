//! One command: its shell, its directory, its streams, and its end.

use super::cgroup::{self, Group};
use super::process;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use s4::body::Hangup;
use s4::error::{Error, Result};
use s4::protocol::{CommandText, HEARTBEAT};
use std::fs::{File, Permissions};
use std::io::Read;
use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Why s4 killed a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Killed {
    Cancelled,
    Timeout,
    /// Nobody listens to it any more.
    Hangup,
}

/// A task's empty directory. Dropped, it is removed with all in it.
pub struct TaskDir(PathBuf);

impl TaskDir {
    pub fn create(path: PathBuf) -> Result<Self> {
        let failed = |e: std::io::Error| Error::io(path.display(), &e);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(failed)?;
        }
        std::fs::create_dir(&path).map_err(failed)?;
        Ok(Self(path))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TaskDir {
    fn drop(&mut self) {
        // Most commands leave it empty, and then one call is enough.
        if std::fs::remove_dir(&self.0).is_ok() || remove_tree(&self.0).is_ok() {
            return;
        }
        // A process that the command left behind makes files while they are removed.
        process::kill_tree(&self.0);
        if let Err(error) = remove_tree(&self.0) {
            tracing::warn!("cannot remove {}: {error}", self.0.display());
        }
    }
}

/// Removes a directory with all in it, also directories that a command has made read-only.
pub fn remove_tree(dir: &Path) -> std::io::Result<()> {
    match std::fs::remove_dir_all(dir) {
        Err(e) if e.kind() == std::io::ErrorKind::PermissionDenied => {
            make_writable(dir)?;
            std::fs::remove_dir_all(dir)
        }
        result => result,
    }
}

fn make_writable(dir: &Path) -> std::io::Result<()> {
    std::fs::set_permissions(dir, Permissions::from_mode(0o700))?;
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            make_writable(&entry.path())?;
        }
    }
    Ok(())
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

/// A command that runs.
pub struct Running<'a> {
    child: Child,
    exited: OwnedFd,
    pipes: Vec<(Stream, Box<dyn Pipe>)>,
    control: &'a Control,
}

trait Pipe: Read + AsFd {}
impl<T: Read + AsFd> Pipe for T {}

/// Starts `bash -c` on the command, in a process group of its own.
pub fn start<'a>(setup: Setup, control: &'a Control) -> Result<Running<'a>> {
    let stdout = setup.stdout.map_or_else(Stdio::piped, Stdio::from);
    let failed = |e: std::io::Error| Error::io("cannot start bash", &e);
    let mut command = Command::new("bash");
    command
        .args(["-euo", "pipefail", "-c", "--"])
        .arg(setup.cmd.as_os_str())
        .current_dir(setup.dir.path())
        .env("LC_ALL", "C")
        .env(process::MARK, setup.dir.path())
        .envs(setup.env.iter().map(|(name, value)| (name, value)))
        .stdin(setup.stdin)
        .stdout(stdout)
        .stderr(Stdio::piped())
        .process_group(0);
    let entrances = control.group.as_ref().map_or(Ok(Vec::new()), Group::entrances)?;
    if !entrances.is_empty() {
        let descriptors = cgroup::descriptors(&entrances);
        // SAFETY: between fork and exec it calls nothing but write, on descriptors that `entrances` keeps open.
        unsafe { command.pre_exec(move || cgroup::enter(&descriptors)) };
    }
    let mut child = command.spawn().map_err(failed)?;
    let mut pipes: Vec<(Stream, Box<dyn Pipe>)> = Vec::new();
    if let Some(stdout) = child.stdout.take() {
        pipes.push((Stream::Stdout, Box::new(stdout)));
    }
    if let Some(stderr) = child.stderr.take() {
        pipes.push((Stream::Stderr, Box::new(stderr)));
    }
    for (_, pipe) in &pipes {
        fcntl(pipe.as_fd(), FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).map_err(|e| failed(e.into()))?;
    }
    let exited = pidfd(&child).map_err(failed)?;
    let running = Running { child, exited, pipes, control };
    if running.control.killed().is_some() {
        process::kill_tree(&running.control.dir);
    }
    Ok(running)
}

/// A descriptor that becomes readable when the child ends.
fn pidfd(child: &Child) -> std::io::Result<OwnedFd> {
    // SAFETY: the call takes two integers and touches no memory.
    let fd = unsafe { nix::libc::syscall(nix::libc::SYS_pidfd_open, child.id() as nix::libc::pid_t, 0) };
    let fd = i32::try_from(Errno::result(fd)?).map_err(std::io::Error::other)?;
    // SAFETY: the kernel has just made this descriptor for us, and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

impl Running<'_> {
    /// Hands the command's output to `attendant` until its shell has ended, and ends what it left behind. A command
    /// that outlasts `timeout` is killed.
    pub fn attend(mut self, attendant: &mut dyn Attendant, timeout: Option<Duration>) -> Result<ExitStatus> {
        let until = timeout.map(|timeout| Instant::now() + timeout);
        let mut block = vec![0; 64 * 1024];
        let mut heard = Instant::now();
        while !self.wait_for_output(until)? {
            for at in (0..self.pipes.len()).rev() {
                match self.read_pipe(at, &mut block, attendant) {
                    Ok(true) => heard = Instant::now(),
                    Ok(false) => {}
                    Err(Hangup) => self.control.kill(Killed::Hangup),
                }
            }
            if heard.elapsed() >= HEARTBEAT {
                heard = Instant::now();
                if attendant.idle().is_err() {
                    self.control.kill(Killed::Hangup);
                }
            }
            if until.is_some_and(|until| Instant::now() >= until) {
                self.control.kill(Killed::Timeout);
            }
        }
        // The shell is a zombie until it is waited for, so its group's number still means this group.
        let _ = killpg(Pid::from_raw(self.child.id() as i32), Signal::SIGKILL);
        if let Some(group) = &self.control.group {
            group.clear();
        }
        for at in (0..self.pipes.len()).rev() {
            // What was written before the end still counts; a listener that is gone loses nothing.
            while let Ok(true) = self.read_pipe(at, &mut block, attendant) {}
        }
        self.child.wait().map_err(|e| Error::io("bash", &e))
    }

    /// Waits for output, for the next heartbeat, or for the end; true at the end.
    fn wait_for_output(&self, until: Option<Instant>) -> Result<bool> {
        let left = until.map_or(HEARTBEAT, |until| until.saturating_duration_since(Instant::now()).min(HEARTBEAT));
        let timeout = PollTimeout::try_from(left.as_millis() as i32 + 1).unwrap_or(PollTimeout::MAX);
        let pipes = self.pipes.iter().map(|(_, pipe)| pipe.as_fd());
        let watched = [self.exited.as_fd()].into_iter().chain(pipes);
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
        if let Ok(None) = self.child.try_wait() {
            self.control.kill(Killed::Cancelled);
            let _ = self.child.wait();
        }
    }
}
