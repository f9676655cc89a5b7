//! Several hosts for tests: network namespaces on a virtual switch. Each has an address, a disk that no other host
//! sees, and possibly a daemon. Nothing is created in the namespaces of the machine, so hosts of different tests do not
//! see each other.
//!
//! Each namespace exists as long as a process that holds it. A drop kills these processes, and the kernel removes the
//! links and mounts.
//!
//! A test of the daemons takes [`Hosts::start`], whose hosts share the files of this machine, or [`Hosts::with_disks`] if
//! disks are to fail too; one that installs something takes [`Hosts::machines`].

mod disks;
mod faults;
mod machines;
mod namespaces;
mod running;

pub use machines::{SHARED, USER};
pub use running::{Running, Timed};

use crate::harness::{assert_no_crash, eventually, text};
use crate::programs::{directory, program};
use namespaces::Namespaces;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

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
    /// Made by [`Hosts::machines`].
    are_machines: bool,
    /// Made by [`Hosts::with_disks`].
    have_disks: bool,
    dir: tempfile::TempDir,
}

impl Hosts {
    /// Hosts with healthy daemons, which get `options`. `None`, with the reason on stderr, if hosts cannot be created
    /// here.
    pub fn start(nodes: usize, options: &[&str]) -> Option<Self> {
        Self::start_on(nodes, options, false)
    }

    fn start_on(nodes: usize, options: &[&str], have_disks: bool) -> Option<Self> {
        if let Some(reason) = no_hosts() {
            print_now(&format!("skipped: {reason}"));
            return None;
        }
        let mut hosts = Self::on_a_switch(nodes, options);
        hosts.have_disks = have_disks;
        let conf: String = (0..nodes).map(|host| format!("{}:{PORT}\n", address(host))).collect();
        std::fs::write(hosts.dir().join("s4.conf"), conf).unwrap();
        (0..=nodes).for_each(|host| hosts.add(host));
        (0..nodes).for_each(|node| hosts.start_node(node));
        Some(hosts)
    }

    fn on_a_switch(nodes: usize, options: &[&str]) -> Self {
        let dir = tempfile::Builder::new().prefix("s4-hosts-").tempdir().expect("a temporary directory");
        let switch = Namespaces::new();
        switch.sh("ip link add br0 type bridge && ip link set br0 up");
        let options = ["--reserve", "0"].iter().chain(options).map(|option| option.to_string()).collect();
        Self { hosts: Vec::new(), nodes, options, switch, are_machines: false, have_disks: false, dir }
    }

    /// Connects the network of the process `pid` with the switch, as `eth0`.
    fn plug_in(&self, host: usize, pid: u32) {
        self.switch.sh(&format!(
            "ip link add p{host} type veth peer name eth0 netns {pid} && ip link set p{host} master br0 up"
        ));
    }

    fn add(&mut self, host: usize) {
        let (space, dir) = (Namespaces::new(), self.dir.path().display());
        let shared = self.dir.path().join(format!("disks/{host}"));
        std::fs::create_dir_all(&shared).unwrap();
        self.plug_in(host, space.pid());
        let disk = match self.have_disks && host < self.nodes {
            true => self.make_disk(host),
            false => format!("mount --bind {} {}", shared.display(), self.own_disk(host).display()),
        };
        // No host sees the disk of another. The socket buffers are limited, so that the kernel accepts for a stopped
        // process no more bytes than on a usual host.
        std::fs::create_dir(self.own_disk(host)).unwrap();
        space.sh(&format!(
            "ip link set lo up && ip address add {}/24 dev eth0 && ip link set eth0 up
             echo 4096 131072 262144 > /proc/sys/net/ipv4/tcp_rmem
             echo 4096 16384 262144 > /proc/sys/net/ipv4/tcp_wmem
             {disk} && mount -t tmpfs none {dir}/disks",
            address(host)
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
        match self.have_disks {
            true => self.hosts[host].space.path(self.own_disk(host)),
            false => self.dir.path().join(format!("disks/{host}")),
        }
    }

    /// A host's disk, as the host itself sees it.
    pub fn own_disk(&self, host: usize) -> PathBuf {
        self.dir.path().join(format!("disk-{host}"))
    }

    /// A command that runs `program` on a host.
    pub fn on(&self, host: usize, program: &str) -> Command {
        let mut command = self.hosts[host].space.command(program);
        match self.are_machines {
            true => machines::set_environment(&mut command),
            false => {
                command.env("S4_CONF_PATH", self.dir.path().join("s4.conf"));
            }
        }
        command
    }

    /// The command `s4` on the host for clients.
    pub fn s4(&self, args: &[&str]) -> Command {
        let program = if self.are_machines { "s4" } else { program("s4") };
        let mut command = self.on(self.client(), program);
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

    /// Runs a script in bash on the host for clients, in [`Hosts::dir`], or in root's home directory on a
    /// machine, and with `s4` on its path. It must succeed. Returns its stdout.
    pub fn sh(&self, script: &str) -> String {
        let output = self.script(script).output().expect("bash runs");
        assert!(output.status.success(), "{script}: {}: {}", output.status, text(&output.stderr));
        text(&output.stdout)
    }

    /// The command for such a script.
    pub fn script(&self, script: &str) -> Command {
        let mut command = self.on(self.client(), "bash");
        let cd = match self.are_machines {
            true => format!("cd && {script}"),
            false => format!("cd {} && {script}", self.dir.path().display()),
        };
        if !self.are_machines {
            let programs = directory().display().to_string();
            command.env("PATH", format!("{programs}:{}", std::env::var("PATH").unwrap_or_default()));
        }
        command.args(["-c", &cd]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
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
}

impl Drop for Hosts {
    fn drop(&mut self) {
        for pid in (0..self.hosts.len()).flat_map(|host| self.processes(host)) {
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
    /// All processes in the network namespace of a host.
    fn processes(&self, host: usize) -> Vec<i32> {
        let space_of = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/net")).ok();
        let Some(own) = space_of(&self.hosts[host].space.pid().to_string()) else { return Vec::new() };
        let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        let there = names.filter(|name| space_of(name).as_ref() == Some(&own));
        there.filter_map(|name| name.parse().ok()).collect()
    }
}

fn address(host: usize) -> String {
    format!("10.99.0.{}", host + 1)
}
