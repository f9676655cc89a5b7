//! Groups the failures of a job by kind: how many of each, some of the tasks, and the stderr of one command. The size
//! is bounded, however many failures there are.

use super::causes::{Runner, hint};
use super::job::CommandText;
use super::job_report::TaskFailure;
use crate::bounds::{self, beginning, tail};
use crate::key::Key;
use crate::placement::NodeId;
use serde::{Deserialize, Serialize};

/// Limit of kinds. Failures of other kinds are only counted.
const KINDS: usize = 12;
/// Limit of tasks of a kind that are named.
const TASKS: usize = 3;
/// Limit of bytes of a reason, and of the end of a stderr.
const REASON: usize = 1000;
const STDERR: usize = 1000;

/// A task that failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailedTask {
    pub node: NodeId,
    /// The (first) input.
    pub key: Key,
}

/// Failures of one kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailureGroup {
    /// The reason of the first task.
    #[serde(deserialize_with = "bounds::line")]
    pub reason: String,
    /// The reason without the parts that differ from task to task.
    #[serde(deserialize_with = "bounds::line")]
    kind: String,
    #[serde(deserialize_with = "bounds::count")]
    pub count: u64,
    /// The first of the tasks.
    pub tasks: Vec<FailedTask>,
    /// The end of the first task's stderr.
    pub stderr: String,
    /// The likely cause, and what helps.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "bounds::optional_line")]
    pub hint: Option<String>,
}

impl FailureGroup {
    fn new(failure: &TaskFailure, cmd: &CommandText) -> Self {
        let reason = beginning(&failure.reason, REASON);
        Self {
            reason: reason.to_owned(),
            kind: kind_of(reason),
            count: 1,
            tasks: vec![FailedTask { node: failure.node, key: failure.key.clone() }],
            stderr: tail(&failure.stderr, STDERR).to_owned(),
            hint: hint(&failure.reason, &failure.stderr, cmd, Runner::Map),
        }
    }

    /// The common reason.
    pub fn kind(&self) -> &str {
        if self.count > 1 { &self.kind } else { &self.reason }
    }

    /// The number of tasks that are not named.
    pub fn unnamed(&self) -> u64 {
        self.count.saturating_sub(self.tasks.len() as u64)
    }

    fn is_like(&self, other: &Self) -> bool {
        self.hint == other.hint && self.kind == other.kind
    }
}

/// All failures of a job.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailureGroups {
    pub groups: Vec<FailureGroup>,
    /// Failures of other kinds.
    #[serde(default, deserialize_with = "bounds::count")]
    pub others: u64,
}

impl FailureGroups {
    /// Adds a failure of a job whose command is `cmd`. True if it is the first of its kind.
    pub fn add(&mut self, failure: &TaskFailure, cmd: &CommandText) -> bool {
        self.add_group(FailureGroup::new(failure, cmd))
    }

    /// Adds the failures that a node has reported.
    pub fn add_of_node(&mut self, node: NodeId, reported: Self) {
        for mut group in reported.groups.into_iter().take(KINDS) {
            group.tasks.truncate(TASKS);
            group.tasks.iter_mut().for_each(|task| task.node = node);
            group.stderr = tail(&group.stderr, STDERR).to_owned();
            self.add_group(group);
        }
        self.others += reported.others;
    }

    fn add_group(&mut self, group: FailureGroup) -> bool {
        if let Some(like) = self.groups.iter_mut().find(|known| known.is_like(&group)) {
            like.count += group.count;
            let room = TASKS.saturating_sub(like.tasks.len());
            like.tasks.extend(group.tasks.into_iter().take(room));
            if like.stderr.is_empty() {
                like.stderr = group.stderr;
            }
            return false;
        }
        if self.groups.len() == KINDS {
            self.others += group.count;
            return false;
        }
        self.groups.push(group);
        true
    }

    /// The kinds, most frequent first.
    pub fn by_count(&self) -> Vec<&FailureGroup> {
        let mut groups: Vec<&FailureGroup> = self.groups.iter().collect();
        groups.sort_by_key(|group| std::cmp::Reverse(group.count));
        groups
    }

    pub fn count(&self) -> u64 {
        self.groups.iter().map(|group| group.count).sum::<u64>() + self.others
    }
}

/// The kind of a reason: `KEY` stands for each key and `'…'` for each quoted text, and process ids are left out, since
/// these differ from task to task.
fn kind_of(reason: &str) -> String {
    let (mut kind, mut rest) = (String::with_capacity(reason.len()), reason);
    while let Some(at) = rest.find(['s', '\'', '(']) {
        kind.push_str(&rest[..at]);
        rest = &rest[at..];
        let (instead, len) = varying(rest);
        kind.push_str(instead);
        rest = &rest[len..];
    }
    kind + rest
}

