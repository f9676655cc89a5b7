//! Hints for failed commands: the usual causes, guessed from exit status, stderr and command, and what helps.

use super::job::CommandText;
use crate::bounds::beginning;

/// Limit of bytes of a word of the command that a hint repeats.
const WORD: usize = 60;

/// What has run a command. It decides which options can help.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Runner {
    /// A map, which has `--ok-exit`.
    Map,
    /// `s4 eval`, whose exit status is that of the command.
    Eval,
}

/// The likely cause of a failure of the command `cmd`, and what to do. `None` if the failure explains itself, or the
/// cause is not known.
pub fn hint(reason: &str, stderr: &str, cmd: &CommandText, runner: Runner) -> Option<String> {
    if stderr.contains("No space left on device") {
        return Some("a disk is full: 's4 health' shows what is free on each node".to_owned());
    }
    let is_map = runner == Runner::Map;
    match end(reason)? {
        End::Exit(1) => unbound(stderr).or_else(|| if is_map { no_match(stderr, cmd) } else { None }),
        End::Exit(123) if is_map => no_match_by_xargs(stderr, cmd),
        End::Exit(126) => Some(not_executable(stderr)),
        End::Exit(127) => Some(not_found(stderr)),
        End::Exit(141) | End::Signal(13) => Some(format!(
            "SIGPIPE: a later command of the pipe ended first, as head does, and 'set -o pipefail' makes that a failure; write \
             '{{ EARLIER || true; }} | LATER', with the braces{}",
            if is_map { ", or use --ok-exit 0,141" } else { "" }
        )),
        End::Exit(137) | End::Signal(9) => Some(format!(
            "SIGKILL: the machine ran out of memory, or somebody killed the command{}",
            if is_map { "; --memory SIZE bounds what a task may use" } else { "" }
        )),
        End::Exit(_) | End::Signal(_) => None,
    }
}

/// How a command ended by itself.
#[derive(Debug, PartialEq, Eq)]
enum End {
    Exit(i32),
    Signal(i32),
}

fn end(reason: &str) -> Option<End> {
    let number = |rest: &str| rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok();
    match (reason.strip_prefix("exit status "), reason.strip_prefix("signal ")) {
        (Some(rest), _) => number(rest).map(End::Exit),
        (_, Some(rest)) => number(rest).map(End::Signal),
        (None, None) => None,
    }
}

/// A shell variable that was unset: usually the user's own shell has expanded another one.
fn unbound(stderr: &str) -> Option<String> {
    let name = complaint(stderr, ": unbound variable")?;
    if name.starts_with('$') {
        // bash names an argument with its dollar sign.
        return Some(format!(
            "bash took {name} for an argument of its own, of which there is none: between double quotes write \\{name}, or put \
             awk's program in single quotes"
        ));
    }
    Some(format!(
        "the variable {name} is not set, which 'set -u' makes a failure: write ${{{name}:-}}, and put CMD in single quotes so that \
         your own shell replaces nothing"
    ))
}

/// A grep that found nothing, as far as that can be guessed: grep prints nothing then.
fn no_match(stderr: &str, cmd: &CommandText) -> Option<String> {
    (stderr.trim().is_empty() && has_grep(cmd)).then(|| {
        "grep ends with 1 if no line matches: write '{ grep … || true; }', with the braces; --ok-exit 0,1 helps too, but takes \
         every exit status 1 for success"
            .to_owned()
    })
}

/// The same, run by xargs.
fn no_match_by_xargs(stderr: &str, cmd: &CommandText) -> Option<String> {
    (stderr.trim().is_empty() && has_grep(cmd)).then(|| {
        "xargs ends with 123 if its command fails, and grep does if no line matches: write '{ xargs … grep … || true; }', with \
         the braces; --ok-exit 0,123 helps too, but takes every such failure for success"
            .to_owned()
    })
}

fn has_grep(cmd: &CommandText) -> bool {
    let greps = ["grep", "egrep", "fgrep", "zgrep", "rg"];
    let text = cmd.as_os_str().to_string_lossy();
    text.split(|c: char| !c.is_ascii_alphanumeric()).any(|word| greps.contains(&word))
}

fn not_executable(stderr: &str) -> String {
    match complaint(stderr, ": Permission denied") {
        Some(word) => {
            format!("{word} may not be executed: 'chmod +x' the file that --file sends, or run it as 'bash {word}'")
        }
        None => "a file that is no program, or may not be executed: 'chmod +x' the file that --file sends".to_owned(),
    }
}

