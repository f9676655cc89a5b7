//! Hints for failed commands: the usual causes, guessed from exit status, stderr and command, and what helps.

use super::job_report::TaskFailure;
use crate::bounds::beginning;

/// Limit of bytes of a word of the command that a hint repeats.
const WORD: usize = 60;

/// The likely cause of `failure` of the command `cmd`, and what to do. `None` if the failure explains itself, or the
/// cause is not known.
pub fn hint(failure: &TaskFailure, cmd: &str) -> Option<String> {
    let stderr = &failure.stderr;
    if stderr.contains("No space left on device") {
        return Some("a disk is full: 's4 health' shows what is free on each node".to_owned());
    }
    match end(&failure.reason)? {
        End::Exit(1) => unbound(stderr).or_else(|| no_match(stderr, cmd)),
        End::Exit(126) => Some(not_executable(stderr)),
        End::Exit(127) => Some(not_found(stderr)),
        End::Exit(141) | End::Signal(13) => Some(
            "SIGPIPE: a later command of the pipe ended first, as head does, and 'set -o pipefail' makes that a failure; write \
             '{ EARLIER || true; } | LATER', with the braces, or use --ok-exit 0,141"
                .to_owned(),
        ),
        End::Exit(137) | End::Signal(9) => Some(
            "SIGKILL: the machine ran out of memory, or somebody killed the command; --memory SIZE bounds what a task may use"
                .to_owned(),
        ),
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
fn no_match(stderr: &str, cmd: &str) -> Option<String> {
    let greps = ["grep", "egrep", "fgrep", "zgrep", "rg"];
    let mut words = cmd.split(|c: char| !c.is_ascii_alphanumeric());
    (stderr.trim().is_empty() && words.any(|word| greps.contains(&word)))
        .then(|| {
            "grep ends with 1 if no line matches: write '{ grep … || true; }', with the braces; --ok-exit 0,1 helps too, but takes \
             every exit status 1 for success"
                .to_owned()
        })
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
    use crate::key::Key;

    fn hint_of(reason: &str, stderr: &str, cmd: &str) -> String {
        let key = Key::parse("in/0_k").expect("a key");
        let failure = TaskFailure { node: 0, key, reason: reason.to_owned(), stderr: stderr.to_owned() };
        hint(&failure, cmd).unwrap_or_default()
    }

    #[test]
    fn the_usual_causes_have_a_hint() {
        for (reason, stderr, cmd, part) in [
            ("exit status 141", "", "sort | head -1", "--ok-exit 0,141"),
            ("signal 13 (SIGPIPE)", "", "sort | head -1", "a later command of the pipe"),
            ("exit status 141, in attempt 3", "", "sort | head -1", "SIGPIPE"),
            ("exit status 1", "", "cut -f1 | grep JFK", "--ok-exit 0,1"),
            ("exit status 1", "\n", "zgrep JFK", "|| true"),
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
            ("exit status 3", "", "grep x"),
            ("killed after its timeout of 3 s", "", "grep x"),
            ("s4://out/0_k: key already exists", "", "grep x"),
        ] {
            assert_eq!(hint_of(reason, stderr, cmd), "", "{reason}");
        }
    }

    #[test]
    fn a_word_is_cut_and_harmless() {
        let stderr = format!("bash: line 1: \u{1b}[2J{}: command not found\n", "x".repeat(5000));
        let found = hint_of("exit status 127", &stderr, "x");
        assert!(found.len() < 300 && !found.contains('\u{1b}'), "{found}");
    }
}
