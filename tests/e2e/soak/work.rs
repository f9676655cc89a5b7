//! What clients do. Each worker has a bucket, and is the only one that changes it.

use super::{KILLED, Soak};
use crate::harness::text;
use crate::hosts::Running;
use crate::random_work::Random;
use crate::sites::{FROM_N, MAP, MOUNT, Map, TO_N, Tree, write_files};
use std::path::PathBuf;
use std::process::Output;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// No operation may take longer, whatever happens. It is more than a deadline: nodes wait for each other, a slow link is no fault,
/// and this machine is busy.
const LONGEST: Duration = Duration::from_secs(25);
/// Keys of a worker, some 65 KiB each, on three disks of 256 MiB for all.
const MAX_KEYS: usize = 500;
const KINDS: [fn(&mut Worker); 10] = [
    |worker| worker.put(),
    |worker| worker.put_tree(),
    |worker| worker.get(),
    |worker| worker.list(),
    |worker| worker.remove(),
    |worker| worker.map(),
    |worker| worker.write_in_mount(),
    |worker| worker.read_in_mount(),
    |worker| worker.move_in_mount(),
    |worker| worker.remove_in_mount(),
];

pub fn bucket(worker: usize) -> String {
    format!("w{worker}")
}

pub struct Worker<'a> {
    soak: &'a Soak,
    number: usize,
    random: Random,
    /// Trees that this worker has made, which number their names.
    made: u64,
    /// The client is killed now and then.
    kills: bool,
}

impl<'a> Worker<'a> {
    pub fn new(soak: &'a Soak, number: usize, seed: u64) -> Self {
        let random = Random(seed.wrapping_mul(1000).wrapping_add(number as u64 + 1));
        Self { soak, number, random, made: 0, kills: false }
    }

    pub fn do_each_once(&mut self) {
        for kind in KINDS {
            kind(self);
        }
    }

    pub fn run(&mut self) {
        self.kills = true;
        while !self.soak.ends.load(Ordering::Relaxed) {
            let kind = self.random.pick(&KINDS);
            kind(self);
            self.make_room();
        }
    }

    /// Runs a script on the client's host. In some runs its client is killed.
    fn run_script(&mut self, kind: &'static str, script: &str) -> Output {
        let killed = match self.kills && self.random.below(10) == 0 {
            true => format!("timeout -s KILL 0.{:03} ", 1 + self.random.below(300)),
            false => String::new(),
        };
        let command = self.soak.site.read().unwrap().script(&format!("{killed}{script}"));
        let began = Instant::now();
        let timed = Running::start(command).end(began);
        let mut counts = self.soak.counts.lock().unwrap();
        let (done, failed, longest) = counts.entry(kind).or_default();
        *if timed.output.status.success() { done } else { failed } += 1;
        *longest = timed.took.max(*longest);
        drop(counts);
        if timed.took > LONGEST {
            self.soak.report(format!("{script}: it took {:?}: {}", timed.took, text(&timed.output.stderr)));
        }
        timed.output
    }

    /// New files of random lengths, with names that no other has: one or two for each node.
    fn new_tree(&mut self) -> (PathBuf, Tree) {
        self.made += 1;
        let id = self.made;
        let worker = self.number;
        let names = (0..6).map(|at| format!("{}_{}{worker}x{id}", at % 3, ["a", "b"][at / 3]));
        let tree: Tree = names.map(|name| (name, self.bytes())).collect();
        let dir = PathBuf::from(format!("src{}-{id}", self.number));
        write_files(&self.soak.site.read().unwrap().path(&dir.to_string_lossy()), &tree);
        (dir, tree)
    }

    fn bytes(&mut self) -> Vec<u8> {
        let len = match self.random.below(20) {
            0 => 0,
            1..15 => self.random.below(5000),
            15..19 => self.random.below(150_000),
            _ => 1 << 20,
        };
        let mut random = Random(self.random.next());
        let words = std::iter::repeat_with(|| random.next().to_le_bytes()).flatten();
        words.take(len as usize).collect()
    }

