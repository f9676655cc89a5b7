//! Every block of docs/recipes.md does what the page shows.

use crate::harness::{Cluster, text};
use crate::pages::{self, Block, run};
use std::path::Path;

/// The environment that a recipe makes outside of the test's directory.
struct Environment;

impl Environment {
    const PATH: &str = "/var/tmp/flights-1";
}

impl Drop for Environment {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(Self::PATH);
        let _ = std::fs::remove_file(format!("{}.lock", Self::PATH));
    }
}

/// What a block needs that a machine may not have: a command that succeeds where it is there.
fn need(block: &Block) -> Option<&str> {
    block.before.strip_prefix("<!-- needs: ")?.strip_suffix(" -->")
}

/// What is written for a reader's own cluster; the test has one already.
fn is_of_cluster(line: &str) -> bool {
    line.contains("s4 local")
}

#[test]
fn the_recipes_do_what_they_show() {
    let cluster = Cluster::start(3);
    let _environment = Environment;
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    std::os::unix::fs::symlink(data, cluster.dir().join("tests")).unwrap();
    let mut blocks = pages::blocks("recipes.md").into_iter().peekable();
    let (mut ran, mut wrong) = (0, Vec::new());
    while let Some(block) = blocks.next() {
        assert_eq!(block.language, "sh", "a block that is no output: {}", block.text);
        let shown = blocks.next_if(|next| next.language == "text").map_or(String::new(), |block| block.text + "\n");
        if let Some(need) = need(&block).filter(|need| !run(&cluster, need).status.success()) {
            eprintln!("skipped: '{need}' fails, which a recipe needs");
            continue;
        }
        let script: Vec<&str> = block.text.lines().filter(|line| !is_of_cluster(line)).collect();
        let output = run(&cluster, &script.join("\n"));
        let said = text(&output.stderr);
        assert!(output.status.success(), "{}\n{}: {said}", block.text, output.status);
        assert!(!said.contains("warning"), "{}\n{said}", block.text);
        let printed = text(&output.stdout);
        wrong.extend((printed != shown).then(|| format!("{}\nshown: {shown}\nprinted: {printed}", block.text)));
        ran += 1;
    }
    assert!(wrong.is_empty(), "{} of {ran} blocks:\n{}", wrong.len(), wrong.join("\n"));
    assert!(ran >= 12, "only {ran} blocks in the page");
}
