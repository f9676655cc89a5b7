//! The PATH of commands. The `s4` that lies beside this daemon comes first, so that both have the same version.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

/// The PATH for commands; `None` if the daemon's own PATH can be used.
pub fn own_path() -> Option<&'static OsStr> {
    static PATH: LazyLock<Option<OsString>> = LazyLock::new(|| {
        let program = std::env::current_exe().ok()?;
        with_programs(program.parent()?, &std::env::var_os("PATH")?)
    });
    PATH.as_deref()
}

/// Puts `programs`, the daemon's directory, in front of `path`. `None` if it contains no `s4`, or if `path` finds that
/// `s4` already: then the order in which other programs are found must not change.
fn with_programs(programs: &Path, path: &OsStr) -> Option<OsString> {
    let has_s4 = |dir: &PathBuf| dir.join("s4").is_file();
    let dirs: Vec<PathBuf> = std::env::split_paths(path).collect();
    if !has_s4(&programs.to_owned()) || dirs.iter().find(|dir| has_s4(dir)).is_some_and(|dir| dir == programs) {
        return None;
    }
    std::env::join_paths([programs.to_owned()].into_iter().chain(dirs)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_s4_beside_the_daemon_is_found_first_and_the_order_of_the_rest_is_kept() {
        let [ours, others, bare] = ["ours", "others", "bare"].map(|_| tempfile::tempdir().expect("a directory"));
        for dir in [&ours, &others] {
            std::fs::write(dir.path().join("s4"), "").expect("written");
        }
        let join = |dirs: &[&Path]| std::env::join_paths(dirs).expect("a path");
        let [ours, others, bare] = [ours.path(), others.path(), bare.path()];
        assert_eq!(with_programs(ours, &join(&[bare])), Some(join(&[ours, bare])));
        assert_eq!(with_programs(ours, &join(&[others, ours])), Some(join(&[ours, others, ours])));
        assert_eq!(with_programs(ours, &join(&[bare, ours, others])), None);
        assert_eq!(with_programs(bare, &join(&[others])), None);
    }
}
