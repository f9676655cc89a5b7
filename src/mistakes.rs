//! Answers to wrong command lines: one line, with the right next step.

use crate::cli::Cli;
use clap::CommandFactory;
use clap::error::{ContextKind, ContextValue, ErrorKind};

/// Commands of other tools, and the equivalent here. `{}` stands for the first argument, or for a placeholder.
const ELSEWHERE: [(&[&str], &str, &str); 19] = [
    (&["cat", "less", "more", "view"], "KEY", "'s4 cp {} -' prints a key"),
    (&["get", "download", "pull", "fetch"], "KEY", "'s4 cp {} .' copies a key here"),
    (
        &["put", "upload", "push", "add", "copy", "write"],
        "FILE",
        "'s4 cp {} s4://bucket/' copies a file into the cluster",
    ),
    (&["mv", "move", "rename"], "OLD", "a key is not renamed: 's4 cp {} NEW', then 's4 rm {}'"),
    (
        &["du", "df", "size", "usage"],
        "PREFIX",
        "'s4 ls -r {}' has the size of each key, 's4 health' what is free on each node",
    ),
    (
        &["head", "tail", "wc", "grep", "sort", "sed", "awk", "cut"],
        "KEY",
        "'s4 eval {} CMD' runs CMD on a key, where it is",
    ),
    (
        &["mkdir"],
        "s4://bucket/dir",
        "a directory is there with its first key: 's4 cp FILE s4://bucket/dir/'; mkdir works in a mount",
    ),
    (
        &["rmdir", "del", "delete", "remove", "unlink"],
        "PREFIX",
        "'s4 rm KEY' deletes a key, 's4 rm -r {}' all keys that begin with it",
    ),
    (&["list", "dir", "find", "tree"], "PREFIX", "'s4 ls {}' lists keys and directories, with -r all below them"),
    (
        &["sync", "rsync", "mirror", "import", "export"],
        "DIR",
        "'s4 cp -r {} s4://bucket/' copies a tree; s4-mount shows the cluster to rsync",
    ),
    (&["touch", "truncate", "edit"], "KEY", "a key is written once: 's4 cp - {} < /dev/null' makes an empty one"),
    (&["stat", "info", "show"], "KEY", "'s4 ls {}' has time and size, 's4 why {}' what made it"),
    (&["status", "nodes", "ping"], "", "'s4 health' asks every node how it is"),
    (
        &["start", "up", "init", "serve", "server"],
        "",
        "'s4 local' runs a cluster on this machine, 's4-server' one node",
    ),
    (&["ps", "job", "queue", "history"], "", "'s4 jobs' lists the jobs"),
    (&["kill", "stop", "abort"], "ID", "'s4 cancel {}' ends a job, 's4 local --stop' a cluster of this machine"),
    (&["log", "errors", "stderr"], "ID", "'s4 logs {}' has what a job's commands wrote to stderr"),
    (&["exec", "ssh", "sh", "all"], "CMD", "'s4 run CMD' runs a command on every node, 's4 eval KEY CMD' on a key"),
    (&["reduce", "merge", "shuffle", "mapreduce"], "", "'s4 map-to-n' is the shuffle, 's4 map-from-n' the merge"),
];

/// Options of other tools: the commands, the option, and the answer.
const OPTIONS: [(&str, &[char], &str); 4] = [
    ("ls", &['l', 'a', 'h', 't', 'R', '1'], "times and sizes are shown without it; -r lists all that is below"),
    ("rm", &['f', 'R', 'v'], "-r deletes all that begins with PREFIX, and nothing found is no error"),
    ("cp", &['R', 'a', 'p', 'f', 'v', 'u'], "-r copies trees, and --skip-existing leaves out what is there"),
    ("map", &['j', 'P', 'n'], "--jobs N is how many commands run at once on each node"),
];

/// Limit of characters of a typed subcommand that are compared: more than any subcommand has.
const LONGEST_NAME: usize = 32;

