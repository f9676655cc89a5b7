//! The PATH of commands: `s4` in them is the one that lies beside this daemon, so that both are of one version.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

/// The PATH that commands get in place of the daemon's own; `None` where that one will do.
pub fn own_path() -> Option<&'static OsStr> {
    static PATH: LazyLock<Option<OsString>> = LazyLock::new(|| {
        let program = std::env::current_exe().ok()?;
        with_programs(program.parent()?, &std::env::var_os("PATH")?)
    });
    PATH.as_deref()
}

/// `path` with `programs`, the daemon's directory, before all else. `None` if no `s4` lies in it, or if `path` leads to that one already: the
/// order in which other programs are found is then left as it is.
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
    fn the_s4_beside_the_daemon_is_found_first_and_nothing_else_changes_its_place() {
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
