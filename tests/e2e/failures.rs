//! Failures that a person can read: those of one kind together, with what may be the cause. `s4 logs --failed` has each of them.

use crate::harness::{Cluster, eventually, text};
use crate::observe::spawn;
use crate::page::status_of;
use crate::terminal::OnTerminal;

/// The id of the newest job.
fn newest(cluster: &Cluster) -> String {
    let jobs = cluster.ok(&["jobs"]);
    jobs.lines().last().unwrap().split(' ').next().unwrap().to_owned()
}

#[test]
fn failures_of_one_kind_are_told_together() {
    let cluster = Cluster::with_keys(2, 48);
    let told = cluster.fails(1, &["map", "--keep-going", "s4://in/", "s4://out/", "grep -q JFK"]);
    let id = newest(&cluster);
    let paragraph = told.split_once("s4: 48 of 48 tasks failed: exit status 1\n").unwrap_or_else(|| panic!("{told}")).1;
    let lines: Vec<&str> = paragraph.lines().collect();
    assert_eq!(lines.iter().filter(|line| line.starts_with("    s4://in/")).count(), 3, "{told}");
    assert!(lines[0].ends_with(&cluster.name(0)) || lines[0].ends_with(&cluster.name(1)), "{told}");
    assert!(lines[3..].contains(&&*format!("    and 45 more: s4 logs {id} --failed")), "{told}");
    assert!(lines[3..].contains(&"    command: grep -q JFK"), "{told}");
    assert!(paragraph.contains("hint: grep ends with 1 if no line matches"), "{told}");
    assert!(lines.last().unwrap().contains("no output was made"), "{told}");
    assert!(told.lines().count() <= 10, "{told}");
    let failed = cluster.ok(&["logs", "last", "--failed"]);
    assert_eq!(failed.matches(": exit status 1 <==\n").count(), 48, "{failed}");
}

#[test]
fn each_kind_is_told_and_the_most_frequent_first() {
    let cluster = Cluster::with_keys(2, 12);
    let cmd =
        "case $filename in 3_k) echo no three >&2; exit 3;; 4_k|5_k) echo \"$filename bad\" >&2; exit 4;; esac; cat";
    let told = cluster.fails(1, &["map", "--keep-going", "s4://in/", "s4://out/", cmd]);
    let (four, three) =
        (told.find("s4: 2 of 12 tasks failed: exit status 4"), told.find("s4: 1 of 12 tasks failed: exit status 3"));
    assert!(four.is_some() && four < three, "{told}");
    assert!(
        told.contains("    stderr of one of them:\n        4_k bad\n") || told.contains("        5_k bad\n"),
        "{told}"
    );
    assert!(told.contains("    stderr:\n        no three\n"), "{told}");
    assert!(told.contains("map failed: 9 of 12 tasks done, 3 failed"), "{told}");
    let failed = cluster.ok(&["logs", &newest(&cluster), "--failed"]);
    let head = format!("==> s4://in/3_k on {}: exit status 3 <==\nno three\n\n", cluster.name(1));
    assert!(failed.contains(&head) && failed.matches("==> ").count() == 3, "{failed}");
    cluster.ok(&["map", "s4://in/", "s4://good/", "cat"]);
    for (args, said) in [(&["--failed"][..], "no task has failed"), (&[], "its commands wrote no stderr")] {
        let none = cluster.run(&[&["logs", "last"], args].concat());
        let told = String::from_utf8_lossy(&none.stderr);
        assert!(none.status.success() && none.stdout.is_empty(), "{none:?}");
        assert!(told.contains(said) && told.lines().count() == 1, "{told}");
    }
    cluster.fails(2, &["logs", "last", "s4://in/3_k", "--failed"]);
}

#[test]
fn reasons_that_differ_by_the_key_alone_are_one_kind() {
    let cluster = Cluster::with_keys(2, 6);
    cluster.ok(&["map", "s4://in/", "s4://out/", "cat"]);
    let told = cluster.fails(1, &["map", "--keep-going", "s4://in/", "s4://out/", "cat"]);
    assert!(told.contains("already exists"), "{told}");
    assert!(told.lines().count() <= 8, "{told}");
    let told = cluster.fails(1, &["map-to-n", "--keep-going", "s4://in/", "s4://n/", "echo no_$filename"]);
    assert!(told.contains("s4: 6 of 6 tasks failed: ") && told.contains("'…'"), "{told}");
}

#[test]
fn the_usual_causes_have_a_hint() {
    let cluster = Cluster::with_keys(1, 1);
    for (number, (cmd, parts)) in [
        ("yes | head -1 >/dev/null", &["exit status 141", "SIGPIPE", "--ok-exit 0,141"][..]),
        ("nosuchcommand x", &["exit status 127", "there is no nosuchcommand on this node", "--file"]),
        ("./nosuchfile", &["exit status 127", "there is no ./nosuchfile on this node"]),
        ("echo x > script; ./script", &["exit status 126", "./script may not be executed"]),
        ("kill -9 $$", &["signal 9 (SIGKILL)", "out of memory"]),
        ("echo $undefined", &["the variable undefined is not set", "single quotes"]),
        ("echo 'x: No space left on device' >&2; exit 2", &["a disk is full", "s4 health"]),
    ]
    .into_iter()
    .enumerate()
    {
        let told = cluster.fails(1, &["map", "s4://in/", &format!("s4://out{number}/"), cmd]);
        for part in parts {
            assert!(told.contains(part), "{cmd}: no '{part}' in {told}");
        }
    }
    let told = cluster.fails(1, &["map", "s4://in/", "s4://none/", "exit 9"]);
    assert!(!told.contains("hint:"), "{told}");
}

