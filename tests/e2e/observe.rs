//! Observing a cluster from outside: processes, leftover files, time limits. Also reproducible random numbers.

use crate::harness::{Cluster, assert_no_crash, text};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::Metadata;
use std::path::PathBuf;
use std::process::{Child, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::time::{Duration, SystemTime};

/// A number that marks the processes of one test by their command lines: `sleep NUMBER`. A drop kills the remaining
/// ones.
pub struct Marker(String);

impl Marker {
    pub fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(1);
        Self(format!("98{}.{}1", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed)))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Processes with the number as an argument: the `sleep` processes.
    pub fn sleepers(&self) -> Vec<u32> {
        processes(|arguments| arguments.contains(&self.0.as_bytes()))
    }

    /// Processes with the number anywhere in an argument: also the shells that run the command, and the client.
    pub fn all(&self) -> Vec<u32> {
        let number = self.0.as_bytes();
        processes(|arguments| arguments.iter().any(|text| text.windows(number.len()).any(|part| part == number)))
    }
}

impl Drop for Marker {
    fn drop(&mut self) {
        for pid in self.all() {
            send(pid, Signal::SIGKILL);
        }
    }
}

/// Running processes whose arguments match. A zombie has no arguments.
fn processes(chosen: impl Fn(&[&[u8]]) -> bool) -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        !line.is_empty() && chosen(&line.split(|&byte| byte == 0).collect::<Vec<_>>())
    })
    .collect()
}

/// Sends a signal to a process that may be gone.
pub fn send(pid: u32, signal: Signal) {
    let _ = kill(Pid::from_raw(pid as i32), signal);
}

/// All files and directories that are left below the task directories of all nodes.
pub fn leftovers(cluster: &Cluster) -> Vec<PathBuf> {
    let below = |node| walkdir::WalkDir::new(cluster.data(node).join(".s4/tasks")).min_depth(1);
    (0..cluster.len()).flat_map(below).flatten().map(|entry| entry.into_path()).collect()
}

/// The names that `ls -r` lists below a prefix.
pub fn listed(cluster: &Cluster, prefix: &str) -> Vec<String> {
    let lines = text(&cluster.run(&["ls", "-r", prefix]).stdout);
    lines.lines().map(|line| line.split_whitespace().last().unwrap().to_owned()).collect()
}

/// Starts `s4`. Its stdout and stderr are pipes.
pub fn spawn(cluster: &Cluster, args: &[&str]) -> Child {
    cluster.command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Waits for the end of `child`, which must come within `limit`.
pub fn end_within(limit: Duration, child: Child) -> Output {
    let pid = child.id();
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || sender.send(child.wait_with_output()));
    let Ok(output) = receiver.recv_timeout(limit) else {
        send(pid, Signal::SIGKILL);
        let output = receiver.recv().unwrap().unwrap();
        panic!("no end within {limit:?}; it had said: {}", text(&output.stderr));
    };
    let output = output.unwrap();
    assert_no_crash(&output);
    output
}

/// Asserts that a program was killed by `signal`: by this, a shell decides whether to end its script.
pub fn assert_died_by(signal: Signal, output: &Output) {
    use std::os::unix::process::ExitStatusExt;
    assert_eq!(output.status.signal(), Some(signal as i32), "{}: {}", output.status, text(&output.stderr));
}

/// Runs `s4`, which must fail with exit status 1 within `limit`. Returns its stderr.
pub fn fails_within(limit: Duration, cluster: &Cluster, args: &[&str]) -> String {
    let output = end_within(limit, spawn(cluster, args));
    assert_eq!(output.status.code(), Some(1), "s4 {args:?}: {}", text(&output.stderr));
    text(&output.stderr)
}

/// Random numbers from the seed in `S4_TEST_SEED`, else from the clock. Prints the seed.
pub struct Random(u64);

impl Random {
    pub fn new() -> Self {
        let clock = || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_nanos() as u64;
        let seed = std::env::var("S4_TEST_SEED").map_or_else(|_| clock(), |seed| seed.parse().unwrap());
        eprintln!("S4_TEST_SEED={seed}");
        Self(seed)
    }

    /// A number below `limit`. SplitMix64.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % limit
    }

    pub fn bytes(&mut self, len: u64) -> Vec<u8> {
        (0..len).map(|_| self.below(256) as u8).collect()
    }
}

/// The length of the longest file that process `pid` has open: the progress of a put, whose file has no name yet.
pub fn longest_open(pid: u32) -> u64 {
    open_files(pid).map(|file| file.len()).max().unwrap_or(0)
}

/// The metadata of the files that process `pid` has open.
pub fn open_files(pid: u32) -> impl Iterator<Item = Metadata> {
    let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    descriptors.filter_map(|descriptor| std::fs::metadata(descriptor.path()).ok()).filter(|file| file.is_file())
}
