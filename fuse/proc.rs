//! What /proc says of the processes that use the mount. `fs::closes` decides by it which close publishes a file.
//!
//! A file is identified by its inode number, which starts from a random base in each mount, so that paths and mount
//! namespaces do not matter. The process whose files in /proc are read may be waiting for our answer, even in the
//! middle of execve(2). Then reading its `fd` links, `maps` or `stat` blocks until we answer, which would be a
//! deadlock; reading `fdinfo`, `statm` and `status` never blocks.

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::libc;
use nix::sys::stat::Mode;
use nix::time::{ClockId, clock_gettime};
use std::ffi::CStr;
use std::fs::File;
use std::io::{Read, Result};
use std::time::Duration;

/// How often a caller that waits is checked for a signal that kills it.
const POLL: Duration = Duration::from_millis(200);

/// The unit of time in /proc; see proc(5).
const TICK: Duration = Duration::from_millis(10);

/// The number of the first PID namespace, in which every process is visible; from the kernel's `linux/proc_ns.h`.
const FIRST_PID_NAMESPACE: u64 = 0xEFFF_FFFC;

/// The process that has sent a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caller {
    /// The thread id that the kernel puts into a request; 0 if we cannot see the PID namespace of the thread.
    pub thread: u32,
}

/// What access to a file a thread has left after it closed a descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AfterClose {
    /// It has another descriptor that can write to the file.
    Held,
    /// None.
    Closed,
    /// It has none, because a signal ended its process.
    Killed,
    /// Its descriptors cannot be read in /proc.
    Unknown,
}

impl Caller {
    /// The process of the thread; for a thread that is gone, the id of the thread itself.
    pub fn process(self) -> u32 {
        if self.is_first() {
            return self.thread;
        }
        field(&self.status(), "Tgid:").and_then(|tgid| tgid.parse().ok()).unwrap_or(self.thread)
    }

    /// True if the thread is the first of its process, and has its number.
    fn is_first(self) -> bool {
        // SAFETY: the call takes numbers only, and signal 0 is not sent.
        let found = unsafe { libc::syscall(libc::SYS_tgkill, self.thread, self.thread, 0) };
        Errno::result(found) != Err(Errno::ESRCH) && self.thread > 0
    }

    /// True if the thread has ended, or is ending and has released its memory: then it writes nothing more. False if we
    /// cannot see it.
    pub fn is_over(self) -> bool {
        self.thread > 0 && (!self.is_first() || self.memory() == Memory::Gone)
    }

    /// True if the thread belongs to `process`.
    pub fn is_of(self, process: u32) -> bool {
        self.thread == process || self.process() == process
    }

    /// What access to file `ino` the thread has left while it waits in close(2) for our answer. With `stdout_first`,
    /// its standard output is checked first: a shell that redirects has just duplicated the descriptor there.
    pub fn after_close(self, ino: u64, stdout_first: bool) -> AfterClose {
        if stdout_first
            && descriptor(None, &format!("/proc/{}/fdinfo/1", self.thread)).is_ok_and(|found| found.writes_to(ino))
        {
            return AfterClose::Held;
        }
        match descriptors(self.thread, |found| found.writes_to(ino)) {
            Err(_) => AfterClose::Unknown,
            Ok(Some(true)) => AfterClose::Held,
            Ok(Some(false)) => AfterClose::Closed,
            // When a thread ends, the kernel takes away all of its descriptors before it closes the first file.
            Ok(None) if self.was_killed() => AfterClose::Killed,
            Ok(None) => AfterClose::Closed,
        }
    }

    /// True if the thread is ending, so that it does not see the result of its close.
    pub fn is_ending(self) -> bool {
        self.memory() == Memory::Gone
    }

    /// True if a signal ends the thread. The kernel records the signal before it closes the files.
    pub fn was_killed(self) -> bool {
        if !self.is_ending() {
            return false;
        }
        let stat = text_of(&format!("/proc/{}/stat", self.thread));
        let exit_code: i32 = stat.split_whitespace().next_back().and_then(|code| code.parse().ok()).unwrap_or(0);
        exit_code & 0x7f != 0
    }

    /// True if a shared mapping of the thread may change file `ino`, or if that is unknown. May block while another
    /// thread changes the mappings.
    pub fn has_mapped(self, ino: u64) -> bool {
        match self.memory() {
            Memory::Running => maps_file(self.thread, ino).unwrap_or(true),
            Memory::New | Memory::Gone => false,
            Memory::Unknown => true,
        }
    }

    fn memory(self) -> Memory {
        let text = text_of(&format!("/proc/{}/statm", self.thread));
        let mut pages = text.split(' ').map(|pages| pages.parse().unwrap_or(0));
        let (all, code): (u64, u64) = (pages.next().unwrap_or(0), pages.nth(2).unwrap_or(0));
        match (all, code) {
            _ if text.is_empty() => Memory::Unknown,
            (0, _) => Memory::Gone,
            (_, 0) => Memory::New,
            _ => Memory::Running,
        }
    }

