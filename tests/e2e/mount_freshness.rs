//! A mount shows what other clients make and delete, never what was, and never a mix.

use crate::harness::text;
use crate::scripting::{BOTH, Setup, setup};
use std::io::Read;
use std::os::unix::fs::FileExt;

#[test]
fn a_key_made_by_another_client_is_seen_at_once() {
    let Some(setup) = setup() else { return };
    for n in 0..20 {
        let (key, dir) = (format!("b/{n}_k"), format!("b/dir{n}"));
        assert!(!setup.mount.path(&key).exists() && !setup.mount.path(&dir).exists());
        setup.put(&key, b"content");
        assert_eq!(std::fs::read(setup.mount.path(&key)).unwrap(), b"content");
        setup.put(&format!("{dir}/{n}_k"), b"below");
        assert_eq!(std::fs::read(setup.mount.path(&format!("{dir}/{n}_k"))).unwrap(), b"below");
    }
    assert_eq!(std::fs::read_dir(setup.mount.path("b")).unwrap().count(), 40);
}

#[test]
fn a_deleted_key_is_not_opened() {
    let Some(setup) = setup() else { return };
    for key in BOTH {
        for _ in 0..10 {
            setup.put(key, b"content");
            assert_eq!(std::fs::read(setup.mount.path(key)).unwrap(), b"content");
            setup.cluster.ok(&["rm", &format!("s4://{key}")]);
            let error = std::fs::File::open(setup.mount.path(key)).expect_err("it is deleted");
            assert_eq!(error.kind(), std::io::ErrorKind::NotFound, "{error}");
        }
    }
}

#[test]
fn a_key_that_another_client_deleted_is_made_again_at_once() {
    let Some(setup) = setup() else { return };
    for key in BOTH {
        for turn in 0..5 {
            setup.put(key, b"old");
            assert_eq!(std::fs::read(setup.mount.path(key)).unwrap(), b"old");
            setup.cluster.ok(&["rm", &format!("s4://{key}")]);
            setup.bash(&format!("echo new {turn} > {key}"));
            assert_eq!(text(&setup.key(key)), format!("new {turn}\n"));
            setup.cluster.ok(&["rm", &format!("s4://{key}")]);
        }
    }
}

/// Content that tells its turn in every byte, and has another size every turn.
fn content(turn: usize) -> Vec<u8> {
    // Small ones come whole when they are opened, large ones piece by piece.
    let len = if turn.is_multiple_of(2) { 1000 + turn } else { 300_000 + turn };
    vec![b'a' + (turn % 26) as u8; len]
}

/// Makes a key again and again through the other mount, while what this mount shows is compared.
fn remade(setup: &Setup, key: &str, turns: usize) {
    let other = setup.other_mount();
    let (mine, theirs) = (setup.mount.path(key), other.path(key));
    let mut before: Option<std::fs::File> = None;
    for turn in 0..turns {
        let new = content(turn);
        std::fs::write(setup.cluster.dir().join("new"), &new).unwrap();
        if turn > 0 {
            std::fs::remove_file(&theirs).unwrap();
        }
        std::fs::copy(setup.cluster.dir().join("new"), &theirs).unwrap();
        let mut open = std::fs::File::open(&mine).unwrap_or_else(|e| panic!("{key}, turn {turn}: {e}"));
        let size = open.metadata().unwrap().len();
        assert_eq!(size, new.len() as u64, "{key}: the open file's size, turn {turn}");
        let mut found = Vec::new();
        open.read_to_end(&mut found).unwrap();
        assert!(found == new, "{key}: turn {turn} read {} bytes of turn {:?}", found.len(), found.first());
        assert_eq!(std::fs::metadata(&mine).unwrap().len(), new.len() as u64, "{key}: the size, turn {turn}");
        if let Some(before) = before {
            let old = content(turn - 1);
            let mut found = vec![0; old.len() + 1];
            let n = before.read_at(&mut found, 0).unwrap();
            assert!(found[..n] == old[..n] && n > 0, "{key}: the old reader of turn {turn}");
        }
        before = Some(open);
    }
}

#[test]
fn a_local_key_deleted_and_made_again_is_never_stale() {
    let Some(setup) = setup() else { return };
    remade(&setup, BOTH[0], 200);
}

#[test]
fn a_remote_key_deleted_and_made_again_is_never_stale() {
    let Some(setup) = setup() else { return };
    remade(&setup, BOTH[1], 200);
}

/// The mount's own user deletes and makes again, so that all of it goes through one cache.
#[test]
fn a_key_remade_in_the_same_mount_is_never_stale() {
    let Some(setup) = setup() else { return };
    for key in BOTH {
        let script = r#"
for turn in range(100):
    content = bytes([65 + turn % 26]) * (1000 + turn if turn % 2 else 300000 + turn)
    make(sys.argv[1], content)
    assert read(sys.argv[1]) == content
    assert os.stat(sys.argv[1]).st_size == len(content)
    os.unlink(sys.argv[1])
    assert errno_of(os.stat, sys.argv[1]) == 'ENOENT'
"#;
        setup.python(script, &[key]);
    }
}

/// Readers that come while a key is replaced see the old or the new, whole.
#[test]
fn readers_during_replacements_see_one_whole_key() {
    let Some(setup) = setup() else { return };
    let other = setup.other_mount();
    for key in BOTH {
        let script = r#"
mine, theirs = sys.argv[1:]
done = threading.Event()
mixed = []
def look():
    while not done.is_set():
        try:
            fd = os.open(mine, R)
        except FileNotFoundError:
            continue
        size, content = os.fstat(fd).st_size, b''
        while piece := os.read(fd, 50000):
            content += piece
        os.close(fd)
        if len(set(content)) != 1 or len(content) != 100000 * (content[0] - 64) or size != len(content):
            mixed.append((size, len(content), set(content)))
readers = [threading.Thread(target=look) for _ in range(3)]
[reader.start() for reader in readers]
try:
    for turn in range(60):
        letter = 65 + turn % 7
        make(theirs, bytes([letter]) * 100000 * (letter - 64))
        os.unlink(theirs)
finally:
    done.set()
    [reader.join() for reader in readers]
assert not mixed, mixed
"#;
        setup.python(script, &[key, other.path(key).to_str().unwrap()]);
    }
}

#[test]
fn a_change_of_mode_by_another_mount_is_seen_within_a_second() {
    let Some(setup) = setup() else { return };
    let other = setup.other_mount();
    for key in BOTH {
        setup.put(key, b"content");
        setup.bash(&format!("stat {key} > /dev/null"));
        other.ok(&format!("chmod 500 {key}"));
        let mode = || text(setup.bash(&format!("stat -c %a {key}")).as_bytes());
        crate::harness::eventually("the new mode is shown", || (mode() == "500\n").then_some(()));
    }
}