/// The number of arguments before CMD, for commands that have a CMD.
const BEFORE_CMD: [(&str, usize); 5] = [("map", 2), ("map-to-n", 2), ("map-from-n", 2), ("eval", 1), ("run", 0)];

/// One line about `error`. `args` is the command line without the program.
pub fn explain(error: &clap::Error, args: &[String]) -> String {
    let line = Line::of(args);
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.clone()),
        Some(ContextValue::Strings(texts)) => texts.first().cloned(),
        _ => None,
    };
    let invalid = text(ContextKind::InvalidArg).unwrap_or_default();
    match error.kind() {
        ErrorKind::InvalidSubcommand => {
            let name = text(ContextKind::InvalidSubcommand).unwrap_or_default();
            unknown_command(&name, args)
        }
        ErrorKind::UnknownArgument => unknown_argument(&invalid, text(ContextKind::SuggestedArg), &line),
        ErrorKind::MissingRequiredArgument => match error.get(ContextKind::InvalidArg) {
            Some(ContextValue::Strings(missing)) => missing_argument(missing, &line),
            _ => line.with_help(&first_lines(error)),
        },
        _ => line.with_help(&first_lines(error)),
    }
}

/// The typed subcommand, and the arguments after it.
struct Line<'a> {
    command: &'a str,
    rest: &'a [String],
}

impl<'a> Line<'a> {
    fn of(args: &'a [String]) -> Self {
        let cli = Cli::command();
        let is_command = |arg: &&String| cli.find_subcommand(arg).is_some();
        match args.iter().position(|arg| is_command(&arg)) {
            Some(at) => Self { command: &args[at], rest: &args[at + 1..] },
            None => Self { command: "", rest: &[] },
        }
    }

    fn with_help(&self, message: &str) -> String {
        let space = if self.command.is_empty() { "" } else { " " };
        format!("{message}; 's4 {}{space}--help' shows what can be typed", self.command)
    }

    fn positionals(&self) -> impl Iterator<Item = (usize, &'a String)> {
        self.rest.iter().enumerate().filter(|(_, arg)| !arg.starts_with('-') || *arg == "-")
    }

    /// The beginning of a CMD that was not quoted: more arguments follow it.
    fn unquoted(&self) -> Option<String> {
        let (_, before) = BEFORE_CMD.iter().find(|(name, _)| *name == self.command)?;
        let (at, _) = self.positionals().nth(*before)?;
        let names: Vec<&str> = self.positionals().take(*before).map(|(_, name)| name.as_str()).collect();
        let is_whole = names.iter().all(|name| name.starts_with("s4://"));
        let cmd = &self.rest[at..];
        // Only plain words are quoted for the user: what the shell has taken away of others is not known, nor which options take a value.
        let is_plain = |word: &String| word.chars().all(|c| c.is_ascii_alphanumeric() || "-_./,:=+@%".contains(c));
        let is_known = cmd.iter().all(is_plain) && !self.rest[..at].iter().any(|arg| arg.starts_with('-'));
        (is_whole && cmd.len() > 1).then(|| match is_known {
            true => [&["s4", self.command], &names[..], &[&*format!("'{}'", cmd.join(" "))]].concat().join(" "),
            false => format!("s4 {} … 'CMD'", self.command),
        })
    }
}

fn unknown_command(name: &str, args: &[String]) -> String {
    let shown = name.escape_debug();
    let known = ELSEWHERE.iter().find(|(names, ..)| names.contains(&name));
    if let Some((_, stands_for, advice)) = known {
        let after = args.iter().skip_while(|arg| *arg != name).skip(1);
        let first = after.clone().find(|arg| !arg.starts_with('-')).map_or(*stands_for, |arg| arg);
        return format!("there is no 's4 {shown}': {}", advice.replace("{}", &first.escape_debug().to_string()));
    }
    match nearest(name) {
        Some(similar) => {
            format!("there is no 's4 {shown}': did you mean 's4 {similar}'? 's4 --help' lists the commands")
        }
        None => format!("there is no 's4 {shown}'; 's4 --help' lists the commands"),
    }
}

