//! Which close publishes a file, as shells and programs close it, for keys of this machine and of others.

use crate::harness::{eventually, text};
use crate::programs::program;
use crate::scripting::{BOTH, LOCAL, REMOTE, Setup, finish_python, next_line, send_line, setup, setup_with};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;

/// Runs `script` with `$k` as the key and then, in the same shell, has another client print what is there.
fn published_by(script: &str) -> Option<Vec<String>> {
    let setup = setup()?;
    setup.bash("echo one > b/a; echo two > b/b");
    let read = |key: &str| setup.bash(&format!("set -e; k={key}; {script}\n$S4 cp s4://$k -"));
    Some(BOTH.iter().map(|key| read(key)).collect())
}

fn assert_published(script: &str, content: &str) {
    if let Some(found) = published_by(script) {
        assert_eq!(found, [content, content], "{script}");
    }
}

/// Waits until the mount has let go of a file that is not to be published, and makes sure that nobody sees it.
fn assert_never_published(setup: &Setup, path: &str) {
    eventually("the file is gone from the mount", || (!setup.mount.path(path).exists()).then_some(()));
    assert!(!setup.is_key(path), "{path} was published");
}

#[test]
fn a_redirection_publishes_at_once() {
    assert_published("echo one > $k", "one\n");
}

#[test]
fn a_redirection_in_a_subshell_publishes() {
    assert_published("(echo one > $k)", "one\n");
}

#[test]
fn a_redirection_in_a_background_job_publishes() {
    assert_published("echo one > $k & wait $!", "one\n");
}

#[test]
fn a_subshell_of_several_commands_publishes_all_their_output() {
    assert_published("(cat b/a; cat b/b) > $k", "one\ntwo\n");
    assert_published("(echo one; cat b/b; echo three) > $k", "one\ntwo\nthree\n");
}

#[test]
fn a_group_of_commands_publishes_all_their_output() {
    assert_published("{ cat b/a; cat b/b; } > $k", "one\ntwo\n");
    assert_published("{ echo one; cat b/b; echo three; } > $k", "one\ntwo\nthree\n");
    assert_published("for word in one two three; do echo $word; done > $k", "one\ntwo\nthree\n");
}

#[test]
fn exec_publishes_when_its_descriptor_is_closed() {
    assert_published("exec 3> $k; cat b/a >&3; cat b/b >&3; exec 3>&-", "one\ntwo\n");
}

#[test]
fn exec_publishes_what_built_in_commands_wrote_too() {
    assert_published("exec 3> $k; echo one >&3; echo two >&3; exec 3>&-", "one\ntwo\n");
}

/// Whichever number that has, and however many others there are.
#[test]
fn a_file_is_not_published_while_its_process_has_another_descriptor() {
    let Some(setup) = setup() else { return };
    let other = setup.other_mount();
    let script = r#"
mine, theirs, number, others = *sys.argv[1:3], *map(int, sys.argv[3:])
held = [os.open('/dev/null', os.O_RDONLY) for _ in range(others)]
out = os.open(mine, NEW)
os.dup2(out, number)
os.write(out, b'one')
os.close(out)
assert errno_of(os.stat, theirs) == 'ENOENT'
os.write(number, b'two')
os.close(number)
assert read(theirs) == b'onetwo'
"#;
    for key in BOTH {
        for (number, others) in [(0, 0), (7, 0), (200, 0), (1, 20), (200, 20)] {
            let path = format!("{key}_{number}_{others}");
            let theirs = other.path(&path);
            setup.python(script, &[&path, theirs.to_str().unwrap(), &number.to_string(), &others.to_string()]);
        }
    }
}

#[test]
fn a_shells_whole_output_is_published_at_its_end() {
    let Some(setup) = setup() else { return };
    for key in BOTH {
        setup.bash(&format!("exec > {key}; echo one; echo two"));
        eventually("the shell's output is a key", || setup.is_key(key).then_some(()));
        assert_eq!(text(&setup.key(key)), "one\ntwo\n");
    }
}

