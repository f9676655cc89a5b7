//! `s4 local`: a whole cluster on this machine in one command.

use crate::harness::{assert_no_crash, eventually, text};
use crate::programs::{directory, program};
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

/// A directory for `s4 local`. Dropped, its cluster is stopped and it is removed.
pub struct Local {
    pub dir: tempfile::TempDir,
}

impl Local {
    pub fn new() -> Self {
        Self { dir: tempfile::Builder::new().prefix("s4-local-test-").tempdir().unwrap() }
    }

    /// The value of `--dir`.
    fn cluster(&self) -> PathBuf {
        self.dir.path().join("D")
    }

    fn conf(&self) -> PathBuf {
        self.cluster().join("s4.conf")
    }

    /// `s4 local --dir D ARGS`, in an environment that knows no cluster.
    pub fn local(&self, args: &[&str]) -> Command {
        let mut command = Command::new(program("s4"));
        command.args(["local", "--dir"]).arg(self.cluster()).args(args);
        command.env_remove("S4_CONF_PATH").env("HOME", self.dir.path()).current_dir(self.dir.path());
        command.stdin(Stdio::null());
        command
    }

    fn run(&self, args: &[&str]) -> Output {
        let output = self.local(args).output().unwrap();
        assert_no_crash(&output);
        output
    }

    pub fn ok(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert!(output.status.success(), "s4 local {args:?}: {}", text(&output.stderr));
        text(&output.stdout)
    }

    fn fails(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert_eq!(output.status.code(), Some(1), "s4 local {args:?}: {}", text(&output.stderr));
        assert_eq!(text(&output.stdout), "", "s4 local {args:?}");
        text(&output.stderr)
    }

    /// Starts in the foreground, and waits until the nodes are healthy.
    pub fn foreground(&self, args: &[&str]) -> Child {
        let mut child = self.local(args).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, self.export_line());
        child
    }

    pub fn export_line(&self) -> String {
        format!("export S4_CONF_PATH={}\n", self.conf().display())
    }

    /// Runs a script as a shell would that has evaluated the export line.
    pub fn sh(&self, script: &str) -> String {
        let bin = directory();
        let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
        let mut bash = Command::new("bash");
        bash.args(["-c", &format!("set -eu\n{}{script}", self.export_line())]).env("PATH", path);
        let output = bash.current_dir(self.dir.path()).stdin(Stdio::null()).output().unwrap();
        assert!(output.status.success(), "{script}: {}{}", text(&output.stdout), text(&output.stderr));
        text(&output.stdout)
    }

    /// Puts a key on each of 3 nodes.
    pub fn put_keys(&self) {
        self.sh("for node in 0 1 2; do echo content of $node | s4 cp - s4://b/${node}_key; done");
    }

    fn check_keys(&self) {
        for node in 0..3 {
            assert_eq!(self.sh(&format!("s4 cp s4://b/{node}_key -")), format!("content of {node}\n"));
            assert!(self.cluster().join(format!("node-{node}/b/{node}_key")).is_file());
        }
    }

    /// The command lines of processes that name the directory.
    pub fn processes(&self) -> Vec<String> {
        let dir = self.cluster();
        let dir = dir.as_os_str().as_bytes();
        let entries = std::fs::read_dir("/proc").unwrap().flatten();
        let lines = entries.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
        lines.filter(|line| line.windows(dir.len()).any(|part| part == dir)).map(|line| text(&line)).collect()
    }

    /// The process that serves the mount on `dir`.
    pub fn mount_pid(&self, dir: &Path) -> i32 {
        let of = |entry: std::fs::DirEntry| {
            let environment = std::fs::read(entry.path().join("environ")).ok()?;
            let mut variables = environment.split(|&byte| byte == 0);
            let prepared = [b"S4_MOUNT_PREPARED=", dir.as_os_str().as_bytes()].concat();
            variables.any(|variable| variable == prepared).then(|| entry.file_name().to_str()?.parse().ok())?
        };
        eventually("one process serves the mount", || {
            let pids: Vec<i32> = std::fs::read_dir("/proc").unwrap().flatten().filter_map(of).collect();
            (pids.len() == 1).then(|| pids[0])
        })
    }

    fn ports(&self) -> Vec<u16> {
        let conf = std::fs::read_to_string(self.conf()).unwrap();
        conf.lines().map(|line| line.rsplit(':').next().unwrap().parse().unwrap()).collect()
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        // What a failed test leaves; a test that passed has stopped it. A node that just starts is not seen yet.
        for _ in 0..20 {
            if !self.conf().exists() || self.processes().is_empty() {
                return;
            }
            let _ = self.local(&["--stop"]).stderr(Stdio::null()).status();
        }
    }
}

