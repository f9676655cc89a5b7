//! A cluster of three hosts with disks of their own, a client's host, and a mount there: where operations meet faults.

use crate::harness::{PATIENCE, eventually, text};
use crate::hosts::{Hosts, print_now};
use crate::mounting::no_mounts;
use crate::programs::program;
use nix::sys::signal::Signal;
use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

pub const NODES: usize = 3;
/// Of all commands and mounts.
pub const DEADLINE: Duration = Duration::from_secs(2);
const DEADLINE_TEXT: &str = "2";

/// Files, or keys, with their bytes, by their names.
pub type Tree = BTreeMap<String, Vec<u8>>;

/// What programs do in a mount.
const IN_MOUNT: &str = include_str!("sites/in_mount.py");

pub struct Site {
    pub hosts: Hosts,
    /// By their directories.
    mounts: BTreeMap<&'static str, Child>,
}

/// The mount of each site.
pub const MOUNT: &str = "mnt";

impl Site {
    /// The daemons get `options`. `None`, with the reason on stderr, if this machine cannot have such hosts.
    pub fn new(options: &[&str]) -> Option<Self> {
        if let Some(reason) = no_mounts() {
            print_now(&format!("skipped: {reason}"));
            return None;
        }
        let hosts = Hosts::with_disks(NODES, options)?;
        std::fs::write(hosts.dir().join("in_mount.py"), IN_MOUNT).unwrap();
        let mut site = Self { hosts, mounts: BTreeMap::new() };
        site.start_mount(MOUNT);
        Some(site)
    }

    /// A file or directory of the client.
    pub fn path(&self, name: &str) -> PathBuf {
        self.hosts.dir().join(name)
    }

    /// A script on the client's host, in which `$D` is the option for the deadline, and `mnt` the mount.
    pub fn script(&self, script: &str) -> Command {
        let mut command = self.hosts.script(script);
        command.env("D", format!("--deadline={DEADLINE_TEXT}"));
        command
    }

    pub fn output(&self, script: &str) -> Output {
        self.script(script).output().expect("bash runs")
    }

    /// Runs a script, which must succeed. Returns its stdout.
    pub fn ok(&self, script: &str) -> Result<String, String> {
        let output = self.output(script);
        match output.status.success() {
            true => Ok(text(&output.stdout)),
            false => Err(format!("{script}: {}: {}", output.status, text(&output.stderr).trim())),
        }
    }

    /// Mounts the cluster. The mount of a killed process is replaced.
    pub fn start_mount(&mut self, name: &'static str) {
        let (dir, log) = (self.path(name), self.path(&format!("{name}.log")));
        // It is there after a kill, and then nobody but the client's host sees what it is.
        let _ = std::fs::create_dir(&dir);
        let mut command = self.hosts.on(self.hosts.client(), program("s4-mount"));
        command.arg(&dir).args(["--deadline", DEADLINE_TEXT]);
        let file = std::fs::OpenOptions::new().create(true).append(true).open(&log).unwrap();
        let mut child = command.stdout(Stdio::null()).stderr(file).spawn().expect("s4-mount starts");
        eventually("the mount is there", || {
            let ended = child.try_wait().unwrap();
            assert!(ended.is_none(), "s4-mount: {}", std::fs::read_to_string(&log).unwrap());
            self.ok(&format!("mountpoint -q {name} && [ -e {name}/.s4/nodes ]")).ok()
        });
        self.mounts.insert(name, child);
    }

    pub fn has_mount(&self, name: &str) -> bool {
        self.mounts.contains_key(name)
    }

    pub fn mount_pid(&self, name: &str) -> u32 {
        self.mounts[name].id()
    }

    pub fn kill_mount(&mut self, name: &str) {
        let mut mount = self.mounts.remove(name).expect("a mount");
        mount.kill().unwrap();
        mount.wait().unwrap();
    }

