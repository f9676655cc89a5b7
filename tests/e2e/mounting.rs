//! Mounts of clusters for tests, each with a process `s4-mount`.

use crate::harness::{Cluster, eventually};
use crate::programs::program;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};

/// A mount of a cluster. A drop unmounts it.
pub struct Mount {
    dir: PathBuf,
    log: PathBuf,
    child: Child,
}

/// Why this user cannot mount here; `None` if mounts are possible.
pub fn no_mounts() -> Option<&'static str> {
    if !Path::new("/dev/fuse").exists() {
        return Some("no /dev/fuse");
    }
    if nix::unistd::geteuid().is_root() {
        return None;
    }
    no_user_mounts()
}

/// Why users without privileges cannot mount here; `None` if they can.
pub fn no_user_mounts() -> Option<&'static str> {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    let helper = std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())
        .find_map(|dir| std::fs::metadata(dir.join("fusermount3")).ok());
    match helper {
        None => Some("fusermount3 is missing"),
        Some(found) if found.uid() != 0 || found.permissions().mode() & 0o4000 == 0 => {
            Some("fusermount3 is not setuid")
        }
        Some(_) => None,
    }
}

impl Mount {
    /// Mounts `cluster` on a new directory `name` in the directory of the cluster, and waits until the mount is ready.
    pub fn new(cluster: &Cluster, name: &str, options: &[&str]) -> Self {
        Self::with_conf(cluster, &cluster.conf(), name, options)
    }

    /// Like [`Mount::new`], with another cluster file.
    pub fn with_conf(cluster: &Cluster, conf: &Path, name: &str, options: &[&str]) -> Self {
        Self::start(cluster, conf, name, options, Command::new(program("s4-mount")))
    }

    /// Like [`Mount::new`], in a new PID namespace, in which processes of the test are not visible. Needs root.
    pub fn in_pid_namespace(cluster: &Cluster, name: &str) -> Self {
        let mut unshared = Command::new("unshare");
        unshared.args(["--pid", "--fork", "--kill-child", "--", program("s4-mount")]);
        Self::start(cluster, &cluster.conf(), name, &[], unshared)
    }

    fn start(cluster: &Cluster, conf: &Path, name: &str, options: &[&str], mut program: Command) -> Self {
        let dir = cluster.dir().join(name);
        let log = cluster.dir().join(format!("{name}.log"));
        // Errors are ignored: a dead mount may be there, and then the directory exists.
        let _ = std::fs::create_dir(&dir);
        let before = std::fs::read_to_string(&log).unwrap_or_default().len();
        let file = std::fs::OpenOptions::new().create(true).append(true).open(&log).unwrap();
        let mut child = program
            .arg(&dir)
            .arg("--conf-path")
            .arg(conf)
            .args(options)
            .stdin(Stdio::null())
            .stdout(file.try_clone().unwrap())
            .stderr(file)
            .spawn()
            .expect("s4-mount starts");
        eventually("the mount is there", || {
            assert!(child.try_wait().unwrap().is_none(), "s4-mount ended: {}", std::fs::read_to_string(&log).unwrap());
            std::fs::read_to_string(&log).unwrap()[before..].contains("mounted on").then_some(())
        });
        Self { dir, log, child }
    }

    /// Like [`Mount::new`], but `nodes` seem to be on other machines: the mount reads their keys over the network.
    ///
    /// At its start, a mount believes that a node is on its own machine if it can read the token of the node.
    pub fn with_remote_nodes(cluster: &Cluster, name: &str, nodes: &[usize], options: &[&str]) -> Self {
        let tokens: Vec<PathBuf> = nodes.iter().map(|node| cluster.data(*node).join(".s4/token")).collect();
        for token in &tokens {
            std::fs::rename(token, token.with_extension("hidden")).expect("the node has a token");
        }
        let mount = Self::new(cluster, name, options);
        for token in &tokens {
            std::fs::rename(token.with_extension("hidden"), token).unwrap();
        }
        mount
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn log_text(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Runs a script with bash in the mount.
    pub fn sh(&self, script: &str) -> Output {
        Command::new("bash")
            .args(["-c", script])
            .current_dir(&self.dir)
            .stdin(Stdio::null())
            .output()
            .expect("bash runs")
    }

    /// Runs a script, which must succeed. Returns its stdout.
    pub fn ok(&self, script: &str) -> String {
        let output = self.sh(script);
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{script}: {}: {stderr}", output.status);
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Runs a script, which must fail. Returns its stderr.
    pub fn fails(&self, script: &str) -> String {
        let output = self.sh(script);
        assert!(!output.status.success(), "{script}: succeeded");
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    /// Sends `signal` (as `kill` takes it) to the mount's process.
    pub fn signal(&self, signal: &str) {
        let status = Command::new("kill").args([&format!("-{signal}"), &self.pid().to_string()]).status();
        assert!(status.expect("kill runs").success());
    }

    /// Waits until the mount's process has ended.
    pub fn ended(&mut self) -> ExitStatus {
        eventually("s4-mount ends", || self.child.try_wait().unwrap())
    }

    /// Kills the mount's process, which leaves a dead mount.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        let (unmount, flags) = match nix::unistd::geteuid().is_root() {
            true => ("umount", "-l"),
            false => ("fusermount3", "-uz"),
        };
        let _ = Command::new(unmount).arg(flags).arg(&self.dir).stderr(Stdio::null()).status();
        if std::thread::panicking() {
            eprintln!("log of the mount:\n{}", self.log_text());
        }
    }
}
