//! Options of the maps, as users meet them.

use crate::harness::{Cluster, text};
use crate::observe::listed;
use std::os::unix::fs::PermissionsExt;

#[test]
fn bad_options_are_one_line_and_run_nothing() {
    let cluster = Cluster::with_keys(2, 4);
    std::fs::create_dir(cluster.dir().join("sub")).unwrap();
    std::fs::write(cluster.dir().join("sub/table"), "x").unwrap();
    std::fs::write(cluster.dir().join("table"), "x").unwrap();
    let cases: [(i32, &[&str], &str); 22] = [
        (2, &["--ok-exit", "256"], "256"),
        (2, &["--ok-exit", "0,x"], "'x'"),
        (2, &["--ok-exit", "-1"], "-1"),
        (2, &["--retries", "-1"], "-1"),
        (2, &["--retries", "many"], "many"),
        (2, &["--env", "NAME"], "NAME=VALUE"),
        (2, &["--env", "1a=x"], "letters, digits and _"),
        (2, &["--env", "=x"], "letters, digits and _"),
        (2, &["--env", "S4_KEY=x"], "set by s4 itself"),
        (2, &["--env", "filename=x"], "set by s4 itself"),
        (2, &["--env", "A=1", "--env", "A=2"], "A is given twice"),
        (2, &["--memory", "0"], "memory"),
        (2, &["--memory", "1X"], "K, M, G or T"),
        (2, &["--cpus", "0"], "CPUs above 0"),
        (2, &["--cpus", "NaN"], "CPUs above 0"),
        (2, &["--file", "sub"], "it is a directory"),
        (2, &["--file", "table", "--file", "sub/table"], "would both be 'table'"),
        (1, &["--file", "nosuch"], "nosuch: No such file"),
        (2, &["--quiet", "--json"], "--json"),
        (2, &["--detach", "--dry-run"], "--dry-run"),
        (2, &["--detach", "--json"], "--json"),
        (2, &["--try=s4://elsewhere/0_k"], "not below s4://in/"),
    ];
    for (status, options, part) in cases {
        let args = [&["map"], options, &["s4://in/", "s4://out/", "cat"]].concat();
        let told = cluster.fails(status, &args);
        assert!(told.contains(part), "{options:?}: {told}");
        // A parser's refusal also says where help is.
        let first = told.lines().filter(|line| line.starts_with("s4: ") || line.starts_with("error: ")).count();
        assert_eq!(first, 1, "{options:?}: {told}");
    }
    assert_eq!(cluster.ok(&["jobs"]), "", "no job was made");
    assert_eq!(listed(&cluster, "s4://out/"), [""; 0]);
}

#[test]
fn a_dry_run_shows_each_node_and_runs_nothing() {
    let cluster = Cluster::with_keys(2, 4);
    cluster.put("s4://in/0_large", &[b'x'; 4096]);
    let table = cluster.ok(&["map", "--dry-run", "s4://in/", "s4://out/", "cat"]);
    let rows: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    let [one, other] = [0, 1].map(|node| format!("127.0.0.1:{}", cluster.port(node)));
    assert_eq!(rows[0], ["node", "tasks", "keys", "bytes"], "{table}");
    assert_eq!(rows[1], ["0", &one, "3", "3", "4.0K"], "{table}");
    assert_eq!(rows[2], ["1", &other, "2", "2", "4B"], "{table}");
    assert_eq!(rows[3], ["total", "5", "5", "4.0K"], "{table}");
    assert_eq!(rows.len(), 4, "{table}");
    let merged = cluster.ok(&["map-from-n", "--dry-run", "--json", "s4://in/", "s4://out/", "cat"]);
    let plan: serde_json::Value = serde_json::from_str(&merged).unwrap();
    assert_eq!((&plan["event"], &plan["tasks"], &plan["keys"]), (&"planned".into(), &4.into(), &5.into()), "{merged}");
    assert_eq!(cluster.ok(&["jobs"]), "", "nothing is kept of it");
    assert_eq!(listed(&cluster, "s4://out/"), [""; 0]);
    let told = cluster.fails(1, &["map", "--dry-run", "s4://none/", "s4://out/", "cat"]);
    assert!(told.contains("s4://none/: no keys in it"), "{told}");
}

