//! Every console session of README.md prints what the page shows.

use crate::pages::{self, Step};
use crate::programs::directory;
use std::path::Path;
use std::process::{Command, Stdio};

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
}

impl Drop for Desk {
    fn drop(&mut self) {
        self.bash("umount -l mnt 2>/dev/null; s4 local --stop");
    }
}

#[test]
fn the_readme_prints_what_it_shows() {
    let blocks = pages::blocks_of("README.md").into_iter().filter(|block| block.language == "console");
    let steps: Vec<Step> = blocks.flat_map(|block| pages::steps(&block)).collect();
    assert!(steps.len() > 20, "only {} commands", steps.len());
    let script = pages::script(steps.iter().map(|step| step.command.as_str()));
    let printed = pages::printed(&Desk::open().bash(&format!("export LC_ALL=C\n{script}")));
    assert_eq!(printed.len(), steps.len(), "{printed:?}");
    let wrong: Vec<String> =
        steps.iter().zip(&printed).filter_map(|(step, printed)| pages::difference(step, printed)).collect();
    assert!(wrong.is_empty(), "{} of {} commands:\n{}", wrong.len(), steps.len(), wrong.join("\n"));
}