    /// Waits until every node is healthy, and the mount serves.
    pub fn heal(&mut self) {
        if !self.has_mount(MOUNT) {
            self.start_mount(MOUNT);
        }
        eventually("all nodes are healthy", || self.ok("s4 $D health").ok());
        eventually("the mount serves", || self.ok("ls mnt && stat -f mnt").ok());
    }

    /// The keys of a bucket, as all ways to look at them agree.
    pub fn keys(&self, bucket: &str) -> Result<Tree, String> {
        let listed = self.output(&format!("s4 $D ls -r s4://{bucket}/"));
        let said = text(&listed.stderr);
        let names: Vec<String> = match (listed.status.success(), said.contains("nothing found")) {
            (true, _) => text(&listed.stdout).lines().map(|line| last_word(line).to_owned()).collect(),
            (false, true) => Vec::new(),
            (false, false) => return Err(format!("ls -r s4://{bucket}/: {said}")),
        };
        let copy = self.path(&format!("copy-{bucket}"));
        let mut keys = Tree::new();
        if !names.is_empty() {
            self.ok(&format!("s4 $D cp -r s4://{bucket}/ {}", copy.display()))?;
            keys = files_below(&copy);
            std::fs::remove_dir_all(copy).unwrap();
        }
        if !keys.keys().eq(&names) {
            return Err(format!("s4://{bucket}/ is listed with {names:?}, and copied with {:?}", names_of(&keys)));
        }
        let find = format!("[ ! -e mnt/{bucket} ] || (cd mnt/{bucket} && find . -type f -printf '%P\\n')");
        // What was deleted may be seen for a second more, but not opened.
        let began = Instant::now();
        let shown = loop {
            match self.ok(&find) {
                Err(_) if began.elapsed() < DEADLINE => {}
                shown => break shown?,
            }
        };
        let mut shown: Vec<&str> = shown.lines().collect();
        shown.sort_unstable();
        match keys.keys().eq(shown.iter().copied()) {
            true => Ok(keys),
            false => Err(format!("mnt/{bucket} shows {shown:?}, and s4 {names:?}")),
        }
    }

    /// What the work that has ended must not leave on a node: files of tasks, uploads and deletions, and bytes without a name.
    pub fn leftovers(&self, node: usize) -> Vec<String> {
        let own = self.hosts.disk(node).join("data/.s4");
        let dirs = ["tasks", "drafts", "trash", "uploads", "files", "marking"].into_iter();
        let below = dirs.flat_map(|dir| walkdir::WalkDir::new(own.join(dir)).min_depth(1).into_iter().flatten());
        let named = below.filter(|entry| !entry.path().parent().is_some_and(|dir| dir.ends_with(".s4/drafts")));
        let named = named.map(|entry| entry.path().display().to_string());
        let unnamed = unnamed(self.hosts.pid(node), true);
        named.chain(unnamed.into_iter().map(|len| format!("{len} bytes without a name"))).collect()
    }

    /// Waits until nothing is left over on any node. Returns what is.
    pub fn settle(&self) -> Result<(), String> {
        let began = Instant::now();
        loop {
            let left: Vec<String> = (0..NODES).flat_map(|node| self.leftovers(node)).collect();
            if left.is_empty() {
                return Ok(());
            }
            if began.elapsed() > PATIENCE {
                return Err(format!("left over: {left:?}"));
            }
            std::thread::park_timeout(Duration::from_millis(20));
        }
    }

    pub fn freeze(&self, node: usize) {
        self.hosts.signal(node, Signal::SIGSTOP);
    }

    pub fn thaw(&self, node: usize) {
        self.hosts.signal(node, Signal::SIGCONT);
    }

    /// Takes a node's data directory away, as a disk that is not mounted, until [`Site::bring_back`].
    pub fn take_away(&self, node: usize) {
        let data = self.hosts.disk(node).join("data");
        std::fs::rename(&data, data.with_extension("away")).unwrap();
    }

