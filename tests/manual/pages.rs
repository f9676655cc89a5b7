//! The files in man/.

use std::path::{Path, PathBuf};

/// If it is set, pages are written, and not compared.
const WRITE: &str = "S4_WRITE_MAN";
/// What writes them.
const COMMAND: &str = "S4_WRITE_MAN=1 cargo test --workspace --bins man_pages";

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../man")
}

/// Fails if the page of this name is not this text.
pub fn check(name: &str, text: &str) {
    let path = directory().join(name);
    if std::env::var_os(WRITE).is_some() {
        return std::fs::write(&path, text).unwrap_or_else(|e| panic!("man/{name}: {e}"));
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    let differs = written.lines().zip(text.lines()).position(|(written, defined)| written != defined);
    let line = differs.unwrap_or(written.lines().count().min(text.lines().count())) + 1;
    assert!(
        written == text,
        "man/{name} is not what the definition says, from line {line} on; this writes it: {COMMAND}"
    );
}

/// Fails if there are other pages than these.
pub fn check_no_others(names: &[String]) {
    let entries = std::fs::read_dir(directory()).expect("man/ is there");
    for entry in entries.map(|entry| entry.expect("man/ can be listed")) {
        let name = entry.file_name().to_string_lossy().into_owned();
        assert!(names.contains(&name), "man/{name} is no page of a command: remove it");
    }
}
