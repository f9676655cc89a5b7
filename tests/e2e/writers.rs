//! Every way to write a key by every way into a mount: all bytes are published, or the writer is told. The matrix is printed.

use crate::harness::{eventually, text};
use crate::scripting::{BOTH, Setup, setup};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What is written; longer than what is published in one request, so that both ways of publishing have their turn.
const LINES: usize = 60_000;

/// How a script reaches the mount.
#[derive(Clone, Copy, PartialEq)]
enum Way {
    Mount,
    Bind,
    Chroot,
    Namespaces,
    /// The mount is at another path than it was made at.
    Moved,
}

const WAYS: [(&str, Way); 5] = [
    ("mount", Way::Mount),
    ("bind", Way::Bind),
    ("chroot", Way::Chroot),
    ("namespaces", Way::Namespaces),
    ("moved", Way::Moved),
];

/// Shell scripts with `$in`, the file of all lines, `$first` and `$rest`, two parts of it, and `$k`, the key.
const WRITERS: [(&str, &str); 27] = [
    ("bash >", "bash -c 'cat $in > $k'"),
    ("dash >", "dash -c 'cat $in > $k'"),
    ("busybox >", "busybox sh -c 'busybox cat $in > $k'"),
    ("zsh >", "zsh -fc 'cat $in > $k'"),
    ("bash built-in", "bash -c 'x=$(cat $in); echo \"$x\" > $k'"),
    ("dash built-in", "dash -c 'x=$(cat $in); printf \"%s\\n\" \"$x\" > $k'"),
    ("zsh built-in", "zsh -fc 'x=$(cat $in); print -r -- \"$x\" > $k'"),
    ("bash subshell", "bash -c '(cat $first; cat $rest) > $k'"),
    ("dash subshell", "dash -c '(cat $first; cat $rest) > $k'"),
    ("busybox subshell", "busybox sh -c '(cat $first; cat $rest) > $k'"),
    ("zsh subshell", "zsh -fc '(cat $first; cat $rest) > $k'"),
    ("exec 3>", "bash -c 'exec 3> $k; cat $first >&3; cat $rest >&3; exec 3>&-'"),
    ("dash exec 3>", "dash -c 'exec 3> $k; cat $first >&3; cat $rest >&3; exec 3>&-'"),
    ("touch, >", "bash -c 'touch $k; cat $in > $k'"),
    ("tee", "cat $in | tee $k > /dev/null"),
    ("dd", "dd if=$in of=$k bs=65536 status=none"),
    ("cp", "cp $in $k"),
    ("tar", "tar -C $parts -cf - all | tar -xOf - all > $k"),
    ("gzip", "gzip -c $in > $k.gz && gzip -dc $k.gz > $k"),
    ("sort -o", "sort -o $k $rest $first"),
    ("python3", "python3 -ISc 'import sys; open(sys.argv[2], \"wb\").write(open(sys.argv[1], \"rb\").read())' $in $k"),
    (
        "node",
        "node -e 'const f = require(\"fs\"); f.writeFileSync(process.argv[2], f.readFileSync(process.argv[1]))' $in $k",
    ),
    (
        "node stream",
        "node -e 'const f = require(\"fs\"); f.createReadStream(process.argv[1]).pipe(f.createWriteStream(process.argv[2]))' $in $k",
    ),
    ("daemonised child", "python3 -ISc \"$daemon\" $in $k"),
    ("passed descriptor", "python3 -ISc \"$passed\" $in $k"),
    ("mmap", "python3 -ISc \"$mapped\" $in $k"),
    ("mmap after close", "python3 -ISc \"$mapped_on\" $in $k"),
];

/// The opener is done before the first byte is written.
const DAEMON: &str = r#"
import os, sys
out = os.open(sys.argv[2], os.O_CREAT | os.O_WRONLY)
done, tell = os.pipe()
closed, closing = os.pipe()
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.close(done)
        os.close(closing)
        os.read(closed, 1)
        os.write(out, open(sys.argv[1], 'rb').read())
        try:
            os.close(out)
        except OSError as e:
            os.write(tell, str(e).encode())
        os._exit(0)
    os._exit(0)
