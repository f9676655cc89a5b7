//! Hosts that are like machines of their own: each has its own files, processes, disk and sshd, and no daemon yet. The
//! last one has the programs and an ssh key for all others.

use super::disks::{copy_image, make_image};
use super::{Host, Hosts, address, no_hosts, print_now};
use crate::harness::{eventually, text};
use crate::programs::directory;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::namespaces::Namespaces;

/// Where a machine's own disk is.
pub const DISK: &str = "/data";
/// Where the client sees [`Hosts::shared`].
pub const SHARED: &str = "/shared";
/// A user without privileges, with a home directory on each machine.
pub const USER: &str = "carol";
const DISK_BYTES: u64 = 1 << 30;

const SSHD: &str = "\
HostKey /etc/ssh/s4_host_key
AuthorizedKeysFile /etc/ssh/s4_authorized
StrictModes no
UsePAM no
PasswordAuthentication no
PidFile none
MaxStartups 100
MaxSessions 30
";

const SSH: &str = "\
Host *
    IdentityFile /root/.ssh/s4
    IdentitiesOnly yes
    IdentityAgent none
    UserKnownHostsFile /root/.ssh/s4_known
    StrictHostKeyChecking yes
";

impl Hosts {
    /// Machines `0..nodes` named `node0` and so on, and one more for clients. `None`, with the reason on stderr, if they cannot
    /// be made here.
    pub fn machines(nodes: usize) -> Option<Self> {
        if let Some(reason) = no_hosts().or_else(no_machines) {
            print_now(&format!("skipped: {reason}"));
            return None;
        }
        let mut hosts = Self::on_a_switch(nodes, &[]);
        hosts.are_machines = true;
        hosts.make_keys();
        std::fs::create_dir(hosts.shared()).unwrap();
        hosts.copy_programs("programs");
        (0..=nodes).for_each(|host| hosts.add_machine(host));
        hosts.set_up_client();
        Some(hosts)
    }

    fn add_machine(&mut self, host: usize) {
        let own = self.machine_dir(host);
        std::fs::create_dir_all(&own).unwrap();
        make_image(&own.join("image"), DISK_BYTES);
        let space = self.power_on(host);
        self.hosts.push(Host { space, daemon: None });
        self.start_sshd(host);
    }

    /// Starts a host again whose power was cut or that was switched off, with all that was on its disk. A host that is no
    /// machine gets its daemon and its network too.
    pub fn boot(&mut self, host: usize) {
        if !self.are_machines {
            self.remount(host);
            self.connect(host);
            self.start_node(host);
            return;
        }
        copy_image(&self.machine_dir(host).join("image"));
        self.hosts[host].space = self.power_on(host);
        self.start_sshd(host);
    }

    fn power_on(&self, host: usize) -> Namespaces {
        let shared = match host == self.client() {
            true => vec![(self.shared(), PathBuf::from(SHARED))],
            false => Vec::new(),
        };
        let space = Namespaces::machine(&machine_name(host, self.nodes), &self.machine_dir(host), &shared);
        self.plug_in(host, space.pid());
        // The same hardware address after each boot, which the other hosts still know.
        space.sh(&format!(
            "ip link set eth0 address 02:00:00:00:00:{host:02x} && ip address add {}/24 dev eth0 && ip link set eth0 up",
            address(host)
        ));
        space
    }

    /// A directory of the test that the client sees too, as [`SHARED`]. In it are the programs.
    pub fn shared(&self) -> PathBuf {
        self.dir().join("shared")
    }

    fn machine_dir(&self, host: usize) -> PathBuf {
        self.dir().join(format!("machine-{host}"))
    }

    fn make_keys(&self) {
        for key in ["host_key", "user_key"] {
            let args = ["-q", "-t", "ed25519", "-N", "", "-C", "", "-f"];
            let made = Command::new("ssh-keygen").args(args).arg(self.dir().join(key)).output().unwrap();
            assert!(made.status.success(), "ssh-keygen: {}", text(&made.stderr));
        }
    }

