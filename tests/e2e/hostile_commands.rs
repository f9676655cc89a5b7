//! Commands that end before their processes have, print what is no name, leave what is no file, and open all that they can:
//! they fail as tasks, or their outputs are whole. The daemon stays as it was.

use crate::harness::{Cluster, eventually, peak_kib, resident_kib, text};
use crate::observe::{Marker, end_within, fails_within, leftovers, listed, spawn};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How soon a command that cannot succeed has failed, and more for a busy machine.
const SOON: Duration = Duration::from_secs(10);

/// A daemon of every user that it can run as here.
fn clusters() -> impl Iterator<Item = Cluster> {
    [Some(Cluster::start(1)), Cluster::unprivileged(1)].into_iter().flatten()
}

#[test]
fn a_command_has_ended_when_its_processes_have() {
    for cluster in clusters() {
        let numbers: String = (0..200_000).map(|number| format!("{number}\n")).collect();
        cluster.put("s4://in/0_a", numbers.as_bytes());
        let unzipped = "tee >(gzip > a.gz) > 0_b; ls";
        cluster.ok(&["map-to-n", "s4://in/", "s4://zip/", unzipped]);
        assert!(cluster.get("s4://zip/0_a/0_b") == numbers.as_bytes());
        assert_eq!(
            cluster.ok(&["eval", "s4://zip/0_a/a.gz", "gunzip | cksum"]),
            cluster.ok(&["eval", "s4://in/0_a", "cksum"])
        );
        // Still at work long after the shell: nothing is printed, but CPU time is used.
        let late =
            "tee >(xz -9e -T1 > a.xz; seq 400000 | sort -R | cksum > 0_late) > 0_b; echo a.xz; echo 0_b; echo 0_late";
        cluster.ok(&["map-to-n", "s4://in/", "s4://late/", &format!(": > 0_late; {late}")]);
        assert!(!cluster.get("s4://late/0_a/0_late").is_empty());
        for (kind, cmd) in
            [("map", "(sleep .3; wc -c) <&0 &"), ("map-from-n", "(sleep .3; cat | xargs -d '\\n' cat | wc -c) <&0 &")]
        {
            cluster.ok(&[kind, "s4://in/", "s4://count/", cmd]);
            assert_eq!(text(&cluster.get("s4://count/0_a")).trim(), numbers.len().to_string(), "{kind}");
            cluster.ok(&["rm", "-r", "s4://count"]);
        }
        let evaluated = cluster.ok(&["eval", "s4://in/0_a", "(sleep .3; wc -c) <&0 &"]);
        assert_eq!(evaluated.trim(), numbers.len().to_string());
    }
}

#[test]
fn processes_that_outlast_their_command_fail_it() {
    for cluster in clusters() {
        cluster.put("s4://in/0_a", b"input");
        let sleeps = [
            "sleep N &",
            "setsid sleep N &",
            "(sleep N &);",
            "setsid sleep N > /dev/null 2>&1 &",
            "sleep N > 0_x 2> /dev/null &",
        ];
        for sleep in sleeps {
            // Without control groups, a process that has left its group and every stream is found at the job's end only.
            if cluster.log_text(0).contains("no control groups") && sleep.contains("2>&1") {
                continue;
            }
            let marker = Marker::new();
            let sleep = sleep.replace('N', marker.as_str());
            for (kind, print) in [("map", "cat"), ("map-to-n", "echo x > 0_x; echo 0_x"), ("map-from-n", "cat")] {
                let told = fails_within(SOON, &cluster, &[kind, "s4://in/", "s4://out/", &format!("{sleep} {print}")]);
                assert!(told.contains("ran on after its shell had ended: sleep (pid "), "{sleep}: {told}");
                assert_eq!(marker.all(), Vec::<u32>::new(), "{sleep}");
                eventually("nothing is left", || leftovers(&cluster).is_empty().then_some(()));
            }
        }
        assert_eq!(listed(&cluster, "s4://out/"), [""; 0]);
    }
}

#[test]
fn a_daemon_that_a_command_starts_is_ended_and_no_failure() {
    for cluster in clusters() {
        cluster.put("s4://in/0_a", b"input");
        let marker = Marker::new();
        let daemon = format!("(cd /; setsid sleep {} < /dev/null > /dev/null 2>&1 &)", marker.as_str());
        cluster.ok(&["map", "s4://in/", "s4://out/", &format!("{daemon}; cat")]);
        assert_eq!(cluster.get("s4://out/0_a"), b"input");
        assert_eq!(marker.all(), Vec::<u32>::new());
    }
}