os.wait()
os.close(out)
os.close(closing)
os.close(tell)
sys.exit(os.read(done, 1000).decode() or 0)
"#;

/// The opener has closed its descriptor while it is on its way.
const PASSED: &str = r#"
import array, os, socket, sys
ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
closed, closed_too = os.pipe()
child = os.fork()
if child == 0:
    ours.close()
    os.close(closed_too)
    os.read(closed, 1)
    data, passed, *_ = theirs.recvmsg(1, socket.CMSG_SPACE(4))
    out = array.array('i', passed[0][2])[0]
    os.write(out, open(sys.argv[1], 'rb').read())
    os.close(out)
    os._exit(0)
theirs.close()
out = os.open(sys.argv[2], os.O_CREAT | os.O_WRONLY)
ours.sendmsg([b'x'], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', [out]))])
os.close(out)
os.close(closed_too)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"#;

const MAPPED: &str = r#"
import mmap, os, sys
content = open(sys.argv[1], 'rb').read()
out = os.open(sys.argv[2], os.O_CREAT | os.O_RDWR)
os.ftruncate(out, len(content))
with mmap.mmap(out, len(content)) as mapped:
    mapped[:] = content
os.close(out)
"#;

/// As most programs do it: the mapping outlives the descriptor.
const MAPPED_ON: &str = r#"
import ctypes, mmap, os, sys
content = open(sys.argv[1], 'rb').read()
libc = ctypes.CDLL(None)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
out = os.open(sys.argv[2], os.O_CREAT | os.O_RDWR)
os.ftruncate(out, len(content))
mapped = libc.mmap(None, len(content), mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_SHARED, out, 0)
os.close(out)
ctypes.memmove(mapped, content, len(content))
libc.munmap(mapped, len(content))
"#;

struct Ways {
    setup: Setup,
    parts: PathBuf,
}

impl Ways {
    fn new(setup: Setup) -> Self {
        let parts = setup.cluster.dir().join("parts");
        std::fs::create_dir(&parts).unwrap();
        let lines: Vec<String> = (0..LINES).map(|n| format!("{n:06}\n")).collect();
        for (name, range) in [("all", 0..LINES), ("first", 0..LINES / 3), ("rest", LINES / 3..LINES)] {
            std::fs::write(parts.join(name), lines[range].concat()).unwrap();
        }
        Self { setup, parts }
    }

    fn content(&self) -> Vec<u8> {
        std::fs::read(self.parts.join("all")).unwrap()
    }

    /// A shell that runs `script` with the bucket's directory `dir` as its own.
    fn shell(&self, way: Way, script: &str) -> Command {
        let bucket = self.setup.mount.path("b");
        let (bucket, cluster) = (bucket.display(), self.setup.cluster.dir().display());
        // What is mounted here goes with the namespace.
        let (own, script) = match way {
            Way::Mount => (vec![], format!("cd {bucket}; {script}")),
            Way::Bind => {
                let bind = format!("mkdir -p {cluster}/bind; mount --bind {bucket} {cluster}/bind; cd {cluster}/bind");
                (vec!["--mount"], format!("{bind}; {script}"))
            }
            Way::Chroot => {
                let root = format!("{cluster}/root");
                let binds = format!(
                    "mkdir -p {root}; mount --rbind / {root}; mkdir -p {cluster}/inside; mount --bind {bucket} {root}{cluster}/inside"
                );
                (
                    vec!["--mount"],
                    format!(
                        "{binds}; export script; exec chroot {root} bash -c 'cd {cluster}/inside; eval \"$script\"'"
                    ),
                )
            }
            Way::Namespaces => {
                let bind =
                    format!("mkdir -p {cluster}/apart; mount --bind {bucket} {cluster}/apart; cd {cluster}/apart");
                (
                    vec!["--user", "--map-root-user", "--pid", "--fork", "--mount-proc", "--mount"],
                    format!("{bind}; {script}"),
                )
            }
            // The mount itself is moved, so that its path is another than it was made with.
            Way::Moved => {
                let mount = self.setup.mount.dir().display();
                let moved = format!(
                    "mount --make-rprivate /; mkdir -p {cluster}/elsewhere; mount --move {mount} {cluster}/elsewhere; cd {cluster}/elsewhere/b"
                );
                (vec!["--mount"], format!("{moved}; {script}"))
            }
        };
        let mut command = Command::new("unshare");
        command.args(&own).args(["bash", "-c", &format!("set -eo pipefail; {script}")]);
        if own.is_empty() {
            command = Command::new("bash");
            command.args(["-c", &format!("set -eo pipefail; {script}")]);
        }
        let part = |name: &str| self.parts.join(name);
        command.env("parts", &self.parts);
        command.env("in", part("all")).env("first", part("first")).env("rest", part("rest"));
        command.env("daemon", DAEMON).env("passed", PASSED).env("mapped", MAPPED).env("mapped_on", MAPPED_ON);
        command.stdin(Stdio::null()).current_dir(self.setup.cluster.dir());
        command
    }

    /// What came of one cell: `whole`, or that the writer was told.
    fn cell(&self, way: Way, writer: &str, key: &str) -> String {
        let mut command = self.shell(way, writer);
        let output = command.env("k", key).env("script", writer).output().expect("it runs");
        let path = format!("b/{key}");
        let whole = || (self.setup.is_key(&path) && self.setup.key(&path) == self.content()).then_some(());
        if !output.status.success() {
            return format!("TOLD {}", text(&output.stderr).trim());
        }
        // A child that goes on, or a mapping, is done a moment later.
        let began = std::time::Instant::now();
        while began.elapsed() < std::time::Duration::from_secs(5) {
            if whole().is_some() {
                return "whole".to_owned();
            }
            std::thread::park_timeout(std::time::Duration::from_millis(20));
        }
        let found =
            if self.setup.is_key(&path) { format!("{} bytes", self.setup.key(&path).len()) } else { "no key".into() };
        format!("LOST: {found} {}", text(&output.stderr).trim())
    }
}

#[test]
fn every_writer_publishes_all_bytes_by_every_way_into_the_mount_or_is_told() {
    let Some(setup) = setup() else { return };
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: only root makes namespaces");
        return;
    }
    let ways = Ways::new(setup);
    let mut lost = Vec::new();
    for (place, home) in [("local", 0), ("remote", 1)] {
        println!("{place:<18} {}", WAYS.map(|(name, _)| format!("{name:<11}")).concat());
        for (row, (name, writer)) in WRITERS.iter().enumerate() {
            let mut cells = Vec::new();
            for (column, (way_name, way)) in WAYS.into_iter().enumerate() {
                let key = format!("{}_{row}_{column}", home + 2 * row);
                let cell = ways.cell(way, writer, &key);
                if cell != "whole" {
                    lost.push(format!("{place}, {name}, {way_name}: {cell}"));
                }
                cells.push(format!("{:<11}", cell.split([' ', ':']).next().unwrap_or("")));
            }
            println!("{name:<18} {}", cells.concat());
        }
    }
    assert!(lost.is_empty(), "{}", lost.join("\n"));
}

