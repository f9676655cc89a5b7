//! Random operations on the bytes of files, as fsx makes them, while daemons are killed and started again. A file whose close
//! returned 0 has the bytes of the model ever after; one whose close failed is absent or whole.

use crate::harness::Cluster;
use crate::model_files::read_at;
use crate::mounting::Mount;
use crate::random_work::{Random, Work};
use crate::scripting::skipped;
use nix::libc;
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

/// Files that a thread has to do with at a time: half of them local, half of them remote.
const FILES: usize = 6;
/// The most bytes of a file: published in one request, in several pieces, by a copy, and by a link.
const SIZES: [u64; 5] = [100, 10_000, 200_000, 500_000, 1_500_000];

#[test]
fn random_writes_are_whole_or_refused_while_daemons_are_killed() {
    if let Some(work) = Work::given() {
        return work_on(&work);
    }
    if skipped() {
        return;
    }
    let mut cluster = Cluster::start(2);
    let mount = |name| Mount::with_remote_nodes(&cluster, name, &[1], &["--deadline", "1"]);
    let (first, second) = (mount("mnt"), mount("other"));
    std::fs::create_dir(first.path("b")).unwrap();
    let work = Work::new([&first, &second], "S4_TEST_FSX_OPS", 2000);
    let mut worker = work
        .process("mount_fsx::random_writes_are_whole_or_refused_while_daemons_are_killed")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let (told, lines) = channel();
    let stdout = worker.stdout.take().unwrap();
    let reader = std::thread::spawn(move || {
        BufReader::new(stdout).lines().map_while(Result::ok).for_each(|line| drop(told.send(line)));
    });
    let mut random = Random(work.seed);
    let mut kills = 0;
    let mut told = Vec::new();
    loop {
        match lines.recv_timeout(Duration::from_millis(random.below(400))) {
            Ok(line) if line == "done" => break,
            Ok(line) => told.push(line),
            Err(RecvTimeoutError::Timeout) => {
                let node = random.below(2) as usize;
                cluster.kill_node(node);
                kills += 1;
                // It stays dead for a while of random length, now and then for longer than the deadline.
                let dead = if random.below(16) == 0 { 1500 } else { random.below(100) };
                std::thread::park_timeout(Duration::from_millis(dead));
                cluster.start_node(node);
            }
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    let _ = writeln!(worker.stdin.take().unwrap(), "compare");
    let status = worker.wait().unwrap();
    reader.join().unwrap();
    told.extend(lines.iter());
    println!("{}\n{kills} daemons killed", told.join("\n"));
    assert!(status.success(), "S4_TEST_SEED={}: {}", work.seed, told.join("\n"));
    assert!(kills > 0, "it was over before a daemon was killed");
    drop((first, second));
}

fn work_on(work: &Work) {
    let ended = work.run(
        |thread| Worker::new(&work.mounts[0], thread, work.seed),
        |worker, operations| (0..operations).for_each(|_| worker.step()),
    );
    // All daemons run from now on.
    println!("\ndone");
    io::stdin().read_line(&mut String::new()).unwrap();
    let mut counts = BTreeMap::new();
    for mut worker in ended {
        worker.compare_all(&work.mounts[1]);
        worker.counts.iter().for_each(|(what, count)| *counts.entry(*what).or_insert(0) += count);
    }
    println!("{counts:?}");
    assert!(counts.get("closed").is_some_and(|count| *count > 0), "none was published");
}

/// What is known of a name.
enum Name {
    /// Any of these may be there: `None` is no key at all. One that is certain stands alone.
    Closed(Vec<Option<Vec<u8>>>),
    Open {
        file: File,
        content: Vec<u8>,
        most: u64,
        /// It was opened to write an empty key once more, which stays if the close fails.
        over_empty: bool,
    },
}

struct Worker {
    random: Random,
    thread: u64,
    files: Vec<(PathBuf, String, Name)>,
    log: Vec<String>,
    counts: BTreeMap<&'static str, u64>,
}

impl Worker {
    fn new(mount: &Path, thread: u64, seed: u64) -> Self {
        let files = (0..FILES).map(|at| {
            let name = format!("b/{}_{thread}_{at}", at % 2);
            (mount.join(&name), name, Name::Closed(vec![None]))
        });
        Self {
            random: Random(seed ^ (thread << 32)),
            thread,
            files: files.collect(),
            log: Vec::new(),
            counts: BTreeMap::new(),
        }
    }

    fn step(&mut self) {
        let at = self.random.below(FILES as u64) as usize;
        let (path, name, file) =
            std::mem::replace(&mut self.files[at], (PathBuf::new(), String::new(), Name::Closed(vec![])));
        let file = match file {
            Name::Open { file, content, most, over_empty } => {
                self.change(&path, &name, file, content, (most, over_empty))
            }
            Name::Closed(may_be) => self.begin(&path, &name, may_be),
        };
        self.files[at] = (path, name, file);
    }

    fn note(&mut self, name: &str, what: &'static str, more: impl std::fmt::Debug) {
        *self.counts.entry(what).or_insert(0) += 1;
        self.log.push(format!("{name}: {what} {more:?}"));
    }

    fn check(&self, holds: bool, name: &str, what: &str) {
        let log: Vec<&str> =
            self.log.iter().filter(|line| line.starts_with(&format!("{name}:"))).map(|line| &**line).collect();
        assert!(
            holds,
            "thread {}, {name}: {what}; before that:\n{}",
            self.thread,
            log[log.len().saturating_sub(30)..].join("\n")
        );
    }

    /// True if a call was refused for a node that is dead; no other error is expected of it.
    fn is_dead(&mut self, name: &str, what: &'static str, error: &io::Error) -> bool {
        self.note(name, what, error);
        error.raw_os_error() == Some(libc::EIO)
    }

    /// An operation on a file that nobody has open.
    fn begin(&mut self, path: &Path, name: &str, may_be: Vec<Option<Vec<u8>>>) -> Name {
        let may_be = self.compare(path, name, may_be);
        let [known] = &may_be[..] else { return Name::Closed(may_be) };
        match known {
            None => self.create(path, name),
            Some(content) if content.is_empty() && self.random.below(3) > 0 => self.write_empty(path, name),
            Some(_) if self.random.below(3) > 0 => Name::Closed(may_be),
            Some(content) if !content.is_empty() && self.random.below(4) == 0 => {
                let error = OpenOptions::new().write(true).open(path).err().and_then(|error| error.raw_os_error());
                self.note(name, "open of a key to write", error);
                self.check(matches!(error, Some(libc::EPERM | libc::EIO)), name, "opened to write a published key");
                Name::Closed(may_be)
            }
            Some(_) => self.unlink(path, name, may_be),
        }
    }

    /// Some so that the kernel writes none of their bytes without asking the mount.
    fn writing(&mut self) -> OpenOptions {
        let mut options = OpenOptions::new();
        let asks = self.random.below(3) == 0;
        options.read(true).write(true).custom_flags(if asks { libc::O_DIRECT } else { 0 });
        options
    }

    fn create(&mut self, path: &Path, name: &str) -> Name {
        match self.writing().create_new(true).open(path) {
            Ok(file) => {
                self.note(name, "created", ());
                let most = self.random.pick(&SIZES);
                Name::Open { file, content: Vec::new(), most, over_empty: false }
            }
            Err(error) => {
                let is_dead = self.is_dead(name, "not created", &error);
                self.check(is_dead, name, &format!("making a new file: {error}"));
                Name::Closed(vec![None])
            }
        }
    }

    fn write_empty(&mut self, path: &Path, name: &str) -> Name {
        match self.writing().open(path) {
            Ok(file) => {
                self.note(name, "opened empty", ());
                let most = self.random.pick(&SIZES);
                Name::Open { file, content: Vec::new(), most, over_empty: true }
            }
            Err(error) => {
                let is_dead = self.is_dead(name, "not opened empty", &error);
                self.check(is_dead, name, &format!("opening an empty key to write: {error}"));
                Name::Closed(vec![Some(Vec::new())])
            }
        }
    }

    fn unlink(&mut self, path: &Path, name: &str, may_be: Vec<Option<Vec<u8>>>) -> Name {
        match std::fs::remove_file(path) {
            Ok(()) => {
                self.note(name, "deleted", ());
                Name::Closed(vec![None])
            }
            Err(error) => {
                let is_dead = self.is_dead(name, "not deleted", &error);
                self.check(is_dead, name, &format!("deleting: {error}"));
                Name::Closed(may_be.into_iter().chain([None]).collect())
            }
        }
    }

    /// Reads what is there, which is to be one of `may_be`; returns what is known then.
    fn compare(&mut self, path: &Path, name: &str, may_be: Vec<Option<Vec<u8>>>) -> Vec<Option<Vec<u8>>> {
        let found = match std::fs::read(path) {
            Ok(content) => Some(content),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                let is_dead = self.is_dead(name, "not read", &error);
                self.check(is_dead, name, &format!("reading: {error}"));
                return may_be;
            }
        };
        let (here, len) = (found.is_some(), found.as_ref().map_or(0, Vec::len));
        self.note(name, "compared", (here, len));
        let expected: Vec<Option<usize>> = may_be.iter().map(|one| one.as_ref().map(Vec::len)).collect();
        self.check(
            may_be.contains(&found),
            name,
            &format!("{} of {len} bytes, instead of one of {expected:?}", if here { "a key" } else { "no key" }),
        );
        vec![found]
    }

    /// An operation on an open file.
    fn change(&mut self, path: &Path, name: &str, file: File, content: Vec<u8>, how: (u64, bool)) -> Name {
        let (mut content, (most, over_empty)) = (content, how);
        match self.random.below(20) {
            0..6 => {
                let at = self.random.below(most);
                let bytes = self.bytes(most - at);
                self.note(name, "written", (at, bytes.len()));
                put(&mut content, at, &bytes);
                self.check(file.write_all_at(&bytes, at).is_ok(), name, "a write");
            }
            6..8 => {
                let bytes = self.bytes(most.saturating_sub(content.len() as u64));
                self.note(name, "appended", (content.len(), bytes.len()));
                self.check(file.write_all_at(&bytes, content.len() as u64).is_ok(), name, "an append");
                content.extend(bytes);
            }
            8..10 => {
                let len = self.random.below(most + 1);
                self.note(name, "truncated", len);
                self.check(file.set_len(len).is_ok(), name, "a truncation");
                content.resize(len as usize, 0);
            }
            10..12 if !content.is_empty() => {
                let at = self.random.below(content.len() as u64);
                let bytes = self.bytes(content.len() as u64 - at);
                self.note(name, "mapped", (at, bytes.len()));
                store(&file, content.len(), at as usize, &bytes);
                put(&mut content, at, &bytes);
            }
            12..15 => {
                let at = self.random.below(most);
                let read = read_at(&file, at, most);
                self.note(name, "read", at);
                let expected = content.get(at as usize..).unwrap_or_default();
                self.check(read.is_ok_and(|read| read == expected), name, "other bytes while it is written");
                self.check(file.metadata().is_ok_and(|found| found.len() == content.len() as u64), name, "its length");
            }
            15 if self.random.below(4) == 0 => {
                return match std::fs::remove_file(path) {
                    Ok(()) => {
                        self.note(name, "deleted open", ());
                        drop(file);
                        Name::Closed(vec![None])
                    }
                    Err(error) => {
                        let is_dead = self.is_dead(name, "not deleted open", &error);
                        self.check(is_dead, name, &format!("deleting an open file: {error}"));
                        drop(file);
                        Name::Closed(vec![None, Some(content), Some(Vec::new())])
                    }
                };
            }
            _ => return self.close(name, file, content, over_empty),
        }
        Name::Open { file, content, most, over_empty }
    }

    fn close(&mut self, name: &str, file: File, content: Vec<u8>, over_empty: bool) -> Name {
        match nix::unistd::close(file) {
            Ok(()) => {
                self.note(name, "closed", content.len());
                Name::Closed(vec![Some(content)])
            }
            Err(errno) => {
                let is_dead = self.is_dead(name, "not closed", &errno.into());
                self.check(is_dead, name, &format!("closing: {errno}"));
                Name::Closed(vec![over_empty.then(Vec::new), Some(content)])
            }
        }
    }

    fn bytes(&mut self, most: u64) -> Vec<u8> {
        let (len, first) = (self.random.below(most + 1), self.random.next());
        (0..len).map(|at| (first.wrapping_add(at * 7) >> (at % 5)) as u8).collect()
    }

    /// Closes all, and compares what another mount reads.
    fn compare_all(&mut self, other: &Path) {
        for (_, name, file) in std::mem::take(&mut self.files) {
            let may_be = match file {
                Name::Closed(may_be) => may_be,
                Name::Open { file, content, over_empty, .. } => match self.close(&name, file, content, over_empty) {
                    Name::Closed(may_be) => may_be,
                    Name::Open { .. } => unreachable!("it was closed"),
                },
            };
            self.compare(&other.join(&name), &name, may_be);
        }
    }
}

fn put(content: &mut Vec<u8>, at: u64, bytes: &[u8]) {
    let end = at as usize + bytes.len();
    if !bytes.is_empty() && content.len() < end {
        content.resize(end, 0);
    }
    if !bytes.is_empty() {
        content[at as usize..end].copy_from_slice(bytes);
    }
}

/// Stores `bytes` at `at` in `file`, of `len` bytes, by a mapping, which is gone afterwards.
fn store(file: &File, len: usize, at: usize, bytes: &[u8]) {
    // SAFETY: the mapping is as long as the file, which nobody else cuts, and `bytes` end before it does; it is unmapped here.
    unsafe {
        let access = libc::PROT_READ | libc::PROT_WRITE;
        let mapped = libc::mmap(std::ptr::null_mut(), len, access, libc::MAP_SHARED, file.as_raw_fd(), 0);
        assert_ne!(mapped, libc::MAP_FAILED, "a mapping: {}", io::Error::last_os_error());
        std::ptr::copy_nonoverlapping(bytes.as_ptr(), mapped.cast::<u8>().add(at), bytes.len());
        libc::munmap(mapped, len);
    }
}
