//! Large files for other nodes are sent while they are written. What is published is what is in them at the close.
//! Their node allocates space ahead of what it has got, which no key keeps.

use crate::harness::eventually;
use crate::observe::{longest_open, open_files};
use crate::scripting::{LOCAL, REMOTE, Setup, finish_python, next_line, send_line, setup, setup_with};
use nix::sys::statfs::{EXT4_SUPER_MAGIC, statfs};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::Child;
use std::time::{Duration, Instant, SystemTime};

/// Of these bytes all but the last have come to the node when the writer goes on.
const WRITTEN: u64 = 40 << 20;
const SENT: u64 = WRITTEN - (2 << 20);

/// Writes so many bytes of a pattern, and says so; `expected` is kept as the file is to be.
const WRITE: &str = r#"
def pattern(n, seed):
    return (seed * 4096)[:4096] * (n // 4096)
expected = bytearray(pattern(40 << 20, b'abcdefg'))
out = os.open(sys.argv[1], RW | os.O_CREAT, 0o755)
for at in range(0, len(expected), 1 << 20):
    assert os.write(out, expected[at:at + (1 << 20)]) == 1 << 20
tell('written')
await_word()
"#;

/// Closes the file, and leaves beside the mount what is to be in it.
const CLOSE: &str = r#"
os.close(out)
with open('../expected', 'wb') as file:
    file.write(expected)
tell('closed')
"#;

/// Starts a script that begins with `WRITE`, and returns once node 1 holds what it has written.
fn begin(setup: &Setup, script: &str) -> Child {
    let mut child = setup.spawn_python(&format!("{WRITE}{script}"), &[REMOTE]);
    assert_eq!(next_line(&mut child), "written");
    eventually("most of it is at its node", || (longest_open(setup.cluster.pid(1)) >= SENT).then_some(()));
    assert!(!setup.is_key(REMOTE), "it is a key before its close");
    child
}

fn assert_is_as_expected(setup: &Setup, key: &str) {
    let expected = std::fs::read(setup.cluster.dir().join("expected")).unwrap();
    let found = setup.key(key);
    assert!(found == expected, "{key}: {} bytes of {}", found.len(), expected.len());
}

#[test]
fn a_large_file_is_at_its_node_before_its_close() {
    let Some(setup) = setup() else { return };
    let more =
        "expected += pattern(1 << 20, b'hij') + b'end'\nassert os.write(out, expected[40 << 20:]) == (1 << 20) + 3\n";
    let mut child = begin(&setup, &format!("{more}{CLOSE}"));
    send_line(&mut child, "go on");
    assert_eq!(next_line(&mut child), "closed");
    assert_is_as_expected(&setup, REMOTE);
    finish_python(child);
    let found = std::fs::metadata(setup.cluster.data(1).join(REMOTE)).unwrap();
    assert_eq!(found.permissions().mode() & 0o7777, 0o555, "what it was made with");
}

#[test]
fn what_is_changed_after_it_was_sent_is_in_the_key() {
    let Some(setup) = setup() else { return };
    let write = "expected[5:10] = b'later'\nos.pwrite(out, b'later', 5)";
    let store =
        "expected[9999:10004] = b'later'\nmapped = mmap.mmap(out, 0)\nmapped[9999:10004] = b'later'\nmapped.close()";
    let cut = "del expected[1 << 20:]\nos.ftruncate(out, 1 << 20)";
    let cut_and_write = "expected[1 << 20:] = b'x' * (39 << 20)\nos.ftruncate(out, 1 << 20)\nos.pwrite(out, b'x' * (39 << 20), 1 << 20)";
    let lengthen = "expected += bytes(1 << 20)\nos.ftruncate(out, 41 << 20)";
    let empty = "os.posix_fallocate(out, 0, 41 << 20)\nexpected += bytes(1 << 20)";
    for change in [write, store, cut, cut_and_write, lengthen, empty] {
        let mut child = begin(&setup, &format!("{change}\n{CLOSE}"));
        send_line(&mut child, "go on");
        assert_eq!(next_line(&mut child), "closed", "{change}");
        finish_python(child);
        assert_is_as_expected(&setup, REMOTE);
        setup.bash(&format!("rm {REMOTE}"));
    }
}

#[test]
fn nothing_stays_at_the_node_of_a_file_that_is_not_published() {
    let Some(setup) = setup() else { return };
    let gone = || eventually("its node has let it go", || (longest_open(setup.cluster.pid(1)) < SENT).then_some(()));
    let mut child = begin(&setup, "os.unlink(sys.argv[1])\nos.close(out)");
    send_line(&mut child, "go on");
    finish_python(child);
    gone();
    let mut child = begin(&setup, "");
    child.kill().unwrap();
    child.wait().unwrap();
    gone();
    assert_eq!(setup.bash("ls b"), "");
    // Under another name it is another node's.
    let mut child = begin(&setup, &format!("os.rename(sys.argv[1], 'b/0_new')\n{CLOSE}"));
    send_line(&mut child, "go on");
    assert_eq!(next_line(&mut child), "closed");
    finish_python(child);
    gone();
    assert_is_as_expected(&setup, "b/0_new");
    assert_eq!(setup.bash("ls b"), "0_new\n");
}

#[test]
fn a_node_that_died_meanwhile_and_is_back_gets_it_all_at_the_close() {
    let Some(mut setup) = setup() else { return };
    let mut child = begin(&setup, CLOSE);
    setup.cluster.kill_node(1);
    setup.cluster.start_node(1);
    send_line(&mut child, "go on");
    assert_eq!(next_line(&mut child), "closed");
    finish_python(child);
    assert_is_as_expected(&setup, REMOTE);
}

/// What the node got before it hung it takes in afterwards, but the close has said that there is no key.
#[test]
fn a_node_that_hangs_meanwhile_fails_the_close_within_the_deadline() {
    let Some(setup) = setup_with(2, &[1], &["--deadline", "2"]) else { return };
    let mut child = begin(&setup, "tell(errno_of(os.close, out))");
    setup.cluster.signal(1, "STOP");
    let began = Instant::now();
    send_line(&mut child, "go on");
    let told = next_line(&mut child);
    setup.cluster.signal(1, "CONT");
    assert_eq!(told, "EIO");
    assert!(began.elapsed() < Duration::from_secs(6), "after {:?}", began.elapsed());
    finish_python(child);
    assert!(!setup.is_key(REMOTE));
}

#[test]
fn another_that_is_published_first_makes_the_close_fail() {
    let Some(setup) = setup() else { return };
    let mut child = begin(&setup, "tell(errno_of(os.close, out))");
    setup.put(REMOTE, b"another's\n");
    send_line(&mut child, "go on");
    assert_eq!(next_line(&mut child), "EEXIST");
    finish_python(child);
    assert_eq!(setup.key(REMOTE), b"another's\n");
}

#[test]
fn space_ahead_of_a_file_is_given_back_at_its_close() {
    let Some(setup) = setup() else { return };
    let disk = statfs(&setup.cluster.data(1)).unwrap();
    let to_spare = disk.blocks_available().saturating_sub(disk.blocks() / 10) * disk.block_size() as u64;
    if disk.filesystem_type() != EXT4_SUPER_MAGIC || to_spare < 4 << 30 {
        return eprintln!("skipped: the data directories are not on ext4, or have too little space");
    }
    let mut child = begin(&setup, CLOSE);
    let has_ahead = |pid| open_files(pid).any(|file| file.blocks() * 512 > file.len().max(SENT) + (1 << 20));
    eventually("its node has space ahead", || has_ahead(setup.cluster.pid(1)).then_some(()));
    let shown = std::fs::metadata(setup.mount.path(REMOTE)).unwrap();
    assert_eq!(shown.len(), WRITTEN);
    assert!((shown.blocks() * 512).abs_diff(WRITTEN) <= 64 << 10, "the mount shows {} blocks", shown.blocks());
    send_line(&mut child, "go on");
    assert_eq!(next_line(&mut child), "closed");
    finish_python(child);
    assert_is_as_expected(&setup, REMOTE);
    let found = std::fs::metadata(setup.cluster.data(1).join(REMOTE)).unwrap();
    assert!((found.blocks() * 512).abs_diff(WRITTEN) <= 64 << 10, "{} blocks", found.blocks());
}

/// The daemon reads the file and records what it holds: neither changes its time.
#[test]
fn a_large_local_file_has_the_time_of_its_last_write() {
    let Some(setup) = setup() else { return };
    let mut child = setup.spawn_python(&format!("{WRITE}{CLOSE}"), &[LOCAL]);
    assert_eq!(next_line(&mut child), "written");
    let before = SystemTime::now();
    send_line(&mut child, "go on");
    assert_eq!(next_line(&mut child), "closed");
    finish_python(child);
    assert_is_as_expected(&setup, LOCAL);
    let found = std::fs::metadata(setup.cluster.data(0).join(LOCAL)).unwrap();
    assert!(found.modified().unwrap() < before);
}
