//! What users of a mount see when nodes stop or die, and when much is asked of the mount.

use crate::harness::{Cluster, eventually, peak_kib};
use crate::mounting::Mount;
use crate::scripting::{Setup, setup, setup_with, skipped, spawn_python};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Runs rows of `expected error, operation` all at once, each of which is to end within `sys.argv[1]` seconds.
const AT_ONCE: &str = r#"
import time
def check(rows):
    bad = []
    def run(at, expected, call):
        began = time.monotonic()
        found = errno_of(call)
        took = time.monotonic() - began
        if found not in expected.split() or took > float(sys.argv[1]):
            bad.append((at + 1, expected, found, round(took, 1)))
    threads = [threading.Thread(target=run, args=(at, *row)) for at, row in enumerate(rows)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert not bad, bad
"#;

/// What needs node 1, each in a directory of its own: the kernel lets one after the other change a directory.
const NEEDING_NODE_1: &str = r#"
check([
    ('EIO', lambda: os.stat('a/1_k')),
    ('EIO', lambda: os.stat('i/1_none')),
    ('EIO', lambda: read('a/3_k')),
    ('EIO', lambda: make('b/1_new')),
    ('EIO', lambda: os.unlink('c/1_k')),
    ('EIO', lambda: os.rename('d/1_k', 'd/3_new')),
    ('EIO', lambda: os.chmod('e/1_k', 0o400)),
    ('EIO', lambda: os.listdir('f')),
    ('EIO', lambda: os.listdir('.')),
    ('EIO', lambda: os.rmdir('g/1_d')),
    ('EIO', lambda: os.mkdir('h/1_dir')),
    ('EIO', lambda: os.statvfs('.')),
])
"#;

/// Keys of both nodes, of which node 1 is remote, and a mount that waits 2 s at most.
pub fn two_nodes() -> Option<Setup> {
    let setup = setup_with(2, &[1], &["--deadline", "2"])?;
    setup.bash(
        "for bucket in a b c d e f g h; do mkdir -p $bucket/1_d; for n in 0 1 3; do echo content > $bucket/${n}_k; done; done",
    );
    setup.put("i/1_k", b"content");
    Some(setup)
}

/// All of it works, also what was tried before.
fn assert_all_works(setup: &Setup) {
    let script = r#"
for bucket in 'abcdefgh':
    names = sorted(os.listdir(bucket))
    assert names == ['0_k', '1_d', '1_k', '3_k'], (bucket, names)
    assert [read(f'{bucket}/{name}') for name in names if name != '1_d'] == [b'content\n'] * 3
make('b/1_new')
os.unlink('c/1_k')
os.rename('d/1_k', 'd/3_new')
os.chmod('e/1_k', 0o400)
os.rmdir('g/1_d')
os.mkdir('h/1_dir')
os.statvfs('.')
"#;
    setup.python(script, &[]);
}

#[test]
fn a_node_that_hangs_gives_an_error_within_the_deadline() {
    let Some(setup) = two_nodes() else { return };
    setup.cluster.signal(1, "STOP");
    setup.python(&format!("{AT_ONCE}{NEEDING_NODE_1}"), &["8"]);
    setup.cluster.signal(1, "CONT");
    assert_all_works(&setup);
}

#[test]
fn a_node_that_is_dead_gives_an_error_and_is_used_again_once_it_is_back() {
    let Some(mut setup) = two_nodes() else { return };
    setup.cluster.kill_node(1);
    setup.python(&format!("{AT_ONCE}{NEEDING_NODE_1}"), &["8"]);
    setup.cluster.start_node(1);
    assert_all_works(&setup);
}

const WITHOUT_NODE_1: &str = r#"
check([
    ('ok', lambda: os.stat('0_k')),
    ('ok', lambda: read('0_k')),
    ('ok', lambda: read('2_k')),
    ('ok', lambda: os.unlink('3_k')),
    ('ok', lambda: os.chmod('5_k', 0o400)),
])
"#;

/// Runs `script` in directory `dir` of three nodes once node 1 is stopped, for which the mount would wait long.
fn works_without_node_1(dir: &str, script: &str, stop: impl FnOnce(&mut Cluster)) {
    let Some(mut setup) = setup_with(3, &[1, 2], &[]) else { return };
    for key in [0, 2, 3, 5] {
        setup.put(&format!("{dir}/{key}_k"), b"content");
    }
    // A new mount, whose kernel knows of no names yet.
    setup.mount = Mount::new(&setup.cluster, "again", &["--deadline", "15"]);
    stop(&mut setup.cluster);
    let began = Instant::now();
    setup.python(&format!("{AT_ONCE}os.chdir(sys.argv[2])\n{script}"), &["10", dir]);
    assert!(began.elapsed() < Duration::from_secs(12), "it waited for the node that hangs: {:?}", began.elapsed());
}

#[test]
fn keys_of_other_nodes_do_not_wait_for_a_node_that_hangs() {
    works_without_node_1("b", WITHOUT_NODE_1, |cluster| cluster.signal(1, "STOP"));
}

/// The name of a bucket has a node too, as any name has.
#[test]
fn keys_of_other_nodes_do_not_wait_for_the_node_of_their_buckets_name() {
    works_without_node_1("1_bucket", WITHOUT_NODE_1, |cluster| cluster.signal(1, "STOP"));
}

#[test]
fn keys_of_other_nodes_do_not_wait_for_the_node_of_their_directorys_name() {
    works_without_node_1("b/1_dir", WITHOUT_NODE_1, |cluster| cluster.signal(1, "STOP"));
}

#[test]
fn keys_of_other_nodes_work_as_ever_when_a_node_is_dead() {
    works_without_node_1("1_bucket/1_dir", WITHOUT_NODE_1, |cluster| cluster.kill_node(1));
}

#[test]
fn new_keys_of_other_nodes_are_made_when_a_node_is_dead() {
    let script = r#"
check([('ok', lambda: make('6_new')), ('ok', lambda: make('8_new')), ('ok', lambda: os.rename('0_k', '9_k'))])
"#;
    works_without_node_1("b", script, |cluster| cluster.kill_node(1));
}

/// A directory whose keys are all on a node that is down is there: its home knows of it.
#[test]
fn a_directory_whose_keys_are_on_a_dead_node_is_still_a_directory() {
    let Some(mut setup) = setup_with(3, &[1, 2], &["--deadline", "2"]) else { return };
    // Its name lives on node 2, its keys on node 1.
    for dir in ["2_seen", "2_never_seen"] {
        setup.put(&format!("b/{dir}/1_k"), b"content");
    }
    setup.bash("test -d b/2_seen");
    setup.cluster.kill_node(1);
    let script = r#"
for name in ('b/2_seen', 'b/2_never_seen'):
    for _ in range(2):
        assert stat.S_ISDIR(os.stat(name).st_mode)
        assert errno_of(make, name) == 'EEXIST'
        assert errno_of(os.mkdir, name) == 'EEXIST'
        assert errno_of(os.mkfifo, name) == 'EEXIST'
        assert errno_of(os.rmdir, name) == 'EIO'
        assert errno_of(os.listdir, name) == 'EIO'
make('b/2_new')
os.unlink('b/2_new')
"#;
    setup.python(script, &[]);
    setup.cluster.start_node(1);
    setup.bash("ls b/2_seen b/2_never_seen; cat b/2_seen/1_k; rm -r b/2_seen");
    setup.cluster.kill_node(1);
    setup.python("make('b/2_seen')", &[]);
}

#[test]
fn a_process_that_waits_for_a_node_ends_when_it_is_killed() {
    let Some(setup) = setup_with(2, &[1], &["--deadline", "20"]) else { return };
    setup.put("b/1_k", b"content");
    setup.cluster.signal(1, "STOP");
    let mut reader = Command::new("cat").arg(setup.mount.path("b/1_k")).stdout(Stdio::null()).spawn().unwrap();
    let at = format!("/proc/{}/wchan", reader.id());
    let waits = || std::fs::read_to_string(&at).is_ok_and(|at| at.contains("request_wait_answer"));
    eventually("the reader waits", || waits().then_some(()));
    let began = Instant::now();
    reader.kill().unwrap();
    let status = eventually("the killed reader ends", || reader.try_wait().unwrap());
    assert_eq!(status.signal(), Some(9));
    assert!(began.elapsed() < Duration::from_secs(10), "it ended only after {:?}", began.elapsed());
}

#[test]
fn a_node_that_was_dead_when_the_mount_was_made_is_used_once_it_is_back() {
    if skipped() {
        return;
    }
    let mut cluster = Cluster::start(2);
    cluster.put("s4://b/0_k", b"zero");
    cluster.put("s4://b/1_k", b"one");
    cluster.kill_node(1);
    let mount = Mount::new(&cluster, "mnt", &["--deadline", "2"]);
    assert_eq!(mount.ok("cat b/0_k"), "zero");
    assert!(mount.fails("cat b/1_k").contains("Input/output error"));
    assert!(mount.fails("ls b").contains("Input/output error"));
    cluster.start_node(1);
    assert_eq!(mount.ok("cat b/1_k; ls b; echo new > b/3_k"), "one0_k\n1_k\n");
    assert_eq!(cluster.get("s4://b/3_k"), b"new\n");
}

/// Reads all of a key, and tells how far it came and how that ended. After the first piece it waits for a word.
const READ_LARGE: &str = r#"
fd, got, ended = os.open('b/1_large', R), 0, 'ok'
try:
    while piece := os.read(fd, 100000):
        if got == 0:
            tell('reading')
            await_word()
        got += len(piece)
except OSError as e:
    ended = errno.errorcode[e.errno]
tell(f'{got} {ended}')
"#;

/// A large key of zeros on node 1 of two, made without sending it.
const LARGE: u64 = 256 << 20;

fn reading_a_large_key(fault: impl FnOnce(&mut Cluster)) {
    let Some(mut setup) = setup_with(2, &[1], &["--deadline", "2"]) else { return };
    plant_zeros(&setup.cluster, 1, "b/1_large", LARGE);
    let mut child = setup.spawn_python(READ_LARGE, &[]);
    let mut lines = std::io::BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    std::io::BufRead::read_line(&mut lines, &mut line).unwrap();
    assert_eq!(line, "reading\n");
    fault(&mut setup.cluster);
    drop(child.stdin.take());
    line.clear();
    std::io::BufRead::read_line(&mut lines, &mut line).unwrap();
    assert!(child.wait().unwrap().success());
    let (got, ended) = line.trim().split_once(' ').unwrap();
    let got: u64 = got.parse().unwrap();
    assert!(ended == "EIO" || (ended == "ok" && got == LARGE), "{got} of {LARGE} bytes, then {ended}");
}

/// Puts a file of zeros into a node's store.
fn plant_zeros(cluster: &Cluster, node: usize, key: &str, len: u64) {
    let path = cluster.data(node).join(key);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let file = std::fs::File::create(&path).unwrap();
    file.set_len(len).unwrap();
    let file = std::fs::File::open(&path).unwrap();
    let sums = s4::hasher::sums_of_file(&file).unwrap();
    s4::stored::set_record(&file, &sums.checksum.into()).unwrap();
    sums.table.inspect(|table| s4::stored::set_table(&file, table, sums.checksum).unwrap());
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o444)).unwrap();
}

