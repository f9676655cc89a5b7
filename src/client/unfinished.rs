//! Refuses a map over an INDIR that another job has not finished: without this check, the map would silently run on
//! less data.
//!
//! Each node reports the jobs that write to the INDIR, how they ended on this node, and how many keys in the INDIR are
//! their outputs. A job that has ended counts only if outputs of it still exist.

use super::job_table::JobState;
use crate::error::{Error, ErrorKind, Result};
use crate::protocol::{JobId, JobSpec, Outcome, Rerun, Source};
use std::collections::BTreeMap;

/// A job that writes to the INDIR, over all nodes.
struct Producer {
    /// The sums over all nodes.
    sum: Source,
    state: JobState,
}

/// Refuses the map of `spec` if one of the `sources`, which write to its INDIR, has not finished. `nodes` is the number
/// of nodes.
pub fn refuse(spec: &JobSpec, nodes: usize, sources: impl Iterator<Item = Source>) -> Result<()> {
    let producers = producers(nodes, sources);
    // Ids sort by time. A later job from the same INDIR to the same OUTDIR that succeeded has finished the earlier one.
    let is_finished = |at: usize| {
        producers[at..].iter().any(|later| later.state == JobState::Done && is_same(&producers[at].sum, &later.sum))
    };
    // A rerun may have removed outputs, of which nothing is left to count.
    let is_rerun = |producer: &Producer| producer.sum.rerun != Rerun::Refuse && producer.state != JobState::Done;
    let matters =
        |producer: &Producer| producer.state == JobState::Running || producer.sum.inputs > 0 || is_rerun(producer);
    match (0..producers.len()).rev().find(|&at| matters(&producers[at]) && !is_finished(at)) {
        Some(at) => Err(producers[at].refusal(spec)),
        None => Ok(()),
    }
}

/// The jobs that were started, the oldest first.
fn producers(nodes: usize, sources: impl Iterator<Item = Source>) -> Vec<Producer> {
    let mut jobs: BTreeMap<JobId, Vec<Source>> = BTreeMap::new();
    for source in sources {
        jobs.entry(source.job.clone()).or_default().push(source);
    }
    let started = jobs.into_values().filter(|parts| parts.iter().any(|part| part.started));
    started.filter_map(|parts| Producer::of(nodes, parts)).collect()
}

fn is_same(one: &Source, other: &Source) -> bool {
    let what = |source: &Source| (source.kind, source.indir.clone(), source.outdir.clone(), source.to_name.clone());
    what(one) == what(other)
}

impl Producer {
    fn of(nodes: usize, parts: Vec<Source>) -> Option<Self> {
        // All nodes plan a job before any node starts it. So a node that does not know the job has lost its part, unless
        // it joined later, or another left: a resize waits for the end of all jobs, and moves their outputs.
        let planned = parts.iter().map(|part| part.nodes).max().unwrap_or(0).min(nodes as u64);
        let lost = ((parts.len() as u64) < planned).then_some(Some(Outcome::Interrupted));
        let state = JobState::of(parts.iter().map(|part| part.outcome).chain(lost));
        let sum = parts.into_iter().reduce(|sum, part| Source {
            tasks: sum.tasks + part.tasks,
            done: sum.done + part.done,
            inputs: sum.inputs + part.inputs,
            ..sum
        });
        sum.map(|sum| Self { sum, state })
    }

