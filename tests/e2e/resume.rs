//! `--resume` after every kind of interruption, of all three maps, with commands whose names and bytes are chance: the
//! state at the end is that of one clean run, and never a mix of two.

use crate::harness::{Cluster, eventually, text};
use crate::mounts::Mounted;
use crate::observe::{assert_died_by, end_within, leftovers, listed, send, spawn};
use nix::sys::signal::Signal;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Output;
use std::time::Duration;

const INPUTS: usize = 24;
/// Outputs of each task of a shuffle.
const OUTPUTS: usize = 40;
const LIMIT: Duration = Duration::from_secs(60);

/// A map whose commands wait or fail at a gate, but for those of the first inputs.
struct Case {
    cluster: Cluster,
    kind: &'static str,
    cmd: String,
}

impl Case {
    /// `gate`: what a task does while the file `$GATE` is not there.
    fn new(cluster: Cluster, kind: &'static str, gate: &str) -> Self {
        for number in 0..INPUTS {
            cluster.put(&format!("s4://in/a/{number:03}_x"), format!("input {number}\n").as_bytes());
            if kind == "map-from-n" {
                cluster.put(&format!("s4://in/b/{number:03}_x"), b"another\n");
            }
        }
        let work = match kind {
            "map" => "echo $token; head -c 30000 /dev/urandom; cat",
            "map-from-n" => "echo $token; head -c 30000 /dev/urandom; xargs -d '\\n' cat",
            _ => {
                "for i in $(seq 40); do f=${RANDOM}_$i; { echo $token $i; head -c 20000 /dev/urandom; } > $f; echo $f; done"
            }
        };
        let path = cluster.dir().join("gate");
        let cmd = format!(
            "GATE={}; token=$(head -c 8 /dev/urandom | od -An -tx8); n=${{filename%%_*}}; \
             [ ${{n#0}} -lt 010 ] || {{ {gate}; }}; {work}",
            path.display()
        );
        Self { cluster, kind, cmd }
    }

    fn open_gate(&self) {
        std::fs::write(self.cluster.dir().join("gate"), "").unwrap();
    }

    fn args(&self) -> [&str; 6] {
        ["--deadline", "3", self.kind, "s4://in/", "s4://out/", &self.cmd]
    }

    fn resume(&self) -> String {
        let mut args = self.args().to_vec();
        args.push("--resume");
        let output = self.cluster.run(&args);
        assert!(output.status.success(), "{}: {}", self.kind, text(&output.stderr));
        text(&output.stderr)
    }

    /// Waits until some outputs stand.
    fn await_outputs(&self) {
        eventually("outputs are kept", || (listed(&self.cluster, "s4://out/").len() >= 4).then_some(()));
    }

    /// Every output with its bytes, by its key.
    fn outputs(&self) -> BTreeMap<String, Vec<u8>> {
        let dir = tempfile::tempdir().unwrap();
        if self.cluster.run(&["ls", "s4://out/"]).status.success() {
            self.cluster.ok(&["cp", "-r", "s4://out/", dir.path().to_str().unwrap()]);
        }
        let files = walkdir::WalkDir::new(dir.path()).into_iter().flatten().filter(|entry| entry.file_type().is_file());
        let name = |path: &Path| path.strip_prefix(dir.path()).unwrap().to_str().unwrap().to_owned();
        files.map(|file| (name(file.path()), std::fs::read(file.path()).unwrap())).collect()
    }

    /// Goes on, and compares with what one clean run would have left; what was whole `before` is the same.
    fn finish(&self, before: &BTreeMap<String, Vec<u8>>) {
        self.open_gate();
        self.resume();
        let after = self.outputs();
        assert_eq!(leftovers(&self.cluster), Vec::<std::path::PathBuf>::new());
        if self.kind != "map-to-n" {
            assert_eq!(after.len(), INPUTS, "{:?}", after.keys());
            for (key, bytes) in before {
                assert!(after[key] == *bytes, "{key} was finished and is another one now");
            }
            return;
        }
        for number in 0..INPUTS {
            let dir = format!("{number:03}_x/");
            let of_task: Vec<_> = after.iter().filter(|(key, _)| key.starts_with(&dir)).collect();
            let mut heads: Vec<Vec<&str>> = of_task.iter().map(|(_, bytes)| head(bytes)).collect();
            heads.sort_by_key(|head| head[1].parse::<usize>().unwrap());
            let indices: Vec<usize> = heads.iter().map(|head| head[1].parse().unwrap()).collect();
            assert_eq!(indices, (1..=OUTPUTS).collect::<Vec<_>>(), "{dir} does not hold what one run makes");
            assert!(heads.iter().all(|head| head[0] == heads[0][0]), "{dir} holds outputs of two runs");
        }
        // Nothing is left to be done.
        assert!(self.resume().contains(&format!("{INPUTS} done before")));
        assert!(self.outputs() == after);
    }
}

