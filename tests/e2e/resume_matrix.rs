//! `--resume`, `--update` and `--missing` believe outputs and never records: whatever happens to outputs, nodes, inputs, records and the
//! command after a run that was finished or failed, they end in a clean run's bytes, in what was there before, or in an honest refusal.

use crate::harness::{Cluster, text};
use crate::observe::listed;
use std::collections::BTreeMap;
use std::process::Command;

const KEYS: usize = 6;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Event {
    Nothing,
    OutputDeleted,
    NodeReplaced,
    OlderGeneration,
    StrangeOutput,
    InputChanged,
    InputAdded,
    InputDeleted,
    RecipeChanged,
    NodeMoved,
    RecordsLost,
}

const EVENTS: [Event; 11] = [
    Event::Nothing,
    Event::OutputDeleted,
    Event::NodeReplaced,
    Event::OlderGeneration,
    Event::StrangeOutput,
    Event::InputChanged,
    Event::InputAdded,
    Event::InputDeleted,
    Event::RecipeChanged,
    Event::NodeMoved,
    Event::RecordsLost,
];

const RERUNS: [&str; 3] = ["--resume", "--update", "--missing"];

/// One cell of the matrix: a map, what became of its first run, and what happened then.
struct Cell<'a> {
    cluster: &'a mut Cluster,
    kind: &'a str,
    number: usize,
    cmd: String,
}

impl Cell<'_> {
    fn indir(&self) -> String {
        format!("s4://in{}/", self.number)
    }

    fn outdir(&self) -> String {
        format!("s4://out{}/", self.number)
    }

    fn put_input(&self, number: usize, content: &str) {
        let _ = self.cluster.run(&["rm", &format!("{}d/{number}_k", self.indir())]);
        self.cluster.put(&format!("{}d/{number}_k", self.indir()), format!("{content} {number}\n").as_bytes());
    }

    fn run(&self, outdir: &str, more: &[&str]) -> std::process::Output {
        let (indir, cmd) = (self.indir(), &self.cmd);
        self.cluster.run(&[&[self.kind, &indir, outdir, cmd], more].concat())
    }

    fn tree(&self, prefix: &str) -> BTreeMap<String, Vec<u8>> {
        let keys = listed(self.cluster, prefix);
        keys.into_iter().map(|key| (key.clone(), self.cluster.get(&format!("{prefix}{key}")))).collect()
    }

    /// One of the outputs, which lies on node 1.
    fn output(&self) -> String {
        let keys = listed(self.cluster, &self.outdir());
        let basename = |key: &str| key.rsplit('/').next().unwrap().to_owned();
        let on_node_1 = |key: &&String| basename(key).starts_with(['1', '3', '5']);
        format!("{}{}", self.outdir(), keys.iter().find(on_node_1).expect("an output on node 1"))
    }

    /// Returns the key that has to go before a resume can succeed, if there is one.
    fn happens(&mut self, event: Event) -> Option<String> {
        match event {
            Event::Nothing => {}
            Event::OutputDeleted => {
                self.cluster.ok(&["rm", &self.output()]);
            }
            Event::NodeReplaced => {
                self.cluster.stop_node(1);
                std::fs::remove_dir_all(self.cluster.data(1)).unwrap();
                self.cluster.start_node(1);
                (1..KEYS).step_by(2).for_each(|number| self.put_input(number, "first"));
            }
            Event::OlderGeneration => (0..KEYS).for_each(|number| self.put_input(number, "second")),
            Event::StrangeOutput => {
                let output = self.output();
                self.cluster.ok(&["rm", &output]);
                self.cluster.put(&output, b"somebody's");
                return Some(output);
            }
            Event::InputChanged => self.put_input(1, "changed"),
            Event::InputAdded => self.put_input(KEYS + 1, "added"),
            Event::InputDeleted => {
                self.cluster.ok(&["rm", &format!("{}d/2_k", self.indir())]);
            }
            Event::RecipeChanged => self.cmd += " # edited",
            Event::NodeMoved => {
                self.cluster.stop_node(1);
                let (data, moved) = (self.cluster.data(1), self.cluster.dir().join("moved"));
                let copied = Command::new("rsync").arg("-aX").arg(format!("{}/", data.display())).arg(&moved).status();
                assert!(copied.expect("rsync runs").success());
                std::fs::remove_dir_all(&data).unwrap();
                std::fs::rename(moved, data).unwrap();
                self.cluster.start_node(1);
            }
            Event::RecordsLost => {
                for node in 0..self.cluster.len() {
                    self.cluster.stop_node(node);
                    std::fs::remove_dir_all(self.cluster.data(node).join(".s4/jobs")).unwrap();
                    self.cluster.start_node(node);
                }
            }
        }
        None
    }

    /// What the cell ends in.
    fn check(&mut self, event: Event, fails_first: bool, rerun: &str) -> &'static str {
        let gate = self.cluster.dir().join("gate");
        let _ = std::fs::remove_file(&gate);
        (0..KEYS).for_each(|number| self.put_input(number, "first"));
        if !fails_first {
            std::fs::write(&gate, "").unwrap();
        }
        let first = self.run(&self.outdir(), &["--keep-going"]);
        assert_eq!(first.status.success(), !fails_first, "{}", text(&first.stderr));
        std::fs::write(&gate, "").unwrap();
        let in_the_way = self.happens(event);
        let mut before = self.tree(&self.outdir());
        let mut ended = "a clean run's bytes";
        if let Some(refusal) = self.refusal(event, rerun) {
            let refused = self.run(&self.outdir(), &[rerun]);
            let told = text(&refused.stderr);
            assert!(refused.status.code() == Some(1) && told.contains(refusal), "{told}");
            match in_the_way {
                Some(key) => {
                    assert_eq!(self.cluster.get(&key), b"somebody's");
                    self.cluster.ok(&["rm", &key]);
                }
                None => {
                    assert_eq!(self.tree(&self.outdir()), before);
                    self.cluster.ok(&["rm", "-r", &self.outdir()]);
                }
            }
            before = self.tree(&self.outdir());
            ended = "an honest refusal, then a clean run's bytes";
        }
        let again = self.run(&self.outdir(), &[rerun]);
        let told = text(&again.stderr);
        assert!(again.status.success(), "{told}");
        let is_untouched = matches!(event, Event::Nothing | Event::NodeMoved | Event::RecordsLost);
        if is_untouched && !fails_first {
            assert!(told.contains(&format!(": 0 tasks done, {KEYS} done before")), "{told}");
        }
        let clean = format!("s4://clean{}/", self.number);
        let run = self.run(&clean, &[]);
        assert!(run.status.success(), "{}", text(&run.stderr));
        let (mut clean, after) = (self.tree(&clean), self.tree(&self.outdir()));
        let keeps_gone = event == Event::InputDeleted && rerun != "--update";
        if rerun == "--missing" || keeps_gone {
            clean.extend(before);
            ended = "what was there, and the rest of a clean run";
        }
        assert_eq!(after, clean);
        ended
    }

    /// What is said where the rerun is refused.
    fn refusal(&self, event: Event, rerun: &str) -> Option<&'static str> {
        match (event, rerun) {
            (Event::RecipeChanged, "--resume") => Some("--update makes it again, --missing keeps it"),
            // The names that a shuffle's command chooses are known when it has run.
            (Event::StrangeOutput, _) if self.kind == "map-to-n" => Some("key already exists"),
            (Event::StrangeOutput, "--resume" | "--update") => Some("which no map has made"),
            _ => None,
        }
    }
}

