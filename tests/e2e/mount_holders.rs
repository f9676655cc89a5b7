//! Files that several hold open when one of them closes: children, orphans, threads, other processes, mappings, other mounts.

use crate::harness::{eventually, text};
use crate::scripting::{BOTH, finish_python, next_line, send_line, setup};

#[test]
fn a_childs_bytes_are_published_though_its_parent_closed_first() {
    let Some(setup) = setup() else { return };
    for key in BOTH {
        let script = r#"
out = open(sys.argv[1], 'wb')
child = subprocess.Popen(['bash', '-c', 'read go; echo one; cat ../two'], stdin=subprocess.PIPE, stdout=out)
out.close()
child.communicate(b'go\n')
assert child.returncode == 0
"#;
        std::fs::write(setup.cluster.dir().join("two"), "two\n").unwrap();
        setup.python(script, &[key]);
        eventually("the child's output is a key", || setup.is_key(key).then_some(()));
        assert_eq!(text(&setup.key(key)), "one\ntwo\n");
    }
}

/// The parent's close publishes what is there; a child that still writes must be told, and the key stays whole.
#[test]
fn a_child_that_writes_after_its_parents_publishing_close_does_not_change_the_key() {
    let Some(setup) = setup() else { return };
    for key in BOTH {
        let script = r#"
out = os.open(sys.argv[1], NEW)
os.write(out, b'one\n')
child = os.fork()
if child == 0:
    await_word()
    told = [errno_of(os.write, out, b'two\n'), errno_of(os.close, out)]
    os._exit(0 if told[0] == 'EPERM' or told[1] == 'EIO' else 1)
os.close(out)
tell('closed')
tell(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"#;
        let mut child = setup.spawn_python(script, &[key]);
        assert_eq!(next_line(&mut child), "closed");
        assert_eq!(text(&setup.key(key)), "one\n");
        send_line(&mut child, "go");
        let refused = next_line(&mut child);
        finish_python(child);
        assert_eq!(text(&setup.key(key)), "one\n");
        assert_eq!(refused, "0", "the child was not told that its write to published {key} is lost");
    }
}

/// A daemon is no child of the one who publishes any more.
#[test]
fn an_orphan_that_writes_after_the_publishing_close_does_not_change_the_key() {
    let Some(setup) = setup() else { return };
    for key in BOTH {
        let script = r#"
out = os.open(sys.argv[1], NEW)
os.write(out, b'one\n')
ours, theirs = os.pipe()
if os.fork() == 0:
    if os.fork() == 0:
        await_word()
        told = [errno_of(os.write, out, b'two\n'), errno_of(os.close, out)]
        tell('told' if told[0] == 'EPERM' or told[1] == 'EIO' else 'lost')
    os._exit(0)
os.wait()
os.close(out)
tell('closed')
"#;
        let mut child = setup.spawn_python(script, &[key]);
        assert_eq!(next_line(&mut child), "closed");
        assert_eq!(text(&setup.key(key)), "one\n");
        send_line(&mut child, "go");
        let wrote = next_line(&mut child);
        finish_python(child);
        let found = setup.cluster.run(&["cp", &format!("s4://{key}"), "-"]);
        assert!(found.status.success(), "{key} is damaged: {}", text(&found.stderr));
        assert_eq!(text(&found.stdout), "one\n", "{key} changed");
        assert_eq!(wrote, "told", "{key}");
    }
}

#[test]
fn another_thread_may_close() {
    let Some(setup) = setup() else { return };
    for key in BOTH {
        let script = r#"
out = os.open(sys.argv[1], NEW)
writers = [threading.Thread(target=os.pwrite, args=(out, bytes([65 + n]) * 4096, n * 4096)) for n in range(8)]
[writer.start() for writer in writers]
[writer.join() for writer in writers]
closer = threading.Thread(target=os.close, args=(out,))
closer.start()
closer.join()
tell('closed')
await_word()
"#;
        let mut child = setup.spawn_python(script, &[key]);
        assert_eq!(next_line(&mut child), "closed");
        let expected: Vec<u8> = (0..8).flat_map(|n| vec![65 + n; 4096]).collect();
        assert!(setup.key(key) == expected, "{key}");
        send_line(&mut child, "end");
        finish_python(child);
    }
}

#[test]
fn the_later_maker_of_a_key_is_told_that_it_exists() {
    let Some(setup) = setup() else { return };
    let other = setup.other_mount();
    for key in BOTH {
        let script = r#"
first, second = os.open(sys.argv[1], NEW), os.open(sys.argv[2], NEW)
os.write(second, b'second')
os.write(first, b'first')
os.close(first)
try:
    os.close(second)
    tell('closed')
except FileExistsError:
    tell('exists')
"#;
        let told = setup.python(script, &[key, other.path(key).to_str().unwrap()]);
        assert_eq!(told, "exists\n", "{key}");
        assert_eq!(text(&setup.key(key)), "first");
        assert_eq!(other.ok(&format!("cat {key}")), "first");
    }
}

/// Whoever was told that all went well finds its bytes in the key.
#[test]
fn a_second_process_that_appends_loses_nothing_silently() {
    let Some(setup) = setup() else { return };
    for key in BOTH {
        let script = r#"
out = os.open(sys.argv[1], NEW)
os.write(out, b'a')
append = '''
import os, sys
out = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND)
os.write(out, b'b')
os.close(out)
'''
second = subprocess.run([sys.executable, '-S', '-c', append, sys.argv[1]], stderr=subprocess.DEVNULL).returncode
first = [errno_of(os.pwrite, out, b'c', 2), errno_of(os.close, out)]
tell(f'{second == 0} {first == ["ok", "ok"]}')
"#;
        let told = setup.python(script, &[key]);
        eventually("the key is there", || setup.is_key(key).then_some(()));
        let found = setup.cluster.run(&["cp", &format!("s4://{key}"), "-"]);
        assert!(found.status.success(), "{key} is damaged: {}", text(&found.stderr));
        let (second, first) = told.trim().split_once(' ').unwrap();
        let content = text(&found.stdout);
        assert!(second != "True" || content.contains('b'), "{key}: {content:?} lacks what the second wrote");
        assert!(first != "True" || content.contains('c'), "{key}: {content:?} lacks what the first wrote");
    }
}

#[test]
fn writing_on_after_the_publish_is_refused() {
    let Some(setup) = setup() else { return };
    for key in BOTH {
        let script = r#"
out = os.open(sys.argv[1], RW | os.O_CREAT)
os.write(out, b'whole')
again = os.open(sys.argv[1], RW)
os.close(out)
tell(errno_of(os.write, again, b'BROKEN'))
tell(errno_of(os.ftruncate, again, 0))
"#;
        let told = setup.python(script, &[key]);
        eventually("the key is there", || setup.is_key(key).then_some(()));
        let found = setup.cluster.run(&["cp", &format!("s4://{key}"), "-"]);
        assert!(found.status.success(), "{key} is damaged: {}", text(&found.stderr));
        let content = text(&found.stdout);
        let consistent = match told.as_str() {
            "EPERM\nEPERM\n" => content == "whole",
            // Else the first close has not published yet, and all counts.
            "ok\nok\n" => content.is_empty(),
            _ => false,
        };
        assert!(consistent, "{key}: {told:?} and {content:?}");
    }
}

/// Maps the first 10,000 bytes of a file. Not by Python's own means, which keep a duplicate of the descriptor.
const MAP: &str = r#"
import ctypes
libc = ctypes.CDLL(None)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
def map(file):
    return libc.mmap(None, 10000, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_SHARED, file, 0)
"#;

/// The mapping outlives the descriptor: what is stored in it after the close is lost or kept, but never damages the key.
#[test]
fn a_mapping_that_outlives_the_close_does_not_damage_the_key() {
    let Some(setup) = setup() else { return };
    for key in BOTH {
        let script = r#"
out = os.open(sys.argv[1], RW | os.O_CREAT)
os.write(out, b'x' * 10000)
mapped = map(out)
os.close(out)
ctypes.memmove(mapped, b'later', 5)
tell('stored')
await_word()
"#;
        let mut child = setup.spawn_python(&format!("{MAP}{script}"), &[key]);
        assert_eq!(next_line(&mut child), "stored");
        let shown = setup.bash(&format!("cat {key}"));
        send_line(&mut child, "end");
        finish_python(child);
        eventually("the key is there", || setup.is_key(key).then_some(()));
        let found = setup.cluster.run(&["cp", &format!("s4://{key}"), "-"]);
        assert!(found.status.success(), "{key} is damaged: {}", text(&found.stderr));
        assert!(found.stdout[5..] == [b'x'; 9995], "{key}");
        assert!(shown.as_bytes() == found.stdout, "{key}: the mount shows other bytes than are in the key");
    }
}

/// The file under a small key is used again for the next, but not while anyone can still store in it.
#[test]
fn a_mapping_that_outlives_the_close_is_of_no_later_file() {
    let Some(setup) = setup() else { return };
    for key in BOTH {
        let script = r#"
def make(name, byte, last):
    out = os.open(name, RW | os.O_CREAT)
    os.write(out, byte * 10000)
    last(out)
    os.close(out)
mapped = []
make(sys.argv[1], b'x', lambda out: mapped.append(map(out)))
for number in range(100):
    make(f'{sys.argv[1]}_{number}', b'y', lambda out: ctypes.memmove(mapped[0], b'later', 5))
    assert ctypes.string_at(mapped[0], 10000) == b'later' + b'x' * 9995, number
tell('made')
"#;
        let mut child = setup.spawn_python(&format!("{MAP}{script}"), &[key]);
        assert_eq!(next_line(&mut child), "made", "{key}");
        finish_python(child);
        for number in 0..100 {
            assert!(setup.key(&format!("{key}_{number}")) == [b'y'; 10000], "{key}_{number}");
        }
    }
}

#[test]
fn a_reader_on_the_same_mount_sees_the_key_while_a_child_still_holds_the_file() {
    let Some(setup) = setup() else { return };
    for key in BOTH {
        let script = r#"
out = os.open(sys.argv[1], NEW)
os.write(out, b'one')
child = os.fork()
if child == 0:
    await_word()
    errno_of(os.pwrite, out, b'two', 0)
    tell('wrote')
    await_word()
    os._exit(0)
os.close(out)
tell('closed')
os.waitpid(child, 0)
"#;
        let mut child = setup.spawn_python(script, &[key]);
        assert_eq!(next_line(&mut child), "closed");
        send_line(&mut child, "write");
        assert_eq!(next_line(&mut child), "wrote");
        let seen = setup.bash(&format!("cat {key}"));
        send_line(&mut child, "end");
        finish_python(child);
        assert_eq!(seen, text(&setup.key(key)), "{key}");
    }
}

/// The first was told that all went well; its mapping has the mount wait. What the second has written may be with it.
#[test]
fn what_was_closed_in_order_is_not_lost_with_a_later_writer_that_is_killed() {
    let Some(setup) = setup() else { return };
    let first = r#"
out = os.open(sys.argv[1], RW | os.O_CREAT)
os.write(out, b'x' * 1_000_000)
mapped = map(out)
os.close(out)
tell('closed')
await_word()
"#;
    let second = r#"
out = os.open(sys.argv[1], W | os.O_APPEND)
os.write(out, b'half')
tell('half')
await_word()
"#;
    for key in BOTH {
        for ends_first in [true, false] {
            let key = format!("{key}_{ends_first}");
            let mut writer = setup.spawn_python(&format!("{MAP}{first}"), &[&key]);
            assert_eq!(next_line(&mut writer), "closed");
            let mut killed = setup.spawn_python(second, &[&key]);
            assert_eq!(next_line(&mut killed), "half");
            let mut kill = || killed.kill().and_then(|()| killed.wait()).unwrap();
            if !ends_first {
                kill();
            }
            send_line(&mut writer, "end");
            finish_python(writer);
            if ends_first {
                kill();
            }
            eventually("it is a key", || setup.is_key(&key).then_some(()));
            assert!(setup.key(&key).starts_with(&[b'x'; 1_000_000]), "{key}");
        }
    }
}
