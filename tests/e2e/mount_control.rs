//! Control files: the nodes as text, and jobs started by writing and followed by reading.

use crate::harness::eventually;
use crate::scripting::{Setup, setup};

/// Runs a script that is to fail, and returns its stderr.
fn refused(setup: &Setup, script: &str) -> String {
    let output = setup.bash_output(script);
    assert!(!output.status.success(), "{script} succeeded");
    crate::harness::text(&output.stderr)
}

#[test]
fn no_listing_shows_the_control_files() {
    let Some(setup) = setup() else { return };
    assert_eq!(setup.bash("ls -a"), ".\n..\nb\n");
    assert_eq!(setup.bash("find . | sort"), ".\n./b\n");
    assert_eq!(setup.bash("ls .s4 | sort | tr '\\n' ' '"), "jobs map map-from-n map-to-n nodes ");
}

#[test]
fn nodes_has_a_line_for_each_node() {
    let Some(mut setup) = setup() else { return };
    setup.put("b/0_k", b"content");
    let lines = setup.bash("cat .s4/nodes");
    let fields: Vec<Vec<&str>> = lines.lines().map(|line| line.split(' ').collect()).collect();
    assert_eq!(fields.len(), 2);
    let address = |node: usize| format!("127.0.0.1:{}", setup.cluster.port(node));
    assert_eq!(fields[0][..5], ["0", &address(0), "up", "1", "7"]);
    assert_eq!(fields[1][..5], ["1", &address(1), "up", "0", "0"]);
    assert!(fields[0][5].parse::<u64>().unwrap() > 0);
    assert_eq!(fields[0][6], "0");
    setup.cluster.kill_node(1);
    let lines = setup.bash("cat .s4/nodes");
    assert!(lines.lines().nth(1).unwrap().starts_with(&format!("1 127.0.0.1:{} down", setup.cluster.port(1))));
}

#[test]
fn a_job_is_started_by_writing_and_followed_by_reading() {
    let Some(setup) = setup() else { return };
    setup.bash("mkdir in; for n in 0 1 2 3; do printf 'b\\na\\n' > in/${n}_k; done");
    let script = "echo 's4://in/ s4://out/ sort' > .s4/map/step1 && cat .s4/map/step1 && cat out/3_k";
    let shown = setup.bash(script);
    assert!(shown.ends_with("a\nb\n") && shown.contains("done: 4 of 4 tasks done"), "{shown}");
    assert_eq!(setup.bash("ls .s4/map"), "step1\n");
    assert!(setup.bash("cat .s4/jobs/*/status").starts_with("done: 4 of 4"));
    assert_eq!(setup.bash("cat .s4/jobs/*/failed .s4/jobs/*/stderr"), "");
}

#[test]
fn every_kind_of_map_has_its_directory() {
    let Some(setup) = setup() else { return };
    setup.bash(
        "set -e; mkdir in; printf 'x\\n' > in/0_k; printf 'y\\n' > in/1_k
         echo 's4://in/ s4://split/ cat > 0_p; echo part > 1_p; echo 0_p; echo 1_p' > .s4/map-to-n/split
         cat .s4/map-to-n/split > /dev/null
         test $(cat split/1_k/0_p) = y
         echo 's4://split/*/ s4://merged/ xargs -d \"\\n\" cat' > .s4/map-from-n/merge
         cat .s4/map-from-n/merge > /dev/null",
    );
    assert_eq!(setup.bash("cat merged/1_p 2> /dev/null || cat merged/1"), "part\npart\n");
}

#[test]
fn a_command_may_span_lines_and_holds_any_bytes() {
    let Some(setup) = setup() else { return };
    setup.bash(
        r#"set -e; mkdir in; echo x > in/0_k
        cat > .s4/map/lines <<'END'
s4://in/ s4://out/ printf '%s|%s\n' "ünï  two" '50%'
while read -r word
do echo "$word"
done
END
        cat .s4/map/lines > /dev/null"#,
    );
    assert_eq!(setup.bash("cat out/0_k"), "ünï  two|50%\nx\n");
}

#[test]
fn a_failed_job_ends_the_read_with_an_error() {
    let Some(setup) = setup() else { return };
    setup.bash("mkdir in; echo x > in/0_k; echo x > in/1_k");
    setup.bash("echo 's4://in/ s4://out/ echo oops >&2; exit 3' > .s4/map/bad");
    let told = refused(&setup, "cat .s4/map/bad && echo went on >&2");
    assert!(told.contains("Input/output error") && !told.contains("went on"), "{told}");
    let shown = setup.bash("cat .s4/map/bad 2> /dev/null || true");
    assert!(shown.contains("failed") && shown.contains("_k node"), "{shown}");
    assert!(setup.bash("cat .s4/jobs/*/status").starts_with("failed: 0 of 2"));
    assert!(setup.bash("cat .s4/jobs/*/failed").contains("exit status 3"), "{}", setup.bash("cat .s4/jobs/*/failed"));
    assert!(setup.bash("cat .s4/jobs/*/stderr").contains("oops"));
}

