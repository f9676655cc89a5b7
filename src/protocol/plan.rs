//! The plan of a node for a job, as counts.

use crate::bounds;
use serde::{Deserialize, Serialize};

/// The part of a job that one node will run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    #[serde(deserialize_with = "bounds::count")]
    pub tasks: u64,
    /// Inputs, including those of skipped tasks.
    #[serde(deserialize_with = "bounds::count")]
    pub keys: u64,
    /// The bytes of these inputs.
    #[serde(deserialize_with = "bounds::count")]
    pub bytes: u64,
    /// Tasks that are skipped, since their outputs exist.
    #[serde(default, deserialize_with = "bounds::count")]
    pub done_before: u64,
    /// Of those, the tasks whose outputs another recipe made, or no map.
    #[serde(default, deserialize_with = "bounds::count")]
    pub of_others: u64,
    /// Outputs, or of a 1:n map the outputs of an input, to be removed because their inputs are gone.
    #[serde(default, deserialize_with = "bounds::count")]
    pub gone: u64,
    /// The nodes of the cluster, which may have more or fewer after a resize. 0 in records of before version 0.2.
    #[serde(default, deserialize_with = "bounds::count")]
    pub nodes: u64,
    /// How many commands of maps the node runs at a time.
    #[serde(default, deserialize_with = "bounds::count")]
    pub slots: u64,
    /// Why the tasks run. All are [`Reason::Missing`] if outputs must not exist.
    #[serde(default)]
    pub reasons: Reasons,
}

/// Why a task runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// It has no outputs.
    Missing,
    /// An earlier run published some of its outputs, or outputs of several runs are mixed.
    Incomplete,
    /// Its outputs were made from other inputs.
    InputChanged,
    /// Its outputs were made by another command, or with other files, variables or exit statuses.
    RecipeChanged,
}

/// Counts of tasks by the reason why they run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Reasons {
    #[serde(deserialize_with = "bounds::count")]
    pub missing: u64,
    #[serde(deserialize_with = "bounds::count")]
    pub incomplete: u64,
    #[serde(deserialize_with = "bounds::count")]
    pub input_changed: u64,
    #[serde(deserialize_with = "bounds::count")]
    pub recipe_changed: u64,
}

impl Reasons {
    pub fn count(&mut self, reason: Reason) {
        *match reason {
            Reason::Missing => &mut self.missing,
            Reason::Incomplete => &mut self.incomplete,
            Reason::InputChanged => &mut self.input_changed,
            Reason::RecipeChanged => &mut self.recipe_changed,
        } += 1;
    }
}

impl<'a> std::iter::Sum<&'a Plan> for Plan {
    fn sum<I: Iterator<Item = &'a Plan>>(plans: I) -> Self {
        plans.fold(Self::default(), |sum, plan| Self {
            tasks: sum.tasks + plan.tasks,
            keys: sum.keys + plan.keys,
            bytes: sum.bytes + plan.bytes,
            done_before: sum.done_before + plan.done_before,
            of_others: sum.of_others + plan.of_others,
            gone: sum.gone + plan.gone,
            nodes: sum.nodes.max(plan.nodes),
            slots: sum.slots + plan.slots,
            reasons: Reasons {
                missing: sum.reasons.missing + plan.reasons.missing,
                incomplete: sum.reasons.incomplete + plan.reasons.incomplete,
                input_changed: sum.reasons.input_changed + plan.reasons.input_changed,
                recipe_changed: sum.reasons.recipe_changed + plan.reasons.recipe_changed,
            },
        })
    }
}
