//! Helpers for tests of random operations: random numbers from a seed, and a separate process whose threads do the
//! operations. Unlike the process of the test, it has no children, which would influence which close publishes.

use crate::mounting::Mount;
use std::path::PathBuf;
use std::process::Command;
use std::time::SystemTime;

/// The number of threads. Each works on its own files.
pub const THREADS: u64 = 4;

/// The environment variable that describes the work of the process.
const WORK: &str = "S4_TEST_WORK";

/// Random numbers from a seed (SplitMix64).
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

/// The work of the process.
pub struct Work {
    pub mounts: [PathBuf; 2],
    pub seed: u64,
    pub operations: u64,
}

impl Work {
    /// The work of this process, if it was started by [`Work::process`].
    pub fn given() -> Option<Self> {
        let text = std::env::var(WORK).ok()?;
        let fields: Vec<&str> = text.split(' ').collect();
        let number = |at: usize| fields[at].parse().expect("a number");
        Some(Self { mounts: [fields[0].into(), fields[1].into()], seed: number(2), operations: number(3) })
    }

    /// The seed is `S4_TEST_SEED`, else from the clock. The number of operations is in the environment variable
    /// `count`, else `usual`. Prints both.
    pub fn new(mounts: [&Mount; 2], count: &str, usual: u64) -> Self {
        let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
        let clock = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        let seed = number("S4_TEST_SEED").unwrap_or(clock.as_nanos() as u64 % 1_000_000_000);
        let operations = number(count).unwrap_or(usual);
        eprintln!("S4_TEST_SEED={seed} {count}={operations}");
        Self { mounts: mounts.map(|mount| mount.dir().to_owned()), seed, operations }
    }

    /// A command that does the work in a process of its own, by running `test` of this binary.
    pub fn process(&self, test: &str) -> Command {
        let [first, second] = self.mounts.each_ref().map(|mount| mount.display());
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["--exact", test, "--nocapture"])
            .env(WORK, format!("{first} {second} {} {}", self.seed, self.operations));
        command
    }

    /// Starts the threads. Each creates a worker and calls `run` with its number of operations. Returns the workers
    /// after all threads have ended.
    pub fn run<W: Send + 'static>(&self, worker: impl Fn(u64) -> W, run: fn(&mut W, u64)) -> Vec<W> {
        let part = self.operations / THREADS;
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| {
                let mut worker = worker(thread);
                std::thread::spawn(move || {
                    run(&mut worker, part);
                    worker
                })
            })
            .collect();
        // All threads are joined before the first panic is passed on.
        let ended: Vec<_> = threads.into_iter().map(std::thread::JoinHandle::join).collect();
        ended.into_iter().map(|worker| worker.expect("the model agrees")).collect()
    }
}
