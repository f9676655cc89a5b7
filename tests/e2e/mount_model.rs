//! Random operations through two mounts, compared step by step with a model in memory.

use crate::harness::{Cluster, text};
use crate::mounting::Mount;
use crate::random_work::{Random, Work};
use crate::scripting::skipped;
use nix::libc;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs::File;
use std::path::{Path, PathBuf};

pub const SHARED: [&str; 3] = ["0_shared", "1_shared", "2_shared"];

#[test]
fn random_operations_agree_with_a_model() {
    if let Some(work) = Work::given() {
        return work_on(&work);
    }
    if skipped() {
        return;
    }
    let cluster = Cluster::start(3);
    for name in SHARED {
        cluster.put(&format!("s4://b/shared/{name}"), &shared_content(name));
    }
    cluster.separate([1, 2]);
    let (first, second) = (Mount::new(&cluster, "mnt", &[]), Mount::new(&cluster, "other", &[]));
    let work = Work::new([&first, &second], "S4_TEST_OPERATIONS", 1500);
    let output = work.process("mount_model::random_operations_agree_with_a_model").output().unwrap();
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
}

fn work_on(work: &Work) {
    // The creations' modes are compared.
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
    let worker = |thread| {
        let (own, other) = (&work.mounts[thread as usize % 2], &work.mounts[1 - thread as usize % 2]);
        Worker::new(own, other, thread, work.seed)
    };
    work.run(worker, |worker, operations| {
        // Half of them by another way than the mount's own path.
        if worker.thread >= 2 {
            worker.go_by_a_bind_mount();
        }
        (0..operations).for_each(|_| worker.step());
        worker.compare_all();
    });
}

pub fn shared_content(name: &str) -> Vec<u8> {
    name.bytes().cycle().take(if name.starts_with('0') { 1000 } else { 700_000 }).collect()
}

/// What the model knows of a key.
#[derive(Clone, PartialEq)]
pub struct Key {
    pub content: Vec<u8>,
    pub mode: u32,
    /// Nanoseconds, if it was set.
    pub mtime: Option<i64>,
}

/// One thread: its directory, and the model of it.
pub struct Worker {
    pub random: Random,
    /// Where it changes things.
    pub own: PathBuf,
    /// Where it only looks with calls that always see the truth, and makes names that were never there before.
    pub other: PathBuf,
    pub shared: [PathBuf; 2],
    pub files: BTreeMap<String, Key>,
    /// The mode of each, which only its own mount shows.
    pub fifos: BTreeMap<String, u32>,
    pub dirs: BTreeSet<String>,
    pub held: VecDeque<(File, Vec<u8>)>,
    /// The last operations, for the message of a failure.
    pub trail: VecDeque<String>,
    pub made: u64,
    pub who: String,
    thread: u64,
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
            fifos: BTreeMap::new(),
            dirs: BTreeSet::from([String::new()]),
            held: VecDeque::new(),
            trail: VecDeque::new(),
            made: 0,
            who: format!("seed {seed}, thread {thread}"),
            thread,
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
            0..17 => self.make(),
            17..20 => self.make_a_fifo(),
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
            95..97 => self.read_held(),
            97..98 => self.read_shared(),
            _ => self.use_a_fifo(),
        }
    }

    /// Notes an operation; its message leads every failure.
    pub fn begin(&mut self, what: String) {
        if self.trail.len() == 40 {
            self.trail.pop_front();
        }
        self.trail.push_back(what);
    }
}
