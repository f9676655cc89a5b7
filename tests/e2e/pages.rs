//! Reads the code blocks of pages, runs them, and compares what they print.
//!
//! The language of a block says what it is: `console` is a session, with commands after `$ ` and their output; `sh` is a
//! script; `text` is neither.

use crate::harness::{Cluster, text};
use crate::programs::directory;
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// A fenced block of code.
pub struct Block {
    /// The language after the fence.
    pub language: String,
    pub text: String,
    /// The last line before the block that is not empty.
    pub before: String,
}

/// The blocks of a page below docs/.
pub fn blocks(page: &str) -> Vec<Block> {
    blocks_of(&format!("docs/{page}"))
}

/// The blocks of the page at `path`, below the root of the repository. Of a man page, the examples, as scripts.
pub fn blocks_of(path: &str) -> Vec<Block> {
    let page = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap();
    if path.starts_with("man/") { examples(&page) } else { fenced(&page) }
}

fn fenced(page: &str) -> Vec<Block> {
    let (mut blocks, mut before) = (Vec::new(), "");
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        let indent = line.len() - line.trim_start().len();
        if let Some(language) = line.trim_start().strip_prefix("```") {
            let inside = lines.by_ref().take_while(|line| !line.trim_start().starts_with("```"));
            let text: Vec<&str> = inside.map(|line| line.get(indent..).unwrap_or("")).collect();
            blocks.push(Block { language: language.to_owned(), text: text.join("\n"), before: before.to_owned() });
            before = "```";
        } else if !line.is_empty() {
            before = line;
        }
    }
    blocks
}

fn examples(page: &str) -> Vec<Block> {
    let mut lines = page.lines();
    let mut blocks = Vec::new();
    while lines.any(|line| line == ".EX") {
        let inside: Vec<&str> = lines.by_ref().take_while(|line| *line != ".EE").collect();
        let characters = [
            ("\\-", "-"),
            ("\\(aq", "'"),
            ("\\(dq", "\""),
            ("\\(ti", "~"),
            ("\\(ha", "^"),
            ("\\(ga", "`"),
            ("\\e", "\\"),
        ];
        let text = characters.iter().fold(inside.join("\n"), |text, (from, to)| text.replace(from, to));
        blocks.push(Block { language: "sh".to_owned(), text, before: String::new() });
    }
    blocks
}

/// A command of a page, and what the page shows that it prints.
pub struct Step {
    pub command: String,
    pub shown: String,
}

/// The commands after `$ ` in a block, each with its output.
pub fn steps(block: &Block) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    for line in block.text.lines() {
        match (line.strip_prefix("$ "), steps.last_mut()) {
            (Some(command), _) => steps.push(Step { command: command.to_owned(), shown: String::new() }),
            (None, Some(step)) => step.shown += &format!("{line}\n"),
            (None, None) => panic!("output without a command: {line}"),
        }
    }
    steps
}

/// Where they differ: what the step shows, and what it has printed.
pub fn difference(step: &Step, printed: &str) -> Option<String> {
    let same = is_like(&masked(&step.shown), &masked(printed));
    (!same).then(|| format!("$ {}\nshown:\n{}printed:\n{printed}", step.command, step.shown))
}

/// Whether a text is as it is shown, where a line `…` stands for any lines.
fn is_like(shown: &str, printed: &str) -> bool {
    let (shown, printed): (Vec<&str>, Vec<&str>) = (shown.lines().collect(), printed.lines().collect());
    let Some(gap) = shown.iter().position(|line| *line == "…") else { return shown == printed };
    let (head, tail) = (&shown[..gap], &shown[gap + 1..]);
    printed.len() >= head.len() + tail.len() && printed.starts_with(head) && printed.ends_with(tail)
}

/// Replaces what differs from run to run: times, addresses, ids, free space.
fn masked(printed: &str) -> String {
    let mut lines = Vec::new();
    for line in printed.lines() {
        let mut words: Vec<String> = line.split(' ').map(mask).collect();
        let of_uptime = words.iter().position(|word| word == "up").map(|at| at + 1);
        if let Some(uptime) = of_uptime.and_then(|at| words.get_mut(at)) {
            *uptime = "NUMBER".to_owned();
        }
        lines.push(words.join(" "));
    }
    lines.join("\n")
}

fn mask(word: &str) -> String {
    let shape: String = word.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    let trimmed = |word: &str| word.trim_matches(|c: char| "(),:;'".contains(c)).to_owned();
    let address = trimmed(word);
    let address = address.trim_start_matches("http://").split('/').next().unwrap_or_default();
    if address.parse::<std::net::SocketAddrV4>().is_ok() {
        return "ADDRESS".to_owned();
    }
    match trimmed(&shape).as_str() {
        "0000-00-00" => "DATE".to_owned(),
        "00:00:00" => "TIME".to_owned(),
        "0.00" | "0.0" | "00.0" | "00.00" | "0" => "NUMBER".to_owned(),
        size if size.ends_with('G') && size.trim_end_matches('G').chars().all(|c| "0.".contains(c)) => {
            "SIZE".to_owned()
        }
        id if id.starts_with("00000000-000000-") => "ID".to_owned(),
        _ if word.starts_with("S4_CONF_PATH=/") => "S4_CONF_PATH=PATH".to_owned(),
        _ => word.to_owned(),
    }
}

/// A script that runs scripts in one shell. What it prints, [`printed`] takes apart.
pub fn script<'a>(parts: impl Iterator<Item = &'a str>) -> String {
    parts.map(|part| format!("{{ {part}\n}} 2>&1; printf '\\1'\n")).collect()
}

/// What each part of such a script has printed. Of a script that has ended early, the last one is of the part that ended it.
pub fn printed(output: &[u8]) -> Vec<String> {
    let mut printed: Vec<String> = text(output).split('\u{1}').map(str::to_owned).collect();
    printed.pop_if(|last| last.is_empty());
    printed
}

/// Runs a script in the directory of the cluster, as a user would.
pub fn run(cluster: &Cluster, script: &str) -> Output {
    let path = format!("{}:{}", directory().display(), std::env::var("PATH").unwrap_or_default());
    let mut command = Command::new("bash");
    command.args(["-euc", script]).env("PATH", path).env("S4_CONF_PATH", cluster.conf());
    command.current_dir(cluster.dir()).stdin(Stdio::null()).output().expect("bash runs")
}
