//! Parity with a disk: one directory is on a disk and in a mount, and scripts must do the same in both.

use crate::harness::{Cluster, assert_no_crash, text};
use crate::mounting::{Mount, no_mounts};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// The timeout of a script. All scripts take only a few seconds.
const SECONDS: &str = "120";

/// Two directories of the same name and content: one on a disk, one as a bucket in a mount. One of the three nodes is
/// local to the mount.
pub struct Parity {
    bucket: &'static str,
    disk: PathBuf,
    mount: Mount,
    cluster: Cluster,
}

/// The entries of a directory: the bytes of each file, `None` for a directory.
type Tree = BTreeMap<String, Option<Vec<u8>>>;

impl Parity {
    /// Fills both directories with the [fixture](fill). `None`, with the reason on stderr, if mounts are not possible
    /// here.
    pub fn start(bucket: &'static str) -> Option<Self> {
        if let Some(reason) = no_mounts() {
            eprintln!("skipped: {reason}");
            return None;
        }
        let cluster = Cluster::start(3);
        let mount = Mount::with_remote_nodes(&cluster, "mnt", &[1, 2], &[]);
        let disk = cluster.dir().join("disk").join(bucket);
        fill(&disk);
        mount.ok(&format!("cp -a {} .", disk.display()));
        Some(Self { bucket, disk, mount, cluster })
    }

    pub fn mount(&self) -> &Mount {
        &self.mount
    }

    pub fn disk(&self) -> &Path {
        &self.disk
    }

    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// Runs each script on the disk and in the mount, if the programs that it needs are installed. Exit status, stdout
    /// and stderr must be the same. In the end the files must be the same too, both in the mount and in a copy by `s4
    /// cp`.
    pub fn check(&self, cases: &[(&str, &str)]) {
        let mut wrong = Vec::new();
        for (programs, script) in cases {
            if !all_there(programs) {
                continue;
            }
            let (disk, mount) = (self.on_disk(script), self.in_mount(script));
            if shown(&disk) != shown(&mount) {
                let (disk, mount) = (short(&shown(&disk)), short(&shown(&mount)));
                wrong.push(format!("{script}\n--- on a disk: {disk}\n--- in the mount: {mount}"));
            } else if !disk.status.success() {
                wrong.push(format!("{script}\n--- in both: {}", shown(&disk)));
            }
        }
        let expected = tree(&self.disk);
        wrong.extend(difference(&expected, &tree(&self.mount.path(self.bucket)), "in the mount"));
        wrong.extend(difference(&files(expected), &files(self.keys()), "by s4 cp"));
        assert!(wrong.is_empty(), "{} differences:\n{}", wrong.len(), wrong.join("\n\n"));
    }

    /// Runs each script in the mount only. It must fail with a message that contains the given text, and must change no
    /// file.
    pub fn check_refusals(&self, cases: &[(&str, &str, &str)]) {
        let before = tree(&self.mount.path(self.bucket));
        let mut wrong = Vec::new();
        for (programs, script, message) in cases {
            if !all_there(programs) {
                continue;
            }
            let output = self.in_mount(script);
            if output.status.success() || !text(&output.stderr).contains(message) {
                wrong.push(format!("{script}\n--- expected: {message}\n--- in the mount: {}", shown(&output)));
            }
        }
        wrong.extend(difference(&before, &tree(&self.mount.path(self.bucket)), "in the mount"));
        wrong.extend(difference(&files(before), &files(self.keys()), "by s4 cp"));
        assert!(wrong.is_empty(), "{} differences:\n{}", wrong.len(), wrong.join("\n\n"));
    }

    /// Runs a script in the mount, which must succeed. Returns its stdout.
    pub fn ok(&self, script: &str) -> String {
        let output = self.in_mount(script);
        assert!(output.status.success(), "{script}: {}", shown(&output));
        text(&output.stdout)
    }

    /// True if a script succeeds on the disk.
    pub fn can_on_disk(&self, script: &str) -> bool {
        self.on_disk(script).status.success()
    }

    fn on_disk(&self, script: &str) -> Output {
        run(&self.disk, script)
    }