#[test]
fn a_pipelines_end_publishes() {
    assert_published("cat b/b b/a | sort > $k", "one\ntwo\n");
    assert_published("cat b/a | while read -r line; do echo $line; echo two; done > $k", "one\ntwo\n");
}

#[test]
fn tee_publishes() {
    assert_published("cat b/a b/b | tee $k > /dev/null", "one\ntwo\n");
}

#[test]
fn dd_publishes() {
    assert_published("cat b/a b/b | dd of=$k bs=3 2> /dev/null", "one\ntwo\n");
    assert_published("printf %s abcdef | dd of=$k bs=2 seek=1 conv=sparse 2> /dev/null; true", "\0\0abcdef");
}

#[test]
fn cp_mv_and_install_publish() {
    assert_published("cp b/a $k", "one\n");
    assert_published("echo one > ../file; mv ../file $k", "one\n");
    assert_published("install -m 644 b/a $k", "one\n");
}

#[test]
fn touch_publishes_an_empty_key() {
    assert_published("touch $k", "");
}

#[test]
fn an_empty_redirection_publishes_an_empty_key() {
    assert_published(": > $k", "");
    assert_published("> $k", "");
    assert_published("(: > $k)", "");
    assert_published("cat /dev/null > $k", "");
}

#[test]
fn in_place_editors_and_sort_publish_through_their_temporary_files() {
    assert_published("sort -o $k b/b b/a", "one\ntwo\n");
}

#[test]
fn a_parent_that_closes_after_its_child_publishes() {
    let Some(setup) = setup() else { return };
    for key in BOTH {
        let script = r#"
with open(sys.argv[1], 'wb') as out:
    subprocess.run(['bash', '-c', 'echo one; echo two'], stdout=out, check=True)
tell(subprocess.run([sys.argv[2], 'cp', 's4://' + sys.argv[1], '-'], capture_output=True).stdout.decode())
"#;
        std::fs::write(setup.cluster.dir().join("s4"), s4_script(&setup)).unwrap();
        assert_eq!(setup.python(script, &[key, "../s4"]).trim(), "one\ntwo");
    }
}

/// A program that calls `s4` with the cluster's file.
fn s4_script(setup: &Setup) -> String {
    let path = setup.cluster.dir().join("s4");
    std::fs::write(&path, "").unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&path, mode).unwrap();
    let conf = setup.cluster.conf();
    format!("#!/bin/sh\nexec {} \"$@\" --conf-path {}\n", program("s4"), conf.display())
}

fn a_killed_writer_publishes_nothing(signal: &str, script: &str) {
    let Some(setup) = setup() else { return };
    for key in BOTH {
        let mut child = setup.spawn_python(script, &[key]);
        assert_eq!(next_line(&mut child), "half");
        let pid = child.id().to_string();
        assert!(std::process::Command::new("kill").args([signal, &pid]).status().unwrap().success());
        assert!(child.wait().unwrap().signal().is_some());
        assert_never_published(&setup, key);
        setup.bash(&format!("echo again > {key}"));
        assert_eq!(text(&setup.key(key)), "again\n");
    }
}

const HALF: &str = r#"
out = os.open(sys.argv[1], NEW)
os.write(out, b'x' * 1000000)
tell('half')
await_word()
"#;

#[test]
fn a_process_killed_half_way_publishes_nothing() {
    a_killed_writer_publishes_nothing("-KILL", HALF);
}

#[test]
fn a_process_that_a_signal_ends_half_way_publishes_nothing() {
    a_killed_writer_publishes_nothing("-TERM", HALF);
}

#[test]
fn a_process_of_several_threads_killed_half_way_publishes_nothing() {
    let script = r#"
out = os.open(sys.argv[1], NEW)
idle = [threading.Thread(target=threading.Event().wait, daemon=True) for _ in range(8)]
[thread.start() for thread in idle]
os.write(out, b'x' * 1000000)
tell('half')
await_word()
"#;
    a_killed_writer_publishes_nothing("-KILL", script);
}

