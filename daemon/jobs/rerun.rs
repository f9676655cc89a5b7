//! Decides what a map does about existing outputs. The decision uses only the marks of the task's outputs, so that no
//! record that is older than the data is trusted. Pure functions.

use s4::attribute::Mark;
use s4::protocol::{FoundOutputs, Reason, Rerun};

/// The decision about a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    Run(Reason),
    /// Its outputs exist and are kept.
    Keep,
    /// Outputs of another recipe, or that no map made, are kept in their place.
    KeepOthers,
}

impl Decision {
    /// True if outputs of earlier runs must be removed first.
    pub fn removes(self) -> bool {
        !matches!(self, Self::Keep | Self::KeepOthers | Self::Run(Reason::Missing))
    }
}

/// True if the map of `ours` made the output from the same INDIR and OUTDIR, in this run or an earlier one whose inputs
/// may have differed.
pub fn is_ours(mark: Mark, ours: Mark) -> bool {
    mark.recipe == ours.recipe && (mark.source == ours.source || mark.inputs == ours.inputs)
}

/// Decides about a task whose outputs would have the mark `ours`, except for their number. `existing` has an entry for
/// each mark among its existing outputs. Errors: the output that must not be replaced.
pub fn decide(rerun: Rerun, existing: &[FoundOutputs], ours: Mark) -> Result<Decision, &FoundOutputs> {
    let Some(first) = existing.first() else {
        return Ok(Decision::Run(Reason::Missing));
    };
    let is_whole = |found: &FoundOutputs| found.count == u64::from(found.mark.outputs);
    let is_other = |found: &&FoundOutputs| !is_ours(found.mark, ours);
    match (rerun, existing.iter().find(is_other)) {
        (Rerun::Refuse, _) => Err(first),
        (Rerun::Resume, Some(other)) => Err(other),
        (Rerun::Missing, _) if existing.iter().any(is_whole) => Ok(kept(existing.iter().map(|found| found.mark), ours)),
        (Rerun::Missing, _) => Ok(Decision::Run(Reason::Incomplete)),
        (Rerun::Resume | Rerun::Update, _) => Ok(match existing {
            _ if existing.iter().any(|found| found.mark.recipe != ours.recipe) => Decision::Run(Reason::RecipeChanged),
            _ if existing.iter().any(|found| found.mark.inputs != ours.inputs) => Decision::Run(Reason::InputChanged),
            // Outputs of two runs are never combined: commands may use random numbers.
            [one] if is_whole(one) => Decision::Keep,
            _ => Decision::Run(Reason::Incomplete),
        }),
    }
}

/// What is said of outputs that are kept whatever made them.
pub fn kept(mut marks: impl Iterator<Item = Mark>, ours: Mark) -> Decision {
    if marks.all(|mark| mark.recipe == ours.recipe) { Decision::Keep } else { Decision::KeepOthers }
}

/// True if the job of `ours` may remove an output with this mark before it runs the task again.
pub fn may_replace(rerun: Rerun, mark: Mark, ours: Mark) -> bool {
    mark.job != ours.job
        && match rerun {
            Rerun::Refuse => false,
            Rerun::Resume => is_ours(mark, ours),
            Rerun::Update | Rerun::Missing => true,
        }
}

/// True if the job of `ours` removes an orphan with this mark: a map from the same INDIR to the same OUTDIR made it.
pub fn may_remove(rerun: Rerun, mark: Mark, ours: Mark) -> bool {
    rerun == Rerun::Update && mark.job != ours.job && mark.source == ours.source
}

#[cfg(test)]
mod tests {
    use super::*;
    use s4::key::Key;

    const OURS: Mark = Mark { recipe: 1, inputs: 2, job: 3, source: 4, outputs: 1 };
    /// The mark of an earlier run.
    const RUN: Mark = Mark { job: 9, outputs: 3, ..OURS };

    fn outputs(mark: Mark, count: u64) -> FoundOutputs {
        FoundOutputs { input: "in".into(), key: Key::parse("out/in/x").unwrap(), count, mark }
    }

    fn decided(rerun: Rerun, existing: &[FoundOutputs]) -> Option<Decision> {
        decide(rerun, existing, OURS).ok()
    }

    #[test]
    fn outputs_are_current_if_one_run_made_all_of_them_from_the_current_inputs() {
        let run = |reason| Some(Decision::Run(reason));
        for rerun in [Rerun::Resume, Rerun::Update] {
            let decided = |existing: &[FoundOutputs]| decided(rerun, existing);
            assert_eq!(decided(&[]), run(Reason::Missing));
            assert_eq!(decided(&[outputs(RUN, 3)]), Some(Decision::Keep));
            assert_eq!(decided(&[outputs(Mark { source: 8, ..RUN }, 3)]), Some(Decision::Keep));
            assert_eq!(decided(&[outputs(RUN, 2)]), run(Reason::Incomplete));
            assert_eq!(decided(&[outputs(Mark { inputs: 7, ..RUN }, 3)]), run(Reason::InputChanged));
            assert_eq!(decided(&[outputs(RUN, 2), outputs(Mark { job: 8, ..RUN }, 1)]), run(Reason::Incomplete));
        }
    }

    #[test]
    fn outputs_of_another_recipe_are_refused_replaced_or_kept() {
        let other = outputs(Mark { recipe: 7, ..RUN }, 3);
        let elsewhere = outputs(Mark { inputs: 7, source: 7, ..RUN }, 3);
        let after = |rerun: Rerun| [&other, &elsewhere].map(|found| decided(rerun, &[outputs(RUN, 3), found.clone()]));
        assert_eq!(after(Rerun::Resume), [None, None]);
        let again = [Reason::RecipeChanged, Reason::InputChanged].map(|reason| Some(Decision::Run(reason)));
        assert_eq!(after(Rerun::Update), again);
        assert_eq!(after(Rerun::Missing), [Some(Decision::KeepOthers), Some(Decision::Keep)]);
        assert_eq!(decided(Rerun::Missing, &[outputs(other.mark, 2)]), Some(Decision::Run(Reason::Incomplete)));
        assert_eq!(decided(Rerun::Refuse, &[outputs(RUN, 3)]), None);
    }

    #[test]
    fn orphans_of_other_maps_and_outputs_of_this_job_are_not_removed() {
        let other = Mark { recipe: 7, source: 7, ..RUN };
        let replaced = [Rerun::Refuse, Rerun::Resume, Rerun::Update, Rerun::Missing]
            .map(|rerun| [RUN, other, OURS].map(|mark| may_replace(rerun, mark, OURS)));
        assert_eq!(replaced, [[false; 3], [true, false, false], [true, true, false], [true, true, false]]);
        let edited = Mark { recipe: 7, ..RUN };
        assert_eq!([edited, other, OURS].map(|mark| may_remove(Rerun::Update, mark, OURS)), [true, false, false]);
        assert!(!may_remove(Rerun::Resume, RUN, OURS));
    }
}
