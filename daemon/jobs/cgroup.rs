//! Control groups: every command runs in one of its own where the kernel and the privileges allow, so that no process of it
//! can get away, and so that its memory and CPU time can be limited.
//!
//! They are those of version 2. Killing takes `cgroup.kill`, since Linux 5.14; limits take the controllers `memory` and `cpu`. Where
//! groups cannot be made, commands run without them; limits are refused where there is no controller for them.

use nix::unistd::Pid;
use s4::error::{Error, ErrorKind, Result};
use s4::protocol::JobSpec;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long killed processes may take to be gone.
const GONE: Duration = Duration::from_secs(3);
/// The period of a CPU quota, in microseconds, as the kernel's default.
const PERIOD: u64 = 100_000;
/// The shortest that the kernel takes.
const SHORTEST_QUOTA: u64 = 1000;

/// What a task may use.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Limits {
    /// Bytes.
    pub memory: Option<u64>,
    pub cpus: Option<f64>,
}

impl Limits {
    /// Those that a job's commands have.
    pub fn of(spec: &JobSpec) -> Self {
        Self { memory: spec.memory, cpus: spec.cpus }
    }

    pub fn is_none(self) -> bool {
        self.memory.is_none() && self.cpus.is_none()
    }

    /// The files of a group that set them, and what is written into each.
    fn files(self) -> Vec<(&'static str, String)> {
        let memory = self.memory.map(|bytes| ("memory.max", bytes.to_string()));
        let quota = |cpus: f64| ((cpus * PERIOD as f64) as u64).max(SHORTEST_QUOTA);
        let cpu = self.cpus.map(|cpus| ("cpu.max", format!("{} {PERIOD}", quota(cpus))));
        memory.into_iter().chain(cpu).collect()
    }
}

/// Where this daemon makes its groups.
pub struct Cgroups {
    /// In the unified hierarchy.
    base: Option<PathBuf>,
    /// The controllers that it may use.
    has_memory: bool,
    has_cpu: bool,
    /// Guards the groups that are free to be used again, and the number of the next new one.
    free: Mutex<(Vec<PathBuf>, u64)>,
}

/// One command's group. Dropped, what is left in it is killed.
pub struct Group {
    cgroups: Arc<Cgroups>,
    path: PathBuf,
    limits: Limits,
    /// Linux, seen up to 6.18, kills whatever is started by `CLONE_INTO_CGROUP` in a group that was killed before: it compares the counts
    /// of kills of two groups. So such a group is made anew.
    was_killed: AtomicBool,
}

impl Cgroups {
    /// `name` is the same at each start of this daemon, so that what a killed predecessor left is ended.
    pub fn open(name: &str) -> Arc<Self> {
        let base = hierarchy().and_then(|own| make_base(&own.join(name)));
        if base.is_none() {
            tracing::info!("no control groups: commands are found by their environment, and cannot be limited");
        }
        let has = |controller: &str| base.as_deref().is_some_and(|base| delegates(base, controller));
        let (has_memory, has_cpu) = (has("memory"), has("cpu"));
        Arc::new(Self { base, has_memory, has_cpu, free: Mutex::default() })
    }

    /// True if every command has a group, so that none of its processes outlives it.
    pub fn are_there(&self) -> bool {
        self.base.is_some()
    }

    /// Refuses limits that this machine cannot keep.
    pub fn check(&self, limits: Limits) -> Result<()> {
        let missing = match limits {
            Limits { memory: Some(_), .. } if !self.has_memory => "memory",
            Limits { cpus: Some(_), .. } if !self.has_cpu => "cpu",
            _ => return Ok(()),
        };
        let why = format!("this node cannot limit a task: it has no control group '{missing}' that s4-server may use");
        Err(Error::new(ErrorKind::BadRequest, why))
    }

    /// A group for one command; `None` where there are none.
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
    /// Kills what is left in the groups, and removes them: the daemon ends.
    pub fn remove(&self) {
        if let Some(base) = &self.base {
            remove_groups(base);
        }
    }
}

impl Group {
    /// Makes the group, unless it is there, with its limits.
    fn make(&self) -> std::io::Result<()> {
        make(&self.path)?;
        self.limits.files().into_iter().try_for_each(|(file, value)| std::fs::write(self.path.join(file), value))
    }

    /// The group's directory, for a process to be started in.
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

    /// Kills every process in the group. Blocks until they are gone.
    pub fn kill(&self) {
        self.was_killed.store(true, Ordering::Relaxed);
        kill(&self.path);
    }