#[test]
fn a_file_unlinked_before_its_close_is_not_published() {
    let Some(setup) = setup() else { return };
    for key in BOTH {
        let script = r#"
out = os.open(sys.argv[1], RW | os.O_CREAT)
os.write(out, b'content')
os.unlink(sys.argv[1])
tell(errno_of(os.stat, sys.argv[1]))
os.write(out, b', more')
assert os.pread(out, 100, 0) == b'content, more'
os.close(out)
"#;
        assert_eq!(setup.python(script, &[key]), "ENOENT\n");
        assert_never_published(&setup, key);
        setup.bash(&format!("echo again > {key}"));
        assert_eq!(text(&setup.key(key)), "again\n");
    }
}

#[test]
fn a_file_is_cut_and_grown_before_its_close() {
    let Some(setup) = setup() else { return };
    for key in BOTH {
        let script = r#"
out = os.open(sys.argv[1], RW | os.O_CREAT)
os.write(out, b'0123456789')
os.ftruncate(out, 4)
assert os.fstat(out).st_size == 4
os.ftruncate(out, 6)
os.truncate(sys.argv[1], 8)
assert os.stat(sys.argv[1]).st_size == 8
os.close(out)
assert os.stat(sys.argv[1]).st_size == 8
"#;
        setup.python(script, &[key]);
        assert_eq!(setup.key(key), b"0123\0\0\0\0");
    }
}

#[test]
fn what_was_written_through_a_shared_mapping_is_published() {
    let Some(setup) = setup() else { return };
    for key in BOTH {
        let script = r#"
out = os.open(sys.argv[1], RW | os.O_CREAT)
os.ftruncate(out, 10000)
with mmap.mmap(out, 10000) as mapped:
    mapped[0:5] = b'begin'
    mapped[9997:10000] = b'end'
os.close(out)
"#;
        setup.python(script, &[key]);
        let content = setup.key(key);
        assert_eq!((content.len(), &content[..5], &content[9997..]), (10000, &b"begin"[..], &b"end"[..]));
    }
}

#[test]
fn holes_read_as_zeros() {
    let Some(setup) = setup() else { return };
    for key in BOTH {
        let script = r#"
out = os.open(sys.argv[1], NEW)
os.pwrite(out, b'end', 3000000)
os.pwrite(out, b'middle', 1000000)
os.close(out)
"#;
        setup.python(script, &[key]);
        let mut expected = vec![0; 3_000_003];
        expected[1_000_000..1_000_006].copy_from_slice(b"middle");
        expected[3_000_000..].copy_from_slice(b"end");
        assert!(setup.key(key) == expected, "{key}");
    }
}

#[test]
fn a_file_is_read_back_while_it_is_written() {
    let Some(setup) = setup() else { return };
    for key in BOTH {
        let script = r#"
out = os.open(sys.argv[1], RW | os.O_CREAT)
for n in range(20):
    os.pwrite(out, bytes([65 + n]) * 5000, n * 5000)
    assert os.pread(out, 5000, n * 5000) == bytes([65 + n]) * 5000
    assert read(sys.argv[1])[-1] == 65 + n
    assert os.stat(sys.argv[1]).st_size == (n + 1) * 5000
os.pwrite(out, b'first', 0)
assert os.pread(out, 6, 0) == b'firstA'
os.close(out)
assert read(sys.argv[1])[:6] == b'firstA'
"#;
        setup.python(script, &[key]);
        let content = setup.key(key);
        assert_eq!((content.len(), &content[..6]), (100_000, &b"firstA"[..]));
    }
}

