//! The text about the failures of a job: one paragraph for each kind.

use crate::commands::format::{counted, cut};
use crate::commands::hints::unsent_file;
use s4::bounds;
use s4::cluster::Cluster;
use s4::protocol::{FailureGroup, FailureGroups, JobSpec, TaskFailure};

/// Limit of characters of a command shown with a failure.
const COMMAND: usize = 200;
/// Limit of lines of stderr, and of characters per line.
const LINES: usize = 10;
const LINE: usize = 500;

/// The failures so far.
#[derive(Default)]
pub struct Failures {
    kinds: FailureGroups,
    /// The first failures of their kinds that were not printed yet.
    new: Vec<String>,
    /// One of the failed commands has written to stderr.
    pub stderr: bool,
}

impl Failures {
    pub fn add(&mut self, failure: &TaskFailure, spec: &JobSpec, cluster: &Cluster) {
        self.stderr |= !failure.stderr.is_empty();
        if self.kinds.add(failure, &spec.cmd) {
            let name = cluster.name(failure.node);
            let stderr = lines(&failure.stderr, "    ");
            self.new.push(format!("{} on {name}: {}{stderr}", failure.key, cut(&failure.reason, 1000)));
        }
    }

    /// The first failures of kinds that are new since the last call.
    pub fn take_new(&mut self) -> Vec<String> {
        std::mem::take(&mut self.new)
    }

    /// A paragraph for each kind. `tasks` is the number of tasks of the job.
    pub fn summary(&self, spec: &JobSpec, tasks: u64, cluster: &Cluster) -> Vec<String> {
        let command = format!("\n    command: {}", cut(&spec.cmd.to_string(), COMMAND));
        let mut command = spec.copy.is_none().then_some(command);
        let paragraph = |group: &FailureGroup| {
            head(group, spec, tasks, cluster) + &command.take().unwrap_or_default() + &details(group, spec)
        };
        let mut text: Vec<String> = self.kinds.by_count().into_iter().map(paragraph).collect();
        if self.kinds.others > 0 {
            text.push(format!("{} failures of more kinds: s4 logs {} --failed", self.kinds.others, spec.id));
        }
        text
    }
}

/// The number of failures, and the first tasks.
fn head(group: &FailureGroup, spec: &JobSpec, tasks: u64, cluster: &Cluster) -> String {
    let mut text =
        format!("{} of {} failed: {}", group.count, counted(tasks.max(group.count), spec.unit()), group.kind());
    for (number, task) in group.tasks.iter().enumerate() {
        text += &format!("\n    {} on {}", task.key, cluster.name(task.node));
        if number == 0 && group.kind() != group.reason {
            text += &format!(": {}", group.reason);
        }
    }
    match group.unnamed() {
        0 => text,
        more => text + &format!("\n    and {more} more: s4 logs {} --failed", spec.id),
    }
}

/// The stderr of one command, and the likely cause.
fn details(group: &FailureGroup, spec: &JobSpec) -> String {
    let mut text = match lines(&group.stderr, "        ") {
        none if none.is_empty() => none,
        lines if group.count == 1 => format!("\n    stderr:{lines}"),
        lines => format!("\n    stderr of one of them:{lines}"),
    };
    if let Some(hint) = unsent_file(&group.stderr, &spec.cmd, &spec.files).as_ref().or(group.hint.as_ref()) {
        text += &format!("\n    hint: {hint}");
    }
    text
}

/// The last lines of `stderr`, each indented by `indent`.
fn lines(stderr: &str, indent: &str) -> String {
    let all: Vec<&str> = bounds::tail(stderr, LINES * LINE).trim_end().lines().collect();
    let last = &all[all.len().saturating_sub(LINES)..];
    last.iter().map(|line| format!("\n{indent}{}", cut(line, LINE))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use s4::key::{Dir, Key};
    use s4::pattern::Pattern;
    use s4::protocol::{CommandText, JobId, MapKind};
    use std::path::Path;

    fn summary(failures: &[(&str, &str)], cmd: &str) -> Vec<String> {
        let cluster = Cluster::parse("a:1\nb:1\n", Path::new("conf")).unwrap();
        let (indir, outdir) = (Pattern::parse_url("s4://in/").unwrap(), Dir::parse_url("s4://out/").unwrap());
        let mut spec = JobSpec::new(MapKind::Map, indir, outdir, CommandText::new(cmd.into()).unwrap());
        spec.id = JobId::try_from("20260101-000000-000-abcdef".to_owned()).unwrap();
        let mut all = Failures::default();
        for (number, (reason, stderr)) in failures.iter().enumerate() {
            let key = Key::parse(&format!("in/{number}_k")).unwrap();
            let failure =
                TaskFailure { node: number % 2, key, reason: (*reason).to_owned(), stderr: (*stderr).to_owned() };
            all.add(&failure, &spec, &cluster);
        }
        all.summary(&spec, 120, &cluster)
    }

    #[test]
    fn a_kind_is_a_paragraph() {
        let told = summary(&[("exit status 1", ""); 48], "grep JFK");
        assert_eq!(
            told,
            ["48 of 120 tasks failed: exit status 1
    s4://in/0_k on node 0 (a:1)
    s4://in/1_k on node 1 (b:1)
    s4://in/2_k on node 0 (a:1)
    and 45 more: s4 logs 20260101-000000-000-abcdef --failed
    command: grep JFK
    hint: grep ends with 1 if no line matches: write '{ grep … || true; }', with the braces; --ok-exit 0,1 helps too, but takes every exit status 1 for success"]
        );
        let told = summary(&[("exit status 3", "a\nb\n"), ("s4://out/1_k: key already exists", "")], "sort");
        assert_eq!(
            told,
            [
                "1 of 120 tasks failed: exit status 3
    s4://in/0_k on node 0 (a:1)
    command: sort
    stderr:
        a
        b",
                "1 of 120 tasks failed: s4://out/1_k: key already exists
    s4://in/1_k on node 1 (b:1)"
            ]
        );
    }

    #[test]
    fn a_long_stderr_is_its_last_lines() {
        let stderr: String = (0..1000).map(|n| format!("{n} {}\n", "x".repeat(600))).collect();
        let text = lines(&stderr, "  ");
        assert!(text.lines().count() <= LINES + 1 && text.len() < 2 * LINES * LINE, "{text}");
        assert_eq!(lines("\n\n", "  "), "");
    }
}
