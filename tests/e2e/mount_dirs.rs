//! Reading directories: with small buffers, while entries come and go, from where a reader has been, and not for ever.

use crate::harness::eventually;
use crate::scripting::{Setup, finish_python, next_line, send_line, setup, setup_with};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// `getdents(fd, size)` is the system call itself: names, each with the offset after it.
const GETDENTS: &str = r#"
import ctypes, struct, time
libc = ctypes.CDLL(None, use_errno=True)
SYS_getdents64 = {'x86_64': 217, 'aarch64': 61, 'riscv64': 61}[os.uname().machine]
def getdents(fd, size):
    buffer = ctypes.create_string_buffer(size)
    got = libc.syscall(SYS_getdents64, fd, buffer, size)
    if got < 0:
        raise OSError(ctypes.get_errno(), 'getdents')
    at, found = 0, []
    while at < got:
        ino, off, length, kind = struct.unpack_from('QqHB', buffer.raw, at)
        found.append((buffer.raw[at + 19:at + length].split(b'\0')[0].decode(), off))
        at += length
    return [(name, off) for name, off in found if name not in ('.', '..')], got
def rest(fd, size):
    names = []
    while True:
        found, got = getdents(fd, size)
        if not got: return names
        names += [name for name, _ in found]
"#;

/// Puts `count` keys below `b/d`, on all nodes.
fn fill(setup: &Setup, count: usize, name: impl Fn(usize) -> String) {
    let tree = setup.cluster.dir().join("tree");
    std::fs::create_dir(&tree).unwrap();
    for number in 0..count {
        std::fs::write(tree.join(name(number)), "").unwrap();
    }
    setup.cluster.ok(&["cp", "-r", tree.to_str().unwrap(), "s4://b/d"]);
}

#[test]
fn a_pass_costs_one_listing_whatever_the_size_of_the_buffer() {
    let Some(setup) = setup() else { return };
    fill(&setup, 6000, |number| format!("{number}_key"));
    let listings = || {
        let metrics =
            |node| setup.cluster.raw(node, b"GET /metrics HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n");
        (0..2)
            .map(metrics)
            .flat_map(|text| {
                text.lines()
                    .filter(|line| line.starts_with("s4_requests_total") && line.contains("\"list\""))
                    .map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap())
                    .collect::<Vec<_>>()
            })
            .sum::<f64>()
    };
    let mut times = Vec::new();
    for size in ["32768", "512"] {
        let before = listings();
        let began = Instant::now();
        let script =
            "fd = os.open('b/d', R); names = rest(fd, int(sys.argv[1])); tell(len(names)); tell(len(set(names)))";
        assert_eq!(setup.python(&format!("{GETDENTS}{script}"), &[size]), "6000\n6000\n");
        times.push(began.elapsed());
        assert!(listings() - before <= 2.0, "{size}: {} listings", listings() - before);
    }
    println!("6,000 entries: {:?} with 32 KiB, {:?} with 512 bytes", times[0], times[1]);
    assert!(times[1] < times[0] * 3 + Duration::from_secs(2), "{times:?}");
}

#[test]
fn entries_that_are_removed_between_two_reads_hide_no_others() {
    let Some(setup) = setup() else { return };
    fill(&setup, 500, |number| format!("{number}_key"));
    let script = r#"
fd, gone = os.open('b/d', R), 0
while True:
    found, got = getdents(fd, 512)
    if not got: break
    for name, _ in found:
        os.unlink('b/d/' + name)
        gone += 1
assert gone == 500, gone
os.rmdir('b/d')
"#;
    setup.python(&format!("{GETDENTS}{script}"), &[]);
}

/// What is there all the time is seen once, whatever else is made and removed by whomever, also by a reader that goes back.
#[test]
fn entries_that_stay_are_seen_once_while_others_come_and_go() {
    let Some(setup) = setup() else { return };
    let other = setup.other_mount();
    fill(&setup, 400, |number| format!("{number}_{}", if number % 2 == 0 { "stays" } else { "goes" }));
    let script = r#"
import random
theirs, seed = sys.argv[1], int(sys.argv[2])
rng = random.Random(seed)
stays = {f'{n}_stays' for n in range(0, 400, 2)}
going = [f'{n}_goes' for n in range(1, 400, 2)]
fd, seen, places = os.open('b/d', R), [], {0: 0}
begun = [os.open(f'b/d/{n}_written', NEW) for n in range(5)]
while True:
    found, got = getdents(fd, rng.choice([300, 512, 2000]))
    if not got: break
    for name, off in found:
        seen.append(name)
        places[len(seen)] = off
    for _ in range(rng.randrange(6)):
        if going: os.unlink(rng.choice(['b/d/', theirs + '/']) + going.pop(rng.randrange(len(going))))
        made = f'{rng.randrange(10 ** 6)}_made'
        make(rng.choice(['b/d/', theirs + '/']) + made)
    if begun and rng.random() < 0.1: os.close(begun.pop())
    if rng.random() < 0.2 and len(seen) > 20:
        back = len(seen) - rng.randrange(20)
        os.lseek(fd, places[back], os.SEEK_SET)
        del seen[back:]
[os.close(out) for out in begun]
assert len(set(seen)) == len(seen), (seed, [name for name in seen if seen.count(name) > 1])
missing = (stays | {f'{n}_written' for n in range(5)}) - set(seen)
assert not missing, (seed, missing)
"#;
    for seed in ["1", "2", "3"] {
        setup.python(&format!("{GETDENTS}{script}"), &[other.path("b/d").to_str().unwrap(), seed]);
        setup.cluster.run(&["rm", "-r", "s4://b/d"]);
        std::fs::remove_dir_all(setup.cluster.dir().join("tree")).unwrap();
        fill(&setup, 400, |number| format!("{number}_{}", if number % 2 == 0 { "stays" } else { "goes" }));
    }
}

