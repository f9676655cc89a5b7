//! A script of maps that is run again with `--update` redoes what has changed, and ends in a clean run's bytes.

use crate::harness::{Cluster, eventually, text};
use crate::observe::{Random, end_within, listed, spawn};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Random pipelines; an hour of them finds more than a minute.
const SEQUENCES: u64 = 15;
const STEPS: u64 = 8;

/// The commands of the three steps, each in as many versions as a user may edit it.
const MAPS: [&str; 3] = ["sed s/^/x/", "tr a-z A-Z", "cat"];
const SHUFFLES: [&str; 3] = [
    "awk '{ print > (length($0) % 4) \"_\" ENVIRON[\"filename\"] }'; ls",
    "awk '{ print > (length($0) % 3) \"_\" ENVIRON[\"filename\"] }'; ls",
    "cat > 2_all; echo 2_all",
];
const MERGES: [&str; 2] = ["xargs -d '\\n' cat | sort", "xargs -d '\\n' cat | sort | uniq -c"];

type Tree = BTreeMap<String, Vec<u8>>;

/// A script of three maps over `in/`.
struct Pipeline {
    cluster: Cluster,
    commands: [&'static str; 3],
    /// The keys below `in/` with their bytes: now, and at the last update.
    inputs: BTreeMap<String, String>,
    updated: BTreeMap<String, String>,
    /// Names whose output of the first step was deleted since.
    without_output: BTreeSet<String>,
    edited: bool,
}

impl Pipeline {
    fn new() -> Self {
        let cluster = Cluster::start(3);
        let commands = [MAPS[0], SHUFFLES[0], MERGES[0]];
        let (inputs, updated) = Default::default();
        Self { cluster, commands, inputs, updated, without_output: BTreeSet::new(), edited: true }
    }

    /// The arguments of the steps, into buckets whose names end in `to`.
    fn steps(&self, to: &str) -> [[String; 4]; 3] {
        let [map, shuffle, merge] = self.commands.map(str::to_owned);
        let bucket = |step: &str| format!("s4://{step}{to}/");
        [
            ["map".to_owned(), "s4://in/".to_owned(), bucket("a"), map],
            ["map-to-n".to_owned(), bucket("a"), bucket("b"), shuffle],
            ["map-from-n".to_owned(), bucket("b"), bucket("c"), merge],
        ]
    }

    fn put(&mut self, name: &str, content: &str) {
        let key = format!("s4://in/{name}");
        let _ = self.cluster.run(&["rm", &key]);
        self.cluster.put(&key, content.as_bytes());
        self.inputs.insert(name.to_owned(), content.to_owned());
    }

    /// How many tasks of the first step must run at the next update, if nothing else happened: their input is new or has
    /// other bytes, or their output was deleted.
    fn dirty(&self) -> usize {
        let is_dirty = |(name, content): &(&String, &String)| {
            self.updated.get(*name) != Some(content) || self.without_output.contains(*name)
        };
        self.inputs.iter().filter(is_dirty).count()
    }

    /// Runs the script with `--update`. Returns how many tasks each step ran.
    fn update(&mut self) -> [u64; 3] {
        let ran = self.steps("").map(|step| {
            let args = step.iter().map(String::as_str).chain(["--update", "--json"]).collect::<Vec<_>>();
            let output = self.cluster.run(&args);
            assert!(output.status.success(), "{args:?}: {}", text(&output.stderr));
            let planned = text(&output.stdout).lines().next().map(|line| serde_json::from_str::<Value>(line).unwrap());
            planned.expect("an event")["tasks"].as_u64().unwrap()
        });
        self.updated = self.inputs.clone();
        self.without_output.clear();
        self.edited = false;
        ran
    }

    fn trees(&self, to: &str) -> Vec<Tree> {
        let trees = ["a", "b", "c"].map(|step| {
            let prefix = format!("s4://{step}{to}/");
            let keys = listed(&self.cluster, &prefix);
            keys.into_iter().map(|key| (key.clone(), self.cluster.get(&format!("{prefix}{key}")))).collect()
        });
        trees.to_vec()
    }

