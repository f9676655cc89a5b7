//! Builds the programs under test: cargo builds, for a test, only the programs of the same package, but the daemon and
//! the mount are separate packages.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

/// Environment variables that change a build, with their values when this test was built: a test that is started by
/// hand must use the same programs, not build others.
const SETTINGS: [(&str, Option<&str>); 3] = [
    ("CARGO_PROFILE_DEV_DEBUG", option_env!("CARGO_PROFILE_DEV_DEBUG")),
    ("CARGO_PROFILE_DEV_OPT_LEVEL", option_env!("CARGO_PROFILE_DEV_OPT_LEVEL")),
    ("RUSTFLAGS", option_env!("RUSTFLAGS")),
];

/// Set by a test that runs other tests as a user who cannot build: the programs are built already.
pub const BUILT: &str = "S4_TEST_PROGRAMS_BUILT";

static DIRECTORY: LazyLock<PathBuf> = LazyLock::new(build);
static PATHS: LazyLock<[PathBuf; 4]> =
    LazyLock::new(|| ["s4", "s4-server", "s4-mount", "s4-s3"].map(|name| DIRECTORY.join(name)));

/// The directory of the programs.
pub fn directory() -> &'static Path {
    &DIRECTORY
}

/// The path of a program.
pub fn program(name: &str) -> &'static str {
    let path = PATHS.iter().find(|path| path.ends_with(name)).expect("one of the four");
    path.to_str().expect("the target directory is UTF-8")
}

/// Builds the programs with the profile of this test and in its target directory. The path of this test is
/// TARGET/PROFILE/deps/e2e-HASH.
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
    // There are no examples. The option makes cargo use the features of the dev-dependencies, with which the library is
    // already built.
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