    fn status(self) -> String {
        text_of(&format!("/proc/{}/status", self.thread))
    }

    /// True if its process has no other thread.
    pub fn is_alone(self) -> bool {
        field(&self.status(), "Threads:") == Some("1")
    }

    /// Resolves soon after the thread got SIGKILL, else never.
    pub async fn killed(self) {
        loop {
            tokio::time::sleep(POLL).await;
            let status = self.status();
            let pending = ["SigPnd:", "ShdPnd:"].into_iter().filter_map(|name| field(&status, name));
            let signals = pending.filter_map(|set| u64::from_str_radix(set, 16).ok());
            if signals.fold(0, |all, set| all | set) & (1 << (libc::SIGKILL - 1)) != 0 {
                return;
            }
        }
    }
}

/// The value of a field in a file of /proc.
fn field<'s>(text: &'s str, name: &str) -> Option<&'s str> {
    text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim)
}

/// The state of a thread's memory while it closes a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Memory {
    Running,
    /// The thread is in execve(2): close-on-exec descriptors are closed before the new image is mapped.
    New,
    /// The thread is ending: the kernel releases its memory before its files.
    Gone,
    Unknown,
}

/// Resolves when the caller is killed. Without a caller it never resolves: for requests that must run to their end.
pub async fn killed(caller: Option<Caller>) {
    match caller {
        Some(caller) => caller.killed().await,
        None => std::future::pending().await,
    }
}

/// An open descriptor of a process.
struct Descriptor {
    ino: u64,
    /// As in open(2).
    flags: i32,
    /// True for a socket or an io_uring that holds open files without descriptors.
    holds_others: bool,
}

impl Descriptor {
    /// Errors: there is no inode number, as before Linux 5.14.
    fn parse(text: &str) -> Result<Self> {
        let number = |name: &str, radix| field(text, name).and_then(|value| u64::from_str_radix(value, radix).ok());
        let (Some(ino), Some(flags)) = (number("ino:", 10), number("flags:", 8)) else {
            return Err(Errno::ENOTSUP.into());
        };
        let others = ["scm_fds:", "UserFiles:"].into_iter().filter_map(|name| number(name, 10));
        Ok(Self { ino, flags: flags as i32, holds_others: others.sum::<u64>() > 0 })
    }

    fn writes_to(&self, ino: u64) -> bool {
        self.ino == ino && self.flags & libc::O_ACCMODE != libc::O_RDONLY && self.flags & libc::O_PATH == 0
    }
}

fn descriptor(dir: Option<&Dir>, name: &str) -> Result<Descriptor> {
    read_descriptor(dir, &std::ffi::CString::new(name)?)
}

fn read_descriptor(dir: Option<&Dir>, name: &CStr) -> Result<Descriptor> {
    let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
    let opened = match dir {
        Some(dir) => openat(dir, name, flags, Mode::empty()),
        None => nix::fcntl::open(name, flags, Mode::empty()),
    };
    let mut text = [0; 1024];
    let len = File::from(opened?).read(&mut text)?;
    Descriptor::parse(&String::from_utf8_lossy(&text[..len]))
}