#[test]
fn a_reader_goes_back_to_a_name_and_rewinds_to_what_is_there_now() {
    let Some(setup) = setup() else { return };
    fill(&setup, 300, |number| format!("{number}_key"));
    let script = r#"
fd = os.open('b/d', R)
found = []
while len(found) < 200:
    found += getdents(fd, 700)[0]
names = [name for name, _ in found]
behind = names[100:] + rest(fd, 4096)
for name in names[:50]: os.unlink('b/d/' + name)
os.lseek(fd, found[99][1], os.SEEK_SET)
assert rest(fd, 4096) == behind
os.lseek(fd, 0, os.SEEK_SET)
make('b/d/new')
os.lseek(fd, 0, os.SEEK_SET)
assert sorted(rest(fd, 512)) == sorted(set(names[50:] + behind) | {'new'})
"#;
    setup.python(&format!("{GETDENTS}{script}"), &[]);
}

/// A node does not wait for ever for one who does not read on, and may be restarted meanwhile.
#[test]
fn a_reader_that_pauses_goes_on_though_the_listing_broke_off() {
    let Some(mut setup) = setup() else { return };
    fill(&setup, 12_000, |number| format!("{}_{:0>230}", 2 * (number % 2) + 1, number));
    let script = r#"
fd = os.open('b/d', R)
names = [name for name, _ in getdents(fd, 32768)[0]]
tell('reading')
await_word()
names += rest(fd, 32768)
tell(f'{len(names)} {len(set(names))}')
"#;
    let mut child = setup.spawn_python(&format!("{GETDENTS}{script}"), &[]);
    assert_eq!(next_line(&mut child), "reading");
    setup.cluster.kill_node(1);
    setup.cluster.start_node(1);
    send_line(&mut child, "go on");
    assert_eq!(finish_python(child), "12000 12000\n");
}

#[test]
fn a_reader_of_a_directory_is_killed_while_a_node_is_silent() {
    let Some(setup) = setup_with(2, &[1], &["--deadline", "25"]) else { return };
    fill(&setup, 10, |number| format!("{number}_key"));
    setup.cluster.signal(1, "STOP");
    let mut reader = Command::new("ls").arg(setup.mount.path("b/d")).stdout(Stdio::null()).spawn().unwrap();
    let at = format!("/proc/{}/wchan", reader.id());
    eventually("the reader waits", || {
        std::fs::read_to_string(&at).is_ok_and(|at| at.contains("request_wait_answer")).then_some(())
    });
    let began = Instant::now();
    reader.kill().unwrap();
    let status = eventually("the killed reader ends", || reader.try_wait().unwrap());
    assert_eq!(status.signal(), Some(9));
    assert!(began.elapsed() < Duration::from_secs(8), "it ended only after {:?}", began.elapsed());
    setup.cluster.signal(1, "CONT");
    eventually("the directory is listed", || (setup.bash_output("ls b/d | wc -l").stdout == b"10\n").then_some(()));
}

/// As many keys without bytes as a directory of one node can hold are names of one file.
fn plant(setup: &Setup, node: usize, count: usize) {
    const NAMES_OF_ONE: usize = 50_000;
    let dir = setup.cluster.data(node).join("b/d");
    std::fs::create_dir_all(&dir).unwrap();
    let name = |number| dir.join(format!("{}_{number}", node));
    for number in 0..count {
        if number % NAMES_OF_ONE > 0 {
            std::fs::hard_link(name(number / NAMES_OF_ONE * NAMES_OF_ONE), name(number)).unwrap();
            continue;
        }
        let file = std::fs::File::create(name(number)).unwrap();
        s4::stored::set_record(&file, &s4::checksum::Checksum::of(b"").into()).unwrap();
        file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o444)).unwrap();
    }
}

/// Each takes less than a KiB, for as long as the kernel remembers it. `S4_TEST_NAMES` is another number of them.
#[test]
fn very_many_entries_are_listed_in_bounded_memory() {
    let Some(setup) = setup() else { return };
    let names = std::env::var("S4_TEST_NAMES").map_or(200_000, |names| names.parse::<usize>().expect("a number"));
    (0..2).for_each(|node| plant(&setup, node, names / 2));
    let before = crate::harness::peak_kib(setup.mount.pid());
    let began = Instant::now();
    let script = "fd = os.open('b/d', R); print(len(rest(fd, 32768)))";
    assert_eq!(setup.python(&format!("{GETDENTS}{script}"), &[]), format!("{names}\n"));
    let peak = crate::harness::peak_kib(setup.mount.pid());
    println!("{names} names: {:?}; the mount took {peak} KiB at most, {before} before", began.elapsed());
    // The kernel is told of each, and both remember it.
    assert!(peak - before < (16 << 10) + names as u64, "{before} KiB before, then {peak}");
}