/// The words of the first line.
fn head(bytes: &[u8]) -> Vec<&str> {
    let end = bytes.iter().position(|&byte| byte == b'\n').unwrap();
    std::str::from_utf8(&bytes[..end]).unwrap().split_whitespace().collect()
}

const KINDS: [&str; 3] = ["map", "map-to-n", "map-from-n"];
const WAIT: &str = "until [ -e $GATE ]; do sleep 0.02; done";

fn assert_failed(output: &Output) {
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
}

#[test]
fn after_a_command_that_failed() {
    for kind in KINDS {
        let case = Case::new(Cluster::start(3), kind, "[ -e $GATE ] || exit 7");
        assert_failed(&case.cluster.run(&case.args()));
        let before = case.outputs();
        case.finish(&before);
    }
}

#[test]
fn after_a_cancel() {
    for kind in KINDS {
        let case = Case::new(Cluster::start(3), kind, WAIT);
        let client = spawn(&case.cluster, &case.args());
        case.await_outputs();
        send(client.id(), Signal::SIGINT);
        assert_died_by(Signal::SIGINT, &end_within(LIMIT, client));
        let before = case.outputs();
        case.finish(&before);
    }
}

#[test]
fn a_killed_client_leaves_its_job_running_to_its_end() {
    for kind in KINDS {
        let case = Case::new(Cluster::start(3), kind, WAIT);
        let client = spawn(&case.cluster, &case.args());
        case.await_outputs();
        send(client.id(), Signal::SIGKILL);
        end_within(LIMIT, client);
        let jobs = case.cluster.ok(&["jobs"]);
        let last = jobs.lines().last().unwrap();
        assert!(last.contains("running"), "{jobs}");
        let overlap = case.cluster.fails(1, &["map", "s4://in/", "s4://out/more/", "cat"]);
        assert!(overlap.contains("runs and writes to s4://out/"), "{overlap}");
        case.open_gate();
        case.cluster.ok(&["wait", last.split_whitespace().next().unwrap()]);
        let before = case.outputs();
        case.finish(&before);
        assert!(case.outputs() == before, "a finished job was run again");
    }
}

#[test]
fn after_a_killed_daemon() {
    for kind in KINDS {
        let mut case = Case::new(Cluster::start(3), kind, WAIT);
        let client = spawn(&case.cluster, &case.args());
        case.await_outputs();
        case.cluster.kill_node(0);
        case.cluster.start_node(0);
        let end = end_within(LIMIT, client);
        assert_failed(&end);
        assert!(text(&end.stderr).contains(&case.cluster.name(0)), "{}", text(&end.stderr));
        // A node that takes longer to kill what runs than the client waits for it does so all the same.
        eventually("the job is cancelled everywhere", || {
            (!case.cluster.ok(&["jobs"]).contains("running")).then_some(())
        });
        let before = case.outputs();
        case.finish(&before);
    }
}

#[test]
fn after_a_node_killed_amid_the_outputs() {
    for kind in KINDS {
        let mut case = Case::new(Cluster::start(3), kind, "sleep 0.3");
        let client = spawn(&case.cluster, &case.args());
        case.await_outputs();
        case.cluster.kill_node(1);
        assert_failed(&end_within(LIMIT, client));
        case.cluster.start_node(1);
        let before = case.outputs();
        case.finish(&before);
    }
}

#[test]
fn after_a_full_disk() {
    for kind in KINDS {
        let Some(disk) = Mounted::ext4(64 << 20) else { return };
        let mut cluster = Cluster::with_options(3, &["--reserve", "0"]);
        cluster.stop_node(1);
        std::fs::remove_dir_all(cluster.data(1)).unwrap();
        std::os::unix::fs::symlink(disk.data(), cluster.data(1)).unwrap();
        std::fs::create_dir(disk.data()).unwrap();
        cluster.start_node(1);
        let case = Case::new(cluster, kind, "true");
        let filler = disk.data().join(".s4/filler");
        // Leaves room for a few outputs.
        let spare = if kind == "map-to-n" { 3 << 20 } else { (1 << 20) + 100_000 };
        std::fs::write(&filler, vec![1; (disk.free_bytes() - spare) as usize]).unwrap();
        let end = case.cluster.run(&case.args());
        assert_failed(&end);
        assert!(text(&end.stderr).to_lowercase().contains("no space"), "{}", text(&end.stderr));
        std::fs::remove_file(filler).unwrap();
        let before = case.outputs();
        case.finish(&before);
    }
}

#[test]
fn an_input_made_anew_is_run_again() {
    for (kind, cmd) in [("map", "cat"), ("map-to-n", "cat > 1_x; echo 1_x"), ("map-from-n", "xargs -d '\\n' cat")] {
        let cluster = Cluster::start(2);
        cluster.put("s4://in/0_k", b"old");
        cluster.put("s4://in/1_k", b"stays");
        cluster.ok(&[kind, "s4://in/", "s4://out/", cmd]);
        cluster.ok(&["rm", "s4://in/0_k"]);
        cluster.put("s4://in/0_k", b"new");
        let told = cluster.run(&[kind, "s4://in/", "s4://out/", cmd, "--resume"]);
        assert!(text(&told.stderr).contains("1 done before"), "{}", text(&told.stderr));
        let contents: Vec<_> =
            listed(&cluster, "s4://out/").iter().map(|key| cluster.get(&format!("s4://out/{key}"))).collect();
        assert_eq!(contents, [b"new".to_vec(), b"stays".to_vec()]);
    }
}