#[test]
fn others_see_nothing_before_the_close_and_all_after_it() {
    let Some(setup) = setup() else { return };
    let other = setup.other_mount();
    for key in BOTH {
        let script = r#"
mine, theirs = sys.argv[1:]
out = os.open(mine, NEW)
os.write(out, b'content')
assert os.path.basename(mine) in os.listdir('b')
assert errno_of(os.stat, theirs) == 'ENOENT'
assert os.path.basename(mine) not in os.listdir(os.path.dirname(theirs))
os.close(out)
assert read(theirs) == b'content'
assert os.path.basename(mine) in os.listdir(os.path.dirname(theirs))
assert os.listdir('b').count(os.path.basename(mine)) == 1
"#;
        setup.python(script, &[key, other.path(key).to_str().unwrap()]);
    }
}

#[test]
fn a_file_renamed_before_its_close_is_published_under_its_new_name() {
    let Some(setup) = setup() else { return };
    let script = r#"
old, new = sys.argv[1:]
out = os.open(old, NEW)
os.write(out, b'some')
os.rename(old, new)
assert errno_of(os.stat, old) == 'ENOENT'
assert os.stat(new).st_size == 4
os.write(out, b', more')
os.close(out)
assert read(new) == b'some, more'
"#;
    for (old, new) in [(LOCAL, "b/0_new"), (LOCAL, "b/1_new"), (REMOTE, "b/3_new"), (REMOTE, "b/2_new")] {
        setup.python(script, &[old, new]);
        assert_eq!(text(&setup.key(new)), "some, more");
        assert!(!setup.is_key(old));
    }
}

/// The kernel closes it in the middle, and who asks for more of the process than its state waits for the answer to that close.
#[test]
fn a_file_that_is_closed_because_its_process_executes_another_program_is_published() {
    let Some(setup) = setup() else { return };
    for key in BOTH {
        let script =
            "out = os.open(sys.argv[1], NEW)\nos.write(out, b'content')\nos.execvp('echo', ['echo', 'executed'])";
        assert_eq!(setup.python(script, &[key]), "executed\n");
        eventually("nothing holds it open, so it is a key", || setup.is_key(key).then_some(()));
        assert_eq!(setup.key(key), b"content");
        let script = "out = os.open(sys.argv[1], NEW)\nos.write(out, b'one\\n')\nos.dup2(out, 1)\nos.execvp('echo', ['echo', 'two'])";
        let moved = format!("{key}_moved");
        setup.python(script, &[&moved]);
        assert_eq!(setup.key(&moved), b"one\ntwo\n", "the program has another descriptor");
        let script = "out = os.open(sys.argv[1], NEW)\nos.dup2(out, 1)\nos.execvp('echo', ['echo', 'only this'])";
        let unwritten = format!("{key}_unwritten");
        setup.python(script, &[&unwritten]);
        assert_eq!(setup.key(&unwritten), b"only this\n");
    }
}

#[test]
fn a_control_file_that_no_close_can_start_is_started_at_the_last() {
    let Some(setup) = setup() else { return };
    setup.put("in/0_k", b"content");
    let executes = "os.execvp('echo', ['echo', 'executed'])";
    let child_writes = "child = os.fork()\nif child == 0:\n    os.write(out, text)\n    os._exit(0)\nos.close(out)\nos.waitpid(child, 0)";
    for (name, rest) in [("executes", format!("os.write(out, text)\n{executes}")), ("child", child_writes.to_owned())] {
        let script = format!("text = b's4://in/ s4://{name}/ cat'\nout = os.open('.s4/map/{name}', NEW)\n{rest}");
        setup.python(&script, &[]);
        eventually("its output is a key", || setup.is_key(&format!("{name}/0_k")).then_some(()));
    }
    let killed = "os.write(out, b's4://in/ s4://killed/ cat')\nos.kill(os.getpid(), signal.SIGKILL)";
    let script = format!("out = os.open('.s4/map/killed', NEW)\n{killed}");
    setup.spawn_python(&script, &[]).wait().unwrap();
    let told = setup.bash_output("cat .s4/map/killed");
    assert!(!told.status.success(), "what a killed process had written was started: {}", text(&told.stdout));
}

