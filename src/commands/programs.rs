//! Finds the other programs of s4.

use std::path::PathBuf;

/// The path of a program of s4: in the directory of this program, or else found in PATH.
pub fn program(name: &str) -> PathBuf {
    let beside = std::env::current_exe().ok().map(|path| path.with_file_name(name));
    beside.filter(|path| path.exists()).unwrap_or_else(|| name.into())
}
