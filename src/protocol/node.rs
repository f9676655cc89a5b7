//! The status of a node for monitoring: the answer to `/v1/status`.

use super::{CommandText, FailureGroups, Health, JobRecord, Usage};
use crate::bounds::bounded;
use serde::{Deserialize, Serialize};

/// Seconds between two samples.
pub const SAMPLE_SECONDS: u64 = 2;
/// Samples that a node keeps: those of ten minutes.
pub const SAMPLES_KEPT: usize = 300;
/// Limit of ended jobs in a status. The newest are sent.
pub const JOBS_TOLD: usize = 20;

/// A sample of a machine, over the seconds before `at`. In JSON, an array of the seven numbers in this order.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "[u64; 7]", into = "[u64; 7]")]
pub struct Sample {
    /// Seconds since 1970, a multiple of [`SAMPLE_SECONDS`], so that the samples of all nodes have the same times.
    pub at: u64,
    /// Busy CPU time of the machine, in thousandths of all CPUs.
    pub cpu: u64,
    /// The number of commands that ran on this node at that time.
    pub running: u64,
    /// Bytes per second of the data directory's disk.
    pub disk_read: u64,
    pub disk_written: u64,
    /// Bytes per second of the machine's network.
    pub net_in: u64,
    pub net_out: u64,
}

impl From<[u64; 7]> for Sample {
    fn from(numbers: [u64; 7]) -> Self {
        let [at, cpu, running, disk_read, disk_written, net_in, net_out] = numbers.map(bounded);
        Self { at, cpu, running, disk_read, disk_written, net_in, net_out }
    }
}

impl From<Sample> for [u64; 7] {
    fn from(s: Sample) -> Self {
        [s.at, s.cpu, s.running, s.disk_read, s.disk_written, s.net_in, s.net_out]
    }
}

/// The keys and bytes of a node at its last count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counted {
    #[serde(flatten)]
    pub usage: Usage,
    /// Milliseconds since 1970.
    pub at: i64,
}

/// A job of a node, with its failures.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JobStatus {
    /// Without `env` and `files`; a long command is cut.
    pub record: JobRecord,
    pub failures: FailureGroups,
}

/// The answer to `GET /v1/status`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NodeStatus {
    pub health: Health,
    /// `None` until the first count is done.
    pub usage: Option<Counted>,
    /// Oldest first.
    pub samples: Vec<Sample>,
    pub jobs: Vec<JobStatus>,
}

/// The beginning of a command, about `most` bytes at most.
pub fn shortened(cmd: &CommandText, most: usize) -> CommandText {
    let text = cmd.as_os_str().to_string_lossy();
    if text.len() <= most {
        return cmd.clone();
    }
    let end = (0..=most).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
    CommandText::new(format!("{} …", &text[..end]).into()).unwrap_or_else(|_| cmd.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_is_seven_numbers() {
        let sample = Sample { at: 2, cpu: 3, running: 4, disk_read: 5, disk_written: 6, net_in: 7, net_out: 8 };
        let json = serde_json::to_string(&sample).unwrap();
        assert_eq!(json, "[2,3,4,5,6,7,8]");
        assert_eq!(serde_json::from_str::<Sample>(&json).unwrap(), sample);
    }

    #[test]
    fn a_command_is_cut_between_characters() {
        let long = CommandText::new("ää".into()).unwrap();
        assert_eq!(shortened(&long, 3).to_string(), "ä …");
        assert_eq!(shortened(&long, 4), long);
    }
}