/// Makes the one failure of the newest job `count` failures, each with a long stderr.
fn multiply_failures(cluster: &mut Cluster, count: usize) {
    let dir = cluster.data(0).join(".s4/jobs").join(newest(cluster));
    cluster.stop_node(0);
    let one = std::fs::read_to_string(dir.join("failures")).unwrap();
    let stderr = format!("\"stderr\":\"{}\"", "x".repeat(4096));
    let more =
        (1..count).map(|number| one.replace("in/0_k", &format!("in/{number}_k")).replace("\"stderr\":\"\"", &stderr));
    std::fs::write(dir.join("failures"), std::iter::once(one.clone()).chain(more).collect::<String>()).unwrap();
    let record = std::fs::read_to_string(dir.join("record")).unwrap();
    std::fs::write(dir.join("record"), record.replace("\"failed\":1", &format!("\"failed\":{count}"))).unwrap();
    cluster.start_node(0);
}

/// Runs `s4` with so little memory that it could not hold them all.
fn with_little_memory(cluster: &Cluster, args: &str) -> std::process::Output {
    let s4 = crate::programs::program("s4");
    let limited = format!("ulimit -d 100000; {s4} {args}");
    let mut bash = std::process::Command::new("bash");
    bash.args(["-c", &limited]).env("S4_CONF_PATH", cluster.conf()).output().unwrap()
}

#[test]
fn a_hundred_thousand_failures_take_little_memory() {
    let mut cluster = Cluster::with_keys(1, 1);
    cluster.fails(1, &["map", "--keep-going", "s4://in/", "s4://out/", "exit 3"]);
    // 400 MB of them.
    multiply_failures(&mut cluster, 100_000);
    let told = with_little_memory(&cluster, "wait last");
    let stderr = text(&told.stderr);
    assert_eq!(told.status.code(), Some(1), "{stderr:.2000}");
    assert!(
        stderr.contains("100000 of 100000 tasks failed: exit status 3") && stderr.contains("and 99997 more"),
        "{stderr:.2000}"
    );
    assert!(stderr.len() < 8000, "{}", stderr.len());
    let failed = with_little_memory(&cluster, "logs last --failed | grep -c '==>'");
    assert_eq!(text(&failed.stdout), "100000\n", "{}", text(&failed.stderr));
    // The daemon reads on with each look at the page.
    let before = crate::harness::resident_kib(cluster.pid(0));
    eventually("the status has counted some", || {
        let groups = status_of(&cluster)["jobs"][0]["failures"]["groups"].clone();
        (groups[0]["count"].as_u64()? == 100_000).then_some(())
    });
    let after = crate::harness::peak_kib(cluster.pid(0));
    assert!(after < before + 40 * 1024, "{before} KiB, {after} KiB");
}

#[test]
fn the_first_failure_of_a_kind_is_told_while_the_job_runs() {
    let cluster = Cluster::with_keys(1, 3);
    let go = cluster.dir().join("go");
    let cmd = format!(
        "case $filename in 0_k) echo early >&2; exit 3;; esac; until [ -e {} ]; do sleep 0.02; done",
        go.display()
    );
    let mut map = spawn(&cluster, &["map", "--keep-going", "s4://in/", "s4://out/", &cmd]);
    let mut stderr = std::io::BufReader::new(map.stderr.take().unwrap());
    let mut line = String::new();
    std::io::BufRead::read_line(&mut stderr, &mut line).unwrap();
    assert_eq!(line, format!("s4: s4://in/0_k on {}: exit status 3\n", cluster.name(0)));
    line.clear();
    std::io::BufRead::read_line(&mut stderr, &mut line).unwrap();
    assert_eq!(line, "    early\n");
    std::fs::write(go, "").unwrap();
    assert_eq!(map.wait().unwrap().code(), Some(1));
}

#[test]
fn a_file_that_was_not_sent_is_the_hint_also_of_a_trial() {
    let cluster = Cluster::with_keys(2, 2);
    std::fs::write(cluster.dir().join("clean.sh"), "cat\n").unwrap();
    for (cmd, more) in [("bash clean.sh", &[][..]), ("./clean.sh", &[]), ("cat - clean.sh", &["--try"])] {
        let told = cluster.fails(1, &[&["map", "s4://in/", "s4://out/", cmd], more].concat());
        assert!(
            told.contains("hint: clean.sh is in your directory, and not on the nodes: send it with '--file clean.sh'"),
            "{told}"
        );
    }
    cluster.ok(&["map", "s4://in/", "s4://out/", "bash clean.sh", "--file", "clean.sh"]);
    let told = cluster.fails(1, &["map", "s4://in/", "s4://new/", "cut -f1 |\ngrep -q JFK", "--try"]);
    assert!(told.contains("s4: hint: grep ends with 1"), "{told}");
    // A user reads the hint; a script gets what the command has written.
    let terminal = OnTerminal::start(&cluster, (200, 24), &["eval", "s4://in/0_k", "nosuch"]);
    let (code, sent, _) = terminal.finish();
    assert!(code == 127 && sent.contains("hint: there is no nosuch on this node"), "{sent}");
    assert!(!cluster.fails(127, &["eval", "s4://in/0_k", "nosuch"]).contains("hint"));
}
