//! Random operations through two mounts, compared step by step with a model in memory.

use crate::harness::{Cluster, text};
use crate::model_files::{join, names_at, parent, read_at, slice, write};
use crate::mounting::Mount;
use crate::scripting::skipped;
use nix::libc;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

const THREADS: u64 = 4;
/// Names of all three nodes, each of which is a file or a directory but never both.
const FILES: [&str; 8] = ["0_k", "1_k", "2_k", "3_f", "name", "x.y", "17_z", ".hidden.file"];
const DIRS: [&str; 5] = ["", "d0", "1_d", "d0/e", "d0/2_e"];
const SHARED: [&str; 3] = ["0_shared", "1_shared", "2_shared"];
/// Tells the worker process where it works: two mounts, a seed, a number of operations.
const WORK: &str = "S4_TEST_MODEL_WORK";

#[test]
fn random_operations_agree_with_a_model() {
    if let Ok(work) = std::env::var(WORK) {
        return work_on(&work);
    }
    if skipped() {
        return;
    }
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    let clock = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let seed = number("S4_TEST_SEED").unwrap_or(clock.as_nanos() as u64 % 1_000_000_000);
    let operations = number("S4_TEST_OPERATIONS").unwrap_or(1500);
    eprintln!("S4_TEST_SEED={seed} S4_TEST_OPERATIONS={operations}");
    let cluster = Cluster::start(3);
    for name in SHARED {
        cluster.put(&format!("s4://b/shared/{name}"), &shared_content(name));
    }
    cluster.separate([1, 2]);
    let (first, second) = (Mount::new(&cluster, "mnt", &[]), Mount::new(&cluster, "other", &[]));
    let work = format!("{} {} {seed} {operations}", first.dir().display(), second.dir().display());
    // A process of its own, which has no children, as a test has: they matter for which close publishes.
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "mount_model::random_operations_agree_with_a_model", "--nocapture"])
        .env(WORK, work)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
}

fn work_on(work: &str) {
    let fields: Vec<&str> = work.split(' ').collect();
    let number = |at: usize| fields[at].parse::<u64>().expect("a number");
    let (mounts, seed, operations) = ([fields[0], fields[1]], number(2), number(3));
    // The creations' modes are compared.
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
    let workers: Vec<_> = (0..THREADS)
        .map(|thread| {
            let (own, other) = (mounts[thread as usize % 2], mounts[1 - thread as usize % 2]);
            let mut worker = Worker::new(Path::new(own), Path::new(other), thread, seed);
            std::thread::spawn(move || {
                // Half of them by another way than the mount's own path.
                if thread >= 2 {
                    worker.go_by_a_bind_mount();
                }
                (0..operations / THREADS).for_each(|_| worker.step());
                worker.compare_all();
            })
        })
        .collect();
    // All are waited for before any is unwrapped.
    let ended: Vec<_> = workers.into_iter().map(std::thread::JoinHandle::join).collect();
    ended.into_iter().for_each(|worker| worker.expect("the model agrees"));
}

fn shared_content(name: &str) -> Vec<u8> {
    name.bytes().cycle().take(if name.starts_with('0') { 1000 } else { 700_000 }).collect()
}

/// SplitMix64: numbers that follow from a seed.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }
}

/// What the model knows of a key.
#[derive(Clone, PartialEq)]
struct Key {
    content: Vec<u8>,
    mode: u32,
    /// Nanoseconds, if it was set.
    mtime: Option<i64>,
}

/// What an operation came to: a value, or an error's number.
type Outcome<T> = Result<T, i32>;

fn outcome<T>(result: io::Result<T>) -> Outcome<T> {
    result.map_err(|e| e.raw_os_error().unwrap_or(-1))
}

fn nix_outcome<T>(result: nix::Result<T>) -> Outcome<T> {
    result.map_err(|errno| errno as i32)
}

