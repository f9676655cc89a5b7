//! Control groups. Each command runs in its own control group where the kernel and the privileges allow it. Then no
//! process of the command can escape a kill, and its memory and CPU time can be limited.
//!
//! Only cgroup version 2 is used. Killing uses `cgroup.kill` (Linux 5.14); limits need the controllers `memory` and
//! `cpu`. Where groups cannot be created, commands run without them. A limit whose controller is missing is refused.

use nix::unistd::Pid;
use s4::error::{Error, ErrorKind, Result};
use s4::protocol::JobSpec;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long a killed process may take to disappear.
const KILL_TIMEOUT: Duration = Duration::from_secs(3);
/// The period of a CPU quota, in microseconds, as the kernel's default.
const CPU_PERIOD: u64 = 100_000;
/// The shortest quota that the kernel accepts.
const MIN_QUOTA: u64 = 1000;

/// The resources that a task may use.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Limits {
    /// Bytes.
    pub memory: Option<u64>,
    pub cpus: Option<f64>,
}

impl Limits {
    /// The limits of the commands of a job.
    pub fn of(spec: &JobSpec) -> Self {
        Self { memory: spec.memory, cpus: spec.cpus }
    }

    pub fn is_none(self) -> bool {
        self.memory.is_none() && self.cpus.is_none()
    }

    /// The files of a group that set the limits, and what to write into each.
    fn files(self) -> Vec<(&'static str, String)> {
        let memory = self.memory.map(|bytes| ("memory.max", bytes.to_string()));
        let quota = |cpus: f64| ((cpus * CPU_PERIOD as f64) as u64).max(MIN_QUOTA);
        let cpu = self.cpus.map(|cpus| ("cpu.max", format!("{} {CPU_PERIOD}", quota(cpus))));
        memory.into_iter().chain(cpu).collect()
    }
}

/// The groups of this daemon.
pub struct Cgroups {
    /// The daemon's directory in the unified hierarchy. `None` if there are no control groups.
    base: Option<PathBuf>,
    /// True if the controller can be used.
    has_memory: bool,
    has_cpu: bool,
    /// Guards the groups that can be reused, and the number of the next new group.
    free: Mutex<(Vec<PathBuf>, u64)>,
}

/// The group of one command. Dropping it kills what is left in the group.
pub struct Group {
    cgroups: Arc<Cgroups>,
    path: PathBuf,
    limits: Limits,
    /// A group that was killed once cannot be used again: Linux (seen up to 6.18) compares the kill counts of two
    /// groups, and so kills every process that `CLONE_INTO_CGROUP` starts in it.
    was_killed: AtomicBool,
}

impl Cgroups {
    /// `name` is the same at each start of this daemon, so that processes left by a killed run are found and ended.
    pub fn open(name: &str) -> Arc<Self> {
        let base = hierarchy().and_then(|own| make_base(&own.join(name)));
        if base.is_none() {
            tracing::info!("no control groups: commands are found by their environment, and cannot be limited");
        }
        let has = |controller: &str| base.as_deref().is_some_and(|base| delegates(base, controller));
        let (has_memory, has_cpu) = (has("memory"), has("cpu"));
        Arc::new(Self { base, has_memory, has_cpu, free: Mutex::default() })
    }

    /// True if every command has a group, so that no process outlives its command.
    pub fn are_there(&self) -> bool {
        self.base.is_some()
    }

    /// Refuses limits that this machine cannot enforce.
    pub fn check(&self, limits: Limits) -> Result<()> {
        let missing = match limits {
            Limits { memory: Some(_), .. } if !self.has_memory => "memory",
            Limits { cpus: Some(_), .. } if !self.has_cpu => "cpu",
            _ => return Ok(()),
        };
        let why = format!("this node cannot limit a task: it has no control group '{missing}' that s4-server may use");
        Err(Error::new(ErrorKind::BadRequest, why))
    }