/// By the same ways: a signal in the middle leaves no key, or a whole one.
#[test]
fn a_killed_writer_leaves_no_part_of_a_key_by_any_way_into_the_mount() {
    let Some(setup) = setup() else { return };
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: only root makes namespaces");
        return;
    }
    let ways = Ways::new(setup);
    for (column, (name, way)) in WAYS.into_iter().enumerate() {
        for node in 0..BOTH.len() {
            let key = format!("{}_killed", node + 2 * column);
            let writer = "(cat $first; kill -9 $BASHPID; cat $rest) > $k";
            let output = ways.shell(way, writer).env("k", &key).env("script", writer).output();
            assert!(!output.expect("it runs").status.success(), "{name}");
            let mount = &ways.setup.mount;
            eventually("the file is gone from the mount", || (!mount.path(&format!("b/{key}")).exists()).then_some(()));
            assert!(!ways.setup.is_key(&format!("b/{key}")), "{name}: {key} was published");
        }
    }
}

/// A file of its own for the path of a test.
fn read(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap_or_default()
}

/// An empty key may be written once more, also by who comes much later; it is never a mix, and never once it has bytes.
#[test]
fn an_empty_key_is_written_once_more() {
    let Some(setup) = setup() else { return };
    let other = setup.other_mount();
    for key in BOTH {
        setup.bash(&format!("touch {key}; test -f {key}"));
        assert!(setup.is_key(key));
        let number = setup.bash(&format!("stat -c %i {key}"));
        setup.bash(&format!("echo one > {key}"));
        assert_eq!(text(&setup.key(key)), "one\n");
        assert_eq!(setup.bash(&format!("stat -c %i {key}")), number, "{key} is another file");
        assert!(!setup.bash_output(&format!("echo two > {key}")).status.success());
        assert!(!other.sh(&format!("echo two >> {key}")).status.success());
        assert_eq!(read(&other.path(key)), b"one\n");
        // A key that another client has made, by a mount that has never seen it.
        let empty = format!("{key}_empty");
        setup.put(&empty, b"");
        other.ok(&format!("echo three >> {empty}"));
        assert_eq!(text(&setup.key(&empty)), "three\n");
        assert_eq!(setup.bash(&format!("cat {empty}")), "three\n");
    }
    setup.bash("f=$(mktemp b/XXXXXXXX); echo more > $f; grep -qx more $f");
    // Only a mount does so, and only when it asks.
    setup.bash("touch b/0_kept");
    assert!(!setup.cluster.put_output("s4://b/0_kept", b"other").status.success());
    assert_eq!(setup.key("b/0_kept"), b"");
}

