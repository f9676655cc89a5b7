//! The part of each node in a job, and the sums of all parts.

use s4::protocol::{Outcome, Plan, Progress, RunningTask};

/// The part of one node.
#[derive(Debug, Clone, Default)]
pub struct Part {
    pub plan: Plan,
    pub progress: Progress,
    pub outcome: Option<Outcome>,
    /// The tasks that have run for the longest time.
    pub running: Vec<RunningTask>,
}

/// The counts of all nodes. For a node that has reported nothing yet, the counts of its plan.
pub fn total(parts: &[Part]) -> Progress {
    let mut sum = Progress::default();
    for part in parts {
        sum += counted(part);
    }
    sum
}

/// The counts of a node, including planned tasks.
pub fn counted(part: &Part) -> Progress {
    let mut progress = part.progress;
    progress.tasks = progress.tasks.max(part.plan.tasks);
    progress.bytes = progress.bytes.max(part.plan.bytes);
    progress
}
