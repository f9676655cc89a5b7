//! Starts a command's shell, as `posix_spawn` does, but inside a control group.
//!
//! The child shares this process's memory until execve (`CLONE_VM | CLONE_VFORK`), so that no page tables are copied:
//! with `fork`, a task takes 1.5 times as long. `CLONE_INTO_CGROUP` starts the child in its group. Entering a group
//! through `cgroup.procs` would wait 9 to 23 ms for the other CPUs, unless another process did so just before. See
//! clone(2), and posix_spawn(3) for what the child must reset. glibc has no wrapper for clone3, so it is called with
//! inline assembly.

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::libc::{self, c_char, c_int, c_void};
use nix::sys::signal::{SigSet, SigmaskHow, pthread_sigmask};
use nix::sys::stat::Mode;
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::Pid;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
use std::arch::asm;
use std::ffi::{CString, OsStr};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::ExitStatus;
use std::sync::{PoisonError, RwLock};

/// Shared by starts, each until its child has executed. Until then a child has all descriptors of this process.
static STARTS: RwLock<()> = RwLock::new(());

/// Waits for the starts that are under way. A file that this process has written and closed before is open for writing
/// in no child afterwards. As long as it is, execve(2) of it fails with ETXTBSY.
pub fn wait_for_starts() {
    drop(STARTS.write().unwrap_or_else(PoisonError::into_inner));
}

/// Bytes of stack for the child until execve.
const STACK: usize = 128 * 1024;
/// The child shares this process's memory until execve.
const FLAGS: c_int = libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_PIDFD;
/// `CLONE_INTO_CGROUP`, since Linux 5.7. The constant in libc has a type that is too short for the value.
const INTO_GROUP: u64 = 0x2_0000_0000;

/// The arguments of a child. It gets a new process group.
pub struct Spawn<'a> {
    /// The program, which is searched in PATH, and its arguments.
    pub args: &'a [&'a OsStr],
    /// Added to this process's environment.
    pub env: &'a [(&'a OsStr, &'a OsStr)],
    pub dir: &'a Path,
    pub stdin: BorrowedFd<'a>,
    pub stdout: BorrowedFd<'a>,
    pub stderr: BorrowedFd<'a>,
    /// The directory of the control group in which the child starts.
    pub group: Option<BorrowedFd<'a>>,
}

/// A child process. Dropping it neither kills the child nor waits for it.
pub struct Child {
    pid: Pid,
    pidfd: OwnedFd,
    status: Option<ExitStatus>,
}

/// Everything that the child needs. It is prepared before the start, because the child must not allocate.
struct Plan {
    args: Vec<*const c_char>,
    env: Vec<*const c_char>,
    dir: CString,
    streams: [RawFd; 3],
    /// The `cgroup.procs` of the group that the child must enter itself.
    group: Option<RawFd>,
    /// The errno of the step that failed.
    error: c_int,
}

impl Spawn<'_> {
    /// Starts the child. Also returns errors of the child before execve; then the child has ended.
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
            group: None,
            error: 0,
        };
        // Signals are blocked: a handler that ran in the child would change this process's memory.
        let mut before = SigSet::empty();
        pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::all()), Some(&mut before))?;
        let starting = STARTS.read().unwrap_or_else(PoisonError::into_inner);
        let child = clone(&mut plan, self.group);
        drop(starting);
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
        // If a name is given twice, the last value is used.
        let last = |at: usize| !self.env[at + 1..].iter().any(|(later, _)| *later == self.env[at].0);
        let new = self.env.iter().enumerate().filter(|(at, _)| last(*at));
        let new = new.map(|(_, (name, value))| [name.as_bytes(), b"=", value.as_bytes()].concat());
        Ok(kept.chain(new).map(CString::new).collect::<Result<_, _>>()?)
    }
}

/// System call filters, as those of containers, often do not know clone3 and return ENOSYS.
fn clone(plan: &mut Plan, group: Option<BorrowedFd>) -> io::Result<Child> {
    match clone_into(plan, group) {
        Err(e) if e.raw_os_error() == Some(libc::ENOSYS) => clone_and_enter(plan, group),
        done => done,
    }
}