    /// The programs under test without their debug information, in a directory of the test.
    pub fn copy_programs(&self, name: &str) -> PathBuf {
        let to = self.shared().join(name);
        std::fs::create_dir(&to).unwrap();
        for program in ["s4", "s4-server", "s4-mount"] {
            let (from, to) = (directory().join(program), to.join(program));
            let stripped = Command::new("strip").arg("-o").args([&to, &from]).status();
            if !stripped.is_ok_and(|status| status.success()) {
                std::fs::copy(from, to).unwrap();
            }
        }
        to
    }

    fn start_sshd(&self, host: usize) {
        let space = &self.hosts[host].space;
        let write = |path: &str, content: &[u8], mode: u32| {
            std::fs::write(space.path(path), content).unwrap();
            std::fs::set_permissions(space.path(path), std::fs::Permissions::from_mode(mode)).unwrap();
        };
        let key = |name: &str| std::fs::read(self.dir().join(name)).unwrap();
        write("/etc/ssh/s4_host_key", &key("host_key"), 0o600);
        write("/etc/ssh/s4_authorized", &key("user_key.pub"), 0o644);
        write("/etc/ssh/s4_sshd", SSHD.as_bytes(), 0o644);
        let names: String =
            (0..=self.nodes).map(|host| format!("{} {}\n", address(host), machine_name(host, self.nodes))).collect();
        write("/etc/hosts", format!("127.0.0.1 localhost\n{names}").as_bytes(), 0o644);
        space.sh(&format!(
            "id {USER} > /dev/null 2>&1 || useradd --create-home --password '*' --shell /bin/bash {USER}"
        ));
        space.sh("/usr/sbin/sshd -f /etc/ssh/s4_sshd");
    }

    fn set_up_client(&self) {
        let space = &self.hosts[self.client()].space;
        space.sh("rm -rf /root/.ssh && mkdir -m 700 /root/.ssh");
        let host_key = std::fs::read_to_string(self.dir().join("host_key.pub")).unwrap();
        let write = |name: &str, content: &[u8]| {
            let path = space.path("/root/.ssh").join(name);
            std::fs::write(&path, content).unwrap();
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
        };
        write("s4", &std::fs::read(self.dir().join("user_key")).unwrap());
        write("s4_known", format!("* {host_key}").as_bytes());
        write("config", SSH.as_bytes());
        eventually("sshd answers", || {
            let asked = self.on(self.client(), "ssh").args(["node0", "true"]).output().unwrap();
            asked.status.success().then_some(())
        });
    }

    /// Runs a script on a machine. It must succeed. Returns its stdout.
    pub fn sh_on(&self, host: usize, script: &str) -> String {
        let output = self.on(host, "bash").args(["-c", script]).output().unwrap();
        assert!(output.status.success(), "{script}: {}: {}", output.status, text(&output.stderr));
        text(&output.stdout)
    }

    /// The path of a machine's own file, as the test sees it.
    pub fn path_on(&self, host: usize, path: &str) -> PathBuf {
        self.hosts[host].space.path(path)
    }

    /// Puts a program of the test first in the path of a machine's users.
    pub fn fake_on(&self, host: usize, name: &str, script: &str) {
        let path = self.path_on(host, &format!("/usr/local/bin/{name}"));
        std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
}

/// The environment of commands on a machine.
pub fn set_environment(command: &mut Command) {
    command.env_clear().env("HOME", "/root").env("USER", "root").env("LC_ALL", "C.UTF-8");
    command.env("PATH", format!("{SHARED}/programs:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"));
}

fn machine_name(host: usize, nodes: usize) -> String {
    if host == nodes { "client".to_owned() } else { format!("node{host}") }
}

fn no_machines() -> Option<String> {
    let missing =
        ["/usr/sbin/sshd", "/usr/bin/ssh-keygen", "/usr/bin/ssh"].into_iter().find(|path| !Path::new(path).exists());
    missing.map(|program| format!("no {program}"))
}
