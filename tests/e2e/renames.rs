//! `--to-name`: outputs of a 1:1 map under names of their own, on the nodes that these names say.

use crate::harness::{Cluster, text};
use crate::observe::listed;
use s4::key::Key;
use s4::placement::node_of;

/// Three nodes and twelve keys with hashed names, in two directories.
fn with_keys() -> Cluster {
    let cluster = Cluster::apart(3);
    let source = cluster.dir().join("source");
    for number in 0..12 {
        let dir = source.join(if number % 2 == 0 { "even" } else { "odd" });
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join(format!("key{number}.csv")), format!("{number}\n")).unwrap();
    }
    cluster.ok(&["cp", "-r", "source", "s4://in/"]);
    cluster
}

fn map<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&["map", "--to-name", "{/.}.txt", "s4://in/", "s4://out/"], more].concat()
}

/// What the summary says of a map that is to succeed.
fn told(cluster: &Cluster, args: &[&str]) -> String {
    let output = cluster.run(args);
    assert!(output.status.success(), "{args:?}: {}", text(&output.stderr));
    text(&output.stderr)
}

/// The path of an output where it belongs.
fn place(cluster: &Cluster, path: &str) -> std::path::PathBuf {
    let node = node_of(&Key::parse(path).unwrap(), cluster.len());
    cluster.data(node).join(path)
}

#[test]
fn outputs_have_the_names_and_lie_where_these_say() {
    let cluster = with_keys();
    cluster.ok(&map(&["sed s/^/x/"]));
    let mut moved = 0;
    for number in 0..12 {
        let path = format!("out/key{number}.txt");
        assert_eq!(std::fs::read_to_string(place(&cluster, &path)).unwrap(), format!("x{number}\n"), "{path}");
        let input = Key::parse(&format!("in/key{number}.csv")).unwrap();
        moved += usize::from(node_of(&input, 3) != node_of(&Key::parse(&path).unwrap(), 3));
    }
    assert!(moved > 0, "some lie on another node than their input");
    // All on one node, and below a directory that has another home.
    cluster.ok(&["map", "--to-name", "{.}/1_all", "s4://in/", "s4://deep/", "cat"]);
    assert_eq!(listed(&cluster, "s4://deep/").len(), 12);
    assert_eq!(std::fs::read_to_string(cluster.data(1).join("deep/odd/key3/1_all")).unwrap(), "3\n");
    let why = cluster.ok(&["why", "s4://deep/odd/key3/1_all"]);
    assert!(why.contains("s4://in/odd/key3.csv"), "{why}");
}

#[test]
fn two_inputs_of_one_output_are_refused_wherever_they_are() {
    let cluster = Cluster::start(3);
    let node = |name: &str| node_of(&Key::parse(&format!("in/{name}")).unwrap(), 3);
    let twin = ["txt", "tsv", "json", "gz"].map(|extension| format!("a.{extension}"));
    let twin = twin.iter().find(|name| node(name) != node("a.csv")).expect("one on another node");
    cluster.put("s4://in/a.csv", b"1");
    cluster.put(&format!("s4://in/d/{twin}"), b"2");
    let trace = cluster.dir().join("ran");
    let told =
        cluster.fails(1, &["map", "--to-name", "{/.}", "s4://in/", "s4://out/", &format!("touch {}", trace.display())]);
    for part in ["s4://in/a.csv", &format!("s4://in/d/{twin}"), "would both become s4://out/a", "--to-name"] {
        assert!(told.contains(part), "no {part} in {told}");
    }
    assert!(!trace.exists() && told.lines().count() == 1, "{told}");
    cluster.ok(&["map", "--to-name", "{.}", "s4://in/", "s4://out/", "cat"]);
    assert_eq!(listed(&cluster, "s4://out/"), ["a", "d/a"]);
}

