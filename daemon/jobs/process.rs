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
            .filter(|(pid, parent)| !found.contains(pid) && found.contains(parent))
            .map(|(&pid, _)| pid)
            .collect();
        if children.is_empty() {
            return found;
        }
        found.extend(children);
    }
}

/// The parent of each process that is no zombie.
fn running() -> HashMap<i32, i32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter_map(|pid| Some((pid, living_parent(pid)?))).collect()
}

fn living_parent(pid: i32) -> Option<i32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field, the program's name, is in parentheses and may hold anything.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?;
    (!matches!(state, "Z" | "X")).then(|| fields.next()?.parse().ok())?
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