#[test]
fn an_output_that_another_process_writes_is_not_published() {
    for cluster in clusters() {
        cluster.put("s4://in/0_a", b"input");
        let cmd = "echo x > 0_x; touch ready; until [ -e go ]; do sleep .01; done; echo 0_x";
        let client = spawn(&cluster, &["map-to-n", "s4://in/", "s4://out/", cmd]);
        let is_ready = || leftovers(&cluster).into_iter().find(|path| path.ends_with("ready"));
        let dir = eventually("the command waits", is_ready).parent().unwrap().to_owned();
        // The test itself is the other process.
        let held = std::fs::OpenOptions::new().append(true).open(dir.join("0_x")).unwrap();
        std::fs::write(dir.join("go"), "").unwrap();
        let end = end_within(SOON, client);
        drop(held);
        assert_eq!(end.status.code(), Some(1));
        assert!(text(&end.stderr).contains("open for writing"), "{}", text(&end.stderr));
        assert_eq!(listed(&cluster, "s4://out/"), [""; 0]);
    }
}

#[test]
fn a_stdout_that_another_process_writes_is_not_published() {
    for cluster in clusters() {
        cluster.put("s4://in/0_a", b"input");
        let cmd = "echo $$ > pid; until [ -e go ]; do sleep .01; done; echo x > 0_x; echo 0_x";
        for kind in ["map", "map-to-n", "map-from-n"] {
            let client = spawn(&cluster, &[kind, "s4://in/", "s4://out/", cmd]);
            let (dir, pid) = eventually("the command waits", || {
                let path = leftovers(&cluster).into_iter().find(|path| path.ends_with("pid"))?;
                let pid: u32 = std::fs::read_to_string(&path).ok()?.trim().parse().ok()?;
                Some((path.parent().unwrap().to_owned(), pid))
            });
            // The test itself is the other process.
            let held = std::fs::OpenOptions::new().append(true).open(format!("/proc/{pid}/fd/1")).unwrap();
            std::fs::write(dir.join("go"), "").unwrap();
            let end = end_within(SOON, client);
            drop(held);
            let told = text(&end.stderr);
            assert_eq!(end.status.code(), Some(1), "{kind}: {told}");
            assert!(told.contains("another process still has the command's stdout open for writing"), "{kind}: {told}");
        }
        assert_eq!(listed(&cluster, "s4://out/"), [""; 0]);
    }
}

#[test]
fn a_line_of_any_length_fails_the_task_in_little_memory() {
    let cluster = Cluster::start(2);
    cluster.put("s4://in/0_a", b"x");
    let before = resident_kib(cluster.pid(0));
    let prints =
        ["head -c 300M /dev/zero | tr '\\0' x", "head -c 300M /dev/zero", "printf %5000s x", "printf %4096s x; echo"];
    for cmd in prints {
        let told = fails_within(Duration::from_secs(60), &cluster, &["map-to-n", "s4://in/", "s4://out/", cmd]);
        assert!(told.contains("longer than any name") && told.len() < 4000, "{cmd}: {} bytes: {told:.500}", told.len());
    }
    for cmd in ["printf %300s x | tr ' ' y; echo", "printf '\\e[31mred\\n'", "printf '\\xff\\n'"] {
        let told = cluster.fails(1, &["map-to-n", "s4://in/", "s4://out/", cmd]);
        assert!(told.contains("the command printed") && told.len() < 4000 && !told.contains('\u{1b}'), "{cmd}: {told}");
    }
    let peak = peak_kib(cluster.pid(0));
    assert!(peak < before + (64 << 10), "{peak} KiB, and {before} before");
    cluster.fails(1, &["ls", "s4://out/"]);
}

#[test]
fn a_failure_of_any_size_hides_no_other() {
    let cluster = Cluster::start(1);
    for number in 0..4 {
        cluster.put(&format!("s4://in/0_{number}"), b"x");
    }
    let cmd = "head -c 20M /dev/urandom >&2; printf '\\x01%.0s' {1..9000} >&2; exit 7";
    let told = cluster.fails(1, &["map", "--keep-going", "s4://in/", "s4://out/", cmd]);
    assert!(told.contains("4 of 4 tasks failed") && told.contains("and 1 more"), "{told}");
    let logs = cluster.ok(&["logs", "last", "--failed"]);
    for number in 0..4 {
        assert!(logs.contains(&format!("s4://in/0_{number}")), "{number} is not told of");
    }
}

#[test]
fn outputs_that_are_no_files_fail_the_task_at_once() {
    for cluster in clusters() {
        cluster.put("s4://in/0_a", b"input");
        let outside = cluster.dir().join("outside");
        std::fs::create_dir(&outside).unwrap();
        std::fs::write(outside.join("0_x"), "outside").unwrap();
        let outside = outside.display();
        let mut left = vec![
            ("mkfifo 0_x".to_owned(), "regular file"),
            ("mkfifo f; ln -s f 0_x".to_owned(), "regular file"),
            ("mkdir 0_x".to_owned(), "regular file"),
            ("ln -s 0_x 0_x".to_owned(), "0_x"),
            ("ln -s /proc/kmsg 0_x".to_owned(), "out of its directory"),
            ("ln -s /dev/zero 0_x".to_owned(), "out of its directory"),
            ("ln -s /proc/self/fd/0 0_x".to_owned(), "out of its directory"),
            (format!("ln -s {outside}/0_x 0_x"), "out of its directory"),
            (format!("ln -s {outside} d; mv d 0_d; ln -s 0_d/0_x 0_x"), "out of its directory"),
            (
                "perl -MSocket -e 'socket(S, AF_UNIX, SOCK_STREAM, 0); bind(S, sockaddr_un(\"0_x\"))'".to_owned(),
                "regular file",
            ),
        ];
        if cluster.ok(&["eval", "s4://in/0_a", "id -u"]).trim() == "0" {
            left.push(("mknod 0_x c 1 5".to_owned(), "regular file"));
        }
        for (cmd, reason) in left {
            let told =
                fails_within(SOON, &cluster, &["map-to-n", "s4://in/", "s4://out/", &format!("{cmd}; echo 0_x")]);
            assert!(told.contains(reason), "{cmd}: {told}");
            eventually("nothing is left", || leftovers(&cluster).is_empty().then_some(()));
        }
        assert_eq!(listed(&cluster, "s4://out/"), [""; 0]);
    }
}

