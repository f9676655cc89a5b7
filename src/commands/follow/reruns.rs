//! The text about a rerun: what it keeps, and why it runs the rest.

use s4::protocol::{JobSpec, Plan, Reasons, Rerun};

/// For example ` (2 output missing, 1 input changed)`: why the tasks run. Empty if existing outputs are an error.
pub fn reasons_text(spec: &JobSpec, plan: &Plan) -> String {
    let Reasons { missing, incomplete, input_changed, recipe_changed } = plan.reasons;
    let is_first = plan.done_before == 0 && missing == plan.tasks;
    let counted = [
        // If there is no output at all, it is the first run.
        (missing, if is_first { "new" } else { "output missing" }),
        (incomplete, "output incomplete"),
        (input_changed, "input changed"),
        (recipe_changed, "command changed"),
    ];
    let reasons = counted.iter().filter(|(count, _)| *count > 0).map(|(count, reason)| format!("{count} {reason}"));
    let reasons = reasons.collect::<Vec<_>>().join(", ");
    match spec.rerun == Rerun::Refuse || reasons.is_empty() {
        true => String::new(),
        false => format!(" ({reasons})"),
    }
}

/// `, 147 done before`, or `, 147 kept (3 not made by this command)`: what does not run.
pub fn kept_text(plan: &Plan) -> String {
    match (plan.done_before, plan.of_others) {
        (0, _) => String::new(),
        (before, 0) => format!(", {before} done before"),
        (before, others) => format!(", {before} kept ({others} not made by this command)"),
    }
}

/// `, outputs of 2 gone inputs removed`, or what else is `done` to them.
pub fn gone_text(plan: &Plan, done: &str) -> String {
    match plan.gone {
        0 => String::new(),
        1 => format!(", output of 1 gone input {done}"),
        gone => format!(", outputs of {gone} gone inputs {done}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use s4::key::Dir;
    use s4::pattern::Pattern;
    use s4::protocol::{CommandText, MapKind};

    #[test]
    fn a_rerun_says_what_it_keeps_and_why_the_rest_runs() {
        let (indir, outdir) = (Pattern::parse_url("s4://in/").unwrap(), Dir::parse_url("s4://out/").unwrap());
        let mut spec = JobSpec::new(MapKind::Map, indir, outdir, CommandText::new("cat".into()).unwrap());
        let reasons = Reasons { missing: 2, input_changed: 1, ..Reasons::default() };
        let plan = Plan { tasks: 3, done_before: 147, gone: 2, reasons, ..Plan::default() };
        assert_eq!(reasons_text(&spec, &plan), "");
        spec.rerun = Rerun::Update;
        assert_eq!(reasons_text(&spec, &plan), " (2 output missing, 1 input changed)");
        let first = Plan { tasks: 2, reasons: Reasons { missing: 2, ..Reasons::default() }, ..Plan::default() };
        assert_eq!(reasons_text(&spec, &first), " (2 new)");
        assert_eq!(
            kept_text(&plan) + &gone_text(&plan, "removed"),
            ", 147 done before, outputs of 2 gone inputs removed"
        );
        assert_eq!(kept_text(&Plan { of_others: 3, ..plan }), ", 147 kept (3 not made by this command)");
        assert_eq!(kept_text(&Plan::default()) + &reasons_text(&spec, &Plan::default()), "");
    }
}
