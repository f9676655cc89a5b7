//! What each operation does on keys and directories, for keys of this machine and of others.

use crate::harness::{eventually, text};
use crate::mounting::Mount;
use crate::scripting::{BOTH, LOCAL, REMOTE, Setup, finish_python, setup, setup_with, spawn_python};

/// Bytes that tell where they are from.
fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at / 7 * 31 + at) as u8).collect()
}

/// Runs a script with each kind of key, which another client has put.
fn with_both_keys(content: &[u8], script: &str) {
    let Some(setup) = setup() else { return };
    for key in BOTH {
        setup.put(key, content);
        setup.python(script, &[key]);
        assert!(setup.key(key) == content, "{key} changed");
    }
}

#[test]
fn a_key_is_read_at_any_offset() {
    let Some(setup) = setup() else { return };
    let content = pattern(5_000_001);
    std::fs::write(setup.cluster.dir().join("content"), &content).unwrap();
    for key in BOTH {
        setup.put(key, &content);
        let script = r#"
content = read('../content')
fd = os.open(sys.argv[1], R)
end = len(content)
for at in [0, 1, 4095, 4096, 524287, 524288, 1 << 20, 4999999, 2500000, 3, end - 1, end, end + 1, 10 * end]:
    for size in [0, 1, 4096, 100000, 2000000]:
        assert os.pread(fd, size, at) == content[at:at + size], (at, size)
assert os.lseek(fd, -10, os.SEEK_END) == end - 10
assert os.read(fd, 100) == content[-10:]
assert read(sys.argv[1]) == content
"#;
        setup.python(script, &[key]);
    }
}

#[test]
fn a_key_is_mapped_into_memory() {
    let Some(setup) = setup() else { return };
    let content = pattern(3_000_000);
    std::fs::write(setup.cluster.dir().join("content"), &content).unwrap();
    for key in BOTH {
        setup.put(key, &content);
        let script = r#"
content = read('../content')
fd = os.open(sys.argv[1], R)
with mmap.mmap(fd, 0, prot=mmap.PROT_READ) as mapped:
    os.close(fd)
    assert mapped[2999990:] == content[2999990:]
    assert mapped[1000000:1000100] == content[1000000:1000100]
    assert mapped[:] == content
private = os.open(sys.argv[1], R)
with mmap.mmap(private, 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE) as mapped:
    mapped[0:3] = b'own'
assert read(sys.argv[1]) == content
"#;
        setup.python(script, &[key]);
    }
}

#[test]
fn a_published_key_is_not_opened_for_writing() {
    let script = r#"
key = sys.argv[1]
for flags in [W, RW, W | os.O_APPEND, W | os.O_TRUNC, RW | os.O_CREAT, W | os.O_CREAT | os.O_TRUNC, R | os.O_TRUNC]:
    assert errno_of(os.open, key, flags) == 'EPERM', flags
assert errno_of(os.open, key, NEW | os.O_EXCL) == 'EEXIST'
make(key + '_2')
assert errno_of(os.open, key + '_2', RW) == 'EPERM'
os.unlink(key + '_2')
"#;
    with_both_keys(b"content", script);
}

#[test]
fn a_published_key_is_not_truncated() {
    let script = r#"
for size in [0, 3, 100]:
    assert errno_of(os.truncate, sys.argv[1], size) == 'EPERM'
fd = os.open(sys.argv[1], R)
assert errno_of(os.ftruncate, fd, 0) in ['EINVAL', 'EBADF']
assert errno_of(os.write, fd, b'x') == 'EBADF'
"#;
    with_both_keys(b"content", script);
}

#[test]
fn readers_of_an_unlinked_key_read_on() {
    let Some(setup) = setup() else { return };
    let content = pattern(9_000_000);
    std::fs::write(setup.cluster.dir().join("content"), &content).unwrap();
    for key in BOTH {
        setup.put(key, &content);
        let script = r#"
content = read('../content')
first, second = os.open(sys.argv[1], R), os.open(sys.argv[1], R)
assert os.read(first, 1000) == content[:1000]
os.unlink(sys.argv[1])
assert errno_of(os.stat, sys.argv[1]) == 'ENOENT'
assert errno_of(os.unlink, sys.argv[1]) == 'ENOENT'
rest = b''
while piece := os.read(first, 1 << 20):
    rest += piece
assert rest == content[1000:]
assert os.pread(second, 1000, 8000000) == content[8000000:8001000]
assert os.fstat(second).st_size == len(content)
"#;
        setup.python(script, &[key]);
        assert!(!setup.is_key(key));
    }
}