#[test]
fn an_output_that_exists_on_any_node_is_refused_before_anything_runs() {
    let cluster = with_keys();
    let trace = cluster.dir().join("ran");
    let cmd = format!("touch {}; cat", trace.display());
    for number in 0..12 {
        let taken = format!("s4://out/key{number}.txt");
        cluster.put(&taken, b"taken");
        for more in [&[][..], &["--resume"], &["--update"]] {
            let told = cluster.fails(1, &[&map(&[&cmd])[..], more].concat());
            assert!(told.contains(&taken) && told.contains("already exists") && !trace.exists(), "{more:?}: {told}");
        }
        cluster.ok(&["rm", &taken]);
    }
    cluster.put("s4://out/key3.txt", b"kept");
    cluster.ok(&map(&["cat", "--missing"]));
    assert_eq!((cluster.get("s4://out/key3.txt"), listed(&cluster, "s4://out/").len()), (b"kept".to_vec(), 12));
}

#[test]
fn a_rerun_does_what_is_missing_changed_or_gone() {
    let cluster = with_keys();
    assert!(told(&cluster, &map(&["cat"])).contains("12 tasks done"));
    assert!(told(&cluster, &map(&["cat", "--resume"])).contains("0 tasks done, 12 "));
    for number in [2, 5, 7] {
        cluster.ok(&["rm", &format!("s4://out/key{number}.txt")]);
    }
    let again = told(&cluster, &map(&["cat", "--resume"]));
    assert!(again.contains("3 tasks done (3 output missing), 9 "), "{again}");
    let refused = cluster.fails(1, &map(&["tac", "--resume"]));
    assert!(refused.contains("--update makes it again"), "{refused}");
    // Another command, an input that is gone, and one that has changed.
    cluster.ok(&["rm", "s4://in/odd/key1.csv"]);
    cluster.ok(&["rm", "s4://in/even/key4.csv"]);
    cluster.put("s4://in/even/key4.csv", b"new\n");
    let updated = told(&cluster, &map(&["sed s/^/y/", "--update"]));
    assert!(updated.contains("11 tasks done ("), "{updated}");
    assert_eq!(listed(&cluster, "s4://out/").len(), 11);
    assert_eq!(cluster.get("s4://out/key4.txt"), b"ynew\n");
    assert!(told(&cluster, &map(&["sed s/^/y/", "--update"])).contains("0 tasks done, 11 "));
    // Under another name, the outputs of before are those of no input.
    let renamed = ["map", "--update", "--to-name", "{/.}.dat", "s4://in/", "s4://out/", "sed s/^/y/"];
    cluster.ok(&renamed);
    let names = listed(&cluster, "s4://out/");
    assert!(names.len() == 11 && names.iter().all(|name| name.ends_with(".dat")), "{names:?}");
}

#[test]
fn a_node_that_cannot_take_an_output_fails_its_task_and_a_resume_goes_on() {
    let mut cluster = with_keys();
    let go = cluster.dir().join("go");
    let cmd = format!("until [ -e {} ]; do sleep 0.02; done; cat", go.display());
    let args = ["map", "--keep-going", "--deadline", "2", "--to-name", "2_{/}", "s4://in/", "s4://out/", &cmd];
    let client = crate::observe::spawn(&cluster, &args);
    crate::harness::eventually("the job runs", || cluster.ok(&["jobs"]).contains(" running ").then_some(()));
    cluster.kill_node(2);
    std::fs::write(go, "").unwrap();
    let output = crate::observe::end_within(std::time::Duration::from_secs(30), client);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains(&cluster.name(2)), "{}", text(&output.stderr));
    cluster.start_node(2);
    cluster.ok(&["map", "--resume", "--to-name", "2_{/}", "s4://in/", "s4://out/", &cmd]);
    assert_eq!(listed(&cluster, "s4://out/").len(), 12);
}

#[test]
fn a_template_that_cannot_be_meant_is_refused() {
    let cluster = with_keys();
    for (args, part) in [
        (&["map", "--to-name", "all", "s4://in/", "s4://out/", "cat"][..], "all outputs would have this name"),
        (&["map", "--to-name", "{x}", "s4://in/", "s4://out/", "cat"], "in braces stand {/}"),
        (&["map", "--to-name", "../{/}", "s4://in/", "s4://out/", "cat"], "'.' or '..'"),
        (&["map-to-n", "--to-name", "{/}", "s4://in/", "s4://out/", "cat"], "is for 's4 map'"),
    ] {
        let told = cluster.fails(2, args);
        assert!(told.contains(part) && told.lines().count() == 1, "{args:?}: {told}");
    }
    assert_eq!(listed(&cluster, "s4://out/"), [""; 0]);
}