fn clone_into(plan: &mut Plan, group: Option<BorrowedFd>) -> io::Result<Child> {
    let mut stack: Vec<u128> = Vec::with_capacity(STACK / size_of::<u128>());
    let mut pidfd: c_int = -1;
    // SAFETY: all zeros are valid: no flags, addresses or signals.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = FLAGS as u64 | if group.is_some() { INTO_GROUP } else { 0 };
    args.pidfd = &raw mut pidfd as u64;
    args.exit_signal = libc::SIGCHLD as u64;
    args.stack = stack.as_mut_ptr() as u64;
    args.stack_size = (stack.capacity() * size_of::<u128>()) as u64;
    args.cgroup = group.map_or(0, |group| group.as_raw_fd() as u64);
    // SAFETY: `stack` is ours, aligned and unused. `CLONE_VFORK` halts this thread until the child has executed or
    // ended, so `plan`, `stack` and `pidfd` outlive the child's use of them.
    let pid = unsafe { clone3(&args, plan) };
    match pid {
        1.. => {
            // SAFETY: the kernel has just made this descriptor for us, and nothing else owns it.
            let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
            Ok(Child { pid: Pid::from_raw(pid as i32), pidfd, status: None })
        }
        error => Err(io::Error::from_raw_os_error(-error as i32)),
    }
}

/// Without clone3: the child enters the group before execve.
fn clone_and_enter(plan: &mut Plan, group: Option<BorrowedFd>) -> io::Result<Child> {
    let procs = group.map(|group| openat(group, "cgroup.procs", OFlag::O_WRONLY | OFlag::O_CLOEXEC, Mode::empty()));
    let procs = procs.transpose()?;
    plan.group = procs.as_ref().map(AsRawFd::as_raw_fd);
    let mut stack: Vec<u128> = Vec::with_capacity(STACK / size_of::<u128>());
    let mut pidfd: c_int = -1;
    // SAFETY: as in `clone_into`; the end of `stack` is the top of a stack that grows down.
    let pid = unsafe {
        let top = stack.as_mut_ptr().add(stack.capacity()).cast::<c_void>();
        libc::clone(run_cloned, top, FLAGS | libc::SIGCHLD, std::ptr::from_mut(plan).cast(), &raw mut pidfd)
    };
    let pid = Pid::from_raw(Errno::result(pid)?);
    // SAFETY: the kernel has just made this descriptor for us, and nothing else owns it.
    Ok(Child { pid, pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) }, status: None })
}

extern "C" fn run_cloned(plan: *mut c_void) -> c_int {
    run_child(plan.cast())
}

/// Returns the child's pid, or a negative errno. The child calls [`run_child`] on its own stack.
///
/// # Safety
/// As for clone3(2) with `CLONE_VM`: the stack must be unused, and `plan` must outlive the child's use of it.
unsafe fn clone3(args: &libc::clone_args, plan: *mut Plan) -> i64 {
    let result: i64;
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    {
        let _ = (args, plan);
        result = -i64::from(libc::ENOSYS);
    }
    // SAFETY: as the caller promises. The child never comes back: `run_child` does not return.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor ebp, ebp",
            "mov rdi, r12",
            "call r13",
            "ud2",
            "2:",
            inlateout("rax") libc::SYS_clone3 => result,
            in("rdi") args,
            in("rsi") size_of::<libc::clone_args>(),
            in("r12") plan,
            in("r13") run_child as extern "C" fn(*mut Plan) -> !,
            lateout("rcx") _,
            lateout("r11") _,
        );
    }
    // SAFETY: as above.
    #[cfg(target_arch = "aarch64")]
    unsafe {
        asm!(
            "svc 0",
            "cbnz x0, 2f",
            "mov x29, xzr",
            "mov x0, x20",
            "blr x21",
            "brk 1",
            "2:",
            inlateout("x0") args => result,
            in("x1") size_of::<libc::clone_args>(),
            in("x8") libc::SYS_clone3,
            in("x20") plan,
            in("x21") run_child as extern "C" fn(*mut Plan) -> !,
        );
    }
    result
}

/// The child. It runs in the parent's memory on its own stack, and must not allocate, lock or return.
extern "C" fn run_child(plan: *mut Plan) -> ! {
    // SAFETY: the plan that `clone` was given. Its owner waits for the child.
    let plan = unsafe { &mut *plan };
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
    // SAFETY: as the caller promises, and the buffer is a constant of one byte.
    unsafe {
        if let Some(group) = plan.group
            && libc::write(group, b"0".as_ptr().cast(), 1) != 1
        {
            return true;
        }
        if libc::setpgid(0, 0) != 0 || libc::chdir(plan.dir.as_ptr()) != 0 {
            return true;
        }
        for (number, stream) in plan.streams.iter().enumerate() {
            if libc::dup2(*stream, number as c_int) < 0 {
                return true;
            }
        }
        // The parent continues as soon as the new image is mapped, and only then does execve(2) close descriptors: see
        // `wait_for_starts`. Kernels before 5.9 do not know this call.
        libc::syscall(libc::SYS_close_range, 3_u32, u32::MAX, 0_u32);
        restore_signals()
    }
}

/// Unblocks signals, after all handlers of this process are reset. Also resets SIGPIPE, which Rust programs ignore.
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

    /// True once the child has ended. It stays a zombie until `wait`.
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