#[test]
fn a_dry_run_warns_where_keys_pile_on_one_node() {
    let cluster = Cluster::start(3);
    let warned = || {
        let output = cluster.run(&["map", "--dry-run", "s4://in/", "s4://out/", "cat"]);
        assert!(output.status.success());
        text(&output.stderr)
    };
    for number in 0..6 {
        cluster.put(&format!("s4://in/{number}_k"), b"x");
    }
    assert_eq!(warned(), "");
    for number in 0..20 {
        cluster.put(&format!("s4://in/1_{number}"), b"x");
    }
    let told = warned();
    assert!(told.contains(&cluster.name(1)) && told.contains("22 of 26 tasks"), "{told}");
    assert_eq!(told.lines().count(), 1, "{told}");
}

#[test]
fn ok_exit_lets_grep_find_nothing() {
    let cluster = Cluster::with_keys(2, 4);
    let grep = "grep 2";
    cluster.fails(1, &["map", "s4://in/", "s4://fails/", grep]);
    cluster.ok(&["map", "--ok-exit", "0,1", "s4://in/", "s4://out/", grep]);
    assert_eq!(listed(&cluster, "s4://out/").len(), 4);
    assert_eq!(cluster.get("s4://out/2_k"), b"2\n");
    assert_eq!(cluster.get("s4://out/1_k"), b"");
    cluster.fails(1, &["map", "--ok-exit", "0,1", "s4://in/", "s4://two/", "exit 2"]);
}

#[test]
fn a_command_that_failed_is_run_again() {
    let cluster = Cluster::with_keys(1, 4);
    let dir = cluster.dir().display().to_string();
    let flaky = format!("echo x >> {dir}/$filename; [ $(wc -l < {dir}/$filename) -ge 3 ] && cat");
    cluster.ok(&["map", "--retries", "2", "s4://in/", "s4://out/", &flaky]);
    assert_eq!(cluster.get("s4://out/3_k"), b"3\n");
    for number in 0..4 {
        assert_eq!(std::fs::read_to_string(cluster.dir().join(format!("{number}_k"))).unwrap().lines().count(), 3);
    }
}

#[test]
fn files_and_variables_travel_with_the_job() {
    let cluster = Cluster::with_keys(2, 4);
    let script = cluster.dir().join("shout.sh");
    std::fs::write(&script, "#!/bin/bash\ncat table -\nprintf %s \"$GREETING\"\n").unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::write(cluster.dir().join("table"), "from the table\n").unwrap();
    let files = ["map", "--file", "shout.sh", "--file", "table", "--env", "GREETING=a = 'b'\n", "s4://in/"];
    let dry = cluster.ok(&[&files[..], &["s4://out/", "./shout.sh", "--dry-run"]].concat());
    assert!(dry.contains("total") && dry.contains('4'), "{dry}");
    cluster.ok(&[&files[..], &["s4://out/", "./shout.sh; [ ! -x table ]"]].concat());
    assert_eq!(text(&cluster.get("s4://out/1_k")), "from the table\n1\na = 'b'\n");
    // The second time from the nodes' own copies, whatever the file is called.
    std::fs::rename(cluster.dir().join("table"), cluster.dir().join("other")).unwrap();
    cluster.ok(&["map", "--file", "other", "s4://in/", "s4://again/", "cat other"]);
    assert_eq!(cluster.get("s4://again/2_k"), b"from the table\n");
}

/// A child that has not executed yet has the descriptors of the daemon: with one of a program, that is busy.
#[test]
fn a_sent_program_runs_while_other_commands_start() {
    let cluster = Cluster::with_options(1, &["--reserve", "0", "--jobs", "8"]);
    for number in 0..400 {
        cluster.put(&format!("s4://in/{number}_k"), b"x");
    }
    let script = cluster.dir().join("run.sh");
    std::fs::write(&script, "#!/bin/sh\ncat\n").unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    cluster.ok(&["map", "--file", "run.sh", "s4://in/", "s4://out/", "./run.sh"]);
}

