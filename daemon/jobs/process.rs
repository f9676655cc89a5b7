//! The processes of a task, found and killed however they were started.
//!
//! Every command has its task's directory in its environment, as `S4_TASK_DIR`, which its children inherit across `fork`,
//! `exec` and `setsid`. A kill finds all processes that carry it or work in that directory, and their descendants, and
//! repeats until none is left. Out of reach is only a process that clears its environment, leaves its directory, and has
//! left its parents too; where there are control groups, they reach that one as well.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::collections::{HashMap, HashSet};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

/// The variable that marks a task's processes.
pub const MARK: &str = "S4_TASK_DIR";

/// Rounds of searching before a process that does not die is given up: it hangs in the kernel.
const ROUNDS: usize = 200;
const PAUSE: Duration = Duration::from_millis(10);

/// Kills every process of the task in directory `dir`, or of all tasks below it. Blocks until they are gone. Returns how
/// many there were.
pub fn kill_tree(dir: &Path) -> usize {
    let mut killed = HashSet::new();
    for round in 0..ROUNDS {
        let found = find(dir);
        if found.is_empty() {
            break;
        }
        if round > 0 {
            std::thread::sleep(PAUSE);
        }
        for pid in found {
            // A process that is gone by now needs no killing.
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            killed.insert(pid);
        }
    }
    killed.len()
}

/// A process that runs.
pub struct Process {
    pid: i32,
    name: String,
    parent: i32,
    group: i32,
    /// It has a CPU, or waits for one or for the disk.
    pub is_at_work: bool,
}

/// What goes on of a command after its shell has ended: the processes `known` to be its, or if there are none, those found
/// by its directory `dir` or its process group. A daemon that has left the directory and holds nothing below `own`, open to
/// be written, is none of them: it cannot change an output.
pub fn left(dir: &Path, own: &Path, group: Pid, known: &[i32]) -> Vec<Process> {
    let pids: Vec<i32> = match known.is_empty() {
        false => known.to_vec(),
        true => {
            let in_group = running().into_values().filter(|process| process.group == group.as_raw());
            find(dir)
                .into_iter()
                .chain(in_group.map(|process| process.pid))
                .collect::<HashSet<_>>()
                .into_iter()
                .collect()
        }
    };
    let may_write =
        |process: &Process| works_in(process.pid, dir) || has_own_mounts(process.pid) || writes_below(process.pid, own);
    pids.into_iter().filter_map(living).filter(may_write).collect()
}

/// `sleep (pid 12), gzip (pid 13) and 2 more`.
pub fn describe(processes: &[Process]) -> String {
    let shown =
        processes.iter().take(3).map(|process| format!("{} (pid {})", process.name.escape_debug(), process.pid));
    let shown = shown.collect::<Vec<_>>().join(", ");
    match processes.len().saturating_sub(3) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

/// True of what cannot be looked into too.
fn works_in(pid: i32, dir: &Path) -> bool {
    match std::fs::read_link(format!("/proc/{pid}/cwd")) {
        Ok(cwd) => cwd.starts_with(dir),
        Err(error) => error.kind() != std::io::ErrorKind::NotFound,
    }
}

/// True if the process sees other mounts than this one, so that its paths say nothing here.
fn has_own_mounts(pid: i32) -> bool {
    let mounts = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/mnt")).ok();
    mounts(&pid.to_string()) != mounts("self")
}

fn writes_below(pid: i32, dir: &Path) -> bool {
    let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let below = descriptors.filter(|fd| std::fs::read_link(fd.path()).is_ok_and(|path| path.starts_with(dir)));
    let writable = |name: &std::ffi::OsStr| {
        let text = std::fs::read_to_string(format!("/proc/{pid}/fdinfo/{}", name.display())).unwrap_or_default();
        let flags = text.lines().find_map(|line| i32::from_str_radix(line.strip_prefix("flags:")?.trim(), 8).ok());
        flags.is_none_or(|flags| flags & nix::libc::O_ACCMODE != nix::libc::O_RDONLY)
    };
    below.map(|fd| fd.file_name()).any(|name| writable(&name))
}

/// Processes that carry the mark of `dir` or of a directory below it, and all their descendants.
fn find(dir: &Path) -> HashSet<i32> {
    let processes = running();
    let own = std::process::id() as i32;
    let mut found: HashSet<i32> = processes.keys().copied().filter(|&pid| pid != own && is_marked(pid, dir)).collect();
    if found.is_empty() {
        return found;
    }
    loop {
        let children: Vec<i32> = processes
            .iter()
            .filter(|(pid, process)| !found.contains(pid) && found.contains(&process.parent))
            .map(|(&pid, _)| pid)
            .collect();
        if children.is_empty() {
            return found;
        }
        found.extend(children);
    }
}

/// Every process that is no zombie.
fn running() -> HashMap<i32, Process> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter_map(|pid| Some((pid, living(pid)?))).collect()
}

/// `None` if it has ended.
fn living(pid: i32) -> Option<Process> {
    // The program's name may hold any bytes.
    let stat = std::fs::read(format!("/proc/{pid}/stat")).ok()?;
    let stat = String::from_utf8_lossy(&stat);
    let (name, fields) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let number = |at: usize| fields.get(at)?.parse().ok();
    let state = *fields.first()?;
    (!matches!(state, "Z" | "X")).then_some(Process {
        pid,
        name: name.split_once('(')?.1.to_owned(),
        parent: number(1)?,
        group: number(2)?,
        is_at_work: matches!(state, "R" | "D"),
    })
}

fn is_marked(pid: i32, dir: &Path) -> bool {
    if std::fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd.starts_with(dir)) {
        return true;
    }
    let Ok(environment) = std::fs::read(format!("/proc/{pid}/environ")) else {
        return false;
    };
    let mark = [MARK.as_bytes(), b"=", dir.as_os_str().as_bytes()].concat();
    environment
        .split(|&b| b == 0)
        .filter_map(|variable| variable.strip_prefix(&mark[..]))
        .any(|rest| rest.is_empty() || rest.starts_with(b"/"))
}
