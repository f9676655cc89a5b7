//! Reads the code blocks of pages, and runs them.

use crate::harness::Cluster;
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
    blocks_of(&Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(page))
}

/// The blocks of the page at `path`.
pub fn blocks_of(path: &Path) -> Vec<Block> {
    let page = std::fs::read_to_string(path).unwrap();
    let (mut blocks, mut before) = (Vec::new(), "");
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        if let Some(language) = line.strip_prefix("```") {
            let text: Vec<&str> = lines.by_ref().take_while(|line| !line.starts_with("```")).collect();
            blocks.push(Block { language: language.to_owned(), text: text.join("\n"), before: before.to_owned() });
            before = "```";
        } else if !line.is_empty() {
            before = line;
        }
    }
    blocks
}

/// Runs a script in the directory of the cluster, as a user would.
pub fn run(cluster: &Cluster, script: &str) -> Output {
    let path = format!("{}:{}", directory().display(), std::env::var("PATH").unwrap_or_default());
    let mut command = Command::new("bash");
    command.args(["-euc", script]).env("PATH", path).env("S4_CONF_PATH", cluster.conf());
    command.current_dir(cluster.dir()).stdin(Stdio::null()).output().expect("bash runs")
}
