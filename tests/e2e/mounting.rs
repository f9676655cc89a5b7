//! Real mounts for tests, as processes of `s4-mount`.

use crate::harness::{Cluster, eventually};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};

/// A mount of a cluster. Dropped, it is taken away.
pub struct Mount {
    dir: PathBuf,
    log: PathBuf,
    child: Child,
}

/// Why no mount can be made here, if none can.
pub fn no_mounts() -> Option<&'static str> {
    let root = nix::unistd::geteuid().is_root();
    match (Path::new("/dev/fuse").exists(), root) {
        (false, _) => Some("no /dev/fuse"),
        (true, false) => Some("not root"),
        (true, true) => None,
    }
}

impl Mount {
    /// Mounts `cluster` on a new directory `name` in the cluster's own, and waits until it is there.
    pub fn new(cluster: &Cluster, name: &str, options: &[&str]) -> Self {
        Self::with_conf(cluster, &cluster.conf(), name, options)
    }

    /// The same with another cluster file.
    pub fn with_conf(cluster: &Cluster, conf: &Path, name: &str, options: &[&str]) -> Self {
        let dir = cluster.dir().join(name);
        let log = cluster.dir().join(format!("{name}.log"));
        // A dead mount may be there, of which nothing can be asked.
        let _ = std::fs::create_dir(&dir);
        let before = std::fs::read_to_string(&log).unwrap_or_default().len();
        let file = std::fs::OpenOptions::new().create(true).append(true).open(&log).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_s4-mount"))
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

    /// Runs a script that is to succeed; returns its stdout.
    pub fn ok(&self, script: &str) -> String {
        let output = self.sh(script);
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{script}: {}: {stderr}", output.status);
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Runs a script that is to fail; returns its stderr.
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
        let _ = Command::new("umount").arg("-l").arg(&self.dir).stderr(Stdio::null()).status();
        if std::thread::panicking() {
            eprintln!("log of the mount:\n{}", self.log_text());
        }
    }
}