/// Whether something is mounted there.
pub fn is_mounted(dir: &Path) -> bool {
    let mounts = std::fs::read_to_string("/proc/mounts").unwrap();
    mounts.lines().any(|line| line.split(' ').nth(1) == dir.to_str())
}

pub fn signal(child: &Child, signal: &str) {
    assert!(Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap().success());
}

#[test]
fn a_detached_cluster_works_through_its_export_line_until_it_is_stopped() {
    let local = Local::new();
    assert_eq!(local.ok(&["-n", "3", "--detach"]), local.export_line());
    // A shell that has not evaluated the line is told of it.
    let mut s4 = Command::new(program("s4"));
    let ls = s4.arg("ls").env_remove("S4_CONF_PATH").env("HOME", local.dir.path()).output().unwrap();
    let said = text(&ls.stderr);
    assert!(said.contains("try 's4 local'; one runs here: export S4_CONF_PATH="), "{said}");
    assert_eq!(local.processes().len(), 3);
    assert_eq!(local.sh("s4 health").lines().filter(|line| line.contains("127.0.0.1:")).count(), 3);
    local.put_keys();
    local.check_keys();
    local.sh(
        "s4 map-to-n s4://b/ s4://parts/ 'cat > 1_part; echo 1_part'; s4 map-from-n s4://parts/ s4://out/ 'xargs -d \"\\n\" cat'",
    );
    assert_eq!(local.sh("s4 cp s4://out/1_part -"), "content of 0\ncontent of 1\ncontent of 2\n");
    assert_eq!(local.ok(&["--stop"]), "");
    assert_eq!(local.processes(), Vec::<String>::new());
    // To stop what is stopped is no error; to stop what never was is one.
    local.ok(&["--stop"]);
    let missing = Local::new();
    assert!(missing.fails(&["--stop"]).contains(missing.cluster().to_str().unwrap()));
}

#[test]
fn stop_ends_running_commands_too() {
    let local = Local::new();
    local.ok(&["-n", "3", "--detach"]);
    local.put_keys();
    let started = local.dir.path().join("started");
    let cmd = format!("echo $$ > {}; exec tail -f /dev/null", started.display());
    let mut eval = Command::new(program("s4"));
    eval.args(["eval", "s4://b/1_key", &cmd]).env("S4_CONF_PATH", local.conf()).stdin(Stdio::null());
    let mut eval = eval.stderr(Stdio::null()).spawn().unwrap();
    let pid: u32 = eventually("the command runs", || std::fs::read_to_string(&started).ok()?.trim().parse().ok());
    local.ok(&["--stop"]);
    assert_eq!(local.processes(), Vec::<String>::new());
    let gone = || !Path::new(&format!("/proc/{pid}")).exists();
    assert!(gone(), "the command outlives the cluster");
    let status = eventually("the client ends", || eval.try_wait().unwrap());
    assert_ne!(status.code(), Some(0));
}

#[test]
fn a_restart_keeps_the_keys() {
    let local = Local::new();
    local.ok(&["-n", "3", "--detach"]);
    local.put_keys();
    local.ok(&["--stop"]);
    // Without a number: as many as there are.
    assert_eq!(local.ok(&["--detach"]), local.export_line());
    assert_eq!(local.processes().len(), 3);
    local.check_keys();
    local.ok(&["--stop"]);
}

#[test]
fn a_nodes_directory_that_vanished_is_never_made_anew() {
    let local = Local::new();
    local.ok(&["-n", "3", "--detach"]);
    local.put_keys();
    local.ok(&["--stop"]);
    let (node, away) = (local.cluster().join("node-1"), local.dir.path().join("away"));
    std::fs::rename(&node, &away).unwrap();
    let error = local.fails(&["--detach"]);
    assert!(error.contains(node.to_str().unwrap()) && error.contains("is gone"), "{error}");
    assert_eq!(error.lines().count(), 1, "{error}");
    assert!(!node.exists());
    assert_eq!(local.processes(), Vec::<String>::new());
    std::fs::rename(&away, &node).unwrap();
    local.ok(&["--detach"]);
    local.check_keys();
    local.ok(&["--stop"]);
}

