//! Scripts that run in mounts: bash for what a user types, Python for system calls one by one.

use crate::harness::{Cluster, text};
use crate::mounting::{Mount, no_mounts};
use crate::programs::program;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Output, Stdio};

/// What every Python script begins with. `errno_of` gives the name of the error that a call ends with, else `ok`.
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

/// A cluster, a mount of it with a bucket `b`, and both kinds of node: node 0 is read directly, node 1 over the network.
pub struct Setup {
    pub mount: Mount,
    pub cluster: Cluster,
}

/// One key of each kind.
pub const LOCAL: &str = "b/0_k";
pub const REMOTE: &str = "b/1_k";
pub const BOTH: [&str; 2] = [LOCAL, REMOTE];

/// True, having said why, if tests of mounts cannot run here.
pub fn skipped() -> bool {
    let python = Command::new("python3").args(["-S", "-c", ""]).stderr(Stdio::null()).status();
    let no_python = (!python.is_ok_and(|status| status.success())).then_some("no python3");
    let reason = no_mounts().or(no_python);
    if let Some(reason) = reason {
        eprintln!("skipped: {reason}");
    }
    reason.is_some()
}

/// Two nodes, one of them remote; `None` if it cannot be, having said why.
pub fn setup() -> Option<Setup> {
    setup_with(2, &[1], &[])
}

/// `nodes` nodes, those of `remote` remote, and options for the mount.
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

    /// Runs bash in the mount to its end, `$S4` being another client.
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

    /// Starts Python in the mount, with its streams at hand.
    pub fn spawn_python(&self, script: &str, args: &[&str]) -> Child {
        spawn_python(&self.mount, script, args)
    }

    /// True if another client sees `path` as a key.
    pub fn is_key(&self, path: &str) -> bool {
        let output = self.cluster.run(&["ls", &format!("s4://{path}")]);
        let listed = text(&output.stdout);
        listed.lines().any(|line| line.ends_with(path.rsplit('/').next().unwrap()))
    }

    /// What another client reads at `path`.
    pub fn key(&self, path: &str) -> Vec<u8> {
        self.cluster.get(&format!("s4://{path}"))
    }

    pub fn put(&self, path: &str, content: &[u8]) {
        self.cluster.put(&format!("s4://{path}"), content);
    }
}

pub fn spawn_python(mount: &Mount, script: &str, args: &[&str]) -> Child {
    Command::new("python3")
        // Isolated, or it would look for its modules in the mount.
        .args(["-I", "-S", "-c", &format!("{PRELUDE}{script}")])
        .args(args)
        .current_dir(mount.dir())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("python3 runs")
}

/// The stdout of a script, which is to succeed.
pub fn finish_python(child: Child) -> String {
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "the script: {}: {}", output.status, text(&output.stderr));
    text(&output.stdout)
}

/// The next line that a script tells.
pub fn next_line(child: &mut Child) -> String {
    let mut line = String::new();
    // One byte at a time, so that nothing of the next line is lost with the reader.
    BufReader::with_capacity(1, child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    line.trim_end().to_owned()
}

pub fn send_line(child: &mut Child, line: &str) {
    writeln!(child.stdin.as_mut().unwrap(), "{line}").unwrap();
}