fn not_found(stderr: &str) -> String {
    match complaint(stderr, ": command not found").or_else(|| complaint(stderr, ": No such file or directory")) {
        Some(word) => format!(
            "there is no {word} on this node: install it on every node, or send it with --file PATH and run it as ./NAME"
        ),
        None => "a command was not found: install it on every node, or send it with --file PATH and run it as ./NAME"
            .to_owned(),
    }
}

/// The word about which bash complains: `bash: line 1: foo: command not found`.
fn complaint(stderr: &str, what: &str) -> Option<String> {
    let line = stderr.lines().rev().find_map(|line| line.trim_end().strip_suffix(what))?;
    let word = beginning(line.rsplit(": ").next()?.trim(), WORD);
    (!word.is_empty()).then(|| word.escape_debug().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hint_of(reason: &str, stderr: &str, cmd: &str) -> String {
        let cmd = CommandText::new(cmd.into()).expect("a command");
        hint(reason, stderr, &cmd, Runner::Map).unwrap_or_default()
    }

    #[test]
    fn the_usual_causes_have_a_hint() {
        for (reason, stderr, cmd, part) in [
            ("exit status 141", "", "sort | head -1", "--ok-exit 0,141"),
            ("signal 13 (SIGPIPE)", "", "sort | head -1", "a later command of the pipe"),
            ("exit status 141, in attempt 3", "", "sort | head -1", "SIGPIPE"),
            ("exit status 1", "", "cut -f1 | grep JFK", "--ok-exit 0,1"),
            ("exit status 1", "\n", "zgrep JFK", "|| true"),
            ("exit status 1", "", "cut -f1 |\ngrep JFK", "|| true"),
            ("exit status 123", "", "xargs -d '\\n' grep JFK", "--ok-exit 0,123"),
            ("exit status 137", "", "sort", "--memory"),
            ("signal 9 (SIGKILL)", "", "sort", "SIGKILL"),
            ("exit status 126", "bash: line 1: ./a.py: Permission denied\n", "./a.py", "./a.py may not be executed"),
            ("exit status 126", "", "./a.py", "chmod +x"),
            ("exit status 127", "x\nbash: line 1: jqq: command not found\n", "jqq .", "there is no jqq on this node"),
            ("exit status 127", "bash: line 1: ./a: No such file or directory\n", "./a", "there is no ./a on"),
            ("exit status 127", "", "(exit 127)", "a command was not found"),
            ("exit status 2", "sort: write failed: /tmp/x: No space left on device\n", "sort", "'s4 health'"),
            ("exit status 1", "bash: line 1: name: unbound variable\n", "echo $name", "${name:-}"),
            ("exit status 1", "bash: line 1: $2: unbound variable\n", "awk \"{ print $2 }\"", "write \\$2"),
        ] {
            let found = hint_of(reason, stderr, cmd);
            assert!(found.contains(part), "{reason}, {stderr:?}: {found}");
        }
    }

    #[test]
    fn unknown_causes_have_no_hint() {
        for (reason, stderr, cmd) in [
            ("exit status 1", "", "false"),
            ("exit status 1", "grep: x: Is a directory", "grep x x"),
            ("exit status 1", "", "fingrep x"),
            ("exit status 123", "", "xargs false"),
            ("exit status 3", "", "grep x"),
            ("killed after its timeout of 3 s", "", "grep x"),
            ("s4://out/0_k: key already exists", "", "grep x"),
        ] {
            assert_eq!(hint_of(reason, stderr, cmd), "", "{reason}");
        }
    }

    #[test]
    fn an_eval_is_told_of_no_option_that_it_has_not() {
        let cmd = CommandText::new("grep x".into()).expect("a command");
        for (reason, stderr, part) in [
            ("exit status 127", "bash: line 1: jqq: command not found", "there is no jqq on this node"),
            ("exit status 141", "", "with the braces"),
            ("exit status 137", "", "SIGKILL"),
        ] {
            let told = hint(reason, stderr, &cmd, Runner::Eval).expect("a hint");
            assert!(told.contains(part) && !told.contains("--ok-exit") && !told.contains("--memory"), "{told}");
        }
        assert_eq!(hint("exit status 1", "", &cmd, Runner::Eval), None);
    }

    #[test]
    fn a_word_is_cut_and_harmless() {
        let stderr = format!("bash: line 1: \u{1b}[2J{}: command not found\n", "x".repeat(5000));
        let found = hint_of("exit status 127", &stderr, "x");
        assert!(found.len() < 300 && !found.contains('\u{1b}'), "{found}");
    }
}
