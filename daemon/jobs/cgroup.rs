//! Control groups: every command runs in one of its own where the kernel and the privileges allow, so that no process of it
//! can get away, and so that its memory and CPU time can be limited.
//!
//! Killing takes the unified hierarchy (version 2, `cgroup.kill`, since Linux 5.14). Limits take the controllers `memory`
//! and `cpu`, of version 2 or of version 1, whichever this machine has. Where groups cannot be made, commands run without
//! them and limits are refused.

use nix::unistd::Pid;
use s4::error::{Error, ErrorKind, Result};
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

/// What a task may use.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Limits {
    /// Bytes.
    pub memory: Option<u64>,
    pub cpus: Option<f64>,
}

impl Limits {
    pub fn is_none(self) -> bool {
        self.memory.is_none() && self.cpus.is_none()
    }
}

/// Where this daemon makes its groups.
pub struct Cgroups {
    /// In the unified hierarchy.
    base: Option<PathBuf>,
    memory: Option<Controller>,
    cpu: Option<Controller>,
    /// Guards the groups that are free to be used again, and the number of the next new one.
    free: Mutex<(Vec<PathBuf>, u64)>,
}

/// A controller's directory for this daemon.
enum Controller {
    Version1(PathBuf),
    /// Its files are in the group itself.
    Version2,
}

/// One command's group. Dropped, what is left in it is killed.
pub struct Group {
    cgroups: Arc<Cgroups>,
    /// In the unified hierarchy.
    main: PathBuf,
    /// In the hierarchies of version 1 that limits need.
    more: Vec<PathBuf>,
    limits: Limits,
    /// Limits that were written into files of `main`.
    written: Vec<(&'static str, String)>,
    /// Linux, seen up to 6.18, kills whatever is started by `CLONE_INTO_CGROUP` in a group that was killed before: it compares the counts
    /// of kills of two groups. So such a group is made anew.
    was_killed: AtomicBool,
}

impl Cgroups {
    /// `name` is the same at each start of this daemon, so that what a killed predecessor left is ended.
    pub fn open(name: &str) -> Arc<Self> {
        let base = hierarchy(None).and_then(|own| make_base(&own.join(name)));
        if base.is_none() {
            tracing::info!("no control groups: commands are found by their environment, and cannot be limited");
        }
        let controller = |controller: &str| match base.as_deref().is_some_and(|base| delegates(base, controller)) {
            true => Some(Controller::Version2),
            false => {
                let dir = hierarchy(Some(controller))?.join(name);
                remove_groups(&dir);
                std::fs::create_dir(&dir).ok().map(|()| Controller::Version1(dir))
            }
        };
        let (memory, cpu) = if base.is_some() { (controller("memory"), controller("cpu")) } else { (None, None) };
        Arc::new(Self { base, memory, cpu, free: Mutex::default() })
    }

    /// True if every command has a group, so that none of its processes outlives it.
    pub fn are_there(&self) -> bool {
        self.base.is_some()
    }

