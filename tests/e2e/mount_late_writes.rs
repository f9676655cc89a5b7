//! Writes that come when the key is being published, or when that has failed: they are in the key, or their writer is told.

use crate::harness::{eventually, text};
use crate::scripting::{BOTH, LOCAL, finish_python, next_line, send_line, setup};
use std::os::unix::fs::MetadataExt;

/// How a file is opened: so that the kernel may write it without asking the mount, and so that it may not.
const WAYS: [&str; 2] = ["0", "os.O_DIRECT"];

/// The mount is asked for each write here, since the kernel writes no file itself that bypasses the cache.
#[test]
fn a_key_is_whole_though_another_writes_while_it_is_published() {
    let Some(setup) = setup() else { return };
    let script = r#"
out = os.open(sys.argv[1], NEW | os.O_DIRECT)
child = os.fork()
if child == 0:
    n = 0
    while (told := errno_of(os.pwrite, out, bytes([n % 256]) * 512, 4096 * (n % 256))) == 'ok':
        n += 1
    os._exit(0 if told == 'EPERM' else 1)
piece = bytes(1 << 20)
for n in range(64):
    os.pwrite(out, piece, n << 20)
os.close(out)
tell(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"#;
    for run in 0..5 {
        let key = format!("{LOCAL}_{run}");
        assert_eq!(setup.python(script, &[&key]), "0\n", "the writer was not refused");
        let found = setup.cluster.run(&["cp", &format!("s4://{key}"), "-"]);
        assert!(found.status.success(), "{key} is damaged: {}", text(&found.stderr));
        assert_eq!(found.stdout.len(), 64 << 20);
    }
}

/// Of small keys and large ones, by a child that has the descriptor too.
#[test]
fn a_write_after_a_publish_that_failed_is_not_lost_in_silence() {
    let Some(setup) = setup() else { return };
    for way in WAYS {
        for (key, len) in BOTH.iter().flat_map(|key| [(key, 1), (key, 3_000_000)]) {
            let key = format!("{key}_{way}_{len}");
            let script = format!(
                r#"
out = os.open(sys.argv[1], NEW | {way})
ours, theirs = os.pipe()
child = os.fork()
if child == 0:
    os.close(theirs)
    os.read(ours, 1)
    told = [errno_of(os.write, out, b'late'), errno_of(os.close, out)]
    os._exit(0 if told[0] == 'EIO' or told[1] == 'EEXIST' else 1)
os.write(out, bytes({len}))
tell('written')
await_word()
tell(errno_of(os.close, out))
os.close(theirs)
tell(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"#
            );
            let mut child = setup.spawn_python(&script, &[&key]);
            assert_eq!(next_line(&mut child), "written");
            setup.put(&key, b"another's");
            send_line(&mut child, "close");
            assert_eq!(next_line(&mut child), "EEXIST", "{key}");
            assert_eq!(next_line(&mut child), "0", "{key}: the child was not told that its write is lost");
            finish_python(child);
            assert_eq!(text(&setup.key(&key)), "another's");
        }
    }
}

/// An unlinked file is no failed one: programs write to it and close it as on every file system.
#[test]
fn what_is_unlinked_while_it_is_written_is_written_on() {
    let Some(setup) = setup() else { return };
    let script = r#"
out = os.open(sys.argv[1], NEW | os.O_DIRECT)
os.write(out, b'some')
os.unlink(sys.argv[1])
tell([errno_of(os.write, out, b'more'), errno_of(os.ftruncate, out, 2), errno_of(os.close, out)])
"#;
    for key in BOTH {
        assert_eq!(setup.python(script, &[key]), "['ok', 'ok', 'ok']\n");
        assert!(!setup.is_key(key));
    }
}

/// Its opener was killed, and so has not published: the close of whoever is left does, and says how that went.
#[test]
fn a_child_that_outlives_the_opener_hears_how_the_publish_went() {
    let Some(setup) = setup() else { return };
    for key in BOTH {
        for (reaped, made) in [(true, true), (true, false), (false, true), (false, false)] {
            let key = format!("{key}_{reaped}_{made}");
            let script = r#"
lives, left = os.pipe()
opener = os.fork()
if opener == 0:
    out = os.open(sys.argv[1], NEW)
    os.write(out, b'one')
    if os.fork() == 0:
        os.close(left)
        os.read(lives, 1)
        os.write(out, b'two')
        tell('written')
        await_word()
        tell(errno_of(os.close, out))
        os._exit(0)
    os.kill(os.getpid(), signal.SIGKILL)
if sys.argv[2] == 'true':
    os.waitpid(opener, 0)
else:
    os.waitid(os.P_PID, opener, os.WEXITED | os.WNOWAIT)
os.close(left)
signal.pause()
"#;
            let mut child = setup.spawn_python(script, &[&key, if reaped { "true" } else { "false" }]);
            assert_eq!(next_line(&mut child), "written");
            if made {
                setup.put(&key, b"another's");
            }
            send_line(&mut child, "close");
            assert_eq!(next_line(&mut child), if made { "EEXIST" } else { "ok" }, "{key}");
            child.kill().unwrap();
            child.wait().unwrap();
            eventually("it is a key", || setup.is_key(&key).then_some(()));
            assert_eq!(text(&setup.key(&key)), if made { "another's" } else { "onetwo" });
        }
    }
}

/// No file here is one that the kernel writes itself, so that a key of this machine is the file that the child still has open.
#[test]
fn a_key_that_is_given_a_time_while_another_holds_its_file_is_no_late_write() {
    let Some(setup) = setup() else { return };
    let other = setup.other_mount();
    let script = r#"
out = os.open(sys.argv[1], NEW | os.O_DIRECT)
os.pwrite(out, bytes(1 << 20), 0)
ours, theirs = os.pipe()
child = os.fork()
if child == 0:
    os.close(theirs)
    os.read(ours, 1)
    if sys.argv[3] == 'descriptor':
        os.utime(out, (1_000_000_000, 1_000_000_000))
    tell(errno_of(os.close, out))
    os._exit(0)
os.close(out)
if sys.argv[3] == 'name':
    os.utime(sys.argv[2], (1_000_000_000, 1_000_000_000))
os.close(theirs)
os.waitpid(child, 0)
"#;
    for key in BOTH {
        for (how, mount) in [("name", &setup.mount), ("name", &other), ("descriptor", &setup.mount)] {
            let key = format!("{key}_{how}_{}", mount.pid());
            let named = mount.path(&key);
            assert_eq!(setup.python(script, &[&key, named.to_str().unwrap(), how]), "ok\n", "{key}");
            let found = std::fs::metadata(named).unwrap();
            assert_eq!((found.mtime(), found.len()), (1_000_000_000, 1 << 20), "{key}");
        }
    }
}

/// The mount still deals with a close when the next one has opened the file: what that one writes is not published before its own close,
/// and its file has not lost its name.
#[test]
fn who_opens_an_empty_key_just_after_another_has_closed_it_writes_it_alone() {
    let Some(setup) = setup() else { return };
    let script = r#"
import time
def meanwhile(seconds, work=lambda: None):
    until, count = time.monotonic() + seconds, 0
    while time.monotonic() < until:
        work()
        count += 1
    return count
for n in range(10):
    for what in ('closed', 'deleted'):
        key = f'{sys.argv[1]}_{n}_{what}'
        make(key, b'')
        os.close(os.open(key, RW))
        # Of one that has it open the mount cannot tell for a while whether it is a mapping that is left.
        other = os.open(key, RW)
        meanwhile(0.03)
        os.close(other)
        out = os.open(key, RW | os.O_DIRECT)
        wrote = meanwhile(0.15, lambda: os.write(out, b'x' * 100))
        if what == 'deleted':
            os.unlink(key)
        os.close(out)
        found = os.path.getsize(key) if os.path.exists(key) else None
        assert found == (100 * wrote if what == 'closed' else None), (key, found, wrote)
"#;
    for key in BOTH {
        setup.python(script, &[key]);
    }
}
