//! Every console session of README.md prints what the page shows.

use crate::harness::text;
use crate::pages::{self, Block};
use crate::programs::directory;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A command of a page, and what the page shows that it prints.
struct Step {
    command: String,
    shown: String,
}

/// The commands after `$ ` in a block, each with its output.
fn steps(block: &Block) -> Vec<Step> {
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

/// Replaces what differs from run to run: times, ports, ids, free space.
fn masked(printed: &str) -> String {
    let mut words = Vec::new();
    for line in printed.lines() {
        let line: Vec<String> = line.split(' ').map(mask).collect();
        words.push(line.join(" "));
    }
    words.join("\n")
}

fn mask(word: &str) -> String {
    let shape: String = word.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    let fixed = shape.trim_matches(|c: char| "(),:;'".contains(c));
    if fixed.trim_start_matches("http://").starts_with("000.0.0.0:") {
        return "ADDRESS".to_owned();
    }
    match fixed {
        "0000-00-00" => "DATE".to_owned(),
        "00:00:00" => "TIME".to_owned(),
        "0.00" | "0.0" | "00.0" | "00.00" | "0" => "NUMBER".to_owned(),
        _ if fixed.ends_with('G') && fixed.trim_end_matches('G').chars().all(|c| "0.".contains(c)) => "SIZE".to_owned(),
        _ if fixed.starts_with("00000000-000000-") => "ID".to_owned(),
        _ => word.to_owned(),
    }
}

/// A directory in which a page is followed. A drop ends the cluster that the page has started in it.
struct Desk(tempfile::TempDir);

impl Desk {
    fn open() -> Self {
        let dir = tempfile::Builder::new().prefix("s4-test-").tempdir().unwrap();
        let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
        std::os::unix::fs::symlink(tests, dir.path().join("tests")).unwrap();
        std::fs::create_dir(dir.path().join("mnt")).unwrap();
        Self(dir)
    }

    fn bash(&self, script: &str) -> Vec<u8> {
        let path = format!("{}:{}", directory().display(), std::env::var("PATH").unwrap_or_default());
        let mut command = Command::new("bash");
        command.args(["-c", script]).current_dir(self.0.path()).stdin(Stdio::null()).env("PATH", path);
        command.env_remove("S4_CONF_PATH").env("HOME", self.0.path()).output().expect("bash runs").stdout
    }

    /// Runs the commands in one shell. Returns what each has printed.
    fn follow(&self, steps: &[Step]) -> Vec<String> {
        let script: Vec<String> =
            steps.iter().map(|step| format!("{{ {}\n}} 2>&1; printf '\\1'", step.command)).collect();
        let script = format!("export LC_ALL=C\n{}", script.join("\n"));
        text(&self.bash(&script)).split('\u{1}').map(str::to_owned).collect()
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        self.bash("umount -l mnt 2>/dev/null; s4 local --stop");
    }
}

#[test]
fn the_readme_prints_what_it_shows() {
    let page: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let blocks: Vec<Block> = pages::blocks_of(&page).into_iter().filter(|block| block.language == "console").collect();
    let steps: Vec<Step> = blocks.iter().flat_map(steps).collect();
    assert!(steps.len() > 20, "only {} commands", steps.len());
    let printed = Desk::open().follow(&steps);
    let wrong: Vec<String> = steps
        .iter()
        .zip(&printed)
        .filter(|(step, printed)| masked(printed) != masked(&step.shown))
        .map(|(step, printed)| format!("$ {}\nshown:\n{}printed:\n{printed}", step.command, step.shown))
        .collect();
    assert!(wrong.is_empty(), "{} of {} commands:\n{}", wrong.len(), steps.len(), wrong.join("\n"));
}
