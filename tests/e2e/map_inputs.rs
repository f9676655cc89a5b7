//! What a map may read and where it may write: never its own outputs, and never half of another job's without being told to.

use crate::harness::{Cluster, eventually, text};
use crate::observe::{Marker, assert_died_by, listed};
use crate::programs::program;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

#[test]
fn outdir_and_indir_lie_apart() {
    let cluster = Cluster::start(2);
    for key in ["in/a/0_k", "in/b/1_k", "other/0_k"] {
        cluster.put(&format!("s4://{key}"), b"x");
    }
    for kind in ["map", "map-to-n", "map-from-n"] {
        for (indir, outdir) in [
            ("s4://in/", "s4://in/"),
            ("s4://in/", "s4://in/out/"),
            ("s4://in/a/", "s4://in/"),
            ("s4://in/*/", "s4://in/out/"),
            ("s4://*/a", "s4://in/"),
        ] {
            for more in [&[][..], &["--resume"], &["--partial"], &["--dry-run"]] {
                let told = cluster.fails(2, &[&[kind, indir, outdir, "cat"], more].concat());
                assert!(told.contains("overlap") && told.contains(outdir), "{told}");
            }
        }
    }
    cluster.ok(&["map", "s4://in/a/", "s4://in/c/", "cat"]);
    cluster.ok(&["map", "s4://in/?/0*", "s4://in/out/", "cat"]);
}

#[test]
fn an_indir_that_another_job_has_not_finished_is_refused_unless_partial_is_said() {
    for kind in ["map", "map-to-n", "map-from-n"] {
        let mut cluster = Cluster::start(2);
        for number in 0..4 {
            cluster.put(&format!("s4://in/{number}_k"), b"x\n");
        }
        // All that stands of the shuffle is on node 1, and what failed on node 0.
        let make = match kind {
            "map-to-n" => "echo $filename > 1_x; echo 1_x",
            _ => "echo $filename",
        };
        let gate = cluster.dir().join("gate");
        let cmd = format!("[ $S4_NODE = 1 ] || [ -e {} ] || exit 3; {make}", gate.display());
        cluster.fails(1, &[kind, "s4://in/", "s4://step1/", &cmd, "--keep-going"]);
        let next = |more: &[&'static str]| {
            [&["map-from-n", "s4://step1/", "s4://step2/", "xargs -d '\\n' cat"], more].concat()
        };
        for restarted in [false, true] {
            if restarted {
                for node in 0..2 {
                    cluster.stop_node(node);
                    cluster.start_node(node);
                }
            }
            for more in [&[][..], &["--resume"], &["--dry-run"]] {
                let told = cluster.fails(1, &next(more));
                assert!(told.contains("is not whole") && told.contains("failed with 2 of 4 tasks done"), "{told}");
                assert!(told.contains("--resume") && told.contains("--partial"), "{told}");
            }
        }
        cluster.ok(&next(&["--partial"]));
        cluster.ok(&["rm", "-r", "s4://step2/"]);
        std::fs::write(&gate, "").unwrap();
        cluster.ok(&[kind, "s4://in/", "s4://step1/", &cmd, "--resume"]);
        cluster.ok(&next(&[]));
    }
}

#[test]
fn a_job_whose_outputs_are_gone_does_not_stand_in_the_way() {
    let cluster = Cluster::start(2);
    for number in 0..2 {
        cluster.put(&format!("s4://in/{number}_k"), b"x\n");
    }
    cluster.fails(1, &["map", "s4://in/", "s4://step1/", "[ $S4_NODE = 1 ]; cat", "--keep-going"]);
    cluster.ok(&["rm", "-r", "s4://step1/"]);
    cluster.put("s4://step1/0_other", b"x");
    cluster.ok(&["map", "s4://step1/", "s4://step2/", "cat"]);
}

