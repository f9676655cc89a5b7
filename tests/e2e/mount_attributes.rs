//! What stat, df, du and getfattr show of keys and directories, and what may be changed of it.

use crate::mounting::Mount;
use crate::scripting::{BOTH, LOCAL, REMOTE, finish_python, next_line, send_line, setup, setup_with};
use std::process::Command;

/// One line a file: what stat shows of it.
const STATS: &str = r#"
for path in ['b', 'b/d', 'b/0_k', 'b/1_k', 'b/d/0_empty']:
    s = os.stat(path)
    # The kernel may know for a moment what time a directory had.
    mtime = 0 if stat.S_ISDIR(s.st_mode) else s.st_mtime_ns
    tell(f'{path} {s.st_ino} {s.st_size} {s.st_blocks} {mtime} {oct(s.st_mode)} {s.st_nlink}')
entries = sorted((entry.name, entry.inode()) for entry in os.scandir('b'))
tell(entries)
assert all(inode == os.stat('b/' + name).st_ino for name, inode in entries), entries
"#;

#[test]
fn mode_and_times_are_stored_with_the_key_and_write_bits_stay_off() {
    let Some(setup) = setup() else { return };
    let other = setup.other_mount();
    for key in BOTH {
        setup.put(key, b"content");
        let script = r#"
mine, theirs = sys.argv[1:]
def shown(path):
    found = os.stat(path)
    return oct(stat.S_IMODE(found.st_mode)), found.st_mtime_ns
assert shown(mine)[0] == '0o444'
os.chmod(mine, 0o777)
os.utime(mine, ns=(5, 1000000000123456789))
assert shown(mine) == ('0o555', 1000000000123456789), shown(mine)
assert shown(theirs) == shown(mine), shown(theirs)
os.chmod(mine, 0o200)
assert shown(mine)[0] == '0o0'
os.utime(mine, ns=(0, -3000000000))
assert shown(mine)[1] == -3000000000
os.chmod(mine, 0o644)
"#;
        setup.python(script, &[key, other.path(key).to_str().unwrap()]);
        assert_eq!(setup.key(key), b"content");
    }
}

/// Whatever mode a user gives a key, the daemon reads it: an ordinary user's one too, whom modes bind.
#[test]
fn a_key_of_any_mode_is_readable_on_disk_and_shows_the_mode_that_it_was_given() {
    let Some(setup) = setup() else { return };
    let other = setup.other_mount();
    let on_disk = |node: usize, key: &str| {
        use std::os::unix::fs::PermissionsExt;
        std::fs::metadata(setup.cluster.data(node).join(key)).unwrap().permissions().mode() & 0o777
    };
    for (node, key) in BOTH.into_iter().enumerate() {
        setup.put(key, b"content");
        let made = format!("b/{node}_made");
        let script = r#"
mine, theirs, made = sys.argv[1:]
def shown(path):
    listed = {entry.name: entry.stat() for entry in os.scandir(os.path.dirname(path))}[os.path.basename(path)]
    found = stat.S_IMODE(os.stat(path).st_mode)
    assert stat.S_IMODE(listed.st_mode) == found
    return oct(found)
os.umask(0)
for mode in list(range(0o1000)) + [0o111, 0o4755, 0o1000]:
    if mode % 7 and mode not in (0o111, 0o1000): continue
    os.chmod(mine, mode)
    assert shown(mine) == shown(theirs) == oct(mode & 0o555), (oct(mode), shown(mine), shown(theirs))
for mode in (0, 0o111, 0o044, 0o400, 0o777):
    out = os.open(made, NEW, mode)
    os.write(out, b'made')
    os.close(out)
    assert shown(made) == oct(mode & 0o555), (oct(mode), shown(made))
    tell('made')
    await_word()
    os.unlink(made)
os.chmod(mine, 0o111)
"#;
        let mut child = setup.spawn_python(script, &[key, other.path(key).to_str().unwrap(), &made]);
        for _ in 0..5 {
            assert_eq!(next_line(&mut child), "made");
            assert_eq!(on_disk(node, &made) & 0o400, 0o400);
            send_line(&mut child, "go on");
        }
        finish_python(child);
        assert_eq!(on_disk(node, key), 0o511);
        assert_eq!(setup.key(key), b"content");
        setup.bash(&format!("mv {key} {key}_moved; test $(stat -c %a {key}_moved) = 111; chmod 444 {key}_moved"));
        assert_eq!(on_disk(node, &format!("{key}_moved")), 0o444);
    }
}

