//! The output of `s4 why` for users.

use super::since::Since;
use crate::commands::format::cut;
use s4::bounds::one_line;
use s4::checksum::Checksum;
use s4::key::Key;
use s4::protocol::{JobSpec, Provenance, TaskRecord};
use s4::time;

/// Limit of characters of a command in a line of the tree.
const COMMAND: usize = 100;

/// Everything that is known of the key on `node`. `since` has the state of each input.
pub fn whole(key: &Key, node: &str, found: &Provenance, since: &[Since]) -> String {
    let written = found.modified.map(|milliseconds| {
        let (date, clock) = time::utc(milliseconds.div_euclid(1000));
        format!(", written {date} {clock}")
    });
    let mut text = format!("{key}\n");
    text += &row("key", &format!("{}, on {node}{}", sum_text(found.checksum), written.unwrap_or_default()));
    match (&found.task, found.mark) {
        (Some(task), _) => text += &rows_of(task, since),
        (None, Some(_)) => text += &row("made by", "a map of which there is no record any more"),
        (None, None) => text += &row("made by", "no map"),
    }
    text
}

/// A line of a tree.
pub fn branch(key: &Key, depth: usize, found: &Provenance) -> String {
    let maker = match (&found.task, found.mark) {
        (Some(task), _) => format!("{} {}", task.job.kind, cut(&task.job.cmd.to_string(), COMMAND)),
        (None, Some(_)) => "made by a map of which there is no record any more".to_owned(),
        (None, None) => format!("made by no map, {}", sum_text(found.checksum)),
    };
    let mut text = indented(depth, &format!("{key}  {maker}"));
    if let Some(task) = found.task.as_ref().filter(|task| left_out(task) > 0) {
        let (shown, all) = (task.inputs.len(), task.count);
        text += &indented(depth + 1, &format!("{shown} of {all} inputs; --all shows all"));
    }
    text
}

/// The line for a key that was printed in the tree before.
pub fn seen(key: &Key, depth: usize) -> String {
    indented(depth, &format!("{key}  (see above)"))
}

/// The line for an input that was changed or deleted.
pub fn lost(key: &Key, depth: usize, since: &Since) -> String {
    indented(depth, &format!("{key}{}", since_text(since)))
}

fn indented(depth: usize, text: &str) -> String {
    format!("{:indent$}{text}\n", "", indent = 2 * depth)
}

fn row(name: &str, value: &str) -> String {
    format!("  {name:<9}{value}\n")
}

fn rows_of(task: &TaskRecord, since: &[Since]) -> String {
    let job = &task.job;
    let mut text = row("made by", &command_line(job)) + &row("job", job.id.as_str());
    for file in &job.files {
        text +=
            &row("--file", &format!("{}, {} bytes, XXH3-128 {}", one_line(file.name.clone()), file.len, file.digest));
    }
    for (name, value) in &job.env {
        text += &row("--env", &one_line(format!("{name}={value}")));
    }
    if job.ok_exit != [0] {
        let statuses: Vec<String> = job.ok_exit.iter().map(i32::to_string).collect();
        text += &row("--ok-exit", &format!(" {}", statuses.join(",")));
    }
    for (number, input) in task.inputs.iter().enumerate() {
        let since = since.get(number).map(since_text).unwrap_or_default();
        text += &row("from", &format!("{}  {}{since}", input.key, sum_text(input.checksum)));
    }
    match left_out(task) {
        0 => text,
        more => text + &row("", &format!("and {more} more inputs; --all shows them")),
    }
}

/// The number of inputs that are not shown.
fn left_out(task: &TaskRecord) -> u64 {
    task.count.saturating_sub(task.inputs.len() as u64)
}

fn sum_text(checksum: Checksum) -> String {
    format!("{} bytes, XXH3 {:016x}", checksum.len, checksum.xxh3)
}

fn since_text(since: &Since) -> String {
    match since {
        Since::Same => String::new(),
        Since::Changed => "  (changed since)".to_owned(),
        Since::Gone => "  (gone)".to_owned(),
        Since::Unknown(error) => format!("  (not known now: {error})"),
    }
}

/// The command line with which a user could make it again.
fn command_line(job: &JobSpec) -> String {
    format!("s4 {} {} {} {}", job.kind, job.indir, job.outdir, quoted(&job.cmd.to_string()))
}

/// A word quoted for the shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_one_word_for_a_shell() {
        assert_eq!(quoted("cut -d, -f1"), "'cut -d, -f1'");
        assert_eq!(quoted("awk '{print}'"), r"'awk '\''{print}'\'''");
    }
}
