//! What a host is, as the script tells it, and whether it can be a node.

use super::parallel::on_all;
use super::ssh::Host;
use super::steps::script;
use s4::time::now_milliseconds;
use std::collections::BTreeMap;

/// The oldest kernel with all that the daemon uses.
const KERNEL: (u32, u32) = (5, 6);
/// Descriptors that a daemon needs.
const FILES: u64 = 4096;
/// Room for the programs, in KiB.
const PROGRAMS_KIB: u64 = 100 << 10;
/// How far the clock of a host may be from that of most, in milliseconds: dates of keys and logs are compared.
pub const CLOCK_OFF: i64 = 2000;
/// Nodes in a host's cluster file that are looked at.
const MAX_NODES: usize = 10_000;

/// How a daemon is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    Systemd,
    /// The service manager of a user.
    SystemdUser,
    /// A process, and a file with its number.
    Plain,
}

/// What a host is.
#[derive(Debug, Clone)]
pub struct Facts {
    pub arch: String,
    pub kernel: String,
    pub system: String,
    pub service: Service,
    /// The script runs as root there.
    pub is_root: bool,
    /// The file of the daemon's options.
    pub defaults: String,
    /// The address by which ssh reached it.
    pub address: String,
    pub files: u64,
    pub missing: Vec<String>,
    pub data: String,
    pub bin: String,
    pub conf: String,
    pub data_kib: u64,
    pub disk_kib: u64,
    pub bin_kib: u64,
    /// The data directory is there; what its `.s4/node` says.
    pub held: Option<String>,
    /// The data directory has something in it.
    pub is_filled: bool,
    /// The checksums of the programs.
    pub programs: BTreeMap<String, String>,
    pub secret: Option<String>,
    pub unit: Option<String>,
    pub pid: Option<u32>,
    /// The lines of its cluster file.
    pub nodes: Vec<String>,
    /// How far its clock is ahead of this machine's, and by how much that may be wrong, in milliseconds.
    pub clock: (i64, i64),
}

impl Facts {
    /// Asks a host.
    pub fn of(host: &Host, data: Option<&str>) -> Result<Self, String> {
        let asked = now_milliseconds();
        let text = host.run(&script(data, "check"))?;
        let took = now_milliseconds() - asked;
        let mut facts = Self::parse(&text)?;
        facts.clock = (facts.clock.0 - (asked + took / 2), took / 2);
        Ok(facts)
    }

    /// Asks all hosts at once.
    pub fn of_all(hosts: &[&Host], data: Option<&str>) -> Vec<Result<Self, String>> {
        on_all(hosts, |_, host| Self::of(host, data))
    }

    fn parse(text: &str) -> Result<Self, String> {
        let lines = lines(text)?;
        let all = |key: &str| {
            let values = lines.iter().filter(|(k, _)| *k == key).map(|(_, value)| (*value).to_owned());
            values.collect::<Vec<_>>().into_iter()
        };
        let one = |key: &str| all(key).next().ok_or_else(|| format!("the host did not say its '{key}'"));
        let number = |key: &str| one(key)?.parse::<u64>().map_err(|_| format!("the host's '{key}' is no number"));
        let files = one("files")?;
        let programs =
            all("program").filter_map(|line| line.split_once(' ').map(|(name, sum)| (name.to_owned(), sum.to_owned())));
        Ok(Self {
            arch: one("arch")?,
            kernel: one("kernel")?,
            system: one("system")?,
            service: match one("service")?.as_str() {
                "systemd" => Service::Systemd,
                "systemd-user" => Service::SystemdUser,
                _ => Service::Plain,
            },
            is_root: one("as")? == "root",
            defaults: one("defaults")?,
            address: one("address")?,
            files: if files == "unlimited" { u64::MAX } else { files.parse().map_err(|_| "no limit of files")? },
            missing: all("missing").take(20).collect(),
            data: one("data")?,
            bin: one("bin")?,
            conf: one("conf")?,
            data_kib: number("data_kib")?,
            disk_kib: number("disk_kib")?,
            bin_kib: number("bin_kib")?,
            held: all("held").next(),
            is_filled: all("filled").next().is_some(),
            programs: programs.collect(),
            secret: all("secret").next(),
            unit: all("unit").next(),
            pid: all("pid").next().and_then(|pid| pid.parse().ok()),
            nodes: all("node").take(MAX_NODES).collect(),
            clock: (milliseconds(&one("date")?).ok_or("the host's clock tells no time")?, 0),
        })
    }

