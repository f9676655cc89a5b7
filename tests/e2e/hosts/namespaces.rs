//! The namespaces of one host. They exist as long as the process that holds them: once it is killed, the kernel ends their
//! processes and removes their mounts, links and loop devices, also when the test itself was killed.

use crate::harness::{eventually, text};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Namespaces of network and mounts; for a host of its own also of processes and of its name, and a root directory.
pub struct Namespaces {
    holder: Child,
    /// A process in them.
    pid: u32,
    is_machine: bool,
}

impl Namespaces {
    /// A network of its own, and everything else as on this machine.
    pub fn new() -> Self {
        // Without the unmount, the namespace would keep the mounts of other tests alive.
        let script = "umount --no-canonicalize --lazy --all --types fuse.s4; read -r pid _ < /proc/self/stat; echo $pid; exec cat";
        Self::hold(Command::new("unshare").args(["-n", "-m", "sh", "-c", script]), false)
    }

    /// A host that has an own name, own processes, and own files below /etc and /var, which begin as those of this
    /// machine, and below /home, /opt, /root, /run, /srv, /tmp and /usr/local, which begin empty. These are kept in `dir`, where the file `image` is the file system at `/data`. It sees `shared`
    /// directories at other paths.
    pub fn machine(name: &str, dir: &Path, shared: &[(PathBuf, PathBuf)]) -> Self {
        let mut command = Command::new("unshare");
        command.args(["--net", "--mount", "--uts", "--pid", "--fork", "--kill-child", "--", "sh", "-c"]);
        command.arg(include_str!("machine.sh")).arg("machine").arg(name).arg(dir);
        for (from, to) in shared {
            command.arg(format!("{}:{}", from.display(), to.display()));
        }
        Self::hold(&mut command, true)
    }

    fn hold(command: &mut Command, is_machine: bool) -> Self {
        let mut holder = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("unshare runs");
        let mut line = String::new();
        BufReader::new(holder.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let pid = line.trim().parse().expect("namespaces are made");
        Self { holder, pid, is_machine }
    }

    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// The path of a host's own file, as the test sees it.
    pub fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        Path::new(&format!("/proc/{}/root", self.pid)).join(path.as_ref().strip_prefix("/").unwrap_or(path.as_ref()))
    }

    /// A command that runs `program` in the namespaces. The process is the program itself, not a wrapper, unless the
    /// namespaces are a machine.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.pid.to_string(), "--net", "--mount", "--wdns=/"]);
        if self.is_machine {
            command.args(["--uts", "--pid", "--root"]);
        }
        command.args(["--", program]).stdin(Stdio::null());
        command
    }

    pub fn sh(&self, script: &str) {
        let output = self.command("sh").args(["-ec", script]).output().expect("nsenter runs");
        assert!(output.status.success(), "{script}: {}{}", text(&output.stdout), text(&output.stderr));
    }
}

impl Namespaces {
    /// Ends all processes in them.
    pub fn end(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
        if self.is_machine {
            // The kernel ends the first process of the namespace after the holder, and all others with it.
            let first = format!("/proc/{}", self.pid);
            eventually("the host is off", || (!Path::new(&first).exists()).then_some(()));
        }
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        self.end();
    }
}
