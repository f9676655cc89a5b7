//! How a mount comes, goes, is replaced and refused.

use crate::harness::{eventually, text};
use crate::mount_faults::two_nodes;
use crate::mounting::Mount;
use crate::mounts::Mounted;
use crate::programs::program;
use crate::scripting::{finish_python, setup};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Child, Command, Output};

#[test]
fn a_mount_killed_during_writes_publishes_nothing_and_is_replaced() {
    let Some(mut setup) = setup() else { return };
    setup.bash("echo before > b/0_before; echo before > b/1_before");
    let script = r#"
files = [os.open(f'b/{n}_k', NEW) for n in range(8)]
[os.write(out, b'x' * 100000) for out in files]
tell('written')
await_word()
tell({errno_of(os.close, out) for out in files} <= {'ENOTCONN', 'ECONNABORTED', 'EIO'})
"#;
    let mut writer = setup.spawn_python(script, &[]);
    eventually("the last file is written", || {
        let size = std::fs::metadata(setup.mount.path("b/7_k")).map_or(0, |found| found.len());
        (size == 100_000).then_some(())
    });
    setup.mount.kill();
    let again = Mount::new(&setup.cluster, "mnt", &[]);
    drop(writer.stdin.take());
    assert_eq!(finish_python(writer), "written\nTrue\n", "a close did not tell of the loss");
    assert_eq!(
        again.ok("ls b; cat b/0_before b/1_before; echo new > b/0_k; cat b/0_k"),
        "0_before\n1_before\nbefore\nbefore\nnew\n"
    );
    assert_eq!(setup.cluster.ok(&["ls", "s4://b/"]).lines().count(), 3);
}

fn is_mounted(dir: &Path) -> bool {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    mounts.lines().any(|line| line.split(' ').nth(1) == dir.to_str())
}

#[test]
fn a_mount_ends_cleanly_by_signal_and_by_umount() {
    let Some(mut setup) = setup() else { return };
    setup.put("b/0_k", b"content");
    for how in ["TERM", "INT", "umount"] {
        setup.mount = Mount::new(&setup.cluster, how, &[]);
        let dir = setup.mount.dir().to_owned();
        assert!(is_mounted(&dir));
        assert_eq!(setup.bash("cat b/0_k"), "content");
        match how {
            "umount" => assert!(Command::new("umount").arg(&dir).status().unwrap().success()),
            signal => setup.mount.signal(signal),
        }
        let status = setup.mount.ended();
        assert!(status.success(), "{how}: {status}: {}", setup.mount.log_text());
        assert!(!is_mounted(&dir), "{how}");
        assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 0);
    }
}

/// Taken away and mounted again at once: the first mount still ends while the second is there.
#[test]
fn a_mount_that_ends_leaves_its_successor_alone() {
    let Some(mut setup) = setup() else { return };
    setup.put("b/0_k", b"content");
    let dir = setup.mount.dir().to_owned();
    let mut firsts = Vec::new();
    for told_to_end in [false, true] {
        // It has no time to notice before the second is there.
        setup.mount.signal("STOP");
        nix::mount::umount2(&dir, nix::mount::MntFlags::MNT_DETACH).unwrap();
        let successor = Mount::new(&setup.cluster, "mnt", &[]);
        let mut first = std::mem::replace(&mut setup.mount, successor);
        if told_to_end {
            first.signal("TERM");
        }
        first.signal("CONT");
        assert!(first.ended().success());
        assert!(is_mounted(&dir));
        assert_eq!(setup.bash("cat b/0_k"), "content");
        // Dropped, it would be unmounted.
        firsts.push(first);
    }
}

/// As an administrator may do it to a mount that hangs.
#[test]
fn a_mount_that_is_broken_off_says_so_and_goes_away() {
    let Some(mut setup) = setup() else { return };
    let Some(control) = Mounted::fusectl() else { return };
    let dir = setup.mount.dir().to_owned();
    let number = nix::sys::stat::minor(std::fs::metadata(&dir).unwrap().dev());
    std::fs::write(control.path(&format!("{number}/abort")), "1").unwrap();
    let (status, log) = (setup.mount.ended(), setup.mount.log_text());
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains(&format!("s4-mount: {}: the mount was broken off", dir.display())), "{log}");
    assert!(!is_mounted(&dir));
}