#[test]
fn readers_read_on_though_another_client_deleted_the_key() {
    let Some(setup) = setup() else { return };
    let content = pattern(9_000_000);
    for key in BOTH {
        setup.put(key, &content);
        let mut open = std::fs::File::open(setup.mount.path(key)).unwrap();
        setup.cluster.ok(&["rm", &format!("s4://{key}")]);
        let mut found = Vec::new();
        std::io::Read::read_to_end(&mut open, &mut found).unwrap();
        assert!(found == content, "{key}");
    }
}

#[test]
fn a_key_is_renamed_to_a_free_name_on_any_node_with_its_mode_and_time() {
    let Some(setup) = setup() else { return };
    let other = setup.other_mount();
    let content = pattern(1_500_000);
    for (old, new) in [(LOCAL, "b/2_new"), (LOCAL, "b/3_new"), (REMOTE, "b/5_new"), (REMOTE, "b/4_new")] {
        setup.put(old, &content);
        let script = r#"
old, new, theirs = sys.argv[1:]
os.chmod(old, 0o540)
os.utime(old, ns=(1, 1234567890123456789))
os.rename(old, new)
assert errno_of(os.stat, old) == 'ENOENT'
for path in [new, theirs]:
    found = os.stat(path)
    assert (found.st_size, stat.S_IMODE(found.st_mode), found.st_mtime_ns) == (1500000, 0o540, 1234567890123456789), found
"#;
        setup.python(script, &[old, new, other.path(new).to_str().unwrap()]);
        assert!(setup.key(new) == content, "{old} to {new}");
        assert!(!setup.is_key(old));
        assert_eq!(setup.bash(&format!("cat {new}")).len(), text(&content).len());
    }
}

/// The kernel goes on with the inode that it knows, under the new name.
#[test]
fn a_renamed_key_is_changed_and_read_under_its_new_name() {
    let Some(setup) = setup() else { return };
    for (old, new) in [(LOCAL, "b/2_new"), (LOCAL, "b/3_new"), (REMOTE, "b/5_new"), (REMOTE, "b/4_new")] {
        let script = r#"
old, new = sys.argv[1:]
make(old)
os.rename(old, new)
tell(errno_of(os.chmod, new, 0o500))
tell(errno_of(os.utime, new, ns=(5, 1000000000000000000)))
found = os.stat(new)
tell((oct(stat.S_IMODE(found.st_mode)), found.st_mtime_ns))
assert os.getxattr(new, 'user.s4.node').decode() == str(int(os.path.basename(new)[0]) % 2)
assert read(new) == b'content'
"#;
        let told = setup.python(script, &[old, new]);
        assert_eq!(told, "ok\nok\n('0o500', 1000000000000000000)\n", "{old} to {new}");
    }
}

#[test]
fn a_change_of_a_renamed_key_is_not_one_of_the_key_that_took_its_old_name() {
    let Some(setup) = setup() else { return };
    for (old, new) in [(LOCAL, "b/2_new"), (LOCAL, "b/3_new"), (REMOTE, "b/5_new"), (REMOTE, "b/4_new")] {
        let script = r#"
old, new = sys.argv[1:]
make(old)
os.rename(old, new)
make(old, b'another')
os.chmod(new, 0o500)
tell([oct(stat.S_IMODE(os.stat(path).st_mode)) for path in [old, new]])
os.unlink(old)
"#;
        let told = setup.python(script, &[old, new]);
        assert_eq!(told, "['0o555', '0o500']\n", "{old} to {new}");
    }
}

#[test]
fn a_key_is_renamed_into_another_directory_and_its_readers_read_on() {
    let Some(setup) = setup() else { return };
    for (old, new) in [(LOCAL, "b/d/0_k"), (REMOTE, "b/d/1_k"), (LOCAL, "b/d/1_x")] {
        setup.put(old, b"content");
        let script = r#"
os.makedirs('b/d', exist_ok=True)
fd = os.open(sys.argv[1], R)
os.rename(sys.argv[1], sys.argv[2])
assert os.read(fd, 100) == b'content'
assert read(sys.argv[2]) == b'content'
"#;
        setup.python(script, &[old, new]);
        assert_eq!(setup.key(new), b"content");
    }
}

#[test]
fn a_rename_to_a_taken_name_is_refused_and_changes_nothing() {
    let Some(setup) = setup() else { return };
    setup.bash("mkdir b/0_dir");
    for (old, new) in [(LOCAL, "b/2_t"), (LOCAL, "b/3_t"), (REMOTE, "b/5_t"), (REMOTE, "b/4_t")] {
        setup.bash(&format!("test -e {old} || echo old > {old}; echo new > {new}"));
        let script = r#"
old, new = sys.argv[1:]
assert errno_of(os.rename, old, new) == 'EEXIST'
assert errno_of(os.rename, old, 'b/0_dir') in ['EEXIST', 'EISDIR']
os.rename(old, old)
writing = os.open('b/0_writing', NEW)
assert errno_of(os.rename, old, 'b/0_writing') == 'EEXIST'
assert errno_of(os.rename, 'b/0_writing', old) == 'EEXIST'
os.unlink('b/0_writing')
"#;
        setup.python(script, &[old, new]);
        assert_eq!((text(&setup.key(old)), text(&setup.key(new))), ("old\n".into(), "new\n".into()));
    }
}