    fn in_mount(&self, script: &str) -> Output {
        run(&self.mount.path(self.bucket), script)
    }

    /// The keys of the bucket, by `s4 cp`.
    fn keys(&self) -> Tree {
        let copy = tempfile::tempdir_in(self.cluster.dir()).unwrap();
        let (from, to) = (format!("s4://{}/", self.bucket), format!("{}/", copy.path().display()));
        self.cluster.ok(&["cp", "-r", &from, &to]);
        let below = copy.path().join(self.bucket);
        tree(if below.is_dir() { &below } else { copy.path() })
    }
}

/// The fixture: text and binary files, small and large, for each node, and empty files, in three levels of directories.
fn fill(dir: &Path) {
    std::fs::create_dir_all(dir.join("sub/deep")).unwrap();
    let write = |name: &str, content: &[u8]| std::fs::write(dir.join(name), content).unwrap();
    for node in 0..3 {
        let lines =
            (0..400).map(|n| format!("{} word{} line {n} of node {node}\n", n * 7919 % 1000, n * (node + 3) % 97));
        write(&format!("00{node}_words"), lines.collect::<String>().as_bytes());
        write(&format!("00{node}_large"), &noise(node as u64 + 1, 1_500_000 + node * 4097));
        write(&format!("sub/00{node}_x.txt"), format!("text {node}\nneedle {node}\n").as_bytes());
    }
    write("000_empty", b"");
    write("002_empty", b"");
    let rows = (0..1000).map(|n| format!("{n},name{},{}.5\n", n % 10, n % 13));
    write("sub/deep/001_rows.csv", ("id,name,amount\n".to_owned() + &rows.collect::<String>()).as_bytes());
    write("sub/deep/sp-cial_\u{e4}\u{20ac}", "not ASCII".as_bytes());
}

/// Random bytes that are the same in each run (xorshift).
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    (0..len).map(|_| next()).collect()
}

/// True if the programs are installed. Prints the name of a missing one.
pub fn all_there(programs: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let is_there = |program: &&str| std::env::split_paths(&path).any(|dir| dir.join(program).is_file());
    let missing: Vec<&str> = programs.split_whitespace().filter(|program| !is_there(program)).collect();
    if !missing.is_empty() {
        eprintln!("skipped: missing: {}", missing.join(", "));
    }
    missing.is_empty()
}

fn run(dir: &Path, script: &str) -> Output {
    let output = Command::new("timeout")
        .args([SECONDS, "bash", "-euo", "pipefail", "-c", script])
        .current_dir(dir)
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .output()
        .expect("timeout and bash run");
    assert_no_crash(&output);
    output
}

fn shown(output: &Output) -> String {
    format!("{}\n{}{}", output.status, text(&output.stdout), text(&output.stderr))
}

/// The beginning and the end of a long text.
fn short(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    match lines.len() {
        ..40 => lines.join("\n"),
        count => format!("{}\n[…]\n{}", lines[..20].join("\n"), lines[count - 10..].join("\n")),
    }
}

fn tree(dir: &Path) -> Tree {
    let mut tree = Tree::new();
    for entry in walkdir::WalkDir::new(dir).min_depth(1) {
        let entry = entry.expect("the directory can be listed");
        let name = entry.path().strip_prefix(dir).unwrap().to_str().unwrap().to_owned();
        let content = (!entry.file_type().is_dir()).then(|| std::fs::read(entry.path()).unwrap());
        tree.insert(name, content);
    }
    tree
}

/// The tree without its directories.
fn files(mut tree: Tree) -> Tree {
    tree.retain(|_, content| content.is_some());
    tree
}

fn difference(expected: &Tree, found: &Tree, whose: &str) -> Vec<String> {
    let lost = expected.keys().filter(|name| !found.contains_key(*name)).map(|name| format!("{name}: lost {whose}"));
    let changed = found.iter().filter_map(|(name, content)| match expected.get(name) {
        None => Some(format!("{name}: only {whose}")),
        Some(other) if other != content => Some(format!("{name}: not the same {whose}")),
        Some(_) => None,
    });
    lost.chain(changed).collect()
}