/// The replacement for the beginning of `text` in a kind, and the length that it replaces.
fn varying(text: &str) -> (&str, usize) {
    if let Some(key) = text.strip_prefix("s4://") {
        let len = key.find(|c: char| c.is_whitespace() || "'\",;()".contains(c)).unwrap_or(key.len());
        return ("KEY", "s4://".len() + key[..len].trim_end_matches([':', '.']).len());
    }
    if let Some(id) = text.strip_prefix("(pid ") {
        let end = id.find(')').map_or(id.len(), |end| end + 1);
        return ("(pid …)", "(pid ".len() + end);
    }
    if let Some(len) = text.strip_prefix('\'').and_then(|quoted| quoted.find('\'')) {
        return ("'…'", len + 2);
    }
    (&text[..1], 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn x() -> CommandText {
        CommandText::new("x".into()).expect("a command")
    }

    fn failure(number: u64, reason: &str, stderr: &str) -> TaskFailure {
        let key = Key::parse(&format!("in/{number}_k")).expect("a key");
        TaskFailure { node: number as usize % 3, key, reason: reason.to_owned(), stderr: stderr.to_owned() }
    }

    #[test]
    fn failures_of_one_kind_are_one_group() {
        let mut groups = FailureGroups::default();
        let first: Vec<bool> =
            (0..48).map(|n| groups.add(&failure(n, "exit status 3", &format!("{n}\n")), &x())).collect();
        assert_eq!(first.iter().filter(|first| **first).count(), 1);
        assert!(groups.add(&failure(48, "exit status 127", "bash: line 1: a: command not found"), &x()));
        assert!(
            groups.add(&failure(49, "exit status 127", "bash: line 1: b: command not found"), &x()),
            "another word"
        );
        assert!(groups.add(&failure(50, "s4://out/50_k: key already exists", ""), &x()));
        assert!(!groups.add(&failure(51, "s4://out/d/51_k: key already exists", ""), &x()));
        let by_count = groups.by_count();
        assert_eq!(by_count.iter().map(|group| group.count).collect::<Vec<_>>(), [48, 2, 1, 1]);
        assert_eq!((groups.count(), by_count[0].unnamed(), &*by_count[0].stderr), (52, 45, "0\n"));
        assert_eq!(by_count[0].tasks.iter().map(|task| task.key.basename()).collect::<Vec<_>>(), ["0_k", "1_k", "2_k"]);
        assert_eq!(by_count[1].kind(), "KEY: key already exists");
    }

    #[test]
    fn differences_between_tasks_do_not_make_a_kind() {
        for (reason, kind) in [
            ("exit status 1", "exit status 1"),
            ("node 1 (h:1): s4://b/x: no such key", "node 1 (h:1): KEY: no such key"),
            ("the command printed '1_x', which is not there", "the command printed '…', which is not there"),
            ("ran on: sleep (pid 17), cat (pid 18)", "ran on: sleep (pid …), cat (pid …)"),
            ("it's so", "it's so"),
            ("s4://a/b", "KEY"),
        ] {
            assert_eq!(kind_of(reason), kind);
        }
    }

    #[test]
    fn the_groups_of_nodes_are_put_together() {
        let of = |numbers: std::ops::Range<u64>| {
            let mut groups = FailureGroups::default();
            numbers.for_each(|n| _ = groups.add(&failure(n, "exit status 3", ""), &x()));
            groups
        };
        let mut all = FailureGroups::default();
        all.add_of_node(7, of(0..2));
        all.add_of_node(8, of(0..5));
        assert_eq!((all.groups.len(), all.count()), (1, 7));
        assert_eq!(all.groups[0].tasks.iter().map(|task| task.node).collect::<Vec<_>>(), [7, 7, 8]);
    }

    #[test]
    fn a_hundred_thousand_failures_take_no_more_room_than_some() {
        let mut groups = FailureGroups::default();
        let stderr = "x".repeat(4096);
        for number in 0..100_000 {
            groups.add(&failure(number, &format!("{}: {number}", "y".repeat(2000)), &stderr), &x());
            groups.add(&failure(number, &format!("reason {number}"), &stderr), &x());
        }
        assert_eq!(groups.count(), 200_000);
        assert!(serde_json::to_string(&groups).expect("JSON").len() < KINDS * 4096);
    }

    proptest! {
        #[test]
        fn the_kind_of_a_kind_is_itself(reason in "(s4://[a-z/:]{0,4}|\\(pid [0-9]{0,2}\\)?|'| |\\PC){0,8}") {
            let kind = kind_of(&reason);
            prop_assert_eq!(kind_of(&kind), kind);
        }
    }
}
