//! The rules that all maps share, and those of the 1:1 map.

use crate::harness::{Cluster, eventually, text};
use crate::observe::{end_within, leftovers, listed, spawn};
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::Duration;

fn put_names(cluster: &Cluster, keys: &[&str]) {
    for key in keys {
        cluster.put(&format!("s4://{key}"), format!("{key}\n").as_bytes());
    }
}

/// A shell command that leaves a trace of having run, and the trace.
fn tracing(cluster: &Cluster) -> (String, PathBuf) {
    let trace = cluster.dir().join("trace");
    (format!("echo ran >> {}", trace.display()), trace)
}

#[test]
fn commands_see_their_variables() {
    let cluster = Cluster::start(3);
    put_names(&cluster, &["in/d/000_a", "in/d/001_b", "in/d/003_c"]);
    let cmd = r#"echo "$filename $S4_KEY $S4_NODE $S4_NODES $LC_ALL"; echo "$S4_JOB"; echo "$S4_TASK""#;
    cluster.ok(&["map", "s4://in/", "s4://out/", cmd]);
    let mut jobs = BTreeSet::new();
    let mut tasks = BTreeSet::new();
    for (name, node) in [("000_a", 0), ("001_b", 1), ("003_c", 0)] {
        let output = text(&cluster.get(&format!("s4://out/d/{name}")));
        let lines: Vec<&str> = output.lines().collect();
        assert_eq!(lines[0], format!("{name} s4://in/d/{name} {node} 3 C"));
        jobs.insert(lines[1].to_owned());
        tasks.insert((node, lines[2].parse::<u64>().unwrap()));
    }
    assert_eq!(jobs.len(), 1, "one job: {jobs:?}");
    assert!(!jobs.contains(""), "the job has a name");
    assert_eq!(tasks.len(), 3, "tasks of a node have numbers of their own: {tasks:?}");
    let seen = cluster.ok(&["eval", "s4://in/d/001_b", "echo $filename $S4_KEY $S4_NODE $S4_NODES $LC_ALL"]);
    assert_eq!(seen, "001_b s4://in/d/001_b 1 3 C\n");
}

#[test]
fn commands_run_in_an_empty_directory_that_is_removed() {
    let cluster = Cluster::start(2);
    put_names(&cluster, &["in/0_a", "in/1_b", "in/2_c"]);
    cluster.ok(&["map", "s4://in/", "s4://out/", "ls -A | wc -l; pwd; mkdir -p a/b; echo x > a/b/c; chmod 0 a"]);
    let mut directories = BTreeSet::new();
    for name in ["0_a", "1_b", "2_c"] {
        let output = text(&cluster.get(&format!("s4://out/{name}")));
        let (count, directory) = output.trim().split_once('\n').unwrap();
        assert_eq!(count, "0");
        assert!(!PathBuf::from(directory).exists(), "{directory}");
        directories.insert(directory.to_owned());
    }
    assert_eq!(directories.len(), 3, "each task has its own");
    assert_eq!(leftovers(&cluster), Vec::<PathBuf>::new());
}

#[test]
fn errexit_nounset_and_pipefail_are_on() {
    let cluster = Cluster::start(1);
    put_names(&cluster, &["in/0_a"]);
    for cmd in ["false; echo on", "echo on $unset_variable", "false | cat", "(exit 3); true"] {
        for kind in ["map", "map-to-n", "map-from-n"] {
            let stderr = cluster.fails(1, &[kind, "s4://in/", "s4://out/", cmd]);
            assert!(stderr.contains("exit status"), "{kind} {cmd}: {stderr}");
        }
        assert_eq!(listed(&cluster, "s4://out/"), [""; 0], "{cmd}");
        assert_ne!(cluster.run(&["eval", "s4://in/0_a", cmd]).status.code(), Some(0), "eval {cmd}");
    }
}

#[test]
fn a_command_reaches_bash_byte_for_byte() {
    let cluster = Cluster::start(1);
    put_names(&cluster, &["in/0_a"]);
    let cmd = b"printf '%s|' \"a  b\" 'c\\d' \xc3\xa4 \xff 100% \"$'\"\n# a comment\nprintf '%d%%\\n' 7";
    let expected = b"a  b|c\\d|\xc3\xa4|\xff|100%|$'|7%\n";
    let run = |args: &[&str]| cluster.command(args).arg(OsStr::from_bytes(cmd)).output().unwrap();
    assert_eq!(run(&["eval", "s4://in/0_a"]).stdout, expected);
    let map = run(&["map", "s4://in/", "s4://out/"]);
    assert!(map.status.success(), "{}", text(&map.stderr));
    assert_eq!(cluster.get("s4://out/0_a"), expected);
}

