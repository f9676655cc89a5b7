//! Who closes a file, read from /proc: the rules of which close publishes rest on it.

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{OFlag, readlink, readlinkat};
use nix::libc;
use nix::sys::stat::Mode;
use std::ffi::{CString, OsString};
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

/// How long a caller waits before it is looked at whether it still wants an answer.
const PATIENCE: Duration = Duration::from_millis(200);

/// A process that asks something of the mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caller {
    /// The thread, as the kernel names it in a request.
    pub thread: u32,
}

impl Caller {
    /// The process that the thread belongs to. One that is gone is its own.
    pub fn process(self) -> u32 {
        if self.is_first() {
            return self.thread;
        }
        field(&self.status(), "Tgid:").and_then(|tgid| tgid.parse().ok()).unwrap_or(self.thread)
    }

    /// True if the thread is the first of its process, whose number it has.
    fn is_first(self) -> bool {
        // SAFETY: the call takes numbers, and no signal is sent by number 0.
        let found = unsafe { libc::syscall(libc::SYS_tgkill, self.thread, self.thread, 0) };
        Errno::result(found) != Err(Errno::ESRCH) && self.thread > 0
    }

    /// True if the thread belongs to `process`.
    pub fn is_of(self, process: u32) -> bool {
        self.thread == process || self.process() == process
    }

    /// What the thread does with its memory.
    pub fn memory(self) -> Memory {
        let text = text_of(&format!("/proc/{}/statm", self.thread));
        let mut pages = text.split(' ').map(|pages| pages.parse().unwrap_or(0));
        let (all, code): (u64, u64) = (pages.next().unwrap_or(0), pages.nth(2).unwrap_or(0));
        match (all, code) {
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

    /// Resolves some time after the thread was told to die. Never for one that is not.
    pub async fn killed(self) {
        loop {
            tokio::time::sleep(PATIENCE).await;
            let status = self.status();
            let pending = ["SigPnd:", "ShdPnd:"].into_iter().filter_map(|name| field(&status, name));
            let signals = pending.filter_map(|set| u64::from_str_radix(set, 16).ok());
            if signals.fold(0, |all, set| all | set) & (1 << (libc::SIGKILL - 1)) != 0 {
                return;
            }
        }
    }

    /// True if a thread whose memory is gone was ended by a signal. The kernel notes the signal before it closes the files.
    pub fn is_killed(self) -> bool {
        let stat = text_of(&format!("/proc/{}/stat", self.thread));
        let exit_code: i32 = stat.split_whitespace().next_back().and_then(|code| code.parse().ok()).unwrap_or(0);
        exit_code & 0x7f != 0
    }
}

/// A field of what /proc tells of a thread.
fn field<'s>(status: &'s str, name: &str) -> Option<&'s str> {
    status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim)
}

/// What a thread that closes a file does with its memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Memory {
    Running,
    /// It executes another program, of which there is no code yet: the kernel closes files in the middle of it, and until that
    /// is answered, whoever asks for more of the process than this waits for ever.
    New,
    /// It ends: a thread gives up its memory before its files.
    Gone,
}

/// Resolves when the caller was told to die; never where there is none, since its close must be carried out.
pub async fn killed(caller: Option<Caller>) {
    match caller {
        Some(caller) => caller.killed().await,
        None => std::future::pending().await,
    }
}

/// True if process `pid` has children, which may have inherited its descriptors.
pub fn has_children(pid: u32) -> bool {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    threads
        .map(|thread| std::fs::read_to_string(thread.path().join("children")).unwrap_or_default())
        .any(|children| !children.trim().is_empty())
}

fn is_at(target: nix::Result<OsString>, path: &Path) -> bool {
    target.is_ok_and(|target| target.as_os_str() == path.as_os_str())
}

/// True if process `pid` has a descriptor of the file at `path` in a mount, or if we lack the means to look. The one that is being
/// closed does not count. Reads links only: opening or asking for anything in the mount would wait for the mount itself.
pub fn has_open(pid: u32, path: &Path) -> bool {
    let listed = Dir::open(&*format!("/proc/{pid}/fd"), OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty());
    let listed = listed.map(|mut descriptors| {
        let names = descriptors.iter().flatten().map(|entry| entry.file_name().to_owned());
        let numbers: Vec<CString> = names.filter(|name| !name.to_bytes().starts_with(b".")).collect();
        numbers.iter().any(|number| is_at(readlinkat(&descriptors, number.as_c_str()), path))
    });
    listed.unwrap_or_else(|error| is_want(&error.into()))
}

/// The same as [`has_open`]; quicker where the process is a shell that has just moved the descriptor to its standard output.
pub fn has_moved(pid: u32, path: &Path) -> bool {
    is_at(readlink(&*format!("/proc/{pid}/fd/1")), path) || has_open(pid, path)
}

/// True if process `pid` has the file at `path` in its memory, or if that cannot be found out: what it stores there is still to
/// come. May wait for who changes that memory.
pub fn has_mapped(pid: u32, path: &Path) -> bool {
    match read_proc(&format!("/proc/{pid}/maps"), true) {
        Ok(maps) => maps.split(|&b| b == b'\n').any(|line| line.ends_with(path.as_os_str().as_bytes())),
        Err(error) => is_want(&error),
    }
}

/// True if any process that we may look into has a descriptor or a mapping of the file at `path`.
pub fn anyone_has_open(path: &Path) -> bool {
    let Ok(entries) = std::fs::read_dir("/proc") else { return true };
    let mut pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.any(|pid| has_open(pid, path) || has_mapped(pid, path))
}

/// A short file of /proc as text; empty if it cannot be read.
fn text_of(path: &str) -> String {
    String::from_utf8_lossy(&read_proc(path, false).unwrap_or_default()).into_owned()
}

/// True if we lack something to look at a process, which so may be there.
fn is_want(error: &std::io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM))
}

/// A file of /proc: one that is `long`, or one that the kernel gives in one piece. Asks for nothing else, since a close waits
/// for each call.
fn read_proc(path: &str, long: bool) -> std::io::Result<Vec<u8>> {
    let (mut text, mut filled) = (vec![0; 8192], 0);
    let mut file = File::open(path)?;
    // What was read before an error is of a process that has gone since.
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