/// More names of a planted key.
fn plant_links(cluster: &Cluster, node: usize, key: &str, names: impl Iterator<Item = String>) {
    let data = cluster.data(node);
    names.for_each(|name| std::fs::hard_link(data.join(key), data.join(name)).unwrap());
}

#[test]
fn a_daemon_killed_during_a_read_never_makes_the_key_short() {
    reading_a_large_key(|cluster| cluster.kill_node(1));
}

#[test]
fn a_daemon_that_hangs_during_a_read_never_makes_the_key_short() {
    reading_a_large_key(|cluster| cluster.signal(1, "STOP"));
}

#[test]
fn a_daemon_that_restarts_during_a_read_never_makes_the_key_short() {
    reading_a_large_key(|cluster| {
        cluster.kill_node(1);
        cluster.start_node(1);
    });
}

#[test]
fn a_daemon_killed_before_a_close_gives_an_error_and_publishes_nothing() {
    let Some(mut setup) = setup_with(2, &[1], &["--deadline", "2"]) else { return };
    for node in 0..2 {
        let script = r#"
out = os.open(sys.argv[1], NEW)
os.write(out, b'x' * 1000000)
tell('written')
await_word()
tell(errno_of(os.close, out))
"#;
        let key = format!("b/{node}_k");
        let mut child = setup.spawn_python(script, &[&key]);
        eventually("the file is there", || setup.mount.path(&key).exists().then_some(()));
        setup.cluster.kill_node(node);
        drop(child.stdin.take());
        let mut told = String::new();
        std::io::Read::read_to_string(&mut child.stdout.take().unwrap(), &mut told).unwrap();
        assert!(child.wait().unwrap().success());
        assert_eq!(told, "written\nEIO\n");
        setup.cluster.start_node(node);
        if node == 1 {
            setup.cluster.separate([1]);
        }
        assert!(!setup.is_key(&key));
        assert!(!setup.mount.path(&key).exists());
    }
}