    /// Kills what a command that has ended has left behind.
    pub fn clear(&self) {
        if self.is_populated() {
            self.kill();
        }
    }

    /// True while a process of the command runs.
    pub fn is_populated(&self) -> bool {
        is_populated(&self.path)
    }

    /// The processes of the command that are in no group of its own making.
    pub fn processes(&self) -> Vec<i32> {
        let text = std::fs::read_to_string(self.path.join("cgroup.procs")).unwrap_or_default();
        text.lines().filter_map(|line| line.parse().ok()).collect()
    }

    /// True if the kernel has killed a process for using more memory than allowed.
    pub fn ran_out_of_memory(&self) -> bool {
        let events = || std::fs::read_to_string(self.path.join("memory.events")).unwrap_or_default();
        self.limits.memory.is_some() && has_oom_kill(&events())
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let path = std::mem::take(&mut self.path);
        // Not empty only while a killed process hangs in the kernel; the daemon's end tries again.
        let remove = |path: &Path| drop(std::fs::remove_dir(path));
        if is_populated(&path) {
            // Whoever drops it may not wait. Without a thread, the daemon's end kills it.
            let clear = move || {
                kill(&path);
                remove(&path);
            };
            let _ = std::thread::Builder::new().name("s4-clear".to_owned()).spawn(clear);
        } else if self.limits.is_none() && !self.was_killed.load(Ordering::Relaxed) {
            // A group that is empty, has no limits and was never killed serves the next command.
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

/// Makes the daemon's own group, and sees that killing works in it.
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

/// Hands a version 2 controller down to the groups of commands, if it can be had. Groups that hold processes cannot hand
/// down, so the daemon moves into a group of its own beside those of the commands.
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

/// The same, from what the kernel says of the process's groups and of its mounts.
fn own_group(groups: &str, mounts: &str) -> Option<PathBuf> {
    let own = groups.lines().find_map(|line| line.strip_prefix("0::"))?;
    mounts.lines().find_map(|line| {
        let (mount, source) = line.split_once(" - ")?;
        let (root, point) = (mount.split(' ').nth(3)?, mount.split(' ').nth(4)?);
        // In a container the mount may show only a part of the hierarchy, or this process may be above it.
        let below = own.strip_prefix(root.trim_end_matches('/')).unwrap_or("");
        let is_unified = source.split(' ').next()? == "cgroup2";
        is_unified.then(|| Path::new(point).join(below.trim_start_matches('/')))
    })
}

/// True of a group's `memory.events` that tell of a process which the kernel has killed.
fn has_oom_kill(events: &str) -> bool {
    events.lines().filter_map(|line| line.strip_prefix("oom_kill ")).any(|count| count.trim() != "0")
}

fn is_populated(dir: &Path) -> bool {
    std::fs::read_to_string(dir.join("cgroup.events")).is_ok_and(|events| events.contains("populated 1"))
}

fn kill(dir: &Path) {
    let began = Instant::now();
    while is_populated(dir) && began.elapsed() < GONE {
        // The processes that fork meanwhile die too.
        let _ = OpenOptions::new().write(true).open(dir.join("cgroup.kill")).and_then(|mut file| file.write_all(b"1"));
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Kills all that is in the groups below `dir`, and removes them and it.
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
        // Both versions beside each other.
        let both = "31 2 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
                    38 2 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        assert_eq!(found("4:memory:/m\n0::/\n", both).as_deref(), Some("/sys/fs/cgroup/unified/"));
        // A container sees a part of the hierarchy.
        let part = "25 1 0:23 /docker/c1 /sys/fs/cgroup rw - cgroup2 cgroup rw\n";
        assert_eq!(found("0::/docker/c1/own\n", part).as_deref(), Some("/sys/fs/cgroup/own"));
        assert_eq!(found("0::/elsewhere\n", part).as_deref(), Some("/sys/fs/cgroup/"));
        assert_eq!(found("4:memory:/m\n", both), None, "of version 1 alone");
        assert_eq!(found("0::/\n", "31 2 0:32 / /c rw - cgroup cgroup rw,memory\n"), None);
    }

    #[test]
    fn only_a_kill_is_out_of_memory() {
        assert!(has_oom_kill("low 0\nmax 12\noom 1\noom_kill 1\n"));
        assert!(!has_oom_kill("low 0\nmax 12\noom 1\noom_kill 0\n"));
        assert!(!has_oom_kill(""));
    }
}