#[test]
fn outputs_keep_their_path_below_indir_and_their_node() {
    let cluster = Cluster::start(3);
    put_names(&cluster, &["in/0_a", "in/x/1_b", "in/x/y/2_c", "in/x/y/name", "other/0_z", "in2/0_z"]);
    cluster.ok(&["map", "s4://in/", "s4://out/deep/", "tr a-z A-Z"]);
    assert_eq!(listed(&cluster, "s4://out/"), ["deep/0_a", "deep/x/1_b", "deep/x/y/2_c", "deep/x/y/name"]);
    assert_eq!(cluster.get("s4://out/deep/x/y/2_c"), b"IN/X/Y/2_C\n");
    for (node, path) in [(0, "0_a"), (1, "x/1_b"), (2, "x/y/2_c")] {
        assert!(cluster.data(node).join("out/deep").join(path).is_file(), "{path}");
    }
    cluster.ok(&["map", "s4://in/x", "s4://sub/", "cat"]);
    assert_eq!(listed(&cluster, "s4://sub/"), ["1_b", "y/2_c", "y/name"], "a directory needs no slash at its end");
}

#[test]
fn patterns_match_part_by_part() {
    let cluster = Cluster::start(2);
    put_names(&cluster, &["cols/a/x_4", "cols/a/x_5", "cols/b/y_4", "cols/b/deep/z_4", "cols/top_4", "cols/a/yy_4"]);
    let cases: [(&str, &[&str]); 9] = [
        ("s4://cols/*/*_4", &["a/x_4", "a/yy_4", "b/y_4"]),
        ("s4://cols/a/?_4", &["x_4"]),
        ("s4://cols/a/[xy]_[4-5]", &["x_4", "x_5"]),
        ("s4://cols/a/[!x]*", &["yy_4"]),
        ("s4://cols/*/deep", &["b/deep/z_4"]),
        ("s4://cols/*/*/*_4", &["b/deep/z_4"]),
        ("s4://cols/*_4", &["top_4"]),
        ("s4://cols/?", &["a/x_4", "a/x_5", "a/yy_4", "b/deep/z_4", "b/y_4"]),
        ("s4://c*/top_4", &["cols/top_4"]),
    ];
    for (number, (indir, expected)) in cases.iter().enumerate() {
        let outdir = format!("s4://out{number}/");
        cluster.ok(&["map", indir, &outdir, "cat"]);
        assert_eq!(listed(&cluster, &outdir), *expected, "{indir}");
    }
    for indir in ["s4://cols/*_5", "s4://cols/b/??_4", "s4://col/*", "s4://*_4"] {
        let stderr = cluster.fails(1, &["map", indir, "s4://none/", "cat"]);
        assert!(stderr.contains(indir), "{indir}: {stderr}");
    }
}

#[test]
fn an_empty_indir_is_exit_1() {
    let cluster = Cluster::start(2);
    put_names(&cluster, &["in/0_a"]);
    for kind in ["map", "map-to-n", "map-from-n"] {
        for indir in ["s4://nothing/", "s4://in/nothing/", "s4://i/"] {
            let stderr = cluster.fails(1, &[kind, indir, "s4://out/", "cat"]);
            assert!(stderr.contains(indir), "{kind}: {stderr}");
        }
    }
}