#[test]
fn mode_and_times_set_before_the_close_become_the_keys() {
    let Some(setup) = setup() else { return };
    let other = setup.other_mount();
    for key in BOTH {
        let script = r#"
mine, theirs = sys.argv[1:]
os.umask(0o027)
out = os.open(mine, NEW, 0o777)
assert stat.S_IMODE(os.fstat(out).st_mode) == 0o750
os.write(out, b'content')
os.utime(out, ns=(5, 1000000000123456789))
os.close(out)
for path in [mine, theirs]:
    found = os.stat(path)
    assert (stat.S_IMODE(found.st_mode), found.st_mtime_ns) == (0o550, 1000000000123456789), (path, found)
"#;
        setup.python(script, &[key, other.path(key).to_str().unwrap()]);
        setup.bash(&format!("cp -p {key} {key}_2; test $(stat -c %Y {key}_2) = 1000000000"));
    }
}

#[test]
fn stat_shows_true_sizes_and_inode_numbers_that_outlive_the_mount() {
    let Some(mut setup) = setup() else { return };
    setup.put(LOCAL, &[1; 100_000]);
    setup.put(REMOTE, &vec![0; 1_000_000]);
    setup.put("b/d/0_empty", b"");
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let before = setup.python(STATS, &[]);
    let of = |path: &str| before.lines().find(|line| line.starts_with(&format!("{path} "))).unwrap().to_owned();
    let fields = |path: &str| of(path).split(' ').skip(2).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(fields(LOCAL)[..2], ["100000", "196"]);
    assert_eq!(fields(REMOTE)[..2], ["1000000", "1954"]);
    assert_eq!(fields("b/d/0_empty")[..2], ["0", "0"]);
    let mtime: u64 = fields(REMOTE)[2].parse::<u64>().unwrap() / 1_000_000_000;
    assert!(now.abs_diff(mtime) < 60, "{mtime} at {now}");
    setup.mount = Mount::new(&setup.cluster, "again", &[]);
    assert_eq!(setup.python(STATS, &[]), before);
}

#[test]
fn a_directory_shows_one_time_however_it_is_looked_at() {
    let Some(setup) = setup_with(3, &[1, 2], &[]) else { return };
    let other = setup.other_mount();
    for node in 0..3 {
        setup.put(&format!("b/d/{node}_k"), b"content");
    }
    let script = r#"
before = os.stat('b/d').st_mtime_ns
tell([(entry.name, entry.stat().st_mtime_ns) for entry in os.scandir('b')] == [('d', before)])
tell(os.stat('b/d').st_mtime_ns == before)
tell(os.stat(sys.argv[1]).st_mtime_ns == before)
"#;
    let told = setup.python(script, &[other.path("b/d").to_str().unwrap()]);
    assert_eq!(told, "True\nTrue\nTrue\n", "by listing, after it, in another mount");
}

#[test]
fn du_and_df_sum_over_the_nodes() {
    let Some(setup) = setup() else { return };
    setup.put("b/d/0_k", &vec![1; 1 << 20]);
    setup.put("b/d/1_k", &vec![2; 2 << 20]);
    let du = setup.bash("du -B1 --apparent-size -c b/d/* | tail -1; du -B1 -c b/d/* | tail -1");
    assert_eq!(du, "3145728\ttotal\n3145728\ttotal\n");
    let script = r#"
mount, disk = os.statvfs('.'), os.statvfs('..')
total = mount.f_blocks * mount.f_frsize / (disk.f_blocks * disk.f_frsize)
assert 1.9 < total < 2.1, total
assert mount.f_bavail > disk.f_bavail * disk.f_frsize / mount.f_frsize * 1.5
assert mount.f_namemax == 255
"#;
    setup.python(script, &[]);
}

#[test]
fn extended_attributes_tell_node_and_checksum_and_are_neither_listed_nor_set() {
    let Some(setup) = setup() else { return };
    for (node, key) in ["b/0_k", "b/1_k"].into_iter().enumerate() {
        setup.put(key, b"content");
        let stored = s4::stored::recorded_at(&setup.cluster.data(node).join(key)).unwrap().unwrap();
        let script = r#"
key, node, checksum = sys.argv[1:]
assert os.listxattr(key) == []
assert os.getxattr(key, 'user.s4.node').decode() == node
assert os.getxattr(key, 'user.s4.checksum').decode() == checksum
assert errno_of(os.getxattr, key, 'user.other') == 'ENODATA'
assert errno_of(os.getxattr, key, 'security.selinux') == 'ENOTSUP'
for path in [key, 'b']:
    for name in ['user.s4.node', 'user.mine']:
        assert errno_of(os.setxattr, path, name, b'1') == 'ENOTSUP', (path, name)
        assert errno_of(os.removexattr, path, name) == 'ENOTSUP'
assert os.listxattr('b') == []
"#;
        setup.python(script, &[key, &node.to_string(), &stored.to_string()]);
    }
    // Tools that copy what is listed.
    if Command::new("rsync").arg("--version").output().is_ok() {
        setup.bash("mkdir c; rsync -aX b/ c/; rsync -aX b/ ../copy/; rsync -aX ../copy/ d/; cat c/* d/*");
    }
    setup.bash("mkdir e; cp --preserve=all b/0_k e/0_k; tar --xattrs -cf - b | tar --xattrs -C e -xf -; cat e/b/1_k");
}