    /// The buckets of a clean run, which are removed again.
    fn clean_trees(&self) -> Vec<Tree> {
        for step in self.steps("-clean") {
            self.cluster.ok(&step.iter().map(String::as_str).collect::<Vec<_>>());
        }
        let trees = self.trees("-clean");
        for step in ["a", "b", "c"] {
            self.cluster.ok(&["rm", "-r", &format!("s4://{step}-clean/")]);
        }
        trees
    }
}

#[test]
fn one_new_input_is_one_task_a_step_and_an_edited_step_redoes_itself_and_what_follows() {
    let mut script = Pipeline::new();
    for number in 0..6 {
        script.put(&format!("{number}_k"), &format!("line {number}\n"));
    }
    let inputs = 6;
    assert_eq!(script.update(), [inputs, inputs, 1]);
    assert_eq!(script.update(), [0, 0, 0]);
    script.put("6_k", "a longer line\n");
    // Its line goes to a merge name of its own.
    assert_eq!(script.update(), [1, 1, 1]);
    script.commands[2] = MERGES[1];
    assert_eq!(script.update(), [0, 0, 2]);
    script.commands[1] = SHUFFLES[2];
    assert_eq!(script.update(), [0, inputs + 1, 1]);
    assert_eq!(script.trees(""), script.clean_trees());
    script.commands[0] = MAPS[2];
    assert_eq!(script.update()[0], inputs + 1);
    // A command that makes the same bytes as before changes nothing behind it.
    script.commands[0] = "cat # as before";
    assert_eq!(script.update(), [inputs + 1, 0, 0]);
    script.cluster.ok(&["rm", "s4://in/6_k"]);
    let told = text(&script.cluster.run(&["map", "s4://in/", "s4://a/", "cat # as before", "--update"]).stderr);
    assert!(told.contains("0 tasks done, 6 done before, output of 1 gone input removed"), "{told}");
    assert_eq!(script.update(), [0, 0, 1]);
    assert_eq!(script.trees(""), script.clean_trees());
}

#[test]
fn an_update_without_any_input_left_removes_the_outputs() {
    let mut script = Pipeline::new();
    for number in 0..3 {
        script.put(&format!("{number}_k"), "x\n");
    }
    script.update();
    script.cluster.put("s4://a/mine", b"nobody's map made it");
    script.cluster.ok(&["rm", "-r", "s4://in/"]);
    let [map, shuffle, _] = script.steps("");
    script.cluster.ok(&map.iter().map(String::as_str).chain(["--update"]).collect::<Vec<_>>());
    assert_eq!(listed(&script.cluster, "s4://a/"), ["mine"]);
    script.cluster.ok(&["rm", "s4://a/mine"]);
    script.cluster.ok(&shuffle.iter().map(String::as_str).chain(["--update"]).collect::<Vec<_>>());
    assert_eq!(script.cluster.fails(1, &["ls", "-r", "s4://b/"]).lines().count(), 1);
    let refused = script.cluster.fails(1, &map.iter().map(String::as_str).chain(["--update"]).collect::<Vec<_>>());
    assert!(refused.contains("no keys in it"), "{refused}");
}

#[test]
fn an_update_removes_nothing_that_another_map_made() {
    let cluster = Cluster::start(2);
    for key in ["one/0_k", "two/1_k"] {
        cluster.put(&format!("s4://{key}"), b"x\n");
    }
    for (kind, cmd) in [("map", "cat"), ("map-to-n", "cat > 1_x; echo 1_x"), ("map-from-n", "xargs -d '\\n' cat")] {
        let outdir = format!("s4://out-{kind}/");
        cluster.ok(&[kind, "s4://one/", &outdir, cmd]);
        let before = listed(&cluster, &outdir);
        cluster.ok(&[kind, "s4://two/", &outdir, cmd, "--update"]);
        let after = listed(&cluster, &outdir);
        assert!(after.len() == 2 && before.iter().all(|key| after.contains(key)), "{kind}: {before:?}, {after:?}");
    }
}

#[test]
fn only_one_way_to_go_on_can_be_chosen() {
    let cluster = Cluster::start(1);
    let told = cluster.fails(2, &["map", "s4://in/", "s4://out/", "cat", "--resume", "--update"]);
    assert!(told.contains("--resume") && told.contains("--update"), "{told}");
}

/// A change of a script or its data between two updates.
fn happens(script: &mut Pipeline, random: &mut Random) -> String {
    let pick = |random: &mut Random, of: &[String]| of[random.below(of.len() as u64) as usize].clone();
    let inputs = listed(&script.cluster, "s4://in/");
    match random.below(6) {
        0 => {
            let name = format!("{}_{}", random.below(5), random.below(4));
            // Of an empty key the shuffle makes nothing, which leaves nothing to tell that it was done.
            let content = format!("{}\n", "y".repeat(random.below(3) as usize)).repeat(1 + random.below(3) as usize);
            script.put(&name, &content);
            format!("put {name}")
        }
        1 if inputs.len() > 1 => {
            let name = pick(random, &inputs);
            script.cluster.ok(&["rm", &format!("s4://in/{name}")]);
            script.inputs.remove(&name);
            format!("rm {name}")
        }
        2 => {
            let name = pick(random, &inputs);
            script.put(&name, &format!("changed {}\n", random.below(5)));
            format!("changed {name}")
        }
        3 => {
            let (step, version) = (random.below(3) as usize, random.below(3) as usize);
            let versions: &[&'static str] = [&MAPS[..], &SHUFFLES, &MERGES][step];
            let command = versions[version % versions.len()];
            script.edited |= step == 0 && script.commands[0] != command;
            script.commands[step] = command;
            format!("step {step} is {command}")
        }
        4 => {
            let bucket = ["a", "b", "c"][random.below(3) as usize];
            let outputs = listed(&script.cluster, &format!("s4://{bucket}/"));
            if outputs.is_empty() {
                return "nothing".to_owned();
            }
            let name = pick(random, &outputs);
            script.cluster.ok(&["rm", &format!("s4://{bucket}/{name}")]);
            if bucket == "a" && inputs.contains(&name) {
                script.without_output.insert(name.clone());
            }
            format!("rm {bucket}/{name}")
        }
        _ => interrupted(script, random),
    }
}

/// An update during which a node is killed, or the client.
fn interrupted(script: &mut Pipeline, random: &mut Random) -> String {
    let node = random.below(4) as usize;
    let known = |script: &Pipeline| script.cluster.ok(&["jobs", "--json"]).lines().count();
    let before = known(script);
    let step = random.below(3) as usize;
    let steps = script.steps("");
    let mut told = format!("killed in step {step}: ");
    for args in &steps[..step] {
        script.cluster.ok(&args.iter().map(String::as_str).chain(["--update"]).collect::<Vec<_>>());
    }
    let args: Vec<&str> = steps[step].iter().map(String::as_str).chain(["--update", "--deadline", "5"]).collect();
    let mut client = spawn(&script.cluster, &args);
    eventually("the job is there", || (client.try_wait().unwrap().is_some() || known(script) > before).then_some(()));
    match node {
        3 => {
            let _ = client.kill();
            told += "the client";
        }
        node => {
            script.cluster.kill_node(node);
            told += &format!("node {node}");
        }
    }
    end_within(Duration::from_secs(20), client);
    if node < 3 {
        script.cluster.start_node(node);
    }
    // A client that was killed may have started its job on some nodes only, which the others wait for.
    eventually("no task runs", || {
        let jobs = script.cluster.ok(&["jobs", "--json"]);
        let running = jobs.lines().map(|job| serde_json::from_str::<Value>(job).unwrap()["running"].as_u64().unwrap());
        (running.sum::<u64>() == 0).then_some(())
    });
    // What ran is not known.
    script.edited = true;
    told
}

#[test]
fn any_sequence_of_changes_and_updates_ends_in_a_clean_runs_bytes() {
    let mut random = Random::new();
    let sequences = std::env::var("S4_TEST_UPDATES").map_or(SEQUENCES, |count| count.parse().unwrap());
    let mut script = Pipeline::new();
    for sequence in 0..sequences {
        for bucket in ["in", "a", "b", "c"] {
            script.cluster.ok(&["rm", "-r", &format!("s4://{bucket}/")]);
        }
        script.inputs.clear();
        script.edited = true;
        for number in 0..4 {
            script.put(&format!("{number}_k"), &format!("{number}\n"));
        }
        let mut history = Vec::new();
        for _ in 0..STEPS {
            for _ in 0..=random.below(2) {
                history.push(happens(&mut script, &mut random));
            }
            let (dirty, edited, inputs) = (script.dirty(), script.edited, listed(&script.cluster, "s4://in/").len());
            let [first, ..] = script.update();
            let most = if edited { inputs } else { dirty };
            assert!(first as usize <= most, "sequence {sequence}: {first} tasks, not {most}: {history:#?}");
            assert!(edited || first as usize == dirty, "sequence {sequence}: {first} tasks, not {dirty}: {history:#?}");
            history.push("update".to_owned());
        }
        assert_eq!(script.trees(""), script.clean_trees(), "sequence {sequence}: {history:#?}");
        assert_eq!(script.update(), [0, 0, 0], "sequence {sequence}: {history:#?}");
    }
}

/// Three keys as `a/`, made by `sed s/^/x/` from `in/`.
fn made() -> Cluster {
    let cluster = Cluster::start(2);
    for number in 0..3 {
        cluster.put(&format!("s4://in/{number}_k"), b"line\n");
    }
    cluster.ok(&["map", "s4://in/", "s4://a/", "sed s/^/x/"]);
    cluster
}

#[test]
fn a_command_that_fails_replaces_nothing_and_the_next_map_is_refused() {
    for (kind, cmd) in [("map", "false"), ("map-from-n", "false"), ("map-to-n", "false")] {
        let cluster = made();
        let good = if kind == "map-to-n" { "cat > 1_x; echo 1_x" } else { "cat" };
        cluster.ok(&[kind, "s4://in/", "s4://b/", good]);
        let contents = || -> Vec<_> {
            let keys = listed(&cluster, "s4://b/");
            keys.iter().map(|key| (key.clone(), cluster.get(&format!("s4://b/{key}")))).collect()
        };
        let before = contents();
        let told = cluster.fails(1, &[kind, "s4://in/", "s4://b/", cmd, "--update", "--keep-going"]);
        assert!(told.contains("run the same command again"), "{told}");
        assert_eq!(contents(), before, "{kind}");
        let told = cluster.fails(1, &["map", "s4://b/", "s4://c/", "cat"]);
        assert!(told.contains("s4://b/ is not whole") && told.contains("--update"), "{kind}: {told}");
        cluster.ok(&[kind, "s4://in/", "s4://b/", &format!("{good} # fixed"), "--update"]);
        cluster.ok(&["map", "s4://b/", "s4://c/", "cat"]);
    }
}

#[test]
fn a_dry_run_says_what_would_run_and_what_would_be_removed() {
    let cluster = made();
    cluster.ok(&["rm", "s4://in/0_k"]);
    let output = cluster.run(&["map", "s4://in/", "s4://a/", "cat", "--update", "--dry-run"]);
    let told = text(&output.stderr);
    assert!(told.contains("2 tasks would run (2 command changed), output of 1 gone input would be removed"), "{told}");
    assert_eq!(listed(&cluster, "s4://a/").len(), 3);
}

#[test]
fn what_is_kept_though_another_command_made_it_is_counted() {
    let cluster = made();
    cluster.put("s4://in/3_k", b"line\n");
    let told = text(&cluster.run(&["map", "s4://in/", "s4://a/", "cat", "--missing"]).stderr);
    assert!(told.contains("1 task done (1 output missing), 3 kept (3 not made by this command)"), "{told}");
    let told = cluster.fails(1, &["map", "s4://in/", "s4://a/", "sort"]);
    assert!(told.contains("--update makes it again, --missing keeps it"), "{told}");
}