#[test]
fn resume_runs_only_what_was_not_done() {
    let cluster = Cluster::with_keys(2, 4);
    let trace = cluster.dir().join("trace");
    let allow = cluster.dir().join("allow");
    let (trace_it, allowed) = (format!("echo $filename >> {}", trace.display()), allow.display());
    let cmd = format!("{trace_it}; [ $filename != 1_k ] || [ -e {allowed} ]; cat");
    let args = ["map", "--keep-going", "--resume", "s4://in/", "s4://out/", &cmd];
    let told = cluster.fails(1, &args);
    assert!(told.contains("3 of 4 tasks done, 1 failed") && told.contains("run the same command again"), "{told}");
    std::fs::write(allow, "").unwrap();
    std::fs::remove_file(&trace).unwrap();
    let table = cluster.ok(&["map", "--dry-run", "--resume", "s4://in/", "s4://out/", &cmd]);
    let total: Vec<&str> = table.lines().last().unwrap().split_whitespace().collect();
    assert_eq!((total[1], *total.last().unwrap()), ("1", "3"), "{table}");
    let output = cluster.run(&args);
    let told = text(&output.stderr);
    assert!(
        output.status.success() && told.contains("1 task done (1 output missing), 3 done before, 1 output in"),
        "{told}"
    );
    assert_eq!(std::fs::read_to_string(&trace).unwrap(), "1_k\n");
    assert_eq!(listed(&cluster, "s4://out/").len(), 4);
    let output = cluster.run(&args);
    let told = text(&output.stderr);
    assert!(output.status.success() && told.contains("0 tasks done, 4 done before"), "all done before: {told}");
}

#[test]
fn try_runs_one_key_and_keeps_nothing() {
    let cluster = Cluster::with_keys(2, 4);
    let cmd = "cat; echo note $filename >&2; exit 3";
    let output = cluster.run(&["map", "s4://in/", "s4://out/", cmd, "--try"]);
    let told = text(&output.stderr);
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(3), "0\n".to_owned()), "{told}");
    assert!(told.contains("note 0_k") && told.contains(&cluster.name(0)) && told.contains("exit status 3"), "{told}");
    assert!(!told.contains("about"), "no estimate from a failure: {told}");
    let output = cluster.run(&["map", "s4://in/", "s4://out/", "cat", "--try=s4://in/3_k"]);
    let told = text(&output.stderr);
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(0), "3\n".to_owned()), "{told}");
    assert!(told.contains("about") && told.contains("4 tasks"), "{told}");
    let merged = cluster.run(&["map-from-n", "s4://in/", "s4://out/", "xargs -d '\\n' cat", "--try"]);
    assert_eq!(text(&merged.stdout), "0\n", "{}", text(&merged.stderr));
    assert_eq!(listed(&cluster, "s4://out/"), [""; 0]);
    assert_eq!(cluster.ok(&["jobs"]), "");
}

#[test]
fn logs_has_the_whole_stderr_of_each_task() {
    let mut cluster = Cluster::with_keys(2, 4);
    cluster.ok(&["map", "s4://in/", "s4://out/", "printf 'of %s\\0' $filename >&2; seq 20000 >&2"]);
    let id = cluster.ok(&["jobs"]).lines().last().unwrap().split(' ').next().unwrap().to_owned();
    let one = cluster.ok(&["logs", &id, "s4://in/1_k"]);
    assert!(one.starts_with("of 1_k\0") && one.ends_with("\n20000\n") && !one.contains("==>"), "{} bytes", one.len());
    let all = cluster.ok(&["logs", &id]);
    for number in 0..4 {
        assert!(all.contains(&format!("==> s4://in/{number}_k <==")) && all.contains(&format!("of {number}_k\0")));
    }
    let told = cluster.fails(1, &["logs", &id, "s4://in/9_k"]);
    assert!(told.contains("s4://in/9_k") && told.lines().count() == 1, "{told}");
    cluster.kill_node(0);
    let output = cluster.run(&["logs", &id]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stdout).contains("of 1_k"), "the other node's come all the same");
    assert!(text(&output.stderr).contains(&cluster.name(0)), "{}", text(&output.stderr));
}

#[test]
fn a_task_may_be_held_to_cpus_and_memory() {
    let cluster = Cluster::with_keys(1, 4);
    let output = cluster.run(&["map", "--memory", "64M", "--cpus", "0.5", "s4://in/", "s4://out/", "cat"]);
    // Without the controllers the options are refused, and say so; nothing runs without the limits that were asked for.
    let outputs = listed(&cluster, "s4://out/").len();
    match output.status.success() {
        true => assert_eq!(outputs, 4),
        false => {
            assert!(text(&output.stderr).contains("no control group"), "{}", text(&output.stderr));
            assert_eq!(outputs, 0);
        }
    }
}