#[test]
fn of_two_that_write_an_empty_key_the_later_is_told() {
    let Some(setup) = setup() else { return };
    let other = setup.other_mount();
    for key in BOTH {
        let script = r#"
make(sys.argv[1], b'')
first, second = os.open(sys.argv[1], W), os.open(sys.argv[2], W)
os.write(first, b'first' * 100000)
os.write(second, b'second' * 100000)
tell(errno_of(os.close, second))
tell(errno_of(os.close, first))
tell(read(sys.argv[1]) == read(sys.argv[2]) == b'second' * 100000)
"#;
        let told = setup.python(script, &[key, other.path(key).to_str().unwrap()]);
        assert_eq!(told, "ok\nEEXIST\nTrue\n", "{key}");
    }
}

/// A reader that has the empty key open is in nobody's way, and its file is not written into.
#[test]
fn an_empty_key_is_written_while_it_is_read_renamed_and_deleted() {
    let Some(setup) = setup() else { return };
    for key in BOTH {
        let script = r#"
name = sys.argv[1]
make(name, b'')
reader = os.open(name, R)
writer = os.open(name, RW)
os.write(writer, b'content')
os.close(writer)
assert read(name) == b'content'
assert os.read(reader, 10) == b''
os.close(reader)
os.unlink(name)
make(name, b'')
writer = os.open(name, W)
os.write(writer, b'content')
os.rename(name, name + '_2')
os.close(writer)
assert read(name + '_2') == b'content'
assert errno_of(os.stat, name) == 'ENOENT'
make(name, b'')
writer = os.open(name, W)
os.write(writer, b'content')
os.unlink(name)
assert os.fstat(writer).st_nlink == 0
os.close(writer)
assert errno_of(os.stat, name) == 'ENOENT'
make(name, b'again')
reader = os.open(name, R)
assert os.fstat(reader).st_nlink == 1
os.unlink(name)
assert os.fstat(reader).st_nlink == 0
make(name, b'again')
assert os.stat(name).st_nlink == 1 and os.stat(name).st_ino != os.fstat(reader).st_ino
"#;
        setup.python(script, &[key]);
        assert_eq!(setup.key(&format!("{key}_2")), b"content");
    }
}

