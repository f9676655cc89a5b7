//! `--dry-run`: the plan of each node.

use crate::commands::console::print_message;
use crate::commands::follow::{gone_text, kept_text, planned_line, reasons_text};
use crate::commands::format::{counted, size_text};
use s4::client::Client;
use s4::cluster::Cluster;
use s4::error::{Error, ExitStatus, Result};
use s4::protocol::{JobSpec, Plan, Rerun};
use s4::skew::is_crowded;
use std::io::Write;

pub async fn run(client: &Client, spec: &JobSpec, json: bool) -> Result<ExitStatus> {
    let plans = client.plan_everywhere(spec).await?;
    let text = match json {
        true => planned_line(spec, &plans),
        false => table(client.cluster(), spec, &plans),
    };
    std::io::stdout().write_all(text.as_bytes()).map_err(|e| Error::io("stdout", &e))?;
    let sum: Plan = plans.iter().sum();
    if spec.rerun != Rerun::Refuse {
        let (reasons, kept) = (reasons_text(spec, &sum), kept_text(&sum) + &gone_text(&sum, "would be removed"));
        print_message(format!("{} would run{reasons}{kept}", counted(sum.tasks, "task")));
    }
    for warning in warnings(client.cluster(), &plans) {
        print_message(warning);
    }
    Ok(ExitStatus::Done)
}

fn table(cluster: &Cluster, spec: &JobSpec, plans: &[Plan]) -> String {
    let names: Vec<String> = cluster.ids().map(|node| format!("{node} {}", cluster.address(node))).collect();
    let width = names.iter().map(String::len).max().unwrap_or(0).max("total".len());
    let row = |name: &str, plan: &Plan| {
        let (tasks, keys, bytes) = (plan.tasks, plan.keys, size_text(plan.bytes));
        let before = if spec.rerun != Rerun::Refuse { format!(" {:>11}", plan.done_before) } else { String::new() };
        format!("{name:<width$} {tasks:>9} {keys:>9} {bytes:>9}{before}\n")
    };
    let before = if spec.rerun != Rerun::Refuse { " done before" } else { "" };
    let mut text = format!("{:<width$} {:>9} {:>9} {:>9}{before}\n", "node", "tasks", "keys", "bytes");
    names.iter().zip(plans).for_each(|(name, plan)| text += &row(name, plan));
    text + &row("total", &plans.iter().sum())
}

/// A line for each node that would have more than twice its fair share of tasks or bytes.
fn warnings(cluster: &Cluster, plans: &[Plan]) -> Vec<String> {
    let (total, nodes) = (plans.iter().sum::<Plan>(), plans.len());
    let warn = |(node, plan): (usize, &Plan)| {
        let what = match () {
            () if is_crowded(plan.tasks, total.tasks, nodes) => format!("{} of {} tasks", plan.tasks, total.tasks),
            // With fewer tasks than nodes, no other names could be better.
            () if total.tasks >= nodes as u64 && is_crowded(plan.bytes, total.bytes, nodes) => {
                format!("{} of {}", size_text(plan.bytes), size_text(total.bytes))
            }
            () => return None,
        };
        let name = cluster.name(node);
        Some(format!("warning: {name} has {what}, more than twice its fair share; a key's basename says where it is"))
    };
    plans.iter().enumerate().filter_map(warn).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn only_an_uneven_distribution_gives_a_warning() {
        let cluster = Cluster::parse("a:1\nb:1\nc:1\n", Path::new("conf")).unwrap();
        let plan = |tasks, bytes| Plan { tasks, keys: tasks, bytes, ..Plan::default() };
        let warned = |plans: [Plan; 3]| warnings(&cluster, &plans);
        assert!(warned([plan(1, 100), plan(0, 0), plan(0, 0)]).is_empty(), "one key is on one node");
        assert!(warned([plan(6, 60), plan(2, 20), plan(1, 10)]).is_empty());
        let tasks = warned([plan(1, 30), plan(8, 40), plan(1, 30)]);
        assert!(tasks.is_empty(), "exactly twice, rounded up: {tasks:?}");
        let tasks = warned([plan(1, 10), plan(9, 80), plan(0, 10)]);
        assert!(tasks.len() == 1 && tasks[0].contains("node 1 (b:1) has 9 of 10 tasks"), "{tasks:?}");
        let bytes = warned([plan(2, 10), plan(2, 10), plan(2, 5000)]);
        assert!(bytes.len() == 1 && bytes[0].contains("node 2 (c:1) has 4.9K of 4.9K"), "{bytes:?}");
    }
}