/// True if one of the thread's descriptors is `wanted`; `None` if it has no descriptors. Errors: they cannot be read.
fn descriptors(thread: u32, wanted: impl Fn(&Descriptor) -> bool) -> Result<Option<bool>> {
    let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
    let mut dir = Dir::open(&*format!("/proc/{thread}/fdinfo"), flags, Mode::empty())?;
    let names: nix::Result<Vec<_>> = dir.iter().map(|entry| entry.map(|entry| entry.file_name().to_owned())).collect();
    let mut any = None;
    for name in names?.iter().filter(|name| !name.to_bytes().starts_with(b".")) {
        any = Some(false);
        match read_descriptor(Some(&dir), name) {
            Ok(found) if wanted(&found) => return Ok(Some(true)),
            Ok(_) => {}
            // Closed meanwhile.
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
    }
    Ok(any)
}

/// True if the thread has a shared mapping of file `ino`. A private mapping does not change the file.
fn maps_file(thread: u32, ino: u64) -> Result<bool> {
    let ino = ino.to_string();
    let maps = read_proc(&format!("/proc/{thread}/maps"), true)?;
    // ADDRESSES PERMISSIONS OFFSET DEVICE INODE PATH
    Ok(String::from_utf8_lossy(&maps).lines().any(|line| {
        let mut fields = line.split_ascii_whitespace().skip(1);
        fields.next().is_some_and(|permissions| permissions.ends_with('s')) && fields.nth(2) == Some(&ino)
    }))
}

/// True if any process may still write to file `ino`, or if that is unknown. A process may write through a descriptor,
/// through a descriptor in the queue of a socket, or, if the file is `mappable`, through a mapping. A process whose
/// descriptors we may not read counts as a writer if it is younger than the file, whose age is `age`: it may have
/// inherited a descriptor.
pub fn anyone_writes(ino: u64, mappable: bool, age: Duration) -> bool {
    use std::os::unix::fs::MetadataExt;
    if !std::fs::metadata("/proc/self/ns/pid").is_ok_and(|found| found.ino() == FIRST_PID_NAMESPACE) {
        return true;
    }
    let Ok(entries) = std::fs::read_dir("/proc") else { return true };
    let own = std::process::id();
    let mut pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let writes = |pid, found: Result<bool>| {
        found.unwrap_or_else(|e| match e.raw_os_error() {
            Some(libc::ENOENT | libc::ESRCH) => false,
            Some(libc::EACCES | libc::EPERM) => age_of(pid).is_none_or(|process| process < age + TICK),
            _ => true,
        })
    };
    let any_of = |pid: u32, thread: u32| {
        let held = descriptors(thread, |found| found.writes_to(ino) || (pid != own && found.holds_others));
        let is_empty = matches!(held, Ok(None));
        let any =
            writes(pid, held.map(|found| found == Some(true))) || (mappable && writes(pid, maps_file(thread, ino)));
        (any, is_empty)
    };
    pids.any(|pid: u32| match any_of(pid, pid) {
        // The first thread may have ended before the others.
        (false, true) => other_threads(pid).into_iter().any(|thread| any_of(pid, thread).0),
        (any, _) => any,
    })
}

/// All threads of a process except the first.
fn other_threads(pid: u32) -> Vec<u32> {
    if field(&(Caller { thread: pid }).status(), "Threads:").is_none_or(|threads| threads == "1") {
        return Vec::new();
    }
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    threads.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(|thread| *thread != pid).collect()
}

/// How long ago a process started.
fn age_of(pid: u32) -> Option<Duration> {
    let stat = text_of(&format!("/proc/{pid}/stat"));
    // The name, in brackets, may contain anything. The 22nd field is the start, since boot.
    let ticks: u32 = stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(19)?.parse().ok()?;
    since_boot().checked_sub(TICK * ticks)
}

/// The time since boot, by the clock that /proc uses for the start of a process. This clock is never set.
pub fn since_boot() -> Duration {
    clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(Duration::ZERO, Duration::from)
}

/// A short file of /proc as text; empty if it cannot be read.
fn text_of(path: &str) -> String {
    String::from_utf8_lossy(&read_proc(path, false).unwrap_or_default()).into_owned()
}

/// The bytes of a file in /proc. A file that is not `long` is read by one call, since a close waits for every call.
fn read_proc(path: &str, long: bool) -> Result<Vec<u8>> {
    let (mut text, mut filled) = (vec![0; 8192], 0);
    let mut file = File::open(path)?;
    // An error means that the process is gone; the bytes that were read before are kept.
    while let Ok(n @ 1..) = file.read(&mut text[filled..]) {
        filled += n;
        if !long && filled < text.len() {
            break;
        }
        text.resize(filled + 8192, 0);
    }
    text.truncate(filled);
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn descriptors_are_parsed() {
        let file = tempfile();
        let ino = file.metadata().expect("metadata").ino();
        let own = std::process::id();
        assert_eq!(descriptors(own, |found| found.writes_to(ino)).expect("our own"), Some(true));
        drop(file);
        assert_eq!(descriptors(own, |found| found.writes_to(ino)).expect("our own"), Some(false));
    }

    fn tempfile() -> File {
        s4::stored::unnamed_file(&std::env::temp_dir()).expect("an unnamed file")
    }

    #[test]
    fn read_only_and_path_descriptors_do_not_write() {
        let writes = |flags: &str| {
            let text = format!("pos:\t0\nflags:\t{flags}\nmnt_id:\t43\nino:\t7\n");
            Descriptor::parse(&text).expect("it has an inode").writes_to(7)
        };
        assert!(writes("0100001") && writes("0100002") && writes("02102001"));
        assert!(!writes("0100000") && !writes("012000000") && !writes("012000001"));
    }

    #[test]
    fn queued_descriptors_count_and_a_missing_inode_number_is_an_error() {
        let text = "pos:\t0\nflags:\t02\nmnt_id:\t10\nino:\t9\nscm_fds: 1\n";
        assert!(Descriptor::parse(text).expect("it has an inode").holds_others);
        assert!(Descriptor::parse("pos:\t0\nflags:\t02\nmnt_id:\t10\n").is_err());
    }

    #[test]
    fn the_age_of_a_process_is_known() {
        let own = age_of(std::process::id()).expect("our own");
        assert!(own < Duration::from_secs(3600) && own < age_of(1).expect("the first"));
    }

    #[test]
    fn a_process_that_cannot_be_seen_is_unknown() {
        assert_eq!(Caller { thread: 0 }.after_close(7, true), AfterClose::Unknown);
        assert!(Caller { thread: 0 }.has_mapped(7));
    }
}
