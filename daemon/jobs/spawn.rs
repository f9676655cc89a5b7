//! Starting a command's shell: as `posix_spawn` does it, which cannot put the child into a control group itself.
//!
//! The child shares this process's memory until it executes (`CLONE_VM | CLONE_VFORK`), so that no page tables are copied:
//! `fork` costs a task half as much again. See clone(2), and posix_spawn(3) for what a child has to undo.

use nix::errno::Errno;
use nix::libc::{self, c_char, c_int, c_void};
use nix::sys::signal::{SigSet, SigmaskHow, pthread_sigmask};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::Pid;
use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::ExitStatus;

/// Room for what the child does before it executes, in bytes.
const STACK: usize = 128 * 1024;

/// What a child is started with. Its process group is a new one.
pub struct Spawn<'a> {
    /// The program, looked for in PATH, and its arguments.
    pub args: &'a [&'a OsStr],
    /// Besides this process's own environment.
    pub env: &'a [(&'a OsStr, &'a OsStr)],
    pub dir: &'a Path,
    pub stdin: BorrowedFd<'a>,
    pub stdout: BorrowedFd<'a>,
    pub stderr: BorrowedFd<'a>,
    /// The `cgroup.procs` files of the groups that it enters first.
    pub groups: &'a [File],
}

/// A child process. Dropped, it is neither killed nor waited for.
pub struct Child {
    pid: Pid,
    pidfd: OwnedFd,
    status: Option<ExitStatus>,
}

/// All that the child needs, made before it starts: it may not allocate.
struct Plan {
    args: Vec<*const c_char>,
    env: Vec<*const c_char>,
    dir: CString,
    streams: [RawFd; 3],
    groups: Vec<RawFd>,
    /// Of the step that failed.
    error: c_int,
}

impl Spawn<'_> {
    /// Starts the child. Errors are those of the child too: it has ended then.
    pub fn start(&self) -> io::Result<Child> {
        let args = self.args.iter().map(|arg| CString::new(arg.as_bytes())).collect::<Result<Vec<_>, _>>()?;
        let env = self.environment()?;
        let pointers = |strings: &[CString]| -> Vec<*const c_char> {
            strings.iter().map(|string| string.as_ptr()).chain([std::ptr::null()]).collect()
        };
        let mut plan = Plan {
            args: pointers(&args),
            env: pointers(&env),
            dir: CString::new(self.dir.as_os_str().as_bytes())?,
            streams: [self.stdin, self.stdout, self.stderr].map(|fd| fd.as_raw_fd()),
            groups: self.groups.iter().map(AsRawFd::as_raw_fd).collect(),
            error: 0,
        };
        // A handler that ran in the child would run in our memory.
        let mut before = SigSet::empty();
        pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::all()), Some(&mut before))?;
        let child = clone(&mut plan);
        pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(&before), None)?;
        let mut child = child?;
        match plan.error {
            0 => Ok(child),
            errno => {
                child.wait()?;
                Err(io::Error::from_raw_os_error(errno))
            }
        }
    }

    fn environment(&self) -> io::Result<Vec<CString>> {
        let kept = std::env::vars_os().filter(|(name, _)| !self.env.iter().any(|(new, _)| new == name));
        let kept = kept.map(|(name, value)| [name.as_bytes(), b"=", value.as_bytes()].concat());
        // Of a name given twice, the last counts.
        let last = |at: usize| !self.env[at + 1..].iter().any(|(later, _)| *later == self.env[at].0);
        let new = self.env.iter().enumerate().filter(|(at, _)| last(*at));
        let new = new.map(|(_, (name, value))| [name.as_bytes(), b"=", value.as_bytes()].concat());
        Ok(kept.chain(new).map(CString::new).collect::<Result<_, _>>()?)
    }
}