#[test]
fn a_mode_that_a_file_is_given_while_it_is_published_is_the_keys() {
    let Some(setup) = setup() else { return };
    let script = r#"
out = os.open(sys.argv[1], NEW, 0o644)
os.write(out, b'x' * 5_000_000)
tell('written')
await_word()
closing = threading.Thread(target=os.close, args=(out,))
closing.start()
# It waits for the node, which hangs, for as long as this takes.
os.chmod(sys.argv[1], 0o755)
tell('changed')
closing.join()
"#;
    for (node, key) in BOTH.iter().enumerate() {
        let mut child = setup.spawn_python(script, &[key]);
        assert_eq!(next_line(&mut child), "written");
        setup.cluster.signal(node, "STOP");
        send_line(&mut child, "close");
        assert_eq!(next_line(&mut child), "changed");
        setup.cluster.signal(node, "CONT");
        finish_python(child);
        let found = std::fs::metadata(setup.cluster.data(node).join(key)).unwrap();
        assert_eq!(found.permissions().mode() & 0o777, 0o555, "{key}");
    }
}

/// A listing that is under way has seen them as files being written.
#[test]
fn files_that_are_closed_while_they_are_listed_are_keys() {
    let Some(setup) = setup() else { return };
    let script = r#"
os.mkdir('b/d')
names = [f'b/d/{n}_k' for n in range(900)]
files = [os.open(name, NEW) for name in names]
for file in files:
    os.write(file, b'content')
listing = os.scandir('b/d')
next(listing)
for file in files:
    os.close(file)
list(listing)
assert len(os.listdir('b/d')) == len(names)
for name in names:
    assert read(name) == b'content', name
    os.unlink(name)
os.rmdir('b/d')
"#;
    setup.python(script, &[]);
}

/// The request lies in the node's socket, and the node takes it up when it goes on: by then the close has failed.
#[test]
fn a_close_that_failed_has_published_nothing_also_later() {
    let Some(setup) = setup_with(2, &[1], &["--deadline", "2"]) else { return };
    for (node, key) in BOTH.iter().enumerate() {
        for len in [10, 500_000, 5_000_000] {
            let script = r#"
out = os.open(sys.argv[1], NEW)
os.write(out, b'x' * int(sys.argv[2]))
tell('written')
await_word()
tell(errno_of(os.close, out))
"#;
            let mut child = setup.spawn_python(script, &[key, &len.to_string()]);
            assert_eq!(next_line(&mut child), "written");
            setup.cluster.signal(node, "STOP");
            send_line(&mut child, "close");
            let told = next_line(&mut child);
            setup.cluster.signal(node, "CONT");
            finish_python(child);
            assert_eq!(told, "EIO", "{key}, {len} bytes");
            // The node has come by all that it was sent before this.
            setup.python("make(sys.argv[1])\nos.unlink(sys.argv[1])", &[&format!("{key}_after")]);
            assert!(!setup.is_key(key), "{key}, {len} bytes: published though its close failed");
        }
    }
}

/// Each close looks at its process, which has other threads: however many do so at once, none says too early that it is done.
#[test]
fn a_close_publishes_also_when_many_threads_close_at_once() {
    let Some(setup) = setup() else { return };
    let script = r#"
bad = []
barrier = threading.Barrier(32)
def run(n):
    out = os.open(f'b/{2 * n}_k', RW | os.O_CREAT)
    os.write(out, b'content')
    barrier.wait()
    os.close(out)
    if not os.path.exists(f'{sys.argv[1]}/b/{2 * n}_k'):
        bad.append(n)
for base in range(0, 320, 32):
    threads = [threading.Thread(target=run, args=(base + n,)) for n in range(32)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
assert not bad, bad
"#;
    setup.python(script, &[setup.cluster.data(0).to_str().unwrap()]);
}