    /// A group for one command; `None` if there are no control groups.
    pub fn group(self: &Arc<Self>, limits: Limits) -> Result<Option<Group>> {
        let Some(base) = &self.base else {
            return Ok(None);
        };
        let free = if limits.is_none() { self.lock().0.pop() } else { None };
        let path = free.unwrap_or_else(|| {
            let mut free = self.lock();
            free.1 += 1;
            base.join(format!("task-{}", free.1))
        });
        let group = Group { cgroups: self.clone(), path, limits, was_killed: AtomicBool::new(false) };
        group.make().map_err(|e| Error::io("a control group", &e))?;
        Ok(Some(group))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, (Vec<PathBuf>, u64)> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Cgroups {
    /// Kills what is left in the groups, and removes them. Called at the end of the daemon.
    pub fn remove(&self) {
        if let Some(base) = &self.base {
            remove_groups(base);
        }
    }
}

impl Group {
    /// Creates the group with its limits, unless it exists.
    fn make(&self) -> std::io::Result<()> {
        make(&self.path)?;
        self.limits.files().into_iter().try_for_each(|(file, value)| std::fs::write(self.path.join(file), value))
    }

    /// The group's directory, in which a process can be started.
    pub fn open(&self) -> Result<File> {
        let open = || {
            if self.was_killed.swap(false, Ordering::Relaxed) {
                std::fs::remove_dir(&self.path)?;
                self.make()?;
            }
            File::open(&self.path)
        };
        open().map_err(|e| Error::io("a control group", &e))
    }

    /// Kills every process in the group. Blocks until they have ended.
    pub fn kill(&self) {
        self.was_killed.store(true, Ordering::Relaxed);
        kill(&self.path);
    }

    /// Kills the processes that an ended command has left.
    pub fn clear(&self) {
        if self.is_populated() {
            self.kill();
        }
    }

    /// True while a process of the command is running.
    pub fn is_populated(&self) -> bool {
        is_populated(&self.path)
    }

    /// The processes of the command, except those in control groups that the command has created itself.
    pub fn processes(&self) -> Vec<i32> {
        let text = std::fs::read_to_string(self.path.join("cgroup.procs")).unwrap_or_default();
        text.lines().filter_map(|line| line.parse().ok()).collect()
    }

    /// True if the kernel has killed a process for exceeding the memory limit.
    pub fn ran_out_of_memory(&self) -> bool {
        let events = || std::fs::read_to_string(self.path.join("memory.events")).unwrap_or_default();
        self.limits.memory.is_some() && has_oom_kill(&events())
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let path = std::mem::take(&mut self.path);
        // This fails only while a killed process hangs in the kernel. Then the daemon's end tries again.
        let remove = |path: &Path| drop(std::fs::remove_dir(path));
        if is_populated(&path) {
            // The caller of drop must not wait. If no thread can be started, the daemon's end kills the group.
            let clear = move || {
                kill(&path);
                remove(&path);
            };
            let _ = std::thread::Builder::new().name("s4-clear".to_owned()).spawn(clear);
        } else if self.limits.is_none() && !self.was_killed.load(Ordering::Relaxed) {
            // A group that is empty, has no limits and was never killed can be reused.
            self.cgroups.lock().0.push(path);
        } else {
            remove(&path);
        }
    }
}

fn make(dir: &Path) -> std::io::Result<()> {
    match std::fs::create_dir(dir) {
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        made => made,
    }
}

/// Creates the daemon's own group, and checks that killing works in it.
fn make_base(base: &Path) -> Option<PathBuf> {
    remove_groups(base);
    make(base).ok()?;
    match base.join("cgroup.kill").exists() {
        true => Some(base.to_owned()),
        false => {
            let _ = std::fs::remove_dir(base);
            None
        }
    }
}

/// Delegates a version 2 controller to the groups of commands, if it is available. A group that contains processes
/// cannot delegate, so the daemon moves into its own group beside those of the commands.
fn delegates(base: &Path, controller: &str) -> bool {
    let has = |dir: &Path| {
        std::fs::read_to_string(dir.join("cgroup.controllers"))
            .is_ok_and(|all| all.split_whitespace().any(|c| c == controller))
    };
    let hand_down = |dir: &Path| std::fs::write(dir.join("cgroup.subtree_control"), format!("+{controller}")).is_ok();
    let Some(parent) = base.parent().filter(|parent| has(parent)) else {
        return false;
    };
    if !hand_down(parent) {
        let own = base.join("daemon");
        let moved = make(&own).is_ok() && std::fs::write(own.join("cgroup.procs"), Pid::this().to_string()).is_ok();
        if !moved || !hand_down(parent) {
            return false;
        }
    }
    has(base) && hand_down(base)
}

/// The directory of this process's own group.
fn hierarchy() -> Option<PathBuf> {
    let groups = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").ok()?;
    let dir = own_group(&groups, &mounts)?;
    dir.is_dir().then_some(dir)
}

/// Parses the directory of this process's group from the contents of /proc/self/cgroup and /proc/self/mountinfo.
fn own_group(groups: &str, mounts: &str) -> Option<PathBuf> {
    let own = groups.lines().find_map(|line| line.strip_prefix("0::"))?;
    mounts.lines().find_map(|line| {
        let (mount, source) = line.split_once(" - ")?;
        let (root, point) = (mount.split(' ').nth(3)?, mount.split(' ').nth(4)?);
        // In a container, the mount may show only a part of the hierarchy, or this process may be above that part.
        let below = own.strip_prefix(root.trim_end_matches('/')).unwrap_or("");
        let is_unified = source.split(' ').next()? == "cgroup2";
        is_unified.then(|| Path::new(point).join(below.trim_start_matches('/')))
    })
}

/// True if a group's `memory.events` counts a process that the kernel has killed for lack of memory.
fn has_oom_kill(events: &str) -> bool {
    events.lines().filter_map(|line| line.strip_prefix("oom_kill ")).any(|count| count.trim() != "0")
}

fn is_populated(dir: &Path) -> bool {
    std::fs::read_to_string(dir.join("cgroup.events")).is_ok_and(|events| events.contains("populated 1"))
}

fn kill(dir: &Path) {
    let began = Instant::now();
    while is_populated(dir) && began.elapsed() < KILL_TIMEOUT {
        // This also kills processes that fork during the kill.
        let _ = OpenOptions::new().write(true).open(dir.join("cgroup.kill")).and_then(|mut file| file.write_all(b"1"));
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Kills everything in the groups below `dir`, and removes them and `dir`.
fn remove_groups(dir: &Path) {
    let Ok(entries) = std::fs::read_dir(dir) else {
        return;
    };
    for group in entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        if group.file_name() != "daemon" {
            kill(&group.path());
            let _ = std::fs::remove_dir(group.path());
        }
    }
    let _ = std::fs::remove_dir(dir);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_written_as_the_kernel_reads_them() {
        assert_eq!(Limits::default().files(), []);
        let limits = Limits { memory: Some(64 << 20), cpus: Some(0.5) };
        let [memory, cpu] = [("memory.max", "67108864"), ("cpu.max", "50000 100000")];
        assert_eq!(limits.files(), [memory, cpu].map(|(file, value)| (file, value.to_owned())));
        let tiny = Limits { memory: None, cpus: Some(0.000_001) };
        assert_eq!(tiny.files(), [("cpu.max", "1000 100000".to_owned())]);
    }

    #[test]
    fn the_own_group_is_found_where_its_hierarchy_is_mounted() {
        let found = |groups: &str, mounts: &str| own_group(groups, mounts).map(|dir| dir.display().to_string());
        let unified = "25 1 0:23 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw\n";
        assert_eq!(found("0::/a.slice/b.service\n", unified).as_deref(), Some("/sys/fs/cgroup/a.slice/b.service"));
        // Versions 1 and 2 side by side.
        let both = "31 2 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
                    38 2 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        assert_eq!(found("4:memory:/m\n0::/\n", both).as_deref(), Some("/sys/fs/cgroup/unified/"));
        // A container that sees a part of the hierarchy.
        let part = "25 1 0:23 /docker/c1 /sys/fs/cgroup rw - cgroup2 cgroup rw\n";
        assert_eq!(found("0::/docker/c1/own\n", part).as_deref(), Some("/sys/fs/cgroup/own"));
        assert_eq!(found("0::/elsewhere\n", part).as_deref(), Some("/sys/fs/cgroup/"));
        assert_eq!(found("4:memory:/m\n", both), None, "of version 1 alone");
        assert_eq!(found("0::/\n", "31 2 0:32 / /c rw - cgroup cgroup rw,memory\n"), None);
    }

    #[test]
    fn only_an_oom_kill_counts_as_out_of_memory() {
        assert!(has_oom_kill("low 0\nmax 12\noom 1\noom_kill 1\n"));
        assert!(!has_oom_kill("low 0\nmax 12\noom 1\noom_kill 0\n"));
        assert!(!has_oom_kill(""));
    }
}
