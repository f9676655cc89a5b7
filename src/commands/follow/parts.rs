//! Each node's part of a job, and their sums.

use s4::protocol::{Outcome, Plan, Progress, RunningTask};

/// One node's part of a job.
#[derive(Debug, Clone, Default)]
pub struct Part {
    pub plan: Plan,
    pub progress: Progress,
    pub outcome: Option<Outcome>,
    /// The tasks that have run for longest.
    pub running: Vec<RunningTask>,
}

/// The counts of all nodes. A node that has told nothing yet has what it planned.
pub fn total(parts: &[Part]) -> Progress {
    let mut sum = Progress::default();
    for part in parts {
        sum += counted(part);
    }
    sum
}

/// A node's counts, of all that it planned.
pub fn counted(part: &Part) -> Progress {
    let mut progress = part.progress;
    progress.tasks = progress.tasks.max(part.plan.tasks);
    progress.bytes = progress.bytes.max(part.plan.bytes);
    progress
}