#[test]
fn a_first_start_that_was_interrupted_is_made_whole_by_the_next() {
    let local = Local::new();
    // As a kill leaves it: some directories are made, and the cluster file is not there yet.
    local.ok(&["-n", "3", "--detach"]);
    local.ok(&["--stop"]);
    std::fs::rename(local.conf(), local.cluster().join("s4.conf.new")).unwrap();
    std::fs::remove_dir_all(local.cluster().join("node-2")).unwrap();
    local.ok(&["-n", "3", "--detach"]);
    local.put_keys();
    local.check_keys();
    local.ok(&["--stop"]);
}

#[test]
fn a_cluster_in_the_foreground_ends_on_a_signal_and_leaves_nothing() {
    let local = Local::new();
    for (turn, signal) in ["-INT", "-TERM"].into_iter().enumerate() {
        let mut child = local.foreground(&["-n", "3"]);
        if turn == 0 {
            local.put_keys();
        }
        local.check_keys();
        self::signal(&child, signal);
        let status = eventually("s4 local ends", || child.try_wait().unwrap());
        assert!(status.success(), "{signal}: {status}");
        assert_eq!(local.processes(), Vec::<String>::new(), "{signal}");
    }
}

#[test]
fn a_second_start_is_refused_and_the_first_still_works() {
    let local = Local::new();
    local.ok(&["-n", "3", "--detach"]);
    local.put_keys();
    let conf = std::fs::read(local.conf()).unwrap();
    for args in [&["--detach"][..], &["-n", "3", "--detach"], &["-n", "3"], &["-n", "5", "--detach"]] {
        let error = local.fails(args);
        assert!(error.contains("runs already") && error.contains("--stop"), "{error}");
        assert_eq!(std::fs::read(local.conf()).unwrap(), conf);
        assert_eq!(local.processes().len(), 3);
    }
    local.check_keys();
    local.ok(&["--stop"]);
}

#[test]
fn another_number_of_nodes_is_refused() {
    let local = Local::new();
    local.ok(&["-n", "3", "--detach"]);
    local.put_keys();
    local.ok(&["--stop"]);
    for nodes in ["2", "4"] {
        let error = local.fails(&["-n", nodes, "--detach"]);
        assert!(error.contains("3 nodes") && error.contains("--dir"), "{error}");
        assert_eq!(local.processes(), Vec::<String>::new());
    }
    local.ok(&["-n", "3", "--detach"]);
    local.check_keys();
    local.ok(&["--stop"]);
}

#[test]
fn a_port_taken_by_others_is_replaced_and_the_keys_are_found() {
    let local = Local::new();
    local.ok(&["-n", "3", "--detach"]);
    local.put_keys();
    let before = local.ports();
    local.ok(&["--stop"]);
    let _taken = TcpListener::bind(("127.0.0.1", before[1])).unwrap();
    local.ok(&["--detach"]);
    let after = local.ports();
    assert!(after.len() == 3 && !after.contains(&before[1]), "{before:?} became {after:?}");
    local.check_keys();
    local.ok(&["--stop"]);
}

#[test]
fn a_start_whose_mount_fails_leaves_nothing() {
    let local = Local::new();
    std::fs::write(local.dir.path().join("file"), "").unwrap();
    let error = local.fails(&["-n", "3", "--detach", "--mount", "file"]);
    assert!(error.contains("file"), "{error}");
    assert_eq!(local.processes(), Vec::<String>::new());
}