    /// Returns what was made in its place meanwhile, which is removed.
    pub fn bring_back(&self, node: usize) -> Vec<String> {
        let data = self.hosts.disk(node).join("data");
        let made = walkdir::WalkDir::new(&data).into_iter().flatten().map(|entry| entry.path().display().to_string());
        let made: Vec<String> = made.collect();
        let _ = std::fs::remove_dir_all(&data);
        std::fs::rename(data.with_extension("away"), data).unwrap();
        made
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        for mount in self.mounts.values_mut() {
            let _ = mount.kill();
            let _ = mount.wait();
        }
    }
}

/// A map, and what it makes of a tree.
#[derive(Clone, Copy)]
pub struct Map {
    pub kind: &'static str,
    pub cmd: &'static str,
    pub makes: fn(&Tree) -> Tree,
}

pub const MAP: Map = Map { kind: "map", cmd: "cat; echo end", makes: mapped };
pub const TO_N: Map = Map {
    kind: "map-to-n",
    cmd: "cat > in; for n in 0 1 2; do (echo $n; head -c 2000 in) > ${n}_x; echo ${n}_x; done",
    makes: shuffled,
};
/// Inputs of one merge name have no common suffix, so that the merge name is the output's whole name.
pub const FROM_N: Map = Map { kind: "map-from-n", cmd: "xargs cat", makes: merged };

fn mapped(source: &Tree) -> Tree {
    source.iter().map(|(name, bytes)| (name.clone(), [bytes, &b"end\n"[..]].concat())).collect()
}

fn shuffled(source: &Tree) -> Tree {
    let parts = |name: &String, bytes: &[u8]| {
        [0, 1, 2]
            .map(|n| (format!("{name}/{n}_x"), [format!("{n}\n").as_bytes(), &bytes[..bytes.len().min(2000)]].concat()))
    };
    source.iter().flat_map(|(name, bytes)| parts(name, bytes)).collect()
}

fn merged(source: &Tree) -> Tree {
    let mut merged = Tree::new();
    let merge_name = |name: &str| name.split('_').next().unwrap_or_default().to_owned();
    source.iter().for_each(|(name, bytes)| merged.entry(merge_name(name)).or_default().extend(bytes));
    merged
}

/// Lengths of the files without a name that a process has open to write, or else only to read: a daemon keeps keys open for ten
/// minutes that others have read, deleted ones too.
pub fn unnamed(pid: u32, to_write: bool) -> Vec<u64> {
    let entries = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let lens = entries.filter_map(|entry| {
        let file = std::fs::metadata(entry.path()).ok().filter(|file| file.is_file())?;
        let info = std::fs::read_to_string(format!("/proc/{pid}/fdinfo/{}", entry.file_name().to_str()?)).ok()?;
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:"))?.trim().to_owned();
        let writes = i32::from_str_radix(&flags, 8).ok()? & nix::libc::O_ACCMODE != nix::libc::O_RDONLY;
        (file.nlink() == 0 && file.len() > 0 && writes == to_write).then_some(file.len())
    });
    lens.collect()
}

/// The names of a tree, for messages.
pub fn names_of(tree: &Tree) -> Vec<&str> {
    tree.keys().map(String::as_str).collect()
}

fn last_word(line: &str) -> &str {
    line.split_whitespace().last().unwrap_or_default()
}

/// Every file below `dir`, which may be missing.
pub fn files_below(dir: &Path) -> Tree {
    let files = walkdir::WalkDir::new(dir).into_iter().flatten().filter(|entry| entry.file_type().is_file());
    let named = files.map(|file| (file.path().strip_prefix(dir).unwrap().to_str().unwrap().to_owned(), file));
    named.map(|(name, file)| (name, std::fs::read(file.path()).unwrap())).collect()
}

pub fn write_files(dir: &Path, tree: &Tree) {
    for (name, bytes) in tree {
        std::fs::create_dir_all(dir.join(name).parent().unwrap()).unwrap();
        std::fs::write(dir.join(name), bytes).unwrap();
    }
}
