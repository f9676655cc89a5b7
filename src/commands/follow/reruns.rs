//! The text about a rerun: what it keeps, and why it runs the rest.

use s4::protocol::{JobSpec, Plan, Reasons, Rerun};

/// For example ` (2 output missing, 1 input changed)`: why the tasks run. Empty if existing outputs are an error.
pub fn reasons_text(spec: &JobSpec, plan: &Plan) -> String {
    let Reasons { missing, incomplete, input_changed, recipe_changed } = plan.reasons;
    let counted = [
        (missing, "output missing"),
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

/// For example `, 147 done before, outputs of 2 gone inputs removed`: what does not run.
pub fn kept_text(plan: &Plan) -> String {
    let before = if plan.done_before > 0 { format!(", {} done before", plan.done_before) } else { String::new() };
    let gone = match plan.gone {
        0 => String::new(),
        1 => ", output of 1 gone input removed".to_owned(),
        gone => format!(", outputs of {gone} gone inputs removed"),
    };
    before + &gone
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
        assert_eq!(kept_text(&plan), ", 147 done before, outputs of 2 gone inputs removed");
        assert_eq!(kept_text(&Plan::default()) + &reasons_text(&spec, &Plan::default()), "");
    }
}