    /// Refuses limits that this machine cannot keep.
    pub fn check(&self, limits: Limits) -> Result<()> {
        let missing = match limits {
            Limits { memory: Some(_), .. } if self.memory.is_none() => "memory",
            Limits { cpus: Some(_), .. } if self.cpu.is_none() => "cpu",
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
        let main = free.unwrap_or_else(|| {
            let mut free = self.lock();
            free.1 += 1;
            base.join(format!("task-{}", free.1))
        });
        let mut group = Group {
            cgroups: self.clone(),
            main,
            more: Vec::new(),
            limits,
            written: Vec::new(),
            was_killed: AtomicBool::new(false),
        };
        let failed = |e: std::io::Error| Error::io("a control group", &e);
        make(&group.main).map_err(failed)?;
        if let Some(bytes) = limits.memory {
            group.limit(&self.memory, "memory.max", "memory.limit_in_bytes", bytes.to_string()).map_err(failed)?;
        }
        if let Some(cpus) = limits.cpus {
            let quota = ((cpus * PERIOD as f64) as u64).max(1000);
            let (unified, version1) = (format!("{quota} {PERIOD}"), quota.to_string());
            let text = if matches!(self.cpu, Some(Controller::Version2)) { unified } else { version1 };
            group.limit(&self.cpu, "cpu.max", "cpu.cfs_quota_us", text).map_err(failed)?;
        }
        Ok(Some(group))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, (Vec<PathBuf>, u64)> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Cgroups {
    /// Kills what is left in the groups, and removes them: the daemon ends.
    pub fn remove(&self) {
        let version1 = |controller: &Option<Controller>| match controller {
            Some(Controller::Version1(dir)) => Some(dir.clone()),
            _ => None,
        };
        for dir in [self.base.clone(), version1(&self.memory), version1(&self.cpu)].into_iter().flatten() {
            remove_groups(&dir);
        }
    }
}

impl Group {
    fn limit(
        &mut self,
        controller: &Option<Controller>,
        unified: &'static str,
        version1: &str,
        value: String,
    ) -> std::io::Result<()> {
        match controller {
            Some(Controller::Version2) => {
                std::fs::write(self.main.join(unified), &value)?;
                self.written.push((unified, value));
                Ok(())
            }
            Some(Controller::Version1(dir)) => {
                let dir = dir.join(self.main.file_name().unwrap_or_default());
                make(&dir)?;
                self.more.push(dir.clone());
                std::fs::write(dir.join(version1), value)
            }
            None => Err(std::io::Error::other("there is no such controller")),
        }
    }

    /// The group's directory, for a process to be started in.
    pub fn open(&self) -> Result<File> {
        let open = || {
            if self.was_killed.swap(false, Ordering::Relaxed) {
                std::fs::remove_dir(&self.main)?;
                make(&self.main)?;
                self.written.iter().try_for_each(|(file, value)| std::fs::write(self.main.join(file), value))?;
            }
            File::open(&self.main)
        };
        open().map_err(|e| Error::io("a control group", &e))
    }

    /// The files of its version 1 groups that a process writes `0` into to enter them.
    pub fn entrances(&self) -> Result<Vec<File>> {
        let open = |dir: &PathBuf| OpenOptions::new().write(true).open(dir.join("cgroup.procs"));
        self.more.iter().map(open).collect::<std::io::Result<_>>().map_err(|e| Error::io("a control group", &e))
    }

    /// Kills every process in the group. Blocks until they are gone.
    pub fn kill(&self) {
        self.was_killed.store(true, Ordering::Relaxed);
        kill(&self.main);
    }

    /// Kills what a command that has ended has left behind.
    pub fn clear(&self) {
        if self.is_populated() {
            self.kill();
        }
    }

    /// True while a process of the command runs.
    pub fn is_populated(&self) -> bool {
        is_populated(&self.main)
    }

    /// The processes of the command that are in no group of its own making.
    pub fn processes(&self) -> Vec<i32> {
        let text = std::fs::read_to_string(self.main.join("cgroup.procs")).unwrap_or_default();
        text.lines().filter_map(|line| line.parse().ok()).collect()
    }

    /// True if the kernel has killed a process for using more memory than allowed.
    pub fn ran_out_of_memory(&self) -> bool {
        let counted = |path: PathBuf| {
            let text = std::fs::read_to_string(path).unwrap_or_default();
            text.lines().filter_map(|line| line.strip_prefix("oom_kill ")).any(|count| count.trim() != "0")
        };
        let version1 = self.more.iter().any(|dir| counted(dir.join("memory.oom_control")));
        self.limits.memory.is_some() && (version1 || counted(self.main.join("memory.events")))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let dirs: Vec<PathBuf> = self.more.drain(..).chain([self.main.clone()]).collect();
        // Not empty only while a killed process hangs in the kernel; the daemon's end tries again.
        let remove = move || dirs.iter().for_each(|dir| drop(std::fs::remove_dir(dir)));
        if self.is_populated() {
            // Whoever drops it may not wait. Without a thread, the daemon's end kills it.
            let main = self.main.clone();
            let clear = move || {
                kill(&main);
                remove();
            };
            let _ = std::thread::Builder::new().name("s4-clear".to_owned()).spawn(clear);
        } else if self.limits.is_none() && !self.was_killed.load(Ordering::Relaxed) {
            // A group that is empty, has no limits and was never killed serves the next command.
            self.cgroups.lock().0.push(self.main.clone());
        } else {
            remove();
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

/// The directory of this process's own group: in the unified hierarchy, or in that of a version 1 controller.
fn hierarchy(controller: Option<&str>) -> Option<PathBuf> {
    let groups = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let own = groups.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (names, path) = (fields.next()?, fields.next()?);
        let wanted = controller.map_or(names.is_empty(), |wanted| names.split(',').any(|name| name == wanted));
        wanted.then_some(path)
    })?;
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").ok()?;
    mounts.lines().find_map(|line| {
        let (mount, source) = line.split_once(" - ")?;
        let (root, point) = (mount.split(' ').nth(3)?, mount.split(' ').nth(4)?);
        let (kind, options) = (source.split(' ').next()?, source.split(' ').nth(2)?);
        let wanted = match controller {
            None => kind == "cgroup2",
            Some(wanted) => kind == "cgroup" && options.split(',').any(|option| option == wanted),
        };
        // In a container the mount may show only a part of the hierarchy, or this process may be above it.
        let below = own.strip_prefix(root.trim_end_matches('/')).unwrap_or("");
        let dir = Path::new(point).join(below.trim_start_matches('/'));
        (wanted && dir.is_dir()).then_some(dir)
    })
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