/// The kernel remembers files for long after their last close. The mount must not keep each of them open.
#[test]
fn a_mount_makes_more_files_than_it_may_have_open() {
    let Some(setup) = setup() else { return };
    let limit = Command::new("prlimit").args(["--pid", &setup.mount.pid().to_string(), "--nofile=100:100"]).status();
    assert!(limit.expect("prlimit runs").success());
    let script = r#"
for n in range(300):
    # Small ones are sent; of the others those of this machine are linked.
    make(f'b/{n}_small', b'x' * n)
    make(f'b/{n}_large', b'x' * 300_000)
assert len(os.listdir('b')) == 600
assert read('b/299_small') == b'x' * 299
"#;
    setup.python(script, &[]);
}

/// What is written when the mount is told to end is published by its close, or its close tells.
#[test]
fn a_mount_told_to_end_while_it_is_written_to_loses_nothing_silently() {
    let Some(setup) = setup() else { return };
    let script = r#"
out = os.open(sys.argv[1], NEW)
os.write(out, b'content')
tell('written')
await_word()
tell(errno_of(os.close, out))
"#;
    let mut children: Vec<Child> = ["b/0_k", "b/1_k"].iter().map(|key| setup.spawn_python(script, &[key])).collect();
    let size = |key: &str| std::fs::metadata(setup.mount.path(key)).map_or(0, |found| found.len());
    eventually("both are written", || (size("b/0_k") == 7 && size("b/1_k") == 7).then_some(()));
    setup.mount.signal("TERM");
    eventually("the mount is away", || (!is_mounted(setup.mount.dir())).then_some(()));
    children.iter_mut().for_each(|child| drop(child.stdin.take()));
    for (child, key) in children.into_iter().zip(["b/0_k", "b/1_k"]) {
        let published = finish_python(child) == "written\nok\n";
        assert_eq!(setup.is_key(key), published, "{key}");
    }
}

fn mount_output(args: &[&Path]) -> Output {
    Command::new(program("s4-mount")).args(args).env_remove("S4_CONF_PATH").output().unwrap()
}

/// One line that says `what`, and no trace of ours.
fn assert_refused(output: &Output, what: &str) {
    crate::harness::assert_no_crash(output);
    let told = text(&output.stderr);
    assert!(!output.status.success() && told.contains(what) && told.lines().count() == 1, "{what}: {told}");
    assert!(!told.contains("os error"), "{told}");
}

#[test]
fn what_cannot_be_mounted_is_refused_in_one_line() {
    let Some(setup) = setup() else { return };
    let (conf, dir, top) = (setup.cluster.conf(), setup.mount.dir(), setup.cluster.dir());
    let mount = |dir: &Path, conf: &Path| mount_output(&[dir, Path::new("--conf-path"), conf]);
    assert_refused(&mount(&conf, &conf), "is no directory");
    assert_refused(&mount(dir, &conf), "mounted there already");
    assert_refused(&mount(&top.join("s4.conf/below"), &conf), "Not a directory");
    assert_refused(&mount(&top.join("new"), &top.join("none.conf")), "none.conf");
    std::fs::write(top.join("bad.conf"), "127.0.0.1:notaport\n").unwrap();
    assert_refused(&mount(&top.join("new"), &top.join("bad.conf")), "bad.conf");
    std::fs::write(top.join("empty.conf"), "# nobody\n").unwrap();
    assert_refused(&mount(&top.join("new"), &top.join("empty.conf")), "empty.conf");
    let with = |option: &str, value: &str| {
        let args = [&top.join("new"), Path::new("--conf-path"), &conf, Path::new(option), Path::new(value)];
        mount_output(&args)
    };
    assert_refused(&with("--deadline", "0"), "--deadline");
    assert_refused(&with("--spool", "/proc"), "--spool");
    assert_refused(&with("--secret", "/nonexistent"), "/nonexistent");
    assert_eq!(setup.bash("ls"), "b\n", "the mount that was there works on");
}

/// The daemons would ask the mount for their own files, which asks them.
#[test]
fn a_mount_over_a_data_directory_or_in_one_is_refused() {
    let Some(setup) = two_nodes() else { return };
    std::fs::create_dir(setup.cluster.data(0).join("b/inner")).unwrap();
    for dir in [setup.cluster.dir().to_owned(), setup.cluster.data(0), setup.cluster.data(0).join("b/inner")] {
        let output = std::process::Command::new(program("s4-mount"))
            .arg(&dir)
            .arg("--conf-path")
            .arg(setup.cluster.conf())
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(1), "{}", dir.display());
        let stderr = text(&output.stderr);
        assert!(stderr.contains("cannot be mounted over the data directory"), "{stderr}");
    }
}