#[test]
fn a_malformed_text_is_refused_and_starts_nothing() {
    let Some(setup) = setup() else { return };
    for text in
        ["one", "s4://in/ s4://out/", "in/ out/ cat", "s4://in/ /elsewhere/ cat", "s4://in/ s4://_bad/ cat", " "]
    {
        let told = refused(&setup, &format!("echo '{text}' > ../text; cat ../text > .s4/map/bad"));
        assert!(told.contains("Invalid argument"), "{text}: {told}");
    }
    assert_eq!(setup.bash("ls .s4/jobs .s4/map"), ".s4/jobs:\n\n.s4/map:\nbad\n");
    assert!(setup.bash("cat .s4/map/bad 2> /dev/null || true").contains("failed"), "the file says why");
    assert!(refused(&setup, "cat .s4/map/never").contains("No such file"));
}

/// A shell's own `echo` closes by `dup2`, which tells of no error: what `&&` hears comes from the read.
#[test]
fn after_a_malformed_text_the_read_fails() {
    let Some(setup) = setup() else { return };
    let told = refused(&setup, "echo malformed > .s4/map/bad && cat .s4/map/bad");
    assert!(!told.is_empty());
}

#[test]
fn directories_may_be_written_as_paths_in_the_mount() {
    let Some(setup) = setup() else { return };
    let dir = setup.mount.dir().display();
    setup.bash("mkdir in; echo x > in/0_k; echo x > in/1_k");
    setup.bash(&format!("echo '{dir}/in/ {dir}/out/ tr x y' > .s4/map/paths && cat .s4/map/paths > /dev/null"));
    assert_eq!(setup.bash("cat out/0_k out/1_k"), "y\ny\n");
}

#[test]
fn a_job_is_cancelled_by_writing() {
    let Some(setup) = setup() else { return };
    setup.bash("mkdir in; echo x > in/0_k");
    setup.bash("echo 's4://in/ s4://out/ sleep 1000' > .s4/map/long");
    assert!(setup.bash("cat .s4/jobs/*/status").starts_with("running"));
    eventually("the task runs", || setup.bash("cat .s4/jobs/*/status").contains("1 running").then_some(()));
    setup.bash("echo now > $(echo .s4/jobs/*/cancel)");
    let told = refused(&setup, "cat .s4/map/long");
    assert!(told.contains("Input/output error"), "{told}");
    assert!(setup.bash("cat .s4/jobs/*/status").starts_with("failed"));
    assert!(!setup.mount.path("out/0_k").exists());
}

/// A line comes at least every second, so that a reader of `cat` sees that it lives, and can be killed.
#[test]
fn a_follower_hears_of_a_long_job_and_may_leave() {
    let Some(setup) = setup() else { return };
    setup.bash("mkdir in; echo x > in/0_k");
    setup.bash("echo 's4://in/ s4://out/ sleep 1000' > .s4/map/long");
    assert_eq!(setup.bash("head -n 3 .s4/map/long | wc -l"), "3\n");
    setup.bash("echo now > $(echo .s4/jobs/*/cancel)");
}

#[test]
fn control_files_are_not_made_removed_or_renamed() {
    let Some(setup) = setup() else { return };
    setup.put("b/0_k", b"content");
    let script = r#"
for call in [lambda: os.open('.s4/new', NEW), lambda: os.mkdir('.s4/map/dir'), lambda: os.unlink('.s4/nodes'),
             lambda: os.rmdir('.s4/map'), lambda: os.rename('.s4/nodes', 'b/0_nodes'), lambda: os.open('.s4/nodes', W),
             lambda: os.rename('b/0_k', '.s4/0_k'), lambda: os.rename('b/0_k', '.s4/map/0_k'),
             lambda: os.symlink('x', '.s4/map/x')]:
    assert errno_of(call) == 'EPERM', errno_of(call)
assert errno_of(os.stat, '.s4/none') == errno_of(os.stat, '.s4/jobs/none/status') == 'ENOENT'
assert errno_of(os.mkdir, '.s4') == 'EEXIST'
assert errno_of(os.open, '.s4/map', W) == 'EISDIR'
"#;
    setup.python(script, &[]);
    setup.bash("cd .s4/map && ls -la .. > /dev/null && cat ../nodes > /dev/null && stat ../nodes . > /dev/null");
}