#[test]
fn a_mount_holds_little_memory_while_many_read() {
    let Some(setup) = setup() else { return };
    plant_zeros(&setup.cluster, 1, "b/1_k", 64 << 20);
    plant_links(&setup.cluster, 1, "b/1_k", (1..64).map(|n| format!("b/{}_k", 2 * n + 1)));
    let read = setup.bash("for n in $(seq 1 2 127); do cat b/${n}_k | wc -c & done; wait");
    let whole = (64 << 20).to_string();
    assert_eq!(read.lines().filter(|line| line.trim() == whole).count(), 64);
    let peak = peak_kib(setup.mount.pid());
    eprintln!("the mount's peak: {peak} KiB");
    assert!(peak < 128 << 10, "{peak} KiB");
}

#[test]
fn a_mount_holds_little_memory_while_a_large_directory_is_listed() {
    let Some(setup) = setup() else { return };
    for node in 0..2 {
        let first = format!("b/large/{node}_k");
        plant_zeros(&setup.cluster, node, &first, 0);
        plant_links(&setup.cluster, node, &first, (1..10_000).map(|n| format!("b/large/{}_k", 2 * n + node)));
    }
    assert_eq!(setup.bash("ls b/large | wc -l; ls -l b/large | grep -c _k; find b | wc -l"), "20000\n20000\n20002\n");
    let peak = peak_kib(setup.mount.pid());
    assert!(peak < 128 << 10, "{peak} KiB");
}

