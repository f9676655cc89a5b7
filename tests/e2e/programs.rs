//! The programs under test, built as they are now: cargo gives a test the path of its own package's programs only, and the daemon
//! and the mount are packages of their own.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

/// What changes how a build is done, as it was when this test was built: a run by hand has to find the same programs, and not
/// make others.
const SETTINGS: [(&str, Option<&str>); 3] = [
    ("CARGO_PROFILE_DEV_DEBUG", option_env!("CARGO_PROFILE_DEV_DEBUG")),
    ("CARGO_PROFILE_DEV_OPT_LEVEL", option_env!("CARGO_PROFILE_DEV_OPT_LEVEL")),
    ("RUSTFLAGS", option_env!("RUSTFLAGS")),
];

/// Set where a test runs others as a user who cannot build.
pub const BUILT: &str = "S4_TEST_PROGRAMS_BUILT";

static DIRECTORY: LazyLock<PathBuf> = LazyLock::new(build);
static PATHS: LazyLock<[PathBuf; 3]> =
    LazyLock::new(|| ["s4", "s4-server", "s4-mount"].map(|name| DIRECTORY.join(name)));

/// Where the programs are.
pub fn directory() -> &'static Path {
    &DIRECTORY
}

/// The path of one of them.
pub fn program(name: &str) -> &'static str {
    let path = PATHS.iter().find(|path| path.ends_with(name)).expect("one of the three");
    path.to_str().expect("the target directory is UTF-8")
}

/// Builds them with the profile and in the target directory of this test: TARGET/PROFILE/deps/e2e-HASH.
fn build() -> PathBuf {
    let test = std::env::current_exe().expect("the path of this test");
    let directory = test.parent().and_then(Path::parent).expect("in TARGET/PROFILE/deps");
    if std::env::var_os(BUILT).is_some() {
        return directory.to_owned();
    }
    let profile = match directory.file_name().and_then(|name| name.to_str()).expect("a profile") {
        "debug" => "dev",
        other => other,
    };
    let mut cargo = Command::new(env!("CARGO"));
    // There are no examples. For their sake cargo takes the features of the tests' dependencies, with which the library is built.
    cargo.args(["build", "--quiet", "--locked", "--workspace", "--bins", "--examples", "--profile", profile]);
    cargo.arg("--target-dir").arg(directory.parent().expect("in the target directory"));
    cargo.current_dir(env!("CARGO_MANIFEST_DIR"));
    for (name, value) in SETTINGS {
        match value {
            Some(value) => cargo.env(name, value),
            None => cargo.env_remove(name),
        };
    }
    let status = cargo.status().expect("cargo runs");
    assert!(status.success(), "the programs cannot be built: {status}");
    directory.to_owned()
}
