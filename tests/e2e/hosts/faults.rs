//! Faults of hosts, of their network and of their disks.

use super::machines::DISK;
use super::{Hosts, address, print_now};
use crate::harness::{eventually, text};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::os::fd::AsRawFd;
use std::path::PathBuf;

nix::ioctl_read!(shut_down, b'X', 125, u32);
/// Not even the last part of the journal is written.
const NOLOGFLUSH: u32 = 2;

/// Ends the limits of a host's network.
const CONNECT: &str = "iptables -F; tc qdisc del dev eth0 root 2> /dev/null || :";

impl Hosts {
    /// Drops all packets from `from` to `to` from now on, without an error to either.
    pub fn one_way(&self, from: usize, to: usize) {
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
            host.space.sh(CONNECT);
            self.switch.sh(&format!("ip link set p{number} up"));
        }
    }

    /// Ends what [`Hosts::isolate`] and [`Hosts::slow`] have done to a host.
    pub fn connect(&self, host: usize) {
        self.hosts[host].space.sh(CONNECT);
    }

    /// Drops all packets between two hosts, in both directions.
    pub fn partition(&self, a: usize, b: usize) {
        self.one_way(a, b);
        self.one_way(b, a);
    }

    /// Limits what a host sends to `rate`, as tc(8) has it: `10mbit`. False, with the reason on stderr, if the kernel cannot.
    pub fn slow(&self, host: usize, rate: &str) -> bool {
        self.limit(host, rate, "burst 64kb latency 400ms")
    }

    /// Slows all hosts so much that whatever is under way stays so, until [`Hosts::speed_up`]. No packet is lost.
    pub fn slow_down(&self, rate: &str) -> bool {
        (0..self.hosts.len()).all(|host| self.limit(host, rate, "burst 1600 limit 1mb"))
    }

    pub fn speed_up(&self) {
        for host in 0..self.hosts.len() {
            self.limit(host, "1gbit", "burst 64kb limit 1mb");
        }
    }

    fn limit(&self, host: usize, rate: &str, queue: &str) -> bool {
        let mut tc = self.on(host, "tc");
        tc.args(["qdisc", "replace", "dev", "eth0", "root", "tbf", "rate", rate]).args(queue.split(' '));
        let output = tc.output().expect("tc runs");
        if !output.status.success() {
            print_now(&format!("skipped: a slow link: {}", text(&output.stderr).trim()));
        }
        output.status.success()
    }

    /// Bytes that the network link of a host has carried, in both directions.
    pub fn link_bytes(&self, host: usize) -> u64 {
        let links = std::fs::read_to_string(format!("/proc/{}/net/dev", self.hosts[host].space.pid())).unwrap();
        let line = links.lines().find_map(|line| line.trim().strip_prefix("eth0:")).expect("a link");
        let fields: Vec<u64> = line.split_whitespace().map(|field| field.parse().unwrap()).collect();
        fields[0] + fields[8]
    }

    /// Fills the disk of a host, except for `left` KiB.
    pub fn fill(&self, host: usize, left: u64) {
        let script = format!(
            "free=$(df -k --output=avail {0} | tail -n 1); [ $free -le {left} ] || fallocate -l $((free - {left}))K {0}/filler",
            self.disk_of(host).display()
        );
        self.hosts[host].space.sh(&script);
    }

    /// Ends [`Hosts::fill`].
    pub fn empty(&self, host: usize) {
        self.hosts[host].space.sh(&format!("rm -f {}/filler", self.disk_of(host).display()));
    }

    /// Makes every access to the disk of a host fail, until [`Hosts::power_cut`] and [`Hosts::boot`]. The host is a
    /// [machine](Hosts::machines), or [has a disk](Hosts::with_disks).
    pub fn fail(&self, host: usize) {
        let disk = std::fs::File::open(self.hosts[host].space.path(self.disk_of(host))).unwrap();
        let mut flags = NOLOGFLUSH;
        // SAFETY: the descriptor is open, and the kernel reads one integer.
        unsafe { shut_down(disk.as_raw_fd(), &mut flags) }.expect("ext4 can be shut down");
    }

    /// Stops the processes of a host that run `program`, until [`Hosts::thaw`].
    pub fn freeze(&self, host: usize, program: &str) {
        self.signal_all(host, program, Signal::SIGSTOP);
    }

    pub fn thaw(&self, host: usize, program: &str) {
        self.signal_all(host, program, Signal::SIGCONT);
    }

    fn signal_all(&self, host: usize, program: &str, signal: Signal) {
        let named =
            |pid: &i32| std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == program);
        let found: Vec<i32> = self.processes(host).into_iter().filter(named).collect();
        assert!(!found.is_empty(), "{program} runs on host {host}");
        found.into_iter().for_each(|pid| kill(Pid::from_raw(pid), signal).unwrap());
    }

    /// Cuts the power of a host: its processes are gone, and everything on its disk that was not synced. It stays off until
    /// [`Hosts::boot`]. The host is a [machine](Hosts::machines), or [has a disk](Hosts::with_disks).
    pub fn power_cut(&mut self, host: usize) {
        if self.are_machines {
            self.fail(host);
            self.switch_off(host);
        } else {
            // From here on nobody learns what it has done.
            self.isolate(host);
            self.fail(host);
            self.end_processes(host);
        }
    }

    /// Ends all processes of a machine. What it has written stays.
    pub fn switch_off(&mut self, host: usize) {
        self.hosts[host].space.end();
        eventually("the link is gone", || {
            let shown = self.switch.command("ip").args(["link", "show", &format!("p{host}")]).output().unwrap();
            (!shown.status.success()).then_some(())
        });
    }

    pub(super) fn disk_of(&self, host: usize) -> PathBuf {
        if self.are_machines { DISK.into() } else { self.own_disk(host) }
    }
}
