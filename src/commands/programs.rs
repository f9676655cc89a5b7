//! Where the other programs are.

use std::path::PathBuf;

/// A program of ours: the one beside this one, or else the one on the path.
pub fn program(name: &str) -> PathBuf {
    let beside = std::env::current_exe().ok().map(|path| path.with_file_name(name));
    beside.filter(|path| path.exists()).unwrap_or_else(|| name.into())
}