#[test]
fn a_signal_while_the_nodes_start_leaves_nothing() {
    for wanted in ["-INT", "-TERM"] {
        let local = Local::new();
        let args = ["-n", "12"];
        let mut child = local.local(&args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        eventually("the first node starts", || local.cluster().join("node-0").exists().then_some(()));
        signal(&child, wanted);
        eventually("s4 local ends", || child.try_wait().unwrap());
        assert_eq!(local.processes(), Vec::<String>::new(), "{wanted}");
    }
}

#[test]
fn stop_ends_the_nodes_of_a_foreground_that_was_killed() {
    let local = Local::new();
    let mut child = local.foreground(&["-n", "3"]);
    child.kill().unwrap();
    child.wait().unwrap();
    local.ok(&["--stop"]);
    assert_eq!(local.processes(), Vec::<String>::new());
}

#[test]
fn an_export_line_that_cannot_be_printed_is_an_error_and_leaves_nothing() {
    let local = Local::new();
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let output = local.local(&["-n", "2", "--detach"]).stdout(full).stderr(Stdio::piped()).spawn().unwrap();
    let output = output.wait_with_output().unwrap();
    assert_eq!(local.processes(), Vec::<String>::new());
    assert_no_crash(&output);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(text(&output.stderr), "s4: stdout: No space left on device\n");
}

#[test]
fn of_two_starts_at_once_one_works() {
    for round in 0..8 {
        let local = Local::new();
        let start = || {
            let mut command = local.local(&["-n", "3", "--detach"]);
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
        };
        let first = start();
        if round % 2 == 1 {
            eventually("the first node starts", || local.cluster().join("node-0").exists().then_some(()));
        }
        let outputs = [first, start()].map(|child| child.wait_with_output().unwrap());
        let done = outputs.iter().filter(|output| output.status.success()).count();
        let said: Vec<String> = outputs.iter().map(|output| text(&output.stderr)).collect();
        assert_eq!(done, 1, "round {round}: {said:?}");
        assert_eq!(local.processes().len(), 3, "round {round}: {said:?}");
        local.put_keys();
        local.check_keys();
        local.ok(&["--stop"]);
        assert_eq!(local.processes(), Vec::<String>::new(), "round {round}");
    }
}

#[test]
fn other_users_of_the_machine_are_strangers() {
    use std::os::unix::fs::PermissionsExt;
    let local = Local::new();
    let started = local.run(&["--detach"]);
    let secret_path = local.cluster().join("s4.conf.secret");
    let secret = std::fs::read_to_string(&secret_path).unwrap().trim().to_owned();
    assert!(secret.len() >= 32, "{secret}");
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(
        (mode(&secret_path), mode(&local.cluster()), mode(&local.cluster().join("node-0"))),
        (0o600, 0o700, 0o700)
    );
    let url = format!("/#{secret} shows the nodes");
    assert!(text(&started.stderr).contains(&url), "{}", text(&started.stderr));
    // Who may only guess the ports is refused, and who has the cluster file alone.
    let (bare, conf) = (local.dir.path().join("bare.conf"), local.conf());
    std::fs::copy(&conf, &bare).unwrap();
    let s4 = |conf: &Path, args: &[&str]| {
        let mut command = Command::new(program("s4"));
        command.args(args).env("S4_CONF_PATH", conf).env_remove("S4_SECRET_PATH").stdin(Stdio::null()).output().unwrap()
    };
    for args in [&["ls"][..], &["cp", bare.to_str().unwrap(), "s4://b/0_x"], &["eval", "s4://b/0_x", "id"]] {
        let refused = s4(&bare, args);
        let stderr = text(&refused.stderr);
        assert!(
            refused.status.code() == Some(1) && stderr.contains("secret is missing or wrong"),
            "{args:?}: {stderr}"
        );
    }
    assert!(s4(&conf, &["cp", bare.to_str().unwrap(), "s4://b/0_x"]).status.success());
    // Commands find it neither in their environment nor among their arguments.
    let seen = s4(&conf, &["eval", "s4://b/0_x", "env; cat /proc/self/environ /proc/$PPID/cmdline"]);
    assert!(seen.status.success() && !text(&seen.stdout).contains(&secret), "{}", text(&seen.stderr));
    local.ok(&["--stop"]);
    local.ok(&["--detach"]);
    assert_eq!(std::fs::read_to_string(&secret_path).unwrap().trim(), secret, "it stays");
    let own = local.dir.path().join("own");
    std::fs::write(&own, "a secret of one's own\nmore\n").unwrap();
    local.ok(&["--stop"]);
    local.ok(&["--detach", "--secret", own.to_str().unwrap()]);
    assert_eq!(std::fs::read_to_string(&secret_path).unwrap(), "a secret of one's own\n");
    assert!(s4(&conf, &["health"]).status.success());
}
