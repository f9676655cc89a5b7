//! Hosts that have a disk of their own, an ext4 in a file. Only the host itself has it mounted.

use super::{Hosts, Namespaces};
use crate::harness::{eventually, text};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::path::{Path, PathBuf};
use std::process::Command;

const BYTES: u64 = 256 << 20;

pub fn make_image(image: &Path, len: u64) {
    std::fs::File::create(image).unwrap().set_len(len).unwrap();
    let made = Command::new("mkfs.ext4").args(["-q", "-F", "-m", "0", "-I", "256"]).arg(image).output().unwrap();
    assert!(made.status.success(), "mkfs.ext4: {}", text(&made.stderr));
}

/// Replaces an image by a copy: a namespace that another test has made meanwhile may keep the old mount alive.
pub fn copy_image(image: &Path) {
    let copy = image.with_extension("new");
    let copied = Command::new("cp").arg("--sparse=always").args([image, &copy]).status().unwrap();
    assert!(copied.success());
    std::fs::rename(copy, image).unwrap();
}

impl Hosts {
    /// Like [`Hosts::start`], but the disk of each node can become [full](Hosts::fill) or
    /// [read-only](Hosts::make_read_only), [fail](Hosts::fail) and [lose its power](Hosts::power_cut).
    pub fn with_disks(nodes: usize, options: &[&str]) -> Option<Self> {
        Self::start_on(nodes, options, true)
    }

    /// Makes the disk of a host. Returns the command that mounts it.
    pub(super) fn make_disk(&self, host: usize) -> String {
        make_image(&self.image(host), BYTES);
        self.mount_disk(host)
    }

    fn mount_disk(&self, host: usize) -> String {
        format!("mount -o loop {} {}", self.image(host).display(), self.own_disk(host).display())
    }

    fn image(&self, host: usize) -> PathBuf {
        self.dir().join(format!("image-{host}"))
    }

    /// Mounts the disk of a host again, as at a boot. No process of the host uses it.
    pub(super) fn remount(&self, host: usize) {
        let space = &self.hosts[host].space;
        let unmount = |space: &Namespaces| space.command("umount").arg(self.own_disk(host)).output().unwrap();
        eventually("the disk is unmounted", || unmount(space).status.success().then_some(()));
        copy_image(&self.image(host));
        space.sh(&self.mount_disk(host));
    }

    /// Makes the disk of a host read-only, as the kernel does after an error of the disk, until [`Hosts::replace_disk`].
    pub fn make_read_only(&self, host: usize) {
        self.hosts[host].space.sh(&format!(
            "mount -o remount,errors=remount-ro {0} && device=$(findmnt -no SOURCE {0})
             echo 1 > /sys/fs/ext4/${{device#/dev/}}/trigger_fs_error",
            self.disk_of(host).display()
        ));
    }

    /// Ends a fault of a disk: the daemon is killed, the disk is mounted again, and the daemon is started.
    pub fn replace_disk(&mut self, host: usize) {
        self.end_processes(host);
        self.remount(host);
        self.start_node(host);
    }

    /// Writes everything on the disk of a host to it.
    pub fn sync(&self, host: usize) {
        self.hosts[host].space.sh(&format!("sync -f {}", self.disk_of(host).display()));
    }

    /// The command lines of processes on a node's host, besides its daemon.
    pub fn strays(&self, node: usize) -> Vec<String> {
        let own = [self.hosts[node].space.pid() as i32, self.pid(node) as i32];
        let others = self.processes(node).into_iter().filter(|pid| !own.contains(pid));
        let line = |pid| std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        others.map(|pid| text(&line(pid)).replace('\0', " ")).filter(|line| !line.is_empty()).collect()
    }

    /// Kills all processes of a host, its daemon too.
    pub(super) fn end_processes(&mut self, host: usize) {
        let own = self.hosts[host].space.pid() as i32;
        eventually("its processes have ended", || {
            let left: Vec<i32> = self.processes(host).into_iter().filter(|pid| *pid != own).collect();
            for pid in &left {
                let _ = kill(Pid::from_raw(*pid), Signal::SIGKILL);
            }
            left.is_empty().then_some(())
        });
        if let Some(mut daemon) = self.hosts[host].daemon.take() {
            daemon.wait().unwrap();
        }
    }
}
