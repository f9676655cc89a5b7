//! pjdfstest, which asks a file system for all that POSIX says: what a mount refuses by its rules is in tests/pjdfstest.toml,
//! and nothing else fails.

use crate::harness::text;
use crate::scripting::setup_with;
use std::process::Command;

/// These pass or fail by how soon the file that they look at is published after its close, or, those of a directory's time, by where its home
/// is, and by whether the kernel still knows the time that it had a moment ago.
const UNSTEADY: [&str; 8] = [
    "rename::unchanged_ctime_failed::regular",
    "ftruncate::unchanged_ctime_failed",
    "open::changed_time_fields_success",
    "mkdir::changed_time_fields_success",
    "mkfifo::changed_time_fields_success",
    "mknod::changed_time_fields_success",
    "rmdir::changed_time_parent_success",
    "unlink::update_mtime_ctime_success_folder",
];

#[test]
fn pjdfstest_finds_nothing_but_what_the_rules_of_a_mount_say() {
    let program = std::env::var_os("PJDFSTEST").unwrap_or_else(|| "pjdfstest".into());
    if Command::new(&program).arg("--version").output().is_err() {
        return eprintln!("skipped: no pjdfstest; scripts/pjdfstest.sh installs it below target and runs this");
    }
    if !nix::unistd::geteuid().is_root() {
        return eprintln!("skipped: not root, as whom pjdfstest becomes other users");
    }
    let Some(setup) = setup_with(2, &[1], &["-o", "allow_other,dev,suid", "--deadline", "60"]) else { return };
    std::fs::set_permissions(setup.cluster.dir(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let list = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/pjdfstest.toml");
    let list = std::fs::read_to_string(list).unwrap();
    let nobody = nix::unistd::Group::from_gid(65_534.into()).unwrap().expect("nobody's group");
    let config = setup.cluster.dir().join("pjdfstest.toml");
    std::fs::write(&config, list.replace("nogroup", &nobody.name)).unwrap();
    let second = setup.cluster.dir().join("second");
    std::fs::create_dir(&second).unwrap();
    let output = Command::new(&program)
        .arg("-c")
        .arg(&config)
        .arg("-p")
        .arg(setup.mount.path("b"))
        .arg("-s")
        .arg(&second)
        .output()
        .unwrap();
    let told = text(&output.stdout);
    let is_news = |line: &&str| {
        let is_steady = !UNSTEADY.iter().any(|name| line.starts_with(name));
        is_steady && (line.ends_with("FAILED") || line.ends_with("PASSED UNEXPECTEDLY"))
    };
    let news: Vec<&str> = told.lines().filter(is_news).collect();
    let summary = told.lines().find(|line| line.starts_with("Summary")).expect("pjdfstest came to its end");
    println!("{summary}");
    assert!(news.is_empty(), "{news:#?}\n{}", text(&output.stderr));
}