    fn remove_dir(&self, dir: &std::path::Path) {
        std::fs::remove_dir_all(self.soak.site.read().unwrap().path(&dir.to_string_lossy())).unwrap();
    }

    /// Keys of `tree`, below `dir`, are about to be made.
    fn attempt(&self, dir: &str, tree: &Tree) -> Vec<String> {
        let names: Vec<String> = tree.keys().map(|name| format!("{dir}{name}")).collect();
        let keys = names.iter().map(String::as_str).zip(tree.values().map(Vec::as_slice));
        self.soak.ledger.attempt(self.number, keys);
        names
    }

    fn stored(&self, names: &[String], began: Instant) {
        self.soak.ledger.stored(self.number, names.iter().map(String::as_str), began);
    }

    /// A key that was reported stored.
    fn any_key(&mut self) -> Option<String> {
        let mut keys = self.soak.ledger.certain(self.number);
        let at = self.random.below(keys.len().max(1) as u64) as usize;
        (!keys.is_empty()).then(|| keys.swap_remove(at))
    }

    fn url(&self, name: &str) -> String {
        format!("s4://{}/{name}", bucket(self.number))
    }

    fn mount(&mut self) -> &'static str {
        self.random.pick(&[MOUNT, KILLED])
    }

    fn put(&mut self) {
        let (dir, mut tree) = self.new_tree();
        let chosen = tree.keys().nth(self.random.below(6) as usize).cloned();
        tree.retain(|name, _| Some(name) == chosen.as_ref());
        let names = self.attempt("", &tree);
        let began = Instant::now();
        let script = format!("s4 $D cp {}/{} {}", dir.display(), names[0], self.url(""));
        if self.run_script("put", &script).status.success() {
            self.stored(&names, began);
        }
        self.remove_dir(&dir);
    }

    fn put_tree(&mut self) {
        let (dir, tree) = self.new_tree();
        self.copy_in(&dir, &tree, "cp -r");
        self.remove_dir(&dir);
    }

    /// Copies a tree to a directory of its name. True if all is stored.
    fn copy_in(&mut self, dir: &std::path::Path, tree: &Tree, kind: &'static str) -> bool {
        let to = format!("{}/", dir.display());
        let names = self.attempt(&to, tree);
        let began = Instant::now();
        let script = format!("s4 $D cp -r {} {}", dir.display(), self.url(&to));
        let is_done = self.run_script(kind, &script).status.success();
        if is_done {
            self.stored(&names, began);
        }
        is_done
    }

    /// Looks at what a read of a key gave, of which `absent` would say that there is none.
    fn check_read(&self, name: &str, output: &Output, absent: &str) {
        let ledger = &self.soak.ledger;
        let stderr = text(&output.stderr);
        if output.status.success() && !ledger.has_bytes(self.number, name, &output.stdout) {
            self.soak.report(format!("{}: other bytes: {}", self.url(name), output.stdout.len()));
        }
        if stderr.contains(absent) && ledger.is_certain(self.number, name) {
            self.soak.report(format!("{}: reported stored, and then: {stderr}", self.url(name)));
        }
    }

    fn get(&mut self) {
        let Some(name) = self.any_key() else { return };
        let output = self.run_script("get", &format!("s4 $D cp {} -", self.url(&name)));
        self.check_read(&name, &output, "no such key");
    }

    fn list(&mut self) {
        let before = self.soak.ledger.certain(self.number);
        let output = self.run_script("ls -r", &format!("s4 $D ls -r {}", self.url("")));
        if !output.status.success() {
            return;
        }
        let stdout = text(&output.stdout);
        let found: Vec<&str> = stdout.lines().filter_map(|line| line.split_whitespace().last()).collect();
        for name in before.iter().filter(|name| found.binary_search(&name.as_str()).is_err()) {
            if self.soak.ledger.is_certain(self.number, name) {
                self.soak.report(format!("{}: reported stored, and not listed", self.url(name)));
            }
        }
        for name in found.iter().filter(|name| !self.soak.ledger.is_known(self.number, name)) {
            self.soak.report(format!("{}: listed, and nobody has made it, or it was deleted", self.url(name)));
        }
    }

    fn remove(&mut self) {
        let Some(name) = self.any_key() else { return };
        let script = format!("s4 $D rm {}", self.url(&name));
        self.delete(&name, "rm", &script);
    }

    /// Deletes everything if it is much, so that the disks never fill by themselves.
    fn make_room(&mut self) {
        let names = self.soak.ledger.certain(self.number);
        if names.len() < MAX_KEYS {
            return;
        }
        self.soak.ledger.doubt(self.number, names.iter().map(String::as_str));
        let began = Instant::now();
        if self.run_script("rm -r", &format!("s4 $D rm -r {}", self.url(""))).status.success() {
            self.soak.ledger.deleted(self.number, names.iter().map(String::as_str), began);
        }
    }

    fn delete(&mut self, name: &str, kind: &'static str, script: &str) {
        self.soak.ledger.doubt(self.number, [name]);
        let began = Instant::now();
        if self.run_script(kind, script).status.success() {
            self.soak.ledger.deleted(self.number, [name], began);
        }
    }

    fn map(&mut self) {
        let (dir, tree) = self.new_tree();
        let Map { kind, cmd, makes } = self.random.pick(&[MAP, TO_N, FROM_N]);
        if self.copy_in(&dir, &tree, "cp -r") {
            let (from, to) = (format!("{}/", dir.display()), format!("{}-out/", dir.display()));
            let names = self.attempt(&to, &makes(&tree));
            for resume in ["", " --resume"] {
                let began = Instant::now();
                let job = format!("s4 $D {kind}{resume} {} {} '{cmd}'", self.url(&from), self.url(&to));
                if self.run_script(kind, &job).status.success() {
                    self.stored(&names, began);
                    break;
                }
            }
        }
        self.remove_dir(&dir);
    }

    fn write_in_mount(&mut self) {
        let (mount, (dir, mut tree)) = (self.mount(), self.new_tree());
        tree.retain(|name, _| name.contains("_a"));
        let names = self.attempt("", &tree);
        let (began, to) = (Instant::now(), format!("{mount}/{}", bucket(self.number)));
        let script = format!("python3 -S in_mount.py write {} {to} {}", dir.display(), names.join(" "));
        let stdout = text(&self.run_script("mount write", &script).stdout);
        let done: Vec<String> =
            stdout.lines().filter_map(|line| Some(line.strip_prefix("done ")?.to_owned())).collect();
        self.stored(&done, began);
        self.remove_dir(&dir);
    }

    fn read_in_mount(&mut self) {
        let Some(name) = self.any_key() else { return };
        let path = format!("{}/{}/{name}", self.mount(), bucket(self.number));
        let output = self.run_script("mount read", &format!("cat {path}"));
        // The other mount is killed now and then, and then there is an empty directory for a moment.
        let absent = if path.starts_with(KILLED) { "no such mount" } else { "No such file" };
        self.check_read(&name, &output, absent);
    }

    /// Renames a key, mostly to another node.
    fn move_in_mount(&mut self) {
        let Some(name) = self.any_key() else { return };
        let ledger = &self.soak.ledger;
        self.made += 1;
        let dir = name.rfind('/').map_or("", |at| &name[..=at]);
        let new = format!("{dir}{}_m{}x{}", self.random.below(3), self.number, self.made);
        ledger.rename(self.number, &name, &new);
        let (began, at) = (Instant::now(), format!("{}/{}", self.mount(), bucket(self.number)));
        let script = format!("python3 -S in_mount.py move - {at} {name}:{new}");
        let output = self.run_script("mount rename", &script);
        if output.status.success() {
            ledger.stored(self.number, [new.as_str()], began);
            ledger.deleted(self.number, [name.as_str()], began);
        }
    }

    fn remove_in_mount(&mut self) {
        let Some(name) = self.any_key() else { return };
        let script = format!("rm {}/{}/{name}", self.mount(), bucket(self.number));
        self.delete(&name, "mount rm", &script);
    }
}
