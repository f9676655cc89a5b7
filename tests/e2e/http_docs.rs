//! The examples of docs/http.md do what they show.

use crate::harness::{Cluster, text};
use crate::pages::{self, Step, run};
use std::process::{Command, Stdio};

/// Without what differs from run to run: dates, long numbers, curl's choice to ask before it sends.
fn normal(output: &str) -> Vec<String> {
    let kept = output.lines().map(str::trim_end);
    let kept = kept.filter(|line| !line.is_empty() && !line.starts_with("date: ") && *line != "HTTP/1.1 100 Continue");
    kept.map(|line| {
        let is_digit = |c: char| c.is_ascii_digit();
        let mut parts = Vec::new();
        let mut rest = line;
        while !rest.is_empty() {
            let digits = rest.find(|c| !is_digit(c)).unwrap_or(rest.len());
            parts.push(if digits >= 5 { "N" } else { &rest[..digits] });
            let end = rest[digits..].find(is_digit).map_or(rest.len(), |at| digits + at);
            parts.push(&rest[digits..end]);
            rest = &rest[end..];
        }
        let line = parts.concat();
        match line.split_once("\"uptime_seconds\":") {
            Some((head, _)) => head.to_owned(),
            None => line,
        }
    })
    .collect()
}

fn bash(cluster: &Cluster, setup: &str, command: &str) -> String {
    let output = run(cluster, &format!("{setup}\n{command}"));
    assert!(output.status.success(), "{command}: {}: {}", output.status, text(&output.stderr));
    assert!(output.stderr.is_empty(), "{command}: {}", text(&output.stderr));
    text(&output.stdout)
}

#[test]
fn the_examples_of_the_http_page_do_what_they_show() {
    for tool in ["curl", "python3", "xxd", "awk"] {
        if Command::new(tool).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_err() {
            eprintln!("skipped: {tool} is not installed");
            return;
        }
    }
    let blocks = pages::blocks("http.md");
    let setup = blocks.iter().find(|block| block.text.contains("NODE=")).expect("the page says how to begin");
    let setup: Vec<&str> = setup.text.lines().filter(|line| !line.contains("s4 local")).collect();
    let setup = setup.join("\n");
    // A reserve of as many digits as make it a long number, and a number of commands that does not depend on the machine.
    let cluster = Cluster::with_options(3, &["--reserve", "10000", "--jobs", "1"]);
    // As `s4 local` has it.
    std::fs::write(cluster.dir().join("s4.conf.secret"), "the secret of a local cluster\n").unwrap();
    let (mut ran, mut wrong) = (0, Vec::new());
    let sessions = blocks.iter().filter(|block| block.text.starts_with("$ "));
    for Step { command, shown } in sessions.flat_map(pages::steps) {
        if let Some(file) = command.strip_prefix("cat ") {
            std::fs::write(cluster.dir().join(file), &shown).unwrap();
            continue;
        }
        let (told, shown) = (normal(&bash(&cluster, &setup, &command)), normal(&shown));
        // How often progress is told is a matter of time.
        let same = if command.contains("/events") { told.last() == shown.last() } else { told == shown };
        wrong.extend((!same).then(|| format!("{command}\nshown: {shown:#?}\ntold: {told:#?}")));
        ran += 1;
    }
    assert!(wrong.is_empty(), "{} of {ran} examples:\n{}", wrong.len(), wrong.join("\n"));
    assert!(ran >= 10, "only {ran} examples in the page");
}