#[test]
fn the_outdir_of_a_running_or_cancelled_job_is_not_whole() {
    let cluster = Cluster::start(2);
    let marker = Marker::new();
    for number in 0..2 {
        cluster.put(&format!("s4://in/{number}_k"), b"x\n");
    }
    let cmd = format!("[ $S4_NODE = 1 ] || sleep {}; cat", marker.as_str());
    let id = cluster.ok(&["map", "--detach", "s4://in/", "s4://step1/", &cmd]).trim().to_owned();
    eventually("an output stands", || (listed(&cluster, "s4://step1/").len() == 1).then_some(()));
    eventually("it sleeps", || (marker.sleepers().len() == 1).then_some(()));
    let told = cluster.fails(1, &["map", "s4://step1/", "s4://step2/", "cat"]);
    assert!(told.contains(&format!("s4 wait {id}")) && told.contains("runs with 1 of 2 tasks done"), "{told}");
    cluster.ok(&["cancel", &id]);
    let told = cluster.fails(1, &["map", "s4://step1/", "s4://step2/", "cat"]);
    assert!(told.contains(&id) && told.contains("was cancelled with 1 of 2"), "{told}");
    cluster.ok(&["map", "s4://step1/", "s4://step2/", "cat", "--partial"]);
}

/// A cluster of two nodes with a job that both have planned and only node 0 has started, and done.
fn started_on_one_node(id: &str) -> Cluster {
    let cluster = Cluster::start(2);
    for number in 0..2 {
        cluster.put(&format!("s4://in/{number}_k"), b"x\n");
    }
    let ask = |cluster: &Cluster, node: usize, path: &str, body: &str| {
        let digest = cluster.digest();
        let head = format!("POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\ns4-cluster: {digest}\r\nConnection: close\r\n");
        cluster.raw(node, format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()).as_bytes())
    };
    let spec = format!(r#"{{"id":"{id}","kind":"map","indir":"in","outdir":"out","cmd":"cat"}}"#);
    for node in 0..2 {
        let planned = ask(&cluster, node, "/v1/jobs", &spec);
        assert!(planned.contains("planned"), "{planned}");
    }
    ask(&cluster, 0, &format!("/v1/jobs/{id}/start"), "");
    eventually("its part is done", || (listed(&cluster, "s4://out/") == ["0_k"]).then_some(()));
    cluster
}

#[test]
fn a_job_that_only_some_nodes_started_is_not_done_once_it_is_cancelled() {
    let id = "20200101-000000-000-abcdef";
    let mut cluster = started_on_one_node(id);
    cluster.ok(&["cancel", id]);
    for restarted in [false, true] {
        if restarted {
            cluster.stop_node(1);
            cluster.start_node(1);
        }
        let jobs = cluster.ok(&["jobs"]);
        assert!(jobs.contains("cancelled") && !jobs.contains("done "), "{jobs}");
        let told = cluster.fails(1, &["map", "s4://out/", "s4://next/", "cat"]);
        assert!(told.contains("was cancelled with 1 of 2 tasks done"), "{told}");
    }
}

#[test]
fn a_job_that_only_some_nodes_started_is_not_done() {
    let id = "20200101-000000-000-abcdef";
    let mut cluster = started_on_one_node(id);
    cluster.stop_node(1);
    cluster.start_node(1);
    let jobs = cluster.ok(&["jobs"]);
    assert!(jobs.contains("interrupted") && !jobs.contains("done "), "{jobs}");
    cluster.fails(1, &["wait", id]);
    let told = cluster.fails(1, &["map", "s4://out/", "s4://next/", "cat"]);
    assert!(told.contains("was interrupted with 1 of 2 tasks done"), "{told}");
}

#[test]
fn a_timeout_that_no_clock_can_hold_is_refused() {
    let cluster = Cluster::start(1);
    cluster.put("s4://in/0_k", b"x");
    for timeout in ["1e19", "1e300", "-1", "0"] {
        let spec = format!(
            r#"{{"id":"20200101-000000-000-abcdef","kind":"map","indir":"in","outdir":"out","cmd":"cat","timeout":{timeout}}}"#
        );
        let head = format!("POST /v1/jobs HTTP/1.1\r\nHost: 127.0.0.1\r\ns4-cluster: {}\r\n", cluster.digest());
        let request = format!("{head}Connection: close\r\nContent-Length: {}\r\n\r\n{spec}", spec.len());
        let answer = cluster.raw(0, request.as_bytes());
        assert!(answer.contains("a timeout is a number of seconds above 0"), "{answer}");
    }
}