#[test]
fn a_directory_is_not_renamed_so_that_mv_copies() {
    let Some(setup) = setup() else { return };
    setup.bash("mkdir -p b/d/e; echo zero > b/d/0_k; echo one > b/d/e/1_k");
    let script =
        "assert errno_of(os.rename, 'b/d', 'b/new') == 'EXDEV'\nassert errno_of(os.rename, 'b', 'c') == 'EXDEV'";
    setup.python(script, &[]);
    setup.bash("mv b/d b/new");
    assert_eq!((text(&setup.key("b/new/0_k")), text(&setup.key("b/new/e/1_k"))), ("zero\n".into(), "one\n".into()));
    assert!(!setup.mount.path("b/d").exists());
}

#[test]
fn a_directory_made_or_removed_is_seen_by_every_mount() {
    let Some(setup) = setup_with(3, &[1, 2], &[]) else { return };
    let other = setup.other_mount();
    for name in ["0_d", "1_d", "2_d", "name", "b"] {
        let script = r#"
mine, theirs = sys.argv[1:]
os.mkdir(mine)
assert os.path.isdir(theirs)
assert os.listdir(theirs) == []
assert os.path.basename(mine) in os.listdir(os.path.dirname(theirs))
assert errno_of(os.mkdir, mine) == errno_of(os.mkdir, theirs) == 'EEXIST'
os.rmdir(theirs)
assert os.path.basename(mine) not in os.listdir('b')
"#;
        let path = format!("b/{name}");
        setup.python(script, &[&path, other.path(&path).to_str().unwrap()]);
        eventually("the removed directory is gone", || (!setup.mount.path(&path).exists()).then_some(()));
    }
}

/// The kernel still holds the removed directory, and must not take the new one for it.
#[test]
fn a_directory_made_again_takes_keys_while_the_old_one_is_in_use() {
    let Some(setup) = setup() else { return };
    for dir in ["b/0_d", "b/1_d"] {
        let script = r#"
os.mkdir(sys.argv[1])
os.chdir(sys.argv[1])
make('0_k')
fd = os.open('0_k', R)
os.unlink('0_k')
os.rmdir(sys.argv[2])
os.mkdir(sys.argv[2])
tell(errno_of(make, sys.argv[2] + '/2_k'))
tell(errno_of(os.mkdir, sys.argv[2] + '/dir'))
assert os.read(fd, 100) == b'content'
"#;
        let told = setup.python(script, &[dir, setup.mount.path(dir).to_str().unwrap()]);
        assert_eq!(told, "ok\nok\n", "{dir}");
    }
}

#[test]
fn a_directory_stays_when_its_last_key_goes() {
    let Some(setup) = setup() else { return };
    setup.bash(
        "mkdir b/d; echo x > b/d/0_k; echo x > b/d/1_k; rm b/d/0_k b/d/1_k; test -d b/d; rmdir b/d; ! test -e b/d",
    );
}

#[test]
fn a_directory_with_keys_on_any_node_is_not_removed() {
    let Some(setup) = setup_with(3, &[1, 2], &[]) else { return };
    for node in 0..3 {
        setup.put(&format!("b/d/deep/{node}_k"), b"content");
        let script = r#"
assert errno_of(os.rmdir, 'b/d') == 'ENOTEMPTY'
assert errno_of(os.rmdir, 'b/d/deep') == 'ENOTEMPTY'
assert errno_of(os.rmdir, 'b') == 'ENOTEMPTY'
assert read('b/d/deep/' + sys.argv[1]) == b'content'
os.unlink('b/d/deep/' + sys.argv[1])
"#;
        setup.python(script, &[&format!("{node}_k")]);
    }
    let script = r#"
assert errno_of(os.rmdir, 'b/d') == 'ENOTEMPTY', 'a directory that holds an empty one'
os.rmdir('b/d/deep')
os.rmdir('b/d')
writing = os.open('b/0_k', NEW)
assert errno_of(os.rmdir, 'b') == 'ENOTEMPTY'
"#;
    setup.python(script, &[]);
}

