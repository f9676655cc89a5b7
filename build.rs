//! Links the unwinder and the mathematics into the programs where their static libraries are there: to load and bind the two shared
//! ones takes a fifth of a millisecond of each start, of a program that may run for two.

use std::path::{Path, PathBuf};
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let of_target = |name: &str| std::env::var(format!("CARGO_CFG_TARGET_{name}")).unwrap_or_default();
    let is_cross = std::env::var("HOST") != std::env::var("TARGET");
    if of_target("OS") != "linux" || of_target("ENV") != "gnu" || is_cross {
        return;
    }
    // All of the unwinder, which is asked for only by what is linked after it.
    link("gcc_eh", "static:+whole-archive,-bundle");
}

fn link(name: &str, how: &str) {
    if let Some(dir) = found(&format!("lib{name}.a")) {
        println!("cargo::rustc-link-search=native={}", dir.display());
        println!("cargo::rustc-link-lib={how}={name}");
    }
}

/// The directory that the linker finds `file` in.
fn found(file: &str) -> Option<PathBuf> {
    let told = Command::new("cc").arg(format!("-print-file-name={file}")).output().ok()?;
    let path = String::from_utf8(told.stdout).ok()?;
    let path = Path::new(path.trim());
    // The bare name comes back where there is none.
    path.is_absolute().then(|| path.parent().map(Path::to_owned))?
}