#[test]
fn outputs_appear_only_after_success() {
    let cluster = Cluster::start(2);
    put_names(&cluster, &["in/0_a"]);
    for (kind, output) in [("map", "0_a"), ("map-to-n", "0_a/0_x"), ("map-from-n", "0_a")] {
        for ending in ["true", "exit 3"] {
            let (begun, go) = (cluster.dir().join("begun"), cluster.dir().join("go"));
            let (begin, await_go) =
                (format!("touch {}", begun.display()), format!("until [ -e {} ]; do sleep 0.02; done", go.display()));
            let cmd = format!("echo part | tee 0_x > 1_y; echo 0_x; {begin}; {await_go}; {ending}");
            let client = spawn(&cluster, &[kind, "s4://in/", "s4://out/", &cmd]);
            eventually("the command has written", || begun.exists().then_some(()));
            assert_eq!(listed(&cluster, "s4://out/"), [""; 0], "{kind}: an output of a command that runs");
            std::fs::write(&go, "").unwrap();
            let end = end_within(Duration::from_secs(10), client);
            let expected: &[&str] = if ending == "true" { &[output] } else { &[] };
            assert_eq!(end.status.success(), ending == "true", "{kind}: {}", text(&end.stderr));
            assert_eq!(listed(&cluster, "s4://out/"), expected, "{kind} {ending}");
            cluster.run(&["rm", "-r", "s4://out"]);
            std::fs::remove_file(begun).unwrap();
            std::fs::remove_file(go).unwrap();
        }
    }
}

#[test]
fn an_output_that_exists_is_refused_before_anything_runs() {
    let cluster = Cluster::start(2);
    put_names(&cluster, &["in/0_a", "in/1_b", "in/d/1_b", "out/1_b"]);
    let (trace_it, trace) = tracing(&cluster);
    for kind in ["map", "map-from-n"] {
        let stderr = cluster.fails(1, &[kind, "s4://in/", "s4://out/", &trace_it]);
        assert!(stderr.contains("already exists") && stderr.contains("s4://out/1_b"), "{kind}: {stderr}");
        assert!(!trace.exists(), "{kind}: a command has run");
        assert_eq!(listed(&cluster, "s4://out/"), ["1_b"], "{kind}");
    }
    assert_eq!(cluster.get("s4://out/1_b"), b"out/1_b\n");
}

#[test]
fn a_failure_tells_key_node_command_status_and_stderr() {
    let cluster = Cluster::start(3);
    put_names(&cluster, &["in/0_a", "in/1_b", "in/2_c"]);
    let cmd = "[ $filename != 1_b ] || { seq 100000 >&2; echo the-end >&2; exit 7; }";
    for kind in ["map", "map-to-n", "map-from-n"] {
        let stderr = cluster.fails(1, &[kind, "s4://in/", &format!("s4://{kind}/"), cmd]);
        for part in ["s4://in/1_b", &cluster.name(1), "seq 100000", "exit status 7", "99999", "the-end"] {
            assert!(stderr.contains(part), "{kind}: no '{part}' in: {stderr}");
        }
        assert!(stderr.len() < 20_000, "{kind}: only the end of stderr");
    }
    let stderr = cluster.fails(1, &["map", "s4://in/", "s4://killed/", "kill -9 $$"]);
    assert!(stderr.contains("signal 9"), "{stderr}");
}

#[test]
fn no_task_starts_after_a_failure() {
    let cluster = Cluster::with_options(1, &["--reserve", "0", "--jobs", "1"]);
    let names: Vec<String> = (0..10).map(|number| format!("in/0_{number}")).collect();
    put_names(&cluster, &names.iter().map(String::as_str).collect::<Vec<_>>());
    let (trace_it, trace) = tracing(&cluster);
    // The next task waits for the place that the failed one gives back, which makes a race of it: so, more than once.
    for round in 0..20 {
        cluster.fails(1, &["map", "s4://in/", "s4://out/", &format!("{trace_it}; exit 3")]);
        assert_eq!(std::fs::read_to_string(&trace).unwrap().lines().count(), 1, "round {round}");
        std::fs::remove_file(&trace).unwrap();
    }
}

#[test]
fn a_failure_stops_the_other_nodes_too() {
    let cluster = Cluster::with_options(2, &["--reserve", "0", "--jobs", "1"]);
    put_names(&cluster, &["in/0_fails"]);
    let names: Vec<String> = (0..40).map(|number| format!("in/1_{number}")).collect();
    put_names(&cluster, &names.iter().map(String::as_str).collect::<Vec<_>>());
    let (trace_it, trace) = tracing(&cluster);
    let cmd = format!("[ $filename != 0_fails ] || exit 3; {trace_it}; sleep 0.2");
    let stderr = cluster.fails(1, &["map", "s4://in/", "s4://out/", &cmd]);
    let ran = std::fs::read_to_string(trace).unwrap_or_default().lines().count();
    assert!(ran < 20, "{ran} of 40 tasks ran on the other node");
    let stand = listed(&cluster, "s4://out/").len();
    assert_eq!(stand, ran, "a task that has begun is finished");
    assert!(stand == 0 || stderr.contains(&format!("{stand} outputs are kept")), "{stand}: {stderr}");
}