#[test]
fn ctrl_c_ends_the_script_that_called_s4_too() {
    let cluster = Cluster::start(1);
    cluster.put("s4://in/0_k", b"x");
    let marker = Marker::new();
    let sleep = format!("sleep {}", marker.as_str());
    let id = cluster.ok(&["map", "--detach", "s4://in/", "s4://detached/", &sleep]).trim().to_owned();
    for command in ["map s4://in/ s4://out/ 'echo up >&2; sleep 1000'", "map --try s4://in/ s4://out/ 'sleep 1000'"] {
        interrupted(&cluster, command);
    }
    interrupted(&cluster, &format!("wait {id}"));
    cluster.ok(&["cancel", &id]);
}

/// Runs a script whose first command is `s4 COMMAND`, and presses Ctrl-C.
fn interrupted(cluster: &Cluster, command: &str) {
    let script = format!("{} {command}; echo after", program("s4"));
    let bash = Command::new("bash")
        .args(["-c", &script])
        .env("S4_CONF_PATH", cluster.conf())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .unwrap();
    let group = Pid::from_raw(bash.id() as i32);
    eventually("the client waits", || client_waits(bash.id()).then_some(()));
    killpg(group, Signal::SIGINT).unwrap();
    let ended = crate::observe::end_within(std::time::Duration::from_secs(30), bash);
    assert_eq!(text(&ended.stdout), "", "{command}: the script went on: {}", text(&ended.stderr));
    assert_died_by(Signal::SIGINT, &ended);
}

/// True once a child of `parent` catches SIGINT.
fn client_waits(parent: u32) -> bool {
    let children = std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap_or_default();
    children.split_whitespace().any(|pid| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let mask = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap_or("0").trim().to_owned();
        u64::from_str_radix(&mask, 16).is_ok_and(|mask| mask & 2 != 0)
    })
}

#[test]
fn a_printed_name_of_a_file_that_the_command_wrote_is_an_output() {
    let cluster = Cluster::start(2);
    cluster.put("s4://in/0_k", b"x");
    std::fs::write(cluster.dir().join("1_table"), "as it came\n").unwrap();
    let map = |outdir: &str, cmd: &str| cluster.ok(&["map-to-n", "--file", "1_table", "s4://in/", outdir, cmd]);
    map("s4://a/", "echo x > 0_x; ls");
    assert_eq!(listed(&cluster, "s4://a/"), ["0_k/0_x"], "what ls finds as it came is no output");
    map("s4://b/", "echo 'as it goes' > 1_table; ls");
    assert_eq!(cluster.get("s4://b/0_k/1_table"), b"as it goes\n");
    map("s4://c/", "cp 1_table new; mv new 1_table; echo ./1_table");
    assert_eq!(cluster.get("s4://c/0_k/1_table"), b"as it came\n");
    let told = cluster.fails(1, &["map-to-n", "s4://in/", "s4://d/", "echo x > 1_x; echo $PWD/1_x"]);
    assert!(told.contains("an absolute path; print the name as it is in the command's directory"), "{told}");
    assert!(told.contains("\n    command: echo x > 1_x"), "{told}");
}

#[test]
fn a_try_takes_no_argument_that_follows_it() {
    let cluster = Cluster::start(1);
    cluster.put("s4://in/0_k", b"content\n");
    let output = cluster.run(&["map", "--try", "s4://in/", "s4://out/", "cat"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(output.stdout, b"content\n");
    let output = cluster.run(&["map", "--try=s4://in/0_k", "s4://in/", "s4://out/", "cat"]);
    assert_eq!(output.stdout, b"content\n");
}