fn clone(plan: &mut Plan) -> io::Result<Child> {
    let mut stack: Vec<u128> = Vec::with_capacity(STACK / size_of::<u128>());
    let mut pidfd: c_int = -1;
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_PIDFD | libc::SIGCHLD;
    // SAFETY: `stack` is ours, aligned and unused, and its end is the top of a stack that grows down. `CLONE_VFORK` halts
    // this thread until the child has executed or ended, so `plan`, `stack` and `pidfd` outlive its use of them.
    let pid = unsafe {
        let top = stack.as_mut_ptr().add(stack.capacity()).cast::<c_void>();
        libc::clone(run_child, top, flags, std::ptr::from_mut(plan).cast(), &raw mut pidfd)
    };
    let pid = Pid::from_raw(Errno::result(pid)?);
    // SAFETY: the kernel has just made this descriptor for us, and nothing else owns it.
    Ok(Child { pid, pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) }, status: None })
}

/// The child: runs in the parent's memory, on a stack of its own, and must neither allocate, lock nor return.
extern "C" fn run_child(plan: *mut c_void) -> c_int {
    // SAFETY: it is the plan that `clone` was given, whose owner waits for us.
    let plan = unsafe { &mut *plan.cast::<Plan>() };
    // SAFETY: only calls that are safe between fork and exec, on valid descriptors and on strings that end in a NUL.
    unsafe {
        let failed = prepare(plan) || libc::execvpe(plan.args[0], plan.args.as_ptr(), plan.env.as_ptr()) == -1;
        if failed {
            plan.error = Errno::last_raw().max(1);
        }
        libc::_exit(127)
    }
}

/// True if a step failed, with its error in `errno`.
///
/// # Safety
/// Only for the child of [`clone`].
unsafe fn prepare(plan: &Plan) -> bool {
    // SAFETY: as said by the caller, and the buffer is a constant of one byte.
    unsafe {
        for group in &plan.groups {
            if libc::write(*group, b"0".as_ptr().cast(), 1) != 1 {
                return true;
            }
        }
        if libc::setpgid(0, 0) != 0 || libc::chdir(plan.dir.as_ptr()) != 0 {
            return true;
        }
        for (number, stream) in plan.streams.iter().enumerate() {
            if libc::dup2(*stream, number as c_int) < 0 {
                return true;
            }
        }
        restore_signals()
    }
}

/// Lets signals through again, with no handler of ours left to run, and gives SIGPIPE back, which Rust programs ignore.
///
/// # Safety
/// Only for the child of [`clone`].
unsafe fn restore_signals() -> bool {
    // SAFETY: a zeroed sigaction and a zeroed set are valid: the default action, and no signals.
    unsafe {
        let default: libc::sigaction = std::mem::zeroed();
        for signal in 1..=libc::SIGRTMAX() {
            let mut action: libc::sigaction = std::mem::zeroed();
            let has_handler = libc::sigaction(signal, std::ptr::null(), &mut action) == 0
                && action.sa_sigaction != libc::SIG_DFL
                && action.sa_sigaction != libc::SIG_IGN;
            if has_handler || signal == libc::SIGPIPE {
                libc::sigaction(signal, &default, std::ptr::null_mut());
            }
        }
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &none, std::ptr::null_mut()) != 0
    }
}

impl Child {
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// Waits for the child's end.
    pub fn wait(&mut self) -> io::Result<ExitStatus> {
        loop {
            if let Some(status) = self.status {
                return Ok(status);
            }
            match waitpid(self.pid, None) {
                Ok(status) => self.status = exit_status(status),
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    /// True once the child has ended. It stays a zombie until it is waited for.
    pub fn has_ended(&self) -> bool {
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        self.status.is_some() || waitid(Id::Pid(self.pid), flags).is_ok_and(|status| status != WaitStatus::StillAlive)
    }
}

impl AsFd for Child {
    /// A descriptor that becomes readable when the child ends.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

fn exit_status(status: WaitStatus) -> Option<ExitStatus> {
    match status {
        WaitStatus::Exited(_, code) => Some(ExitStatus::from_raw(code << 8)),
        WaitStatus::Signaled(_, signal, _) => Some(ExitStatus::from_raw(signal as i32)),
        _ => None,
    }
}