/// One thread: its directory, and the model of it.
struct Worker {
    random: Random,
    /// Where it changes things.
    own: PathBuf,
    /// Where it only looks with calls that always see the truth, and makes names that were never there before.
    other: PathBuf,
    shared: [PathBuf; 2],
    files: BTreeMap<String, Key>,
    dirs: BTreeSet<String>,
    held: VecDeque<(File, Vec<u8>)>,
    /// The last operations, for the message of a failure.
    trail: VecDeque<String>,
    made: u64,
    who: String,
}

impl Worker {
    fn new(own: &Path, other: &Path, thread: u64, seed: u64) -> Self {
        let base = format!("b/thread{thread}");
        std::fs::create_dir_all(own.join(&base)).expect("its directory is made");
        Self {
            random: Random(seed.wrapping_add(thread << 32)),
            own: own.join(&base),
            other: other.join(&base),
            shared: [own.join("b/shared"), other.join("b/shared")],
            files: BTreeMap::new(),
            dirs: BTreeSet::from([String::new()]),
            held: VecDeque::new(),
            trail: VecDeque::new(),
            made: 0,
            who: format!("seed {seed}, thread {thread}"),
        }
    }

    /// In a mount namespace of this thread's own; only root may.
    fn go_by_a_bind_mount(&mut self) {
        use nix::mount::{MsFlags, mount};
        let none = None::<&str>;
        // SAFETY: the call takes a number. It fails where this is not permitted.
        if unsafe { libc::unshare(libc::CLONE_NEWNS | libc::CLONE_FS) } != 0 {
            return;
        }
        let bind = self.shared[0]
            .parent()
            .and_then(Path::parent)
            .expect("the mount")
            .with_extension(format!("bind{}", self.made));
        std::fs::create_dir_all(&bind).expect("a directory to bind at");
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).expect("the namespace is our own");
        mount(Some(&self.own), &bind, none, MsFlags::MS_BIND, none).expect("a bind mount");
        self.own = bind;
    }

    fn step(&mut self) {
        match self.random.below(100) {
            0..20 => self.make(),
            20..25 => self.make_in_other(),
            25..40 => self.read(),
            40..45 => self.append(),
            45..49 => self.truncate(),
            49..58 => self.unlink(),
            58..68 => self.rename(),
            68..74 => self.mkdir(),
            74..79 => self.rmdir(),
            79..85 => self.stat(),
            85..91 => self.list(),
            91..95 => self.change(),
            95..98 => self.read_held(),
            _ => self.read_shared(),
        }
    }

    /// Notes an operation; its message leads every failure.
    fn begin(&mut self, what: String) {
        if self.trail.len() == 40 {
            self.trail.pop_front();
        }
        self.trail.push_back(what);
    }

    fn agree<T: PartialEq>(&self, expected: &T, found: &T, show: impl Fn(&T) -> String) {
        if expected != found {
            let trail: Vec<&str> = self.trail.iter().map(String::as_str).collect();
            let (expected, found) = (show(expected), show(found));
            panic!("{}: expected {expected}, found {found}, after\n{}", self.who, trail.join("\n"));
        }
    }

    fn agree_on<T: PartialEq>(&self, expected: &Outcome<T>, found: &Outcome<T>, show: impl Fn(&T) -> String) {
        self.agree(expected, found, |outcome| match outcome {
            Ok(value) => show(value),
            Err(number) => io::Error::from_raw_os_error(*number).to_string(),
        });
    }

    fn agree_on_unit(&self, expected: Outcome<()>, found: Outcome<()>) {
        self.agree_on(&expected, &found, |()| "success".to_owned());
    }

    fn file_name(&mut self) -> String {
        let (dir, name) = (self.random.pick(&DIRS), self.random.pick(&FILES));
        join(dir, name)
    }

    /// A name that is there, mostly.
    fn present(&mut self) -> String {
        let count = self.files.len() as u64;
        match count == 0 || self.random.below(8) == 0 {
            true => self.file_name(),
            false => {
                let at = self.random.below(count) as usize;
                self.files.keys().nth(at).expect("there are so many").clone()
            }
        }
    }

    fn dir_name(&mut self) -> String {
        self.random.pick(&DIRS[1..]).to_owned()
    }

    fn parent_is_there(&self, path: &str) -> Outcome<()> {
        match self.dirs.contains(parent(path)) {
            true => Ok(()),
            false => Err(libc::ENOENT),
        }
    }

    fn present_file(&self, path: &str) -> Outcome<&Key> {
        self.files.get(path).ok_or(libc::ENOENT)
    }

    fn content(&mut self) -> Vec<u8> {
        let len = match self.random.below(20) {
            0..2 => 0,
            2..12 => self.random.below(200),
            12..18 => self.random.below(100_000),
            _ => 200_000 + self.random.below(1_500_000),
        };
        let first = self.random.next();
        (0..len).map(|at| (first.wrapping_add(at * at / 3) >> (at % 8)) as u8).collect()
    }

    fn make(&mut self) {
        let (path, content) = (self.file_name(), self.content());
        let mode = self.random.pick(&[0o644, 0o600, 0o755]);
        let exclusive = self.random.below(2) == 0;
        let pattern = self.random.below(4);
        self.begin(format!("make {path}, {} bytes, {mode:o}, exclusive {exclusive}, pattern {pattern}", content.len()));
        let expected = self.parent_is_there(&path).and_then(|()| match (self.files.contains_key(&path), exclusive) {
            (true, true) => Err(libc::EEXIST),
            (true, false) if !self.files[&path].content.is_empty() => Err(libc::EPERM),
            // An empty key may be written once more.
            (true, false) | (false, _) => Ok(()),
        });
        let found = outcome(write(&self.own.join(&path), &content, mode, exclusive, pattern));
        self.agree_on_unit(expected, found);
        if expected.is_ok() {
            // One that is written once more keeps its mode.
            let mode = self.files.get(&path).map_or(mode & 0o555, |key| key.mode);
            self.files.insert(path, Key { content, mode, mtime: None });
        }
    }

    fn make_in_other(&mut self) {
        self.made += 1;
        let (dir, node) = (self.random.pick(&DIRS), self.random.below(3));
        let path = join(dir, &format!("{}_other", self.made * 3 + node));
        let content = self.content();
        self.begin(format!("make {path} in the other mount, {} bytes", content.len()));
        if !self.dirs.contains(dir) {
            // The other mount may still take the directory for one that is there.
            return;
        }
        let found = outcome(write(&self.other.join(&path), &content, 0o644, true, 0));
        self.agree_on_unit(Ok(()), found);
        self.files.insert(path, Key { content, mode: 0o444, mtime: None });
    }

    fn read(&mut self) {
        let path = self.present();
        let in_other = self.random.below(2) == 0;
        let (from, size) = (self.random.below(300_000), self.random.below(300_000));
        let (part, keep) = (self.random.below(3) == 0, self.random.below(6) == 0);
        self.begin(format!("read {path}, in other {in_other}, part {part} from {from} size {size}, keep {keep}"));
        let full = if in_other { self.other.join(&path) } else { self.own.join(&path) };
        let expected = self.present_file(&path).map(|key| match part {
            true => slice(&key.content, from, size).to_vec(),
            false => key.content.clone(),
        });
        let found = outcome(File::open(full).and_then(|file| match part {
            true => read_at(&file, from, size).map(|bytes| (file, bytes)),
            false => read_at(&file, 0, u64::MAX).map(|bytes| (file, bytes)),
        }));
        let (file, found) = match found {
            Ok((file, bytes)) => (Some(file), Ok(bytes)),
            Err(number) => (None, Err(number)),
        };
        self.agree_on(&expected, &found, |bytes| format!("{} bytes {:?}…", bytes.len(), slice(bytes, 0, 8)));
        if let (Some(file), true) = (file, keep) {
            self.held.push_back((file, self.files[&path].content.clone()));
            if self.held.len() > 8 {
                self.held.pop_front();
            }
        }
    }

    fn append(&mut self) {
        let path = self.present();
        let content = self.content();
        self.begin(format!("append {} bytes to {path}", content.len()));
        let expected = self.present_file(&path).and_then(|key| match key.content.is_empty() {
            true => Ok(()),
            false => Err(libc::EPERM),
        });
        let found = outcome(OpenOptions::new().append(true).open(self.own.join(&path)).and_then(|mut file| {
            file.write_all(&content)?;
            Ok(nix::unistd::close(file)?)
        }));
        self.agree_on_unit(expected, found);
        if let (Ok(()), Some(key)) = (expected, self.files.get_mut(&path)) {
            key.mtime = key.mtime.filter(|_| content.is_empty());
            key.content = content;
        }
    }

    fn truncate(&mut self) {
        let (path, len) = (self.present(), self.random.below(1000));
        self.begin(format!("truncate {path} to {len}"));
        let expected = self.present_file(&path).and_then(|key| match key.content.is_empty() && len == 0 {
            true => Ok(()),
            false => Err(libc::EPERM),
        });
        let found = nix_outcome(nix::unistd::truncate(&self.own.join(&path), len as i64));
        self.agree_on_unit(expected, found);
    }

    fn unlink(&mut self) {
        let path = match self.random.below(10) {
            0 => self.dir_name(),
            _ => self.present(),
        };
        self.begin(format!("unlink {path}"));
        let expected = match (self.dirs.contains(&path), self.files.remove(&path)) {
            (true, _) => Err(libc::EISDIR),
            (false, Some(_)) => Ok(()),
            (false, None) => Err(libc::ENOENT),
        };
        let found = outcome(std::fs::remove_file(self.own.join(&path)));
        self.agree_on_unit(expected, found);
    }

    fn rename(&mut self) {
        let (from, to) = match self.random.below(10) {
            0 => (self.dir_name(), "never".to_owned()),
            _ => (self.present(), self.file_name()),
        };
        self.begin(format!("rename {from} to {to}"));
        let expected = self.expected_of_rename(&from, &to);
        let found = outcome(std::fs::rename(self.own.join(&from), self.own.join(&to)));
        self.agree_on_unit(expected, found);
        if expected.is_ok()
            && let Some(key) = self.files.remove(&from)
        {
            self.files.insert(to, key);
        }
    }

    fn expected_of_rename(&self, from: &str, to: &str) -> Outcome<()> {
        self.parent_is_there(to)?;
        if self.dirs.contains(from) {
            return Err(libc::EXDEV);
        }
        self.present_file(from)?;
        match from != to && self.files.contains_key(to) {
            true => Err(libc::EEXIST),
            false => Ok(()),
        }
    }

    fn mkdir(&mut self) {
        let path = self.dir_name();
        self.begin(format!("mkdir {path}"));
        let expected = self.parent_is_there(&path).and_then(|()| match self.dirs.contains(&path) {
            true => Err(libc::EEXIST),
            false => Ok(()),
        });
        let found = outcome(std::fs::DirBuilder::new().mode(0o755).create(self.own.join(&path)));
        self.agree_on_unit(expected, found);
        if expected.is_ok() {
            self.dirs.insert(path);
        }
    }

    fn rmdir(&mut self) {
        let path = match self.random.below(8) {
            0 => self.present(),
            _ => self.dir_name(),
        };
        self.begin(format!("rmdir {path}"));
        let expected = match (self.dirs.contains(&path), self.files.contains_key(&path)) {
            (_, true) => Err(libc::ENOTDIR),
            (false, false) => Err(libc::ENOENT),
            (true, false) if !self.names_in(&path).is_empty() => Err(libc::ENOTEMPTY),
            (true, false) => Ok(()),
        };
        let found = outcome(std::fs::remove_dir(self.own.join(&path)));
        self.agree_on_unit(expected, found);
        if expected.is_ok() {
            self.dirs.remove(&path);
        }
    }

    fn stat(&mut self) {
        let path = match self.random.below(6) {
            0 => self.dir_name(),
            _ => self.present(),
        };
        self.begin(format!("stat {path}"));
        let found = outcome(std::fs::symlink_metadata(self.own.join(&path)));
        let expected = match self.dirs.contains(&path) {
            true => Ok((true, 0, 0o755, None)),
            false => self.present_file(&path).map(|key| (false, key.content.len() as u64, key.mode, key.mtime)),
        };
        let has_mtime = matches!(expected, Ok((.., Some(_))));
        let found = found.map(|found| {
            let size = if found.is_dir() { 0 } else { found.len() };
            let mtime = found.mtime() * 1_000_000_000 + found.mtime_nsec();
            (found.is_dir(), size, found.mode() & 0o7777, has_mtime.then_some(mtime))
        });
        self.agree_on(&expected, &found, |stat| format!("{stat:?}"));
    }

    fn list(&mut self) {
        let path = self.random.pick(&DIRS).to_owned();
        let in_other = self.random.below(2) == 0;
        self.begin(format!("list {path}, in other {in_other}"));
        self.compare_listing(&path, in_other);
    }

    fn compare_listing(&self, path: &str, in_other: bool) {
        let full = if in_other { self.other.join(path) } else { self.own.join(path) };
        let expected = match self.dirs.contains(path) {
            true => Ok(self.names_in(path)),
            false => Err(libc::ENOENT),
        };
        let found = outcome(names_at(&full));
        // The other mount may take a removed directory for an empty one for a second.
        let late = in_other && expected.is_err() && found == Ok(Vec::new());
        if !late {
            self.agree_on(&expected, &found, |names| format!("{names:?}"));
        }
    }

    fn names_in(&self, dir: &str) -> Vec<String> {
        let all = self.files.keys().chain(self.dirs.iter().filter(|dir| !dir.is_empty()));
        let mut names: Vec<String> =
            all.filter(|path| parent(path) == dir).map(|path| path.rsplit('/').next().unwrap().to_owned()).collect();
        names.sort();
        names
    }

    fn change(&mut self) {
        let (path, mode) = (self.present(), self.random.pick(&[0o400, 0o644, 0o777, 0o111]));
        let mtime = (self.random.below(2_000_000_000) * 1_000_000_000 + self.random.below(1_000_000_000)) as i64;
        let times = self.random.below(2) == 0;
        self.begin(format!("change {path}: mode {mode:o} or, {times}, time {mtime}"));
        let full = self.own.join(&path);
        let expected = self.present_file(&path).map(drop);
        let found = match times {
            true => outcome(
                File::open(full)
                    .and_then(|file| file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_nanos(mtime as u64))),
            ),
            false => outcome(std::fs::set_permissions(full, std::fs::Permissions::from_mode(mode))),
        };
        self.agree_on_unit(expected, found);
        if let Some(key) = self.files.get_mut(&path) {
            match times {
                true => key.mtime = Some(mtime),
                false => key.mode = mode & 0o555,
            }
        }
    }

    /// What was open before its name was deleted, renamed or made again reads on.
    fn read_held(&mut self) {
        self.begin("read on in an open file".to_owned());
        if let Some((file, content)) = self.held.pop_front() {
            let (from, size) = (self.random.below(1_000_000), self.random.below(1_000_000));
            let found = outcome(read_at(&file, from, size));
            self.agree_on(&Ok(slice(&content, from, size).to_vec()), &found, |bytes| format!("{} bytes", bytes.len()));
        }
    }

    fn read_shared(&mut self) {
        let (at, name) = (self.random.below(2) as usize, self.random.pick(&SHARED));
        self.begin(format!("read shared {name}"));
        let found = outcome(std::fs::read(self.shared[at].join(name)));
        self.agree_on(&Ok(shared_content(name)), &found, |bytes| format!("{} bytes", bytes.len()));
    }

    /// At the end both mounts show the whole model.
    fn compare_all(&mut self) {
        self.begin("compare all".to_owned());
        for in_other in [false, true] {
            DIRS.iter().for_each(|dir| self.compare_listing(dir, in_other));
            let base = if in_other { &self.other } else { &self.own };
            for (path, key) in &self.files {
                let found = outcome(std::fs::read(base.join(path)));
                self.agree_on(&Ok(key.content.clone()), &found, |bytes| format!("{} bytes of {path}", bytes.len()));
            }
        }
    }
}