#[test]
fn damaged_state_files_hang_no_start() {
    for mut cluster in clusters() {
        cluster.put("s4://in/0_a", b"input");
        let started: Vec<String> = (0..4)
            .map(|number| {
                cluster.ok(&["map", "--detach", "s4://in/", &format!("s4://out{number}/"), "cat"]).trim().to_owned()
            })
            .collect();
        for id in &started {
            cluster.ok(&["wait", id]);
        }
        cluster.stop_node(0);
        let jobs = cluster.data(0).join(".s4/jobs");
        let fifo = |path: PathBuf| {
            let _ = std::fs::remove_file(&path);
            nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        };
        fifo(jobs.join(&started[0]).join("record"));
        fifo(jobs.join(&started[1]).join("failures"));
        std::fs::write(jobs.join(&started[2]).join("record"), "").unwrap();
        fifo(jobs.join("stray"));
        for name in ["token", "leased"] {
            fifo(cluster.data(0).join(".s4").join(name));
        }
        let began = Instant::now();
        cluster.start_node(0);
        assert!(began.elapsed() < SOON, "the start took {:?}", began.elapsed());
        let log = cluster.log_text(0);
        for id in &started[..3] {
            assert!(log.lines().any(|line| line.contains("left alone") && line.contains(id.as_str())), "{id}: {log}");
        }
        cluster.ok(&["wait", &started[3]]);
        assert_eq!(cluster.get("s4://out0/0_a"), b"input");
        cluster.ok(&["map", "s4://in/", "s4://again/", "cat"]);
    }
}

#[test]
fn commands_that_open_and_fork_all_that_they_can_cost_the_daemon_nothing() {
    for mut cluster in Cluster::in_memory() {
        cluster.put("s4://in/0_a", b"input");
        cluster.ok(&["map", "s4://in/", "s4://before/", "cat"]);
        let descriptors =
            |cluster: &Cluster| std::fs::read_dir(format!("/proc/{}/fd", cluster.pid(0))).unwrap().count();
        let (memory, open) = (resident_kib(cluster.pid(0)), descriptors(&cluster));
        let marker = Marker::new();
        let number = marker.as_str();
        let hostile = [
            format!("for i in {{1..300}}; do sleep {number} & done; exit 3"),
            "ulimit -n 10000; perl -e 'while (open($f[$n++], \"<\", \"/dev/null\")) {} exit 3'".to_owned(),
            "perl -e 'for (1..20000) { open(F, \">\", \"f$_\") or die } exit 3'".to_owned(),
            "perl -e 'for (1..20000) { symlink(\"/etc\", \"l$_\") or die } exit 3'".to_owned(),
            "perl -e 'for (1..5000) { mkdir \"d$_\"; mkdir \"d$_/e\" or die } exit 3'".to_owned(),
            format!("touch f; for i in {{1..2000}}; do ln f h$i; done; (setsid sleep {number} &) ; exit 3"),
            "head -c 40M /dev/urandom >&2; exit 3".to_owned(),
        ];
        for cmd in &hostile {
            for kind in ["map", "map-to-n"] {
                let told = fails_within(Duration::from_secs(30), &cluster, &[kind, "s4://in/", "s4://out/", cmd]);
                assert!(told.contains("exit status 3"), "{cmd}: {told:.1000}");
                assert_eq!(marker.all(), Vec::<u32>::new(), "{cmd}");
                assert_eq!(leftovers(&cluster), Vec::<PathBuf>::new(), "{cmd}");
            }
        }
        let now = eventually("the descriptors are given back", || {
            Some(descriptors(&cluster)).filter(|now| *now <= open + 20)
        });
        let memory_now = resident_kib(cluster.pid(0));
        eprintln!("memory: {memory} KiB before, {memory_now} KiB after; descriptors: {open} before, {now} after");
        assert!(memory_now < memory + (32 << 10));
        let began = Instant::now();
        cluster.kill_node(0);
        cluster.start_node(0);
        assert!(began.elapsed() < SOON, "the start took {:?}", began.elapsed());
    }
}
