//! Finds and kills the processes of a task, however they were started.
//!
//! Every command has its task's directory in the environment variable `S4_TASK_DIR`, which children inherit across
//! `fork`, `exec` and `setsid`, and the identity of the node's data directory in `S4_STORE`: in another mount namespace,
//! the directory of another node may have the same path. A kill finds all processes that have these variables or work in
//! the directory, and their descendants. It repeats until none is left. Only a process that clears its environment,
//! leaves the directory and has lost its parents escapes; control groups, where available, catch that process too.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

/// The variable that marks a task's processes.
pub const MARK: &str = "S4_TASK_DIR";
/// The variable with the [identity](store_of) of the node's data directory.
pub const STORE: &str = "S4_STORE";

/// Rounds after which a kill gives up: the process hangs in the kernel.
const ROUNDS: usize = 200;
const PAUSE: Duration = Duration::from_millis(10);

/// Device and inode of the data directory that contains `dir`, the directory of tasks or of a task; the same as long as
/// the machine runs.
pub fn store_of(dir: &Path) -> String {
    let root =
        dir.ancestors().find(|parent| parent.file_name().is_some_and(|name| name == ".s4")).and_then(Path::parent);
    let found = root.and_then(|root| root.metadata().ok());
    found.map_or_else(String::new, |found| format!("{:x}:{:x}", found.dev(), found.ino()))
}

/// Kills every process of the task in directory `dir`, or of all tasks below it. Blocks until they have ended. Returns
/// their number.
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
            // This fails if the process has ended already.
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            killed.insert(pid);
        }
    }
    killed.len()
}

/// A running process.
pub struct Process {
    pid: i32,
    name: String,
    parent: i32,
    group: i32,
    /// It uses a CPU, or waits for a CPU or the disk.
    pub is_at_work: bool,
}

/// The processes of a command that still run after its shell has ended: the `known` processes, or if there are none,
/// those found by the directory `dir` or by the process group. Excludes daemons that have left the directory and have
/// no file below `own` open for writing: they cannot change an output.
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

/// For example `sleep (pid 12), gzip (pid 13) and 2 more`.
pub fn describe(processes: &[Process]) -> String {
    let shown =
        processes.iter().take(3).map(|process| format!("{} (pid {})", process.name.escape_debug(), process.pid));
    let shown = shown.collect::<Vec<_>>().join(", ");
    match processes.len().saturating_sub(3) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

/// Also true if the process may not be inspected.
fn works_in(pid: i32, dir: &Path) -> bool {
    match std::fs::read_link(format!("/proc/{pid}/cwd")) {
        Ok(cwd) => cwd.starts_with(dir),
        Err(error) => error.kind() != std::io::ErrorKind::NotFound,
    }
}

/// True if the process has another mount namespace, so that its paths mean nothing here.
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

/// Processes whose mark is `dir` or a directory below it, and all their descendants.
fn find(dir: &Path) -> HashSet<i32> {
    let (processes, store) = (running(), store_of(dir));
    let own = std::process::id() as i32;
    let is_ours = |pid: &i32| *pid != own && is_marked(*pid, dir, &store);
    let mut found: HashSet<i32> = processes.keys().copied().filter(is_ours).collect();
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

/// Every process except zombies.
fn running() -> HashMap<i32, Process> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter_map(|pid| Some((pid, living(pid)?))).collect()
}

/// `None` if the process has ended.
fn living(pid: i32) -> Option<Process> {
    // Read as bytes, since the program's name may not be UTF-8.
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

fn is_marked(pid: i32, dir: &Path, store: &str) -> bool {
    let works_here = std::fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd.starts_with(dir));
    if works_here && !has_own_mounts(pid) {
        return true;
    }
    let Ok(environment) = std::fs::read(format!("/proc/{pid}/environ")) else {
        return false;
    };
    let value = |name: &str| {
        let name = [name.as_bytes(), b"="].concat();
        environment.split(|&b| b == 0).find_map(|variable| variable.strip_prefix(&name[..]))
    };
    let is_below = |path: &[u8]| Path::new(OsStr::from_bytes(path)).starts_with(dir);
    // Without a data directory, nothing else can be ours.
    value(MARK).is_some_and(is_below) && (store.is_empty() || value(STORE).is_some_and(|of| of == store.as_bytes()))
}