#[test]
fn a_resume_never_deletes_what_others_put() {
    let cluster = Cluster::start(2);
    for number in 0..3 {
        cluster.put(&format!("s4://in/{number}_k"), b"x");
    }
    let shuffle = ["map-to-n", "s4://in/", "s4://split/", "for i in 0 1 2; do echo new > $i; echo $i; done"];
    cluster.put("s4://split/1_k/1", b"somebody's");
    cluster.put("s4://split/1_k/other", b"somebody's");
    let told = cluster.fails(1, &shuffle);
    assert!(told.contains("s4://split/1_k/1: key already exists"), "{told}");
    cluster.fails(1, &[&shuffle[..], &["--resume"]].concat());
    for key in ["1", "other"] {
        assert_eq!(cluster.get(&format!("s4://split/1_k/{key}")), b"somebody's");
    }
    cluster.ok(&["rm", "s4://split/1_k/1"]);
    cluster.ok(&[&shuffle[..], &["--resume"]].concat());
    assert_eq!(listed(&cluster, "s4://split/").len(), 10);
    cluster.fails(1, &["map", "s4://in/", "s4://out/", "[ $filename != 1_k ]; cat"]);
    cluster.put("s4://out/1_k", b"somebody's");
    let told = cluster.fails(1, &["map", "s4://in/", "s4://out/", "[ $filename != 1_k ]; cat", "--resume"]);
    assert!(told.contains("s4://out/1_k: key already exists"), "{told}");
    assert_eq!(cluster.get("s4://out/1_k"), b"somebody's");
}

/// Found by `after_a_killed_daemon`: the node that started first asked the others to clean before they had started.
#[test]
fn a_node_cleans_also_before_it_has_started() {
    let cluster = Cluster::start(2);
    cluster.put("s4://in/0_k", b"x");
    cluster.put("s4://out/0_k/1_b", b"somebody's");
    let source = cluster.dir().join("source");
    std::fs::write(&source, "first").unwrap();
    let cmd = format!("for f in 1_a 1_b; do cat {} > $f; echo $f; done", source.display());
    cluster.fails(1, &["map-to-n", "s4://in/", "s4://out/", &cmd]);
    assert_eq!(cluster.get("s4://out/0_k/1_a"), b"first", "a task that is half delivered");
    cluster.ok(&["rm", "s4://out/0_k/1_b"]);
    std::fs::write(&source, "second").unwrap();
    let id = "20990101-000000-000-abcdef";
    let head = |path: &str, len| {
        let digest = cluster.digest();
        format!(
            "POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\ns4-cluster: {digest}\r\nConnection: close\r\nContent-Length: {len}\r\n\r\n"
        )
    };
    let spec =
        format!(r#"{{"id":"{id}","kind":"map-to-n","indir":"in","outdir":"out","cmd":"{cmd}","rerun":"resume"}}"#);
    for node in 0..2 {
        let planned = cluster.raw(node, (head("/v1/jobs", spec.len()) + &spec).as_bytes());
        assert!(planned.contains("planned"), "{planned}");
    }
    cluster.raw(0, head(&format!("/v1/jobs/{id}/start"), 0).as_bytes());
    for name in ["1_a", "1_b"] {
        let whole = || cluster.run(&["cp", &format!("s4://out/0_k/{name}"), "-"]).stdout == b"second";
        eventually("both outputs are those of the second run", || whole().then_some(()));
    }
}

#[test]
fn a_resume_with_another_command_says_whose_the_outputs_are_not() {
    let cluster = Cluster::start(2);
    for key in ["0_k", "1_k"] {
        cluster.put(&format!("s4://in/{key}"), b"content\n");
    }
    cluster.fails(1, &["map", "s4://in/", "s4://out/", "[ $filename != 1_k ]; cat", "--keep-going"]);
    let told = cluster.fails(1, &["map", "s4://in/", "s4://out/", "sort", "--resume"]);
    assert!(told.contains("out/0_k") && told.contains("--update makes it again, --missing keeps it"), "{told}");
    assert_eq!(cluster.get("s4://out/0_k"), b"content\n");
}

#[test]
fn failures_without_stderr_do_not_point_at_any() {
    let cluster = Cluster::start(1);
    cluster.put("s4://in/0_k", b"x");
    let told = cluster.fails(1, &["map", "s4://in/", "s4://out/", "false"]);
    assert!(told.contains("no output was made") && !told.contains("s4 logs"), "{told}");
    let told = cluster.fails(1, &["map", "s4://in/", "s4://out/", "echo why >&2; false"]);
    assert!(told.contains("has the stderr"), "{told}");
}
