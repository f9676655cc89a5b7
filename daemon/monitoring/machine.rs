//! Counters of the machine since its boot, from `/proc`: CPU, disk, network. A counter that does not exist is zero.

use nix::sys::stat::{major, minor};
use std::fmt::Write;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Totals since the boot.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Clock ticks of all CPUs.
    pub cpu_busy: u64,
    pub cpu_all: u64,
    /// Bytes.
    pub disk_read: u64,
    pub disk_written: u64,
    pub net_in: u64,
    pub net_out: u64,
}

/// Selects the disk and the network interfaces to count.
pub struct Machine {
    /// Major and minor number of the data directory's device, as in `/proc/diskstats`.
    disk: (u64, u64),
    /// True if the loopback interface counts, which is so if the whole cluster is on one machine.
    loopback: bool,
    /// Buffer that is reused for reading.
    text: String,
}

impl Machine {
    pub fn new(data: &Path, loopback: bool) -> Self {
        let device = data.metadata().map_or(0, |found| found.dev());
        let disk = (major(device), minor(device));
        Self { disk, loopback, text: String::new() }
    }

    pub fn totals(&mut self) -> Totals {
        let mut totals = Totals::default();
        self.read("/proc/stat");
        (totals.cpu_busy, totals.cpu_all) = cpu(&self.text);
        self.read("/proc/diskstats");
        (totals.disk_read, totals.disk_written) = disk(&self.text, self.disk);
        self.read("/proc/net/dev");
        (totals.net_in, totals.net_out) = network(&self.text, self.loopback);
        totals
    }

    fn read(&mut self, path: &str) {
        use std::io::Read;
        self.text.clear();
        // A file that cannot be read counts as empty.
        let _ = std::fs::File::open(path).and_then(|mut file| file.read_to_string(&mut self.text));
    }
}

/// The numbers of a line, from field `from` on.
fn numbers(line: &str, from: usize) -> impl Iterator<Item = u64> {
    line.split_ascii_whitespace().skip(from).map(|field| field.parse().unwrap_or(0))
}

/// Busy and total ticks. The first line is `cpu user nice system idle iowait irq softirq steal …`.
fn cpu(stat: &str) -> (u64, u64) {
    let Some(line) = stat.lines().next().filter(|line| line.starts_with("cpu ")) else {
        return (0, 0);
    };
    let all: u64 = numbers(line, 1).take(8).sum();
    let idle: u64 = numbers(line, 4).take(2).sum();
    (all.saturating_sub(idle), all)
}

/// Bytes read and written by the device `wanted`. If it has no line (for example an overlay), by all whole disks.
fn disk(diskstats: &str, wanted: (u64, u64)) -> (u64, u64) {
    const SECTOR: u64 = 512;
    let bytes = |line: &str| {
        let mut counts = numbers(line, 5);
        let (read, written) = (counts.next().unwrap_or(0), counts.nth(3).unwrap_or(0));
        (read * SECTOR, written * SECTOR)
    };
    let number = |line: &str| (numbers(line, 0).next().unwrap_or(0), numbers(line, 1).next().unwrap_or(0));
    if let Some(line) = diskstats.lines().find(|line| number(line) == wanted) {
        return bytes(line);
    }
    let mut path = String::new();
    let mut is_whole = |line: &&str| {
        path.clear();
        let name = line.split_ascii_whitespace().nth(2).unwrap_or("");
        // Partitions and stacked devices would count the same bytes twice.
        write!(path, "/sys/block/{name}/device").is_ok() && Path::new(&path).exists()
    };
    let whole = diskstats.lines().filter(|line| is_whole(line)).map(bytes);
    whole.fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
}

/// Bytes received and sent by all interfaces.
fn network(dev: &str, loopback: bool) -> (u64, u64) {
    let interfaces = dev.lines().filter_map(|line| line.split_once(':'));
    let counted = interfaces.filter(|(name, _)| loopback || name.trim() != "lo");
    counted.fold((0, 0), |sum, (_, counts)| {
        let mut counts = numbers(counts, 0);
        (sum.0 + counts.next().unwrap_or(0), sum.1 + counts.nth(7).unwrap_or(0))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_and_waiting_for_the_disk_are_not_busy() {
        assert_eq!(cpu("cpu  10 1 5 100 20 1 2 1 7 7\ncpu0 1 2 3\n"), (20, 140));
        assert_eq!(cpu(""), (0, 0));
        assert_eq!(cpu("garbage\n"), (0, 0));
    }

    #[test]
    fn the_device_of_the_data_counts() {
        let text = " 259 0 nvme0n1 5 0 100 9 6 0 200 8 0 0 0\n 259 1 nvme0n1p1 5 0 10 9 6 0 20 8 0 0 0\n";
        assert_eq!(disk(text, (259, 1)), (5120, 10240));
        assert_eq!(disk(text, (259, 0)), (51200, 102400));
        assert_eq!(disk(" 7 0 no-such-disk 5 0 100 9 6 0 200 8\n", (0, 0)), (0, 0));
        assert_eq!(disk("short\n", (1, 1)), (0, 0));
    }

    #[test]
    fn the_loopback_counts_where_asked() {
        let text = "Inter-|   Receive\n face |bytes packets\n    lo: 100 1 0 0 0 0 0 0 200 1 0\n  eth0: 7 1 0 0 0 0 0 0 8 1 0\n";
        assert_eq!(network(text, false), (7, 8));
        assert_eq!(network(text, true), (107, 208));
        assert_eq!(network("", true), (0, 0));
    }
}
