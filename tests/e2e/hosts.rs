//! Several hosts for tests: network namespaces on a virtual switch. Each has an address, a disk that no other host
//! sees, and possibly a daemon. Nothing is created in the namespaces of the machine, so hosts of different tests do not
//! see each other.
//!
//! Each namespace exists as long as a process that holds it. A drop kills these processes, and the kernel removes the
//! links and mounts.

use crate::harness::{PATIENCE, assert_no_crash, eventually, text};
use crate::programs::{directory, program};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Prints a line directly to stderr: the test runner shows the normal output of a test only if it fails.
pub fn print_now(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// The port of each daemon.
const PORT: u16 = 4400;

/// Why hosts cannot be created on this machine; `None` if they can.
fn no_hosts() -> Option<String> {
    if !nix::unistd::geteuid().is_root() {
        return Some("network namespaces need root".to_owned());
    }
    let missing = ["ip", "iptables", "nsenter", "unshare"].into_iter().find(|program| {
        !Command::new("sh")
            .args(["-c", &format!("command -v {program} > /dev/null")])
            .status()
            .is_ok_and(|s| s.success())
    });
    if let Some(program) = missing {
        return Some(format!("no {program}"));
    }
    let probe = "ip link add br0 type bridge && ip link add v0 type veth peer name v1 && iptables -A INPUT -j DROP";
    let probed = Command::new("unshare").args(["-n", "-m", "sh", "-c", probe]).output();
    match probed {
        Ok(output) if output.status.success() => None,
        Ok(output) => Some(format!("no network namespaces: {}", text(&output.stderr).trim())),
        Err(error) => Some(format!("no unshare: {error}")),
    }
}

/// A network namespace and a mount namespace, which exist as long as their process.
struct Namespaces(Child);

impl Namespaces {
    fn new() -> Self {
        // Without the unmount, the namespace would keep the mounts of other tests alive.
        let mut holder = Command::new("unshare")
            .args([
                "-n",
                "-m",
                "sh",
                "-c",
                "umount --no-canonicalize --lazy --all --types fuse.s4; echo ready; exec cat",
            ])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare runs");
        let mut line = String::new();
        BufReader::new(holder.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n", "a namespace is made");
        Self(holder)
    }

    fn pid(&self) -> u32 {
        self.0.id()
    }

    /// A command that runs `program` in the namespace. The process is the program itself, not a wrapper.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        let pid = self.pid().to_string();
        command.args(["--target", &pid, "--net", "--mount", "--wdns=/", "--", program]).stdin(Stdio::null());
        command
    }

    fn sh(&self, script: &str) {
        let output = self.command("sh").args(["-ec", script]).output().expect("nsenter runs");
        assert!(output.status.success(), "{script}: {}", text(&output.stderr));
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

struct Host {
    space: Namespaces,
    daemon: Option<Child>,
}

/// Hosts `0..nodes`, each with a daemon, and one more host for clients. A drop kills all processes on them.
pub struct Hosts {
    hosts: Vec<Host>,
    nodes: usize,
    options: Vec<String>,
    switch: Namespaces,
    dir: tempfile::TempDir,
}

impl Hosts {
    /// Hosts with healthy daemons, which get `options`. `None`, with the reason on stderr, if hosts cannot be created
    /// here.
    pub fn start(nodes: usize, options: &[&str]) -> Option<Self> {
        if let Some(reason) = no_hosts() {
            print_now(&format!("skipped: {reason}"));
            return None;
        }
        let dir = tempfile::Builder::new().prefix("s4-hosts-").tempdir().expect("a temporary directory");
        let switch = Namespaces::new();
        switch.sh("ip link add br0 type bridge && ip link set br0 up");
        let conf: String = (0..nodes).map(|host| format!("{}:{PORT}\n", address(host))).collect();
        std::fs::write(dir.path().join("s4.conf"), conf).unwrap();
        let options = ["--reserve", "0"].iter().chain(options).map(|option| option.to_string()).collect();
        let mut hosts = Self { hosts: Vec::new(), nodes, options, switch, dir };
        (0..=nodes).for_each(|host| hosts.add(host));
        (0..nodes).for_each(|node| hosts.start_node(node));
        Some(hosts)
    }

    fn add(&mut self, host: usize) {
        let (space, dir, own) = (Namespaces::new(), self.dir.path().display(), self.disk(host));
        std::fs::create_dir_all(&own).unwrap();
        let pid = space.pid();
        self.switch.sh(&format!(
            "ip link add p{host} type veth peer name eth0 netns {pid} && ip link set p{host} master br0 up"
        ));
        // No host sees the disk of another. The socket buffers are limited, so that the kernel accepts for a stopped
        // process no more bytes than on a usual host.
        std::fs::create_dir(self.own_disk(host)).unwrap();
        space.sh(&format!(
            "ip link set lo up && ip address add {}/24 dev eth0 && ip link set eth0 up
             echo 4096 131072 262144 > /proc/sys/net/ipv4/tcp_rmem
             echo 4096 16384 262144 > /proc/sys/net/ipv4/tcp_wmem
             mount --bind {} {} && mount -t tmpfs none {dir}/disks",
            address(host),
            own.display(),
            self.own_disk(host).display()
        ));
        self.hosts.push(Host { space, daemon: None });
    }

    /// The number of the host without a daemon.
    pub fn client(&self) -> usize {
        self.nodes
    }

    /// How messages name a node.
    pub fn name(&self, node: usize) -> String {
        format!("node {node} ({}:{PORT})", address(node))
    }

    /// The directory of the test, which all hosts see at this path.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// A host's disk, as the test sees it.
    pub fn disk(&self, host: usize) -> PathBuf {
        self.dir.path().join(format!("disks/{host}"))
    }

    /// A host's disk, as the host itself sees it.
    pub fn own_disk(&self, host: usize) -> PathBuf {
        self.dir.path().join(format!("disk-{host}"))
    }

    /// A command that runs `program` on a host.
    pub fn on(&self, host: usize, program: &str) -> Command {
        let mut command = self.hosts[host].space.command(program);
        command.env("S4_CONF_PATH", self.dir.path().join("s4.conf"));
        command
    }

    /// The command `s4` on the host for clients.
    pub fn s4(&self, args: &[&str]) -> Command {
        let mut command = self.on(self.client(), program("s4"));
        command.args(args);
        command
    }

    /// Runs `s4` on the host for clients. It must succeed. Returns its stdout.
    pub fn ok(&self, args: &[&str]) -> String {
        let output = self.s4(args).output().expect("s4 runs");
        assert_no_crash(&output);
        assert!(output.status.success(), "s4 {args:?}: {}: {}", output.status, text(&output.stderr));
        text(&output.stdout)
    }

    /// Runs a script in bash on the host for clients, in [`Hosts::dir`] and with `s4` on its path. It must succeed.
    /// Returns its stdout.
    pub fn sh(&self, script: &str) -> String {
        let output = self.script(script).output().expect("bash runs");
        assert!(output.status.success(), "{script}: {}: {}", output.status, text(&output.stderr));
        text(&output.stdout)
    }

    /// The command for such a script.
    pub fn script(&self, script: &str) -> Command {
        let mut command = self.on(self.client(), "bash");
        let programs = directory().display().to_string();
        let path = format!("{programs}:{}", std::env::var("PATH").unwrap_or_default());
        let cd = format!("cd {} && {script}", self.dir.path().display());
        command.args(["-c", &cd]).env("PATH", path).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn server(&self, node: usize) -> Command {
        let mut command = self.on(node, program("s4-server"));
        command.arg("--conf").arg(self.dir().join("s4.conf")).arg("--data").arg(self.own_disk(node).join("data"));
        command.args(&self.options);
        command
    }

    /// Starts a daemon, and waits until it answers.
    pub fn start_node(&mut self, node: usize) {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.log(node)).unwrap();
        if !self.disk(node).join("data").exists() {
            let made = self.server(node).arg("--init").output().expect("s4-server runs");
            assert!(made.status.success(), "--init of node {node}: {}", text(&made.stderr));
        }
        let mut command = self.server(node);
        command.stdout(log.try_clone().unwrap()).stderr(log);
        self.hosts[node].daemon = Some(command.spawn().expect("s4-server starts"));
        eventually("the daemon answers", || {
            let ended = self.hosts[node].daemon.as_mut().unwrap().try_wait().unwrap();
            assert!(ended.is_none(), "node {node} ended with {ended:?}: {}", self.log_text(node));
            let asked = format!(
                "exec 3<>/dev/tcp/{}/{PORT} && printf 'GET / HTTP/1.1\\r\\n\\r\\n' >&3 && read -t 1 <&3",
                address(node)
            );
            self.on(node, "bash").args(["-c", &asked]).output().unwrap().status.success().then_some(())
        });
    }

    pub fn kill_node(&mut self, node: usize) {
        let mut daemon = self.hosts[node].daemon.take().expect("the node runs");
        daemon.kill().unwrap();
        daemon.wait().unwrap();
    }

    pub fn runs(&self, node: usize) -> bool {
        self.hosts[node].daemon.is_some()
    }

    /// Sends a signal to a node's daemon.
    pub fn signal(&self, node: usize, signal: Signal) {
        kill(Pid::from_raw(self.pid(node) as i32), signal).unwrap();
    }

    pub fn pid(&self, node: usize) -> u32 {
        self.hosts[node].daemon.as_ref().expect("the node runs").id()
    }

    fn log(&self, node: usize) -> PathBuf {
        self.dir.path().join(format!("log-{node}"))
    }

    pub fn log_text(&self, node: usize) -> String {
        std::fs::read_to_string(self.log(node)).unwrap_or_default()
    }

    /// Drops all packets from `from` to `to` from now on, without an error to either.
    pub fn drop_packets(&self, from: usize, to: usize) {
        self.hosts[to].space.sh(&format!("iptables -A INPUT -s {} -j DROP", address(from)));
    }

    /// Drops all packets between a host and all others, in both directions.
    pub fn isolate(&self, host: usize) {
        self.hosts[host].space.sh("iptables -A INPUT -i eth0 -j DROP && iptables -A OUTPUT -o eth0 -j DROP");
    }

    /// Takes the network link of a host down. Other hosts notice it when the host no longer answers ARP requests.
    pub fn unplug(&self, host: usize) {
        self.switch.sh(&format!("ip link set p{host} down"));
    }

    /// Ends all faults of the network.
    pub fn heal(&self) {
        for (number, host) in self.hosts.iter().enumerate() {
            host.space.sh("iptables -F");
            self.switch.sh(&format!("ip link set p{number} up"));
        }
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        let on_hosts = self.processes();
        for &pid in &on_hosts {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        for daemon in self.hosts.iter_mut().filter_map(|host| host.daemon.as_mut()) {
            let _ = daemon.wait();
        }
        if std::thread::panicking() {
            for node in 0..self.nodes {
                eprintln!("log of node {node}:\n{}", self.log_text(node));
            }
        }
    }
}

impl Hosts {
    /// All processes in the hosts' network namespaces.
    fn processes(&self) -> Vec<i32> {
        let space_of = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/net")).ok();
        let own: Vec<_> = self.hosts.iter().filter_map(|host| space_of(&host.space.pid().to_string())).collect();
        let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        let there = names.filter(|name| space_of(name).is_some_and(|space| own.contains(&space)));
        there.filter_map(|name| name.parse().ok()).collect()
    }
}

fn address(host: usize) -> String {
    format!("10.99.0.{}", host + 1)
}

/// The duration and the output of a command. A command is killed if it does not end within twice [`PATIENCE`].
pub struct Timed {
    pub took: Duration,
    pub output: Output,
}

/// A running command.
pub struct Running {
    child: Option<Child>,
    pub pid: u32,
}

impl Running {
    pub fn start(mut command: Command) -> Self {
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
        Self { pid: child.id(), child: Some(child) }
    }

    /// Waits for the end. The duration counts from `since`.
    pub fn end(mut self, since: Instant) -> Timed {
        let (pid, child) = (self.pid, self.child.take().unwrap());
        let (sender, receiver) = std::sync::mpsc::channel();
        std::thread::spawn(move || sender.send((child.wait_with_output(), Instant::now())));
        let (output, ended) = receiver.recv_timeout(2 * PATIENCE).unwrap_or_else(|_| {
            let _ = kill(Pid::from_raw(pid as i32), Signal::SIGKILL);
            receiver.recv().unwrap()
        });
        let output = output.unwrap();
        assert_no_crash(&output);
        Timed { took: ended.saturating_duration_since(since), output }
    }
}

impl Timed {
    /// Asserts that the command failed at most a second after `deadline`, and prints the duration with `what`. Returns
    /// its stderr.
    pub fn fails_within(self, what: &str, deadline: Duration) -> String {
        let stderr = text(&self.output.stderr);
        print_now(&format!("{what}: {:.2} s to the error: {}", self.took.as_secs_f64(), stderr.trim()));
        assert!(!self.output.status.success(), "{what}: it succeeded");
        assert!(self.took <= deadline + Duration::from_secs(1), "{what}: {:?}, over {deadline:?}: {stderr}", self.took);
        stderr
    }

    /// Asserts that the command succeeded, and prints the duration with `what`. Returns its stdout.
    pub fn succeeds(self, what: &str) -> String {
        print_now(&format!("{what}: {:.2} s", self.took.as_secs_f64()));
        assert!(self.output.status.success(), "{what}: {}: {}", self.output.status, text(&self.output.stderr));
        text(&self.output.stdout)
    }
}
