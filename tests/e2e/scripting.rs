//! Scripts that run in mounts: bash for commands of users, Python for single system calls.

use crate::harness::{Cluster, text};
use crate::mounting::{Mount, no_mounts};
use crate::programs::program;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Output, Stdio};

/// The beginning of every Python script. `errno_of` returns the name of the errno of a call, or `ok`.
const PRELUDE: &str = r#"
import errno, mmap, os, signal, stat, subprocess, sys, threading
R, W, RW, NEW = os.O_RDONLY, os.O_WRONLY, os.O_RDWR, os.O_CREAT | os.O_WRONLY
def errno_of(call, *args, **kwargs):
    try:
        call(*args, **kwargs)
        return 'ok'
    except OSError as e:
        return errno.errorcode[e.errno]
def make(path, content=b'content'):
    fd = os.open(path, NEW | os.O_EXCL)
    os.write(fd, content)
    os.close(fd)
def read(path):
    fd = os.open(path, R)
    content = b''
    while piece := os.read(fd, 1 << 20):
        content += piece
    os.close(fd)
    return content
def tell(line):
    print(line, flush=True)
def await_word():
    return sys.stdin.readline().strip()
"#;

/// A cluster and a mount with a bucket `b`. There are both kinds of node: the mount reads node 0 directly, and node 1
/// over the network.
pub struct Setup {
    pub mount: Mount,
    pub cluster: Cluster,
}

/// A key on each kind of node.
pub const LOCAL: &str = "b/0_k";
pub const REMOTE: &str = "b/1_k";
pub const BOTH: [&str; 2] = [LOCAL, REMOTE];

/// True if tests of mounts cannot run here. Prints the reason.
pub fn skipped() -> bool {
    let python = Command::new("python3").args(["-S", "-c", ""]).stderr(Stdio::null()).status();
    let no_python = (!python.is_ok_and(|status| status.success())).then_some("no python3");
    let reason = no_mounts().or(no_python);
    if let Some(reason) = reason {
        eprintln!("skipped: {reason}");
    }
    reason.is_some()
}

/// Two nodes, of which one is remote. `None`, with the reason on stderr, if mounts are not possible here.
pub fn setup() -> Option<Setup> {
    setup_with(2, &[1], &[])
}

/// `nodes` nodes, of which those in `remote` are remote, and a mount with `options`.
pub fn setup_with(nodes: usize, remote: &[usize], options: &[&str]) -> Option<Setup> {
    if skipped() {
        return None;
    }
    let cluster = Cluster::start(nodes);
    cluster.separate(remote.iter().copied());
    let mount = Mount::new(&cluster, "mnt", options);
    std::fs::create_dir(mount.path("b")).expect("a bucket is made");
    Some(Setup { mount, cluster })
}

impl Setup {
    /// Another mount of the same cluster.
    pub fn other_mount(&self) -> Mount {
        Mount::new(&self.cluster, "other", &[])
    }

    /// Runs bash in the mount to its end. `$S4` is the program `s4`, as another client.
    pub fn bash(&self, script: &str) -> String {
        let output = self.bash_output(script);
        assert!(output.status.success(), "{script}: {}: {}", output.status, text(&output.stderr));
        text(&output.stdout)
    }

    pub fn bash_output(&self, script: &str) -> Output {
        Command::new("bash")
            .args(["-c", script])
            .env("S4", program("s4"))
            .env("S4_CONF_PATH", self.cluster.conf())
            .current_dir(self.mount.dir())
            .stdin(Stdio::null())
            .output()
            .expect("bash runs")
    }

    /// Runs Python in the mount to its end; returns its stdout.
    pub fn python(&self, script: &str, args: &[&str]) -> String {
        finish_python(self.spawn_python(script, args))
    }

    /// Starts Python in the mount. Its stdin, stdout and stderr are pipes.
    pub fn spawn_python(&self, script: &str, args: &[&str]) -> Child {
        spawn_python(&self.mount, script, args)
    }

    /// True if another client sees `path` as a key.
    pub fn is_key(&self, path: &str) -> bool {
        let output = self.cluster.run(&["ls", &format!("s4://{path}")]);
        let listed = text(&output.stdout);
        listed.lines().any(|line| line.ends_with(path.rsplit('/').next().unwrap()))
    }

    /// The bytes that another client reads at `path`.
    pub fn key(&self, path: &str) -> Vec<u8> {
        self.cluster.get(&format!("s4://{path}"))
    }

    pub fn put(&self, path: &str, content: &[u8]) {
        self.cluster.put(&format!("s4://{path}"), content);
    }
}

pub fn spawn_python(mount: &Mount, script: &str, args: &[&str]) -> Child {
    Command::new("python3")
        // Isolated mode: otherwise Python looks for modules in the mount.
        .args(["-I", "-S", "-c", &format!("{PRELUDE}{script}")])
        .args(args)
        .current_dir(mount.dir())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("python3 runs")
}

/// Waits for the end of a script, which must succeed. Returns its stdout.
pub fn finish_python(child: Child) -> String {
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "the script: {}: {}", output.status, text(&output.stderr));
    text(&output.stdout)
}

/// The next line of a script's stdout.
pub fn next_line(child: &mut Child) -> String {
    let mut line = String::new();
    // A buffer of one byte: a larger one would lose bytes of the next line when the reader is dropped.
    BufReader::with_capacity(1, child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    line.trim_end().to_owned()
}

pub fn send_line(child: &mut Child, line: &str) {
    writeln!(child.stdin.as_mut().unwrap(), "{line}").unwrap();
}