    /// Why the host cannot be a node, whatever its part in the cluster.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let ours = std::env::consts::ARCH;
        if self.system != "Linux" {
            problems.push(format!("it runs {}, and s4 needs Linux", self.system));
        }
        if self.arch.replace("arm64", "aarch64") != ours {
            problems.push(format!("its architecture is {}, and these programs are for {ours}", self.arch));
        }
        if version(&self.kernel).is_some_and(|version| version < KERNEL) {
            problems.push(format!("its kernel is {}, and s4 needs {}.{} or later", self.kernel, KERNEL.0, KERNEL.1));
        }
        if !self.missing.is_empty() {
            problems.push(format!("it has no {}", self.missing.join(", no ")));
        }
        if self.files < FILES {
            problems
                .push(format!("a process may open {} files, and a node needs {FILES}: raise 'ulimit -n'", self.files));
        }
        if self.bin_kib < PROGRAMS_KIB {
            problems.push(format!("no space for the programs in {}: {} MiB free", self.bin, self.bin_kib >> 10));
        }
        // The daemon's own default.
        let reserve = (self.disk_kib / 20).min(4 << 20);
        if self.data_kib < reserve {
            let (free, reserve) = (self.data_kib >> 10, reserve >> 10);
            problems
                .push(format!("no space in {}: {free} MiB free, and a node keeps {reserve} MiB in reserve", self.data));
        }
        problems
    }
}

/// The text after the first line `s4-begin`, as keys and values, up to `s4-end`, which must be there.
pub fn lines(text: &str) -> Result<Vec<(&str, &str)>, String> {
    let mut said = text.lines().skip_while(|line| *line != "s4-begin").skip(1);
    let mut lines = Vec::new();
    for line in said.by_ref() {
        if line == "s4-end" {
            return Ok(lines);
        }
        lines.push(line.split_once(' ').unwrap_or((line, "")));
    }
    Err("its shell did not finish the script".to_owned())
}

fn version(kernel: &str) -> Option<(u32, u32)> {
    let mut numbers = kernel.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// Seconds and nanoseconds since 1970, as milliseconds. Some shells know no nanoseconds.
fn milliseconds(text: &str) -> Option<i64> {
    let (seconds, rest) = text.split_once('.').unwrap_or((text, ""));
    let part = rest.get(..3).and_then(|digits| digits.parse::<i64>().ok()).unwrap_or(500);
    seconds.parse::<i64>().ok().filter(|seconds| (0..1 << 40).contains(seconds)).map(|seconds| seconds * 1000 + part)
}

/// How far each clock is from that of most hosts, in milliseconds, as far as that is certain. This machine's clock counts as
/// one more.
pub fn clocks_off(clocks: &[(i64, i64)]) -> Vec<i64> {
    let mut offsets: Vec<i64> = clocks.iter().map(|(offset, _)| *offset).chain([0]).collect();
    offsets.sort_unstable();
    let median = offsets[(offsets.len() - 1) / 2];
    let certain = |(offset, error): &(i64, i64)| {
        let off = offset - median;
        off.signum() * (off.abs() - error).max(0)
    };
    clocks.iter().map(certain).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TEXT: &str = "motd\ns4-begin\ndate 1700000000.250000000\narch x86_64\nkernel 6.1.0-1\nsystem Linux\nas root\nservice plain\n\
        address 10.0.0.1\nfiles unlimited\ndata /srv/s4/data\nbin /usr/local/bin\nconf /etc/s4.conf\ndefaults /etc/default/s4-server\ndata_kib 9000000\n\
        disk_kib 10000000\nbin_kib 9000000\nheld node 0 of 2\nprogram s4 abc\nnode 10.0.0.1:80\nnode 10.0.0.2:80\ns4-end\n";

    #[test]
    fn a_host_is_read() {
        let facts = Facts::parse(TEXT).unwrap();
        assert_eq!(facts.nodes, ["10.0.0.1:80", "10.0.0.2:80"]);
        assert_eq!((facts.clock.0, facts.files), (1_700_000_000_250, u64::MAX));
        assert_eq!(facts.held.as_deref(), Some("node 0 of 2"));
        let foreign = Facts { arch: "riscv64".to_owned(), kernel: "4.18.0".to_owned(), data_kib: 5, ..facts };
        assert_eq!(foreign.problems().len(), 3, "{:?}", foreign.problems());
    }

    #[test]
    fn an_answer_that_breaks_off_is_an_error() {
        for len in 0..TEXT.len() - "s4-end\n".len() {
            assert!(Facts::parse(&TEXT[..len]).is_err());
        }
    }

    #[test]
    fn a_clock_is_compared_with_those_of_most() {
        assert_eq!(clocks_off(&[(10, 0), (-5, 0), (90_000, 200)]), [10, -5, 89_800]);
        assert_eq!(
            clocks_off(&[(-60_000, 0), (-60_010, 0), (-60_000, 0)]),
            [0, -10, 0],
            "only this machine's is wrong"
        );
        assert_eq!(clocks_off(&[(400, 500)]), [0]);
    }

    proptest! {
        #[test]
        fn any_answer_is_read_or_an_error(text in "(s4-begin\n|s4-end\n|(date|files|node|pid|arch) [0-9a-z.]{0,20}\n|\\PC{0,20}\n){0,30}") {
            if let Ok(facts) = Facts::parse(&text) {
                facts.problems();
            }
        }
    }
}