/// The subcommand with the fewest typing errors, if that are few.
fn nearest(name: &str) -> Option<String> {
    let typed: Vec<char> = name.chars().take(LONGEST_NAME).collect();
    let cli = Cli::command();
    let known = cli.get_subcommands().filter(|command| !command.is_hide_set());
    let measured = known.map(|command| (distance(&typed, &command.get_name().chars().collect::<Vec<_>>()), command));
    let (errors, nearest) = measured.min_by_key(|(errors, _)| *errors)?;
    (errors <= typed.len() / 3 + 1).then(|| nearest.get_name().to_owned())
}

/// The number of characters to insert, delete, replace, or exchange with the next, that makes `a` of `b`, and one more if their
/// first characters differ, which seldom happens.
fn distance(a: &[char], b: &[char]) -> usize {
    let (mut before, mut last) = (Vec::new(), (0..=b.len()).collect::<Vec<usize>>());
    for (i, from) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, to) in b.iter().enumerate() {
            let mut least = (last[j] + usize::from(from != to)).min(last[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && a[i - 1] == *to && b[j - 1] == *from {
                least = least.min(before[j - 1] + 1);
            }
            row.push(least);
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()] + usize::from(a.first() != b.first())
}

fn unknown_argument(invalid: &str, similar: Option<String>, line: &Line) -> String {
    let shown = invalid.escape_debug().to_string();
    let is_option = invalid.starts_with('-');
    let letter = invalid.strip_prefix('-').and_then(|letters| letters.chars().next());
    let owners = if invalid.starts_with("--") { owners(invalid) } else { Vec::new() };
    let elsewhere = OPTIONS.iter().find(|(name, letters, _)| {
        line.command.starts_with(name) && letter.is_some_and(|letter| letters.contains(&letter))
    });
    match (line.unquoted(), elsewhere, similar) {
        // An option of s4 may follow CMD, and be misspelled.
        (_, _, Some(similar)) if is_option && owners.is_empty() => {
            format!("there is no option {shown}: did you mean {similar}?")
        }
        (Some(quoted), ..) if owners.is_empty() => {
            format!("CMD is one argument, so quote it: {quoted}")
        }
        (_, Some((_, _, advice)), _) => format!("'s4 {}' has no {shown}: {advice}", line.command),
        _ if !owners.is_empty() && !line.command.is_empty() => {
            format!("'s4 {}' has no {shown}: it is an option of {}", line.command, owners.join(", "))
        }
        _ if is_option => line.with_help(&format!("there is no option {shown}")),
        _ => line.with_help(&format!("'{shown}' is one argument too many, maybe of a * that the shell has replaced")),
    }
}

/// The commands that have this option.
fn owners(option: &str) -> Vec<String> {
    let name = option.trim_start_matches('-').split('=').next().unwrap_or("");
    let mut cli = Cli::command();
    cli.build();
    let has = |command: &clap::Command| command.get_arguments().any(|arg| arg.get_long() == Some(name));
    cli.get_subcommands().filter(|command| has(command)).map(|command| format!("s4 {}", command.get_name())).collect()
}

fn missing_argument(missing: &[String], line: &Line) -> String {
    // An option that requires another one.
    if let Some(option) = missing.iter().find(|name| name.starts_with("--")) {
        return line.with_help(&format!("{option} is missing, without which other options mean nothing"));
    }
    let names: Vec<String> =
        missing.iter().map(|name| name.trim_matches(['<', '>', '.', '[', ']']).to_owned()).collect();
    let first = line.positionals().next().map(|(_, arg)| arg.as_str());
    let advice = match (line.command, names.iter().any(|name| name == "ID"), first) {
        (_, true, _) => "'last' is the newest job, 's4 jobs' lists them all".to_owned(),
        ("cp", _, Some(key)) if key.starts_with("s4://") => {
            return format!(
                "DST is missing: 's4 cp {0} .' copies it here, 's4 cp {0} -' prints it",
                key.escape_debug()
            );
        }
        ("cp", _, Some(path)) => {
            return format!("DST is missing: 's4 cp {} s4://bucket/' copies it into the cluster", path.escape_debug());
        }
        (name, ..) if name.starts_with("map") => {
            format!("s4 {name} INDIR OUTDIR CMD, as in s4 {name} s4://in/ s4://out/ 'sort'")
        }
        ("eval", ..) => "s4 eval KEY CMD, as in s4 eval s4://in/flights.csv 'wc -l'".to_owned(),
        ("partition", ..) => {
            return "-n N or --ranges FILE is missing, as in s4 partition -n 96 -d, -k3".to_owned();
        }
        _ => return line.with_help(&format!("{} is missing", names.join(", "))),
    };
    format!("{} is missing: {advice}", names.join(", "))
}

/// clap's message in one line, without the usage.
fn first_lines(error: &clap::Error) -> String {
    let text = error.to_string();
    let mut lines = text.lines().map(str::trim).take_while(|line| !line.is_empty());
    let first = lines.next().unwrap_or("").trim_start_matches("error: ").to_owned();
    lines.fold(first, |text, line| format!("{text} {line}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    fn told(args: &[&str]) -> String {
        let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
        let error = Cli::try_parse_from([&["s4".to_owned()], &args[..]].concat()).err().expect("a mistake");
        explain(&error, &args)
    }

    #[test]
    fn every_command_of_other_tools_has_one_advice() {
        let mut seen = std::collections::HashSet::new();
        for name in ELSEWHERE.iter().flat_map(|(names, ..)| *names) {
            assert!(seen.insert(name), "{name} is there twice");
        }
    }

    #[test]
    fn every_command_in_an_advice_exists() {
        let names: Vec<String> =
            Cli::command().get_subcommands().map(|command| command.get_name().to_owned()).collect();
        for (commands, _, advice) in ELSEWHERE {
            for name in commands {
                assert!(!names.iter().any(|known| known == name), "{name} is there");
            }
            for named in advice.split("'s4 ").skip(1) {
                let name = named.split([' ', '\'']).next().unwrap();
                assert!(names.iter().any(|known| known == name), "{advice}");
            }
        }
    }

    #[test]
    fn a_mistyped_command_suggests_the_one_with_the_fewest_errors() {
        for (typed, meant) in [
            ("lss", Some("ls")),
            ("l", Some("ls")),
            ("jop", Some("jobs")),
            ("jbos", Some("jobs")),
            ("mpa", Some("map")),
            ("map-ton", Some("map-to-n")),
            ("map-form-n", Some("map-from-n")),
            ("helth", Some("health")),
            ("partitoin", Some("partition")),
            ("nosuch", None),
            ("pto", None),
            ("xyz", None),
            ("", None),
        ] {
            assert_eq!(nearest(typed).as_deref(), meant, "{typed}");
        }
    }

    #[test]
    fn every_mistake_is_one_line_of_plain_text() {
        for args in [
            &["ca\u{1b}t"][..],
            &["map", "s4://in/", "s4://out/", "a\nb", "--\u{1b}[2J"],
            &["ls", "a", "b\n"],
            &["local", "--nodes", "x\ny"],
            &["completions", "tcsh"],
            &["jobs", "--quiet"],
            &["wait", "--json", "--quiet", "x"],
            &["--nosuch"],
        ] {
            let told = told(args);
            assert!(!told.contains(char::is_control) && told.len() < 300 && !told.is_empty(), "{args:?}: {told}");
        }
    }
}