/// As `tail -F` looks at it.
#[test]
fn a_file_keeps_its_inode_number_and_its_last_writes_time_when_it_is_published() {
    let Some(setup) = setup() else { return };
    for key in BOTH {
        for len in [7, 100_000, 5_000_000] {
            let script = r#"
name, size = sys.argv[1], int(sys.argv[2])
out = os.open(name, NEW)
reader = os.open(name, R)
os.write(out, b'x' * size)
before = os.fstat(out)
tell('written')
await_word()
os.close(out)
after, held = os.stat(name), os.fstat(reader)
assert before.st_ino == after.st_ino == held.st_ino, (before.st_ino, after.st_ino, held.st_ino)
assert before.st_mtime_ns == after.st_mtime_ns == held.st_mtime_ns, (before.st_mtime_ns, after.st_mtime_ns)
assert read(name) == b'x' * size
os.close(reader)
assert os.stat(name).st_ino == before.st_ino
assert read(name) == b'x' * size
tell(after.st_mtime_ns)
"#;
            let name = format!("{key}_{len}");
            let mut child = setup.spawn_python(script, &[&name, &len.to_string()]);
            assert_eq!(crate::scripting::next_line(&mut child), "written");
            // So that a time of the close is another one.
            let written = std::time::SystemTime::now();
            eventually("the clock goes on", || (written.elapsed().unwrap().as_millis() > 20).then_some(()));
            crate::scripting::send_line(&mut child, "close");
            let told: i64 = crate::scripting::finish_python(child).trim().parse().unwrap();
            assert!(told < s4::time::to_nanoseconds(written) + 10_000_000, "{name}: the time of its close");
        }
    }
}

/// Waits until a process that sleeps between two looks at a file has looked several times more.
fn looks_again(pid: u32) {
    let path = format!("/proc/{pid}/status");
    let sleeps = || -> u64 {
        let status = std::fs::read_to_string(&path).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:")).unwrap();
        line.trim().parse().unwrap()
    };
    let before = sleeps();
    eventually("it looks again", || (sleeps() > before + 60).then_some(()));
}

#[test]
fn tail_follows_a_file_over_its_publishing() {
    let Some(setup) = setup() else { return };
    for key in BOTH {
        let script = r#"
out = os.open(sys.argv[1], NEW)
os.write(out, b'one\n')
tell('written')
await_word()
os.close(out)
"#;
        let mut writer = setup.spawn_python(script, &[key]);
        assert_eq!(crate::scripting::next_line(&mut writer), "written");
        let (seen, said) = (setup.cluster.dir().join("seen"), setup.cluster.dir().join("said"));
        let mut tail = Command::new("tail");
        tail.args(["-n", "+1", "-s", "0.02", "--max-unchanged-stats=1", "-F"]).arg(setup.mount.path(key));
        tail.stdin(Stdio::null()).stdout(File::create(&seen).unwrap()).stderr(File::create(&said).unwrap());
        let mut tail = tail.spawn().unwrap();
        eventually("tail prints it", || (std::fs::read(&seen).unwrap() == b"one\n").then_some(()));
        looks_again(tail.id());
        crate::scripting::send_line(&mut writer, "close");
        crate::scripting::finish_python(writer);
        looks_again(tail.id());
        tail.kill().unwrap();
        tail.wait().unwrap();
        assert_eq!([seen, said].map(|path| std::fs::read_to_string(path).unwrap()), ["one\n", ""], "{key}");
    }
}
