//! Links the unwinder into the programs where its static library is there: to load and bind the shared one takes a tenth of a
//! millisecond of each start, of a program that may run for two.

use std::path::PathBuf;
use std::process::Command;

/// All of it, since it is asked for only by what is linked after it.
const HOW: &str = "static:+whole-archive,-bundle";

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let of_target = |name: &str| std::env::var(format!("CARGO_CFG_TARGET_{name}")).unwrap_or_default();
    let is_cross = std::env::var("HOST") != std::env::var("TARGET");
    if of_target("OS") != "linux" || of_target("ENV") != "gnu" || is_cross {
        return;
    }
    // zig brings an unwinder of its own. It would also find the archive of this machine, which may need a newer C library
    // than the programs are built for.
    if std::env::var("RUSTC_LINKER").is_ok_and(|linker| linker.contains("zigcc")) {
        return;
    }
    let Some(archive) = found("libgcc_eh.a") else { return };
    println!("cargo::rerun-if-changed={}", archive.display());
    if let Some(dir) = archive.parent() {
        println!("cargo::rustc-link-search=native={}", dir.display());
        println!("cargo::rustc-link-lib={HOW}=gcc_eh");
    }
}

/// Where the linker finds `file`.
fn found(file: &str) -> Option<PathBuf> {
    let linker = std::env::var("RUSTC_LINKER").unwrap_or_else(|_| "cc".to_owned());
    let told = Command::new(linker).arg(format!("-print-file-name={file}")).output().ok()?;
    let path = PathBuf::from(String::from_utf8(told.stdout).ok()?.trim());
    // The bare name comes back where there is none.
    path.is_absolute().then_some(path)
}