#[test]
fn chown_is_accepted_and_not_stored() {
    let script = r#"
before = os.stat(sys.argv[1])
os.chown(sys.argv[1], 1234, 5678)
os.chown('b', 1234, 5678)
after = os.stat(sys.argv[1])
assert (before.st_uid, before.st_gid) == (after.st_uid, after.st_gid)
"#;
    with_both_keys(b"content", script);
}

#[test]
fn links_and_devices_are_refused() {
    let script = r#"
key = sys.argv[1]
assert errno_of(os.symlink, 'target', key + '_2') == 'EPERM'
assert errno_of(os.link, key, key + '_2') == 'EPERM'
assert errno_of(os.mknod, key + '_2', 0o644 | stat.S_IFCHR, os.makedev(1, 3)) == 'EPERM'
assert errno_of(os.mknod, key + '_2', 0o644 | stat.S_IFBLK, os.makedev(8, 0)) == 'EPERM'
"#;
    with_both_keys(b"content", script);
}

#[test]
fn bad_names_are_refused() {
    let Some(setup) = setup() else { return };
    let script = r#"
bad = ['white space', 'tab\t', 'new\nline', '\x01', 'del\x7f', 'nbsp\u00a0', b'\xff\xfe', 'u2028\u2028']
for name in bad:
    path = (b'b/' if type(name) is bytes else 'b/') + name
    for call in [lambda: os.open(path, NEW), lambda: os.mkdir(path), lambda: os.rename('b/0_k', path)]:
        assert errno_of(call) == 'EINVAL', (name, errno_of(call))
    assert errno_of(os.stat, path) in ['ENOENT', 'EINVAL'], name
for bucket in ['.hidden', '_x', 'white space']:
    assert errno_of(os.mkdir, bucket) == 'EINVAL', bucket
assert errno_of(os.open, 'key', NEW) == 'EINVAL', 'a key outside of a bucket'
assert errno_of(os.rename, 'b/0_k', 'key') == 'EINVAL'
make('b/.hidden')
make('b/_x')
make('b/ünï')
assert sorted(os.listdir('b')) == ['.hidden', '0_k', '_x', 'ünï']
"#;
    setup.put(LOCAL, b"content");
    setup.python(script, &[]);
    assert_eq!(setup.key("b/ünï"), b"content");
}

#[test]
fn a_listing_is_whole_and_has_each_name_once() {
    let Some(setup) = setup_with(3, &[2], &[]) else { return };
    let script = r#"
for n in range(600):
    make(f'b/{n}_k')
    if n % 3 == 0:
        os.mkdir(f'b/dir{n}')
writing = os.open('b/writing', NEW)
tell('made')
await_word()
"#;
    let mut maker = setup.spawn_python(script, &[]);
    let mut line = String::new();
    let stdout = std::io::BufReader::new(maker.stdout.take().unwrap());
    std::io::BufRead::read_line(&mut { stdout }, &mut line).unwrap();
    assert_eq!(line, "made\n");
    let compare = r#"
names = [f'{n}_k' for n in range(600)] + [f'dir{n}' for n in range(0, 600, 3)]
assert sorted(os.listdir('b')) == sorted(names + sys.argv[1:])
kinds = {entry.name: entry.is_dir() for entry in os.scandir('b')}
assert all(kinds[name] == name.startswith('dir') for name in names)
"#;
    setup.python(compare, &["writing"]);
    let other = setup.other_mount();
    finish_python(spawn_python(&other, compare, &[]));
    drop(maker.stdin.take());
    assert!(maker.wait().unwrap().success());
}

#[test]
fn ordinary_tools_work_on_trees_of_keys() {
    let Some(setup) = setup() else { return };
    setup.bash(
        "set -e; mkdir -p ../tree/sub; for n in 0 1 2 3 4 5; do seq $n 1000 > ../tree/${n}_k; cp ../tree/${n}_k ../tree/sub; done
         cp -r ../tree b/tree; diff -r ../tree b/tree
         tar -cf b/0_tree.tar -C b tree; mkdir ../out; tar -xf b/0_tree.tar -C ../out; diff -r ../tree ../out/tree
         test $(find b/tree -type f | wc -l) = 12; grep -rl '^1000$' b/tree | wc -l | grep -qx 12
         rm -r b/tree; ! test -e b/tree",
    );
}

#[test]
fn what_was_mounted_read_only_is_only_read() {
    let Some(Setup { cluster, mount }) = setup() else { return };
    cluster.put("s4://b/0_k", b"content");
    drop(mount);
    let mount = Mount::new(&cluster, "read-only", &["-o", "ro"]);
    let script = r#"
assert read('b/0_k') == b'content'
assert errno_of(os.open, 'b/0_new', NEW) == errno_of(os.unlink, 'b/0_k') == errno_of(os.mkdir, 'c') == 'EROFS'
"#;
    finish_python(spawn_python(&mount, script, &[]));
}