    fn refusal(&self, spec: &JobSpec) -> Error {
        let Source { job, kind, outdir, tasks, done, .. } = &self.sum;
        let option = match self.sum.rerun {
            Rerun::Refuse | Rerun::Resume => "--resume",
            Rerun::Update => "--update",
            Rerun::Missing => "--missing",
        };
        let resume = || format!("finish it with {option}");
        let (how, way) = match self.state {
            JobState::Planned | JobState::Running => ("runs", format!("wait for it with 's4 wait {job}'")),
            JobState::Cancelled => ("was cancelled", resume()),
            JobState::Interrupted => ("was interrupted", resume()),
            JobState::Failed | JobState::Done | JobState::Unknown => ("failed", resume()),
        };
        let indir = &spec.indir;
        let message = format!(
            "{indir} is not whole: {kind} job {job}, which makes {outdir}, {how} with {done} of {tasks} tasks done; {way}, \
             or take what is there with --partial"
        );
        Error::new(ErrorKind::AlreadyExists, message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::Dir;
    use crate::pattern::Pattern;
    use crate::protocol::{CommandText, MapKind};

    const DONE: Option<Outcome> = Some(Outcome::Done);
    const FAILED: Option<Outcome> = Some(Outcome::Failed);

    fn source(number: u32, outcome: Option<Outcome>, inputs: u64) -> Source {
        Source {
            job: JobId::try_from(format!("20260101-000000-{number:03}-abcdef")).unwrap(),
            kind: MapKind::Map,
            indir: Pattern::parse_url("s4://in/").unwrap(),
            outdir: Dir::parse_url("s4://out/").unwrap(),
            to_name: None,
            rerun: Rerun::Refuse,
            started: true,
            outcome,
            tasks: 15,
            done: 6,
            nodes: 1,
            inputs,
        }
    }

    fn refused(sources: &[Source]) -> Option<String> {
        refused_by(1, sources)
    }

    fn refused_by(nodes: usize, sources: &[Source]) -> Option<String> {
        let (indir, outdir) = (Pattern::parse_url("s4://out/").unwrap(), Dir::parse_url("s4://next/").unwrap());
        let spec = JobSpec::new(MapKind::Map, indir, outdir, CommandText::new("cat".into()).unwrap());
        refuse(&spec, nodes, sources.iter().cloned()).err().map(|error| error.to_string())
    }

    #[test]
    fn a_job_is_whole_only_if_it_is_on_every_node() {
        assert_eq!(refused(&[source(1, DONE, 5), source(1, DONE, 7)]), None);
        let message = refused(&[source(1, DONE, 5), source(1, FAILED, 0)]).unwrap();
        assert!(message.contains("failed with 12 of 30 tasks done"), "{message}");
        let message = refused(&[source(1, DONE, 5), source(1, None, 0)]).unwrap();
        assert!(message.contains("runs with 12 of 30"), "{message}");
        assert!(refused(&[source(1, None, 0), source(1, None, 0)]).is_some(), "it may make some yet");
        assert!(refused(&[source(1, DONE, 1), Source { started: false, ..source(1, None, 0) }]).is_some());
        assert_eq!(refused(&[Source { started: false, ..source(1, None, 0) }]), None, "nobody has started it");
        let of_3 = |source| Source { nodes: 3, ..source };
        assert_eq!(refused_by(2, &[source(1, DONE, 5), source(1, DONE, 7)]), None);
        let parts = [of_3(source(1, DONE, 5)), of_3(source(1, DONE, 7))];
        assert!(refused_by(3, &parts).is_some(), "a node has lost its part");
        assert!(refused_by(4, &parts).is_some(), "the same, when another came later");
        let whole = [&parts[..], &[of_3(source(1, DONE, 1))]].concat();
        assert_eq!(refused_by(4, &whole), None, "a node came later");
        assert_eq!(refused_by(2, &parts), None, "a node has left");
        assert!(refused_by(4, &[&parts[..], &[of_3(source(1, FAILED, 7))]].concat()).is_some());
    }

    #[test]
    fn a_job_whose_outputs_are_gone_or_that_was_finished_later_does_not_matter() {
        assert_eq!(refused(&[source(1, FAILED, 0), source(2, DONE, 9)]), None);
        assert_eq!(refused(&[source(1, FAILED, 3), source(2, DONE, 9)]), None);
        assert!(refused(&[source(1, FAILED, 3), source(2, FAILED, 9), source(2, DONE, 9)]).is_some());
        let other = Source { indir: Pattern::parse_url("s4://other/").unwrap(), ..source(2, DONE, 9) };
        assert!(refused(&[source(1, FAILED, 3), other]).is_some());
        assert!(refused(&[source(1, DONE, 3), source(2, FAILED, 9)]).is_some());
    }
}
