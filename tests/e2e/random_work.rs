//! What the tests of random operations share: numbers from a seed, and a process of their own in which threads work. A process that has
//! no children, as a test has: they matter for which close publishes.

use crate::mounting::Mount;
use std::path::PathBuf;
use std::process::Command;
use std::time::SystemTime;

/// Threads at once, each with files of its own.
pub const THREADS: u64 = 4;

/// Tells the process where it works.
const WORK: &str = "S4_TEST_WORK";

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

/// Where and how much is to be done.
pub struct Work {
    pub mounts: [PathBuf; 2],
    pub seed: u64,
    pub operations: u64,
}

impl Work {
    /// What this process is to do, if it is one that was started for it.
    pub fn given() -> Option<Self> {
        let text = std::env::var(WORK).ok()?;
        let fields: Vec<&str> = text.split(' ').collect();
        let number = |at: usize| fields[at].parse().expect("a number");
        Some(Self { mounts: [fields[0].into(), fields[1].into()], seed: number(2), operations: number(3) })
    }

    /// `S4_TEST_SEED`, else a seed by the clock, and as many operations as the variable `count` says, else `usual`. Both are printed.
    pub fn new(mounts: [&Mount; 2], count: &str, usual: u64) -> Self {
        let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
        let clock = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        let seed = number("S4_TEST_SEED").unwrap_or(clock.as_nanos() as u64 % 1_000_000_000);
        let operations = number(count).unwrap_or(usual);
        eprintln!("S4_TEST_SEED={seed} {count}={operations}");
        Self { mounts: mounts.map(|mount| mount.dir().to_owned()), seed, operations }
    }

    /// The process that does it, by the same test.
    pub fn process(&self, test: &str) -> Command {
        let [first, second] = self.mounts.each_ref().map(|mount| mount.display());
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["--exact", test, "--nocapture"])
            .env(WORK, format!("{first} {second} {} {}", self.seed, self.operations));
        command
    }

    /// Has each thread's worker do its part with `run`, which is told how many operations. Returns them once all have ended.
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
        // All are waited for before any is unwrapped.
        let ended: Vec<_> = threads.into_iter().map(std::thread::JoinHandle::join).collect();
        ended.into_iter().map(|worker| worker.expect("the model agrees")).collect()
    }
}