#[test]
fn a_listing_that_a_node_breaks_off_is_an_error() {
    let Some(mut setup) = setup_with(2, &[1], &["--deadline", "2"]) else { return };
    for node in 0..2 {
        let first = format!("b/large/{node}_k");
        plant_zeros(&setup.cluster, node, &first, 0);
        plant_links(&setup.cluster, node, &first, (1..20_000).map(|n| format!("b/large/{}_k", 2 * n + node)));
    }
    let script = r#"
seen, ended = 0, 'ok'
try:
    with os.scandir('b/large') as entries:
        for entry in entries:
            if seen == 0:
                tell('reading')
                await_word()
            seen += 1
except OSError as e:
    ended = errno.errorcode[e.errno]
tell(f'{seen} {ended}')
"#;
    let mut child = spawn_python(&setup.mount, script, &[]);
    let mut lines = std::io::BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    std::io::BufRead::read_line(&mut lines, &mut line).unwrap();
    setup.cluster.kill_node(1);
    drop(child.stdin.take());
    line.clear();
    std::io::BufRead::read_line(&mut lines, &mut line).unwrap();
    assert!(child.wait().unwrap().success());
    let whole = line == "40000 ok\n";
    assert!(whole || line.ends_with(" EIO\n"), "a partial listing passed off as whole: {line}");
}

/// A reader that leaves the stream does not leave those waiting who still want it.
#[test]
fn threads_that_read_one_remote_key_at_many_places_all_get_its_bytes() {
    let Some(setup) = setup_with(2, &[1], &["--deadline", "5"]) else { return };
    let script = r#"
import random, struct
size = 24 << 20
whole = b''.join(struct.pack('<Q', at) for at in range(0, size, 8))
for round in range(12):
    name = f'b/1_key{round}'
    os.makedirs('b', exist_ok=True)
    with open(name, 'wb') as out:
        out.write(whole)
    fd = os.open(name, os.O_RDONLY)
    bad = []
    def run(number):
        chance = random.Random(round * 100 + number)
        at = 0
        while at < size and not bad:
            # Some go straight on, some leave parts out, some jump anywhere.
            jump = [0, 0, 1 << 20, 3 << 20][number % 4]
            if number >= 4 and chance.random() < 0.2:
                at = chance.randrange(size)
            len = chance.randrange(1, 700_000)
            if os.pread(fd, len, at) != whole[at:at + len]:
                bad.append((number, at, len))
            at += len + jump
    threads = [threading.Thread(target=run, args=(number,), daemon=True) for number in range(3 + round % 6)]
    [thread.start() for thread in threads]
    [thread.join(20) for thread in threads]
    assert not bad, bad
    assert not any(thread.is_alive() for thread in threads), 'a read has no end'
    os.close(fd)
"#;
    setup.python(script, &[]);
}