fn check_kind(kind: &str) {
    let mut cluster = Cluster::start(2);
    let work = match kind {
        "map" => "cat; echo mapped",
        "map-to-n" => "cat > in; for i in 0 1 2 3; do { echo $i; cat in; } > ${i}_$filename; echo ${i}_$filename; done",
        _ => "xargs -d '\\n' cat",
    };
    let gate = cluster.dir().join("gate");
    let cmd = format!("[ -e {} ] || [ $(($S4_TASK % 2)) = 0 ] || exit 7; {work}", gate.display());
    let cells = EVENTS.into_iter().flat_map(|event| [(event, false), (event, true)]);
    let cells = cells.flat_map(|cell| RERUNS.map(|rerun| (cell, rerun)));
    for (number, ((event, fails_first), rerun)) in cells.enumerate() {
        let mut cell = Cell { cluster: &mut cluster, kind, number, cmd: cmd.clone() };
        let ended = cell.check(event, fails_first, rerun);
        let first = if fails_first { "failed" } else { "done" };
        eprintln!("{kind}, {first}, {event:?}, {rerun}: {ended}");
    }
}

#[test]
fn of_a_map() {
    check_kind("map");
}

#[test]
fn of_a_shuffle() {
    check_kind("map-to-n");
}

#[test]
fn of_a_merge() {
    check_kind("map-from-n");
}

/// Of a shuffle whose commands print names by chance, a second run would add to the first.
#[test]
fn a_second_shuffle_into_the_outputs_of_another_is_refused() {
    let cluster = Cluster::start(2);
    for key in ["0_k", "1_k"] {
        cluster.put(&format!("s4://in/{key}"), b"x");
    }
    let make = |name: &str| format!("echo x > {name}; echo {name}");
    cluster.ok(&["map-to-n", "s4://in/", "s4://out/", &make("1_a")]);
    for more in [&[][..], &["--resume"]] {
        let told = cluster.fails(1, &[&["map-to-n", "s4://in/", "s4://out/", &make("1_b")], more].concat());
        assert!(told.contains("s4://out/0_k/1_a") || told.contains("s4://out/1_k/1_a"), "{told}");
        assert!(told.contains("--update makes it again, --missing keeps it"), "{told}");
    }
    let told = cluster.fails(1, &["map-to-n", "s4://in/", "s4://out/", &make("1_a")]);
    assert!(told.contains("--resume"), "{told}");
    assert_eq!(listed(&cluster, "s4://out/"), ["0_k/1_a", "1_k/1_a"]);
    // Other inputs do not mix with them.
    cluster.put("s4://more/2_k", b"x");
    cluster.ok(&["map-to-n", "s4://more/", "s4://out/", &make("1_b")]);
    assert_eq!(listed(&cluster, "s4://out/"), ["0_k/1_a", "1_k/1_a", "2_k/1_b"]);
}

/// The same command over another INDIR has made them: they are not this map's to delete.
#[test]
fn outputs_of_the_same_command_over_other_keys_are_not_deleted() {
    for (kind, cmd) in [("map", "cat"), ("map-to-n", "cat > 1_x; echo 1_x"), ("map-from-n", "xargs -d '\\n' cat")] {
        let cluster = Cluster::start(2);
        cluster.put("s4://one/0_k", b"one");
        cluster.put("s4://two/0_k", b"two");
        cluster.ok(&[kind, "s4://one/", "s4://out/", cmd]);
        let told = cluster.fails(1, &[kind, "s4://two/", "s4://out/", cmd, "--resume"]);
        assert!(told.contains("s4://out/0"), "{told}");
        let key = listed(&cluster, "s4://out/").remove(0);
        assert_eq!(cluster.get(&format!("s4://out/{key}")), b"one");
    }
}
