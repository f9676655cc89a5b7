//! The shared secret: who does not know it is kept out.

use crate::harness::{Cluster, text};
use crate::programs::program;
use std::path::Path;
use std::process::Command;

fn write_secret(dir: &Path, name: &str, content: &str) -> String {
    let path = dir.join(name);
    std::fs::write(&path, content).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn a_secret_keeps_out_who_does_not_know_it() {
    let home = tempfile::Builder::new().prefix("s4-test-").tempdir().unwrap();
    let right = write_secret(home.path(), "right", "correct horse battery staple\nnot this line\n");
    let wrong = write_secret(home.path(), "wrong", "correct horse battery stapl\n");
    let longer = write_secret(home.path(), "longer", "correct horse battery staple.\n");
    let cluster = Cluster::with_options(3, &["--reserve", "0", "--secret", &right]);
    let with = |secret: &str, args: &[&str]| cluster.command(args).env("S4_SECRET_PATH", secret).output().unwrap();
    let ok = |args: &[&str]| {
        let output = with(&right, args);
        assert!(output.status.success(), "{args:?}: {}", text(&output.stderr));
        text(&output.stdout)
    };
    ok(&["cp", "s4.conf", "s4://in/0_x"]);
    for args in [
        &["ls"][..],
        &["cp", "s4://in/0_x", "-"],
        &["cp", "s4.conf", "s4://in/1_x"],
        &["rm", "s4://in/0_x"],
        &["rm", "-r", "s4://in/"],
        &["eval", "s4://in/0_x", "cat"],
        &["map", "s4://in/", "s4://out/", "cat"],
    ] {
        for output in [cluster.run(args), with(&wrong, args), with(&longer, args)] {
            let stderr = text(&output.stderr);
            assert_eq!(output.status.code(), Some(1), "{args:?}: {stderr}");
            assert!(output.stdout.is_empty(), "{args:?}");
            assert!(stderr.contains("the shared secret is missing or wrong"), "{args:?}: {stderr}");
            assert!(stderr.contains("S4_SECRET_PATH") && stderr.lines().count() == 1, "{args:?}: {stderr}");
        }
    }
    let health = cluster.run(&["health"]);
    assert_eq!((health.status.code(), text(&health.stdout).matches("shared secret").count()), (Some(1), 3));
    // Nodes know it among themselves too.
    ok(&["map-to-n", "s4://in/", "s4://out/", "cat > 1_y; cp 1_y 2_y; ls"]);
    assert_eq!(ok(&["ls", "-r", "s4://"]).lines().count(), 3);
    assert_eq!(ok(&["--secret", &right, "cp", "s4://out/0_x/1_y", "-"]), ok(&["cp", "s4://in/0_x", "-"]));
}

#[test]
fn a_secret_that_is_too_short_or_missing_is_refused_at_start() {
    let home = tempfile::Builder::new().prefix("s4-test-").tempdir().unwrap();
    let conf = home.path().join("s4.conf");
    std::fs::write(&conf, "127.0.0.1:1\n").unwrap();
    write_secret(home.path(), "short", "fifteen letters\n");
    write_secret(home.path(), "empty", "\nthe second line does not count\n");
    write_secret(home.path(), "binary", "has a \u{7f} control character\n");
    for name in ["short", "empty", "binary", "missing"] {
        let mut command = Command::new(program("s4-server"));
        command.current_dir(home.path()).args(["--conf", "s4.conf", "--data", "data", "--secret", name]);
        let output = command.output().unwrap();
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{name}: {stderr}");
        assert!(stderr.starts_with(&format!("s4-server: {name}: ")) && stderr.lines().count() == 1, "{stderr}");
    }
}