#[test]
fn keep_going_lists_all_failures_and_keeps_the_other_outputs() {
    let cluster = Cluster::start(2);
    let names: Vec<String> = (0..12).map(|number| format!("in/{number}_k")).collect();
    put_names(&cluster, &names.iter().map(String::as_str).collect::<Vec<_>>());
    let cmd = "case $filename in [0369]_k) echo bad $filename >&2; exit 3;; esac; cat";
    let stderr = cluster.fails(1, &["map", "--keep-going", "s4://in/", "s4://out/", cmd]);
    let failed = cluster.ok(&["logs", "last", "--failed"]);
    for number in 0..12 {
        let fails = [0, 3, 6, 9].contains(&number);
        assert_eq!(failed.contains(&format!("bad {number}_k")), fails, "{number}: {failed}");
        assert_eq!(failed.contains(&format!("s4://in/{number}_k ")), fails, "{number}: {failed}");
    }
    assert!(stderr.contains("8 of 12") && stderr.contains("4 failed"), "{stderr}");
    assert_eq!(listed(&cluster, "s4://out/").len(), 8);
    assert_eq!(cluster.get("s4://out/11_k"), b"in/11_k\n");
}

/// How many commands of a map of twelve tasks on one node run at once, with these options.
fn most_at_once(cluster: &Cluster, outdir: &str, options: &[&str]) -> usize {
    let running = cluster.dir().join("running");
    std::fs::create_dir_all(&running).unwrap();
    let dir = running.display();
    let cmd = format!("touch {dir}/$filename; ls {dir} | wc -l; sleep 0.1; ls {dir} | wc -l; rm {dir}/$filename");
    cluster.ok(&[&["map", "s4://in/", outdir, &cmd], options].concat());
    let counts = cluster.ok(&["cp", "-r", outdir, "-"]);
    assert_eq!(counts.lines().count(), 24);
    counts.lines().map(|count| count.parse().unwrap()).max().unwrap()
}

#[test]
fn no_more_commands_run_at_once_than_jobs_says() {
    let cluster = Cluster::with_options(1, &["--reserve", "0", "--jobs", "3"]);
    let names: Vec<String> = (0..12).map(|number| format!("in/0_{number}")).collect();
    put_names(&cluster, &names.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(most_at_once(&cluster, "s4://out/", &[]), 3);
    assert_eq!(most_at_once(&cluster, "s4://two/", &["--jobs", "2"]), 2);
    assert_eq!(most_at_once(&cluster, "s4://many/", &["--jobs", "100"]), 3, "the daemon's own bound holds");
    cluster.fails(2, &["map", "--jobs", "0", "s4://in/", "s4://none/", "cat"]);
}

#[test]
fn a_map_that_may_run_few_commands_leaves_room_for_others() {
    let cluster = Cluster::with_options(1, &["--reserve", "0", "--jobs", "2"]);
    put_names(&cluster, &["in/0_a", "in/0_b", "other/0_c"]);
    let go = cluster.dir().join("go");
    let wait = format!("until [ -e {} ]; do sleep 0.02; done", go.display());
    cluster.ok(&["map", "--detach", "--jobs", "1", "s4://in/", "s4://slow/", &wait]);
    cluster.ok(&["map", "s4://other/", "s4://fast/", "cat"]);
    std::fs::write(go, "").unwrap();
    cluster.ok(&["wait", &cluster.ok(&["jobs"]).lines().nth(1).unwrap()[..26]]);
}

#[test]
fn large_and_empty_keys_pass_through_a_map() {
    let cluster = Cluster::start(2);
    let large: Vec<u8> = (0..5_000_000_u32).map(|n| (n % 251) as u8).collect();
    cluster.put("s4://in/0_large", &large);
    cluster.put("s4://in/1_empty", b"");
    cluster.ok(&["map", "s4://in/", "s4://out/", "cat"]);
    assert!(cluster.get("s4://out/0_large") == large);
    assert_eq!(cluster.get("s4://out/1_empty"), b"");
    cluster.ok(&["map", "s4://in/", "s4://unread/", "echo not read"]);
    assert_eq!(cluster.get("s4://unread/0_large"), b"not read\n");
}
