//! `s4 why`: what made a key, back to the keys that no map made.

use crate::harness::{Cluster, eventually, text};
use crate::observe::listed;
use crate::scripting::setup;
use serde_json::Value;
use std::os::unix::fs::PermissionsExt;

/// Three maps over three keys of one line each, into `a/`, `b/` and `c/`.
fn pipeline(cluster: &Cluster) {
    for number in 0..3 {
        cluster.put(&format!("s4://in/{number}_k"), format!("line {number}\n").as_bytes());
    }
    let table = cluster.dir().join("table.txt");
    std::fs::write(&table, "lookup\n").unwrap();
    cluster.ok(&["map", "s4://in/", "s4://a/", "tr a-z A-Z"]);
    cluster.ok(&["map-to-n", "s4://a/", "s4://b/", "cat > 1_x; echo 1_x"]);
    let options = ["--file", table.to_str().unwrap(), "--env", "A=b c", "--ok-exit", "0,1"];
    cluster.ok(&[&["map-from-n", "s4://b/", "s4://c/", "xargs -d '\\n' cat | sort"], &options[..]].concat());
}

fn why(cluster: &Cluster, args: &[&str]) -> Vec<Value> {
    let lines = cluster.ok(&[&["why", "--json"], args].concat());
    lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn inputs(found: &Value) -> Vec<(String, String)> {
    let input = |input: &Value| {
        (input["key"].as_str().unwrap().to_owned(), input["now"].as_str().unwrap_or_default().to_owned())
    };
    found["inputs"].as_array().unwrap().iter().map(input).collect()
}

#[test]
fn a_key_knows_its_map_and_inputs_and_the_tree_ends_at_keys_that_no_map_made() {
    let cluster = Cluster::start(3);
    pipeline(&cluster);
    let found = &why(&cluster, &["s4://c/1_x"])[0];
    assert_eq!((&found["key"], &found["made"]), (&"s4://c/1_x".into(), &true.into()));
    let job = &found["job"];
    assert_eq!((job["kind"].as_str(), job["cmd"].as_str()), (Some("map-from-n"), Some("xargs -d '\\n' cat | sort")));
    assert_eq!(job["env"].to_string(), r#"[["A","b c"]]"#);
    assert_eq!(job["ok_exit"].to_string(), "[0,1]");
    assert_eq!(job["files"][0]["name"], "table.txt");
    let same = |key: &str| (key.to_owned(), "same".to_owned());
    assert_eq!(inputs(found), [same("s4://b/0_k/1_x"), same("s4://b/1_k/1_x"), same("s4://b/2_k/1_x")]);
    let told = cluster.ok(&["why", "s4://c/1_x"]);
    let made = "s4 map-from-n s4://b/ s4://c/ 'xargs -d '\\''\\n'\\'' cat | sort'";
    for part in [made, "table.txt, 7 bytes", "A=b c", "0,1", job["id"].as_str().unwrap(), "s4://b/2_k/1_x  7 bytes"] {
        assert!(told.contains(part), "{part}: {told}");
    }
    let tree = why(&cluster, &["-r", "s4://c/1_x"]);
    let originals: Vec<&str> =
        tree.iter().filter(|key| key["made"] == false).map(|key| key["key"].as_str().unwrap()).collect();
    assert_eq!((tree.len(), originals), (10, vec!["s4://in/0_k", "s4://in/1_k", "s4://in/2_k"]));
    let told = cluster.ok(&["why", "-r", "s4://c/1_x"]);
    assert!(
        told.contains("\n  s4://b/1_k/1_x  map-to-n") && told.contains("\n      s4://in/1_k  made by no map"),
        "{told}"
    );
    let told = cluster.fails(1, &["why", "s4://c/nothing"]);
    assert!(told.contains("s4://c/nothing: no such key"), "{told}");
}

#[test]
fn inputs_that_changed_or_are_gone_are_told_and_not_followed() {
    let cluster = Cluster::start(3);
    pipeline(&cluster);
    cluster.ok(&["rm", "s4://in/0_k"]);
    cluster.put("s4://in/0_k", b"other\n");
    cluster.ok(&["rm", "s4://a/1_k"]);
    let now = |key: &str| inputs(&why(&cluster, &[key])[0])[0].1.clone();
    assert_eq!(now("s4://a/0_k"), "changed");
    assert_eq!(now("s4://b/1_k/1_x"), "gone");
    let told = cluster.ok(&["why", "-r", "s4://c/1_x"]);
    assert!(told.contains("s4://in/0_k  (changed since)") && told.contains("s4://a/1_k  (gone)"), "{told}");
    assert!(!told.contains("s4://in/1_k"), "{told}");
}

#[test]
fn what_made_a_key_outlives_daemons_and_the_records_of_jobs() {
    let mut cluster = Cluster::start(3);
    pipeline(&cluster);
    let before = why(&cluster, &["-r", "s4://c/1_x"]);
    for node in 0..3 {
        cluster.stop_node(node);
        std::fs::remove_dir_all(cluster.data(node).join(".s4/jobs")).unwrap();
        cluster.start_node(node);
    }
    assert_eq!(why(&cluster, &["-r", "s4://c/1_x"]), before);
    // Without the records of what was done, a key still says that a map made it, and a rerun still finds it current.
    for node in 0..3 {
        cluster.stop_node(node);
        std::fs::remove_dir_all(cluster.data(node).join(".s4/provenance")).unwrap();
        cluster.start_node(node);
    }
    let told = cluster.ok(&["why", "s4://a/0_k"]);
    assert!(told.contains("a map of which there is no record any more"), "{told}");
    let told = text(&cluster.run(&["map", "s4://in/", "s4://a/", "tr a-z A-Z", "--resume"]).stderr);
    assert!(told.contains("0 tasks done, 3 done before"), "{told}");
}

#[test]
fn a_merge_of_thousands_of_keys_knows_all_of_them() {
    const KEYS: usize = 2500;
    let cluster = Cluster::start(2);
    let tree = cluster.dir().join("tree");
    for number in 0..KEYS {
        let dir = tree.join(format!("a_directory_with_a_long_name_{number:04}"));
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join("1_x"), number.to_string()).unwrap();
    }
    cluster.ok(&["cp", "-r", tree.to_str().unwrap(), "s4://in/"]);
    cluster.ok(&["map-from-n", "s4://in/*/", "s4://out/", "wc -l"]);
    let few = &why(&cluster, &["s4://out/1_x"])[0];
    assert_eq!((few["input_count"].as_u64(), inputs(few).len()), (Some(KEYS as u64), 20));
    let told = cluster.ok(&["why", "s4://out/1_x"]);
    assert!(told.contains(&format!("and {} more inputs; --all shows them", KEYS - 20)), "{told}");
    let all = inputs(&why(&cluster, &["--all", "s4://out/1_x"])[0]);
    assert!(all.len() == KEYS && all.is_sorted() && all.iter().all(|(_, now)| now == "same"), "{}", all.len());
}

#[test]
fn a_node_that_is_down_is_named_and_nothing_is_made_up() {
    let mut cluster = Cluster::start(3);
    pipeline(&cluster);
    cluster.kill_node(2);
    let output = cluster.run(&["why", "-r", "s4://c/1_x", "--deadline", "2"]);
    let (told, said) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(1), "{told}{said}");
    // The task over 2_k ran on the node that is down.
    assert!(said.contains("not whole") || said.contains(&cluster.name(2)), "{told}{said}");
    let told = cluster.fails(1, &["why", "s4://in/2_k", "--deadline", "2"]);
    assert!(told.contains(&cluster.name(2)), "{told}");
}

#[test]
fn what_made_keys_goes_with_a_tree_to_another_cluster() {
    let (one, other) = (Cluster::start(3), Cluster::start(2));
    pipeline(&one);
    let tree = one.dir().join("tree");
    let path = |bucket: &str| tree.join(bucket).display().to_string();
    for bucket in ["in", "a", "b", "c"] {
        one.ok(&["cp", "-r", "--provenance", &format!("s4://{bucket}/"), &path(bucket)]);
        other.ok(&["cp", "-r", "--provenance", &path(bucket), &format!("s4://{bucket}/")]);
    }
    assert_eq!(listed(&other, "s4://c/"), ["1_x"], "the file itself is no key");
    let made = |cluster: &Cluster| {
        let mut tree = why(cluster, &["-r", "s4://c/1_x"]);
        // The clusters are not of one size, and a file has the time of its copy.
        for key in &mut tree {
            (key["node"], key["modified"]) = (Value::Null, Value::Null);
        }
        tree
    };
    assert_eq!(made(&other), made(&one));
    let update = ["map", "s4://in/", "s4://a/", "tr a-z A-Z", "--update"];
    assert!(text(&other.run(&update).stderr).contains("0 tasks done, 3 done before"));
    // What it does not fit is refused, and nothing is made up.
    other.ok(&["rm", "s4://a/0_k"]);
    other.put("s4://a/0_k", b"another");
    let told = other.fails(1, &["cp", "-r", "--provenance", "--skip-existing", &path("a"), "s4://a/"]);
    assert!(told.contains("s4://a/0_k: it is another key than the one whose provenance this is"), "{told}");
    assert_eq!(why(&other, &["s4://a/0_k"])[0]["made"], false);
    // Damaged lines are left out, and named.
    let kept = std::fs::read(tree.join("a/.s4-provenance")).unwrap();
    let damaged = [b"{}\n", &kept[..kept.len() / 2], b"\n\xff\n", &kept].concat();
    std::fs::write(tree.join("a/.s4-provenance"), damaged).unwrap();
    let told = other.fails(1, &["cp", "-r", "--provenance", &path("a"), "s4://new/"]);
    for line in ["line 1 is damaged, and left out", "line 3 is damaged", "line 4 is damaged"] {
        assert!(told.contains(line), "{line}: {told}");
    }
    (0..3).for_each(|number| assert_eq!(why(&other, &[&format!("s4://new/{number}_k")])[0]["made"], true));
    let told = other.fails(2, &["cp", "--provenance", &path("a"), "s4://new/"]);
    assert!(told.contains("copy of one tree by -r"), "{told}");
}

#[test]
fn the_file_of_a_tree_is_private_at_its_top_and_never_replaced() {
    let (one, other) = (Cluster::start(3), Cluster::start(2));
    pipeline(&one);
    let out = one.dir().join("out");
    let path = |name: &str| out.join(name).display().to_string();
    std::fs::create_dir(&out).unwrap();
    one.put("s4://d/x/0_k", b"x\n");
    one.put("s4://d/y/0_k", b"y\n");
    one.ok(&["map", "s4://d/x/", "s4://d/z/", "cat", "--env", "TOKEN=secret"]);
    let copy = |src: &str| {
        let mut s4 = one.command(&["cp", "-r", "--provenance", src, "."]);
        let output = s4.current_dir(&out).output().unwrap();
        (output.status.code(), text(&output.stderr))
    };
    // Each beside its keys.
    for name in ["y", "z"] {
        assert_eq!(copy(&format!("s4://d/{name}/")).0, Some(0));
        let mode = std::fs::metadata(out.join(name).join(".s4-provenance")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
    assert!(!out.join(".s4-provenance").exists());
    let kept = std::fs::read_to_string(out.join("z/.s4-provenance")).unwrap();
    assert!(kept.contains("secret") && kept.contains("\"path\":\"0_k\""), "{kept}");
    one.put("s4://d/z/1_k", b"new\n");
    let (code, said) = copy("s4://d/z/");
    assert!(code == Some(1) && said.contains("z/.s4-provenance: an earlier copy has left it"), "{said}");
    assert!(!out.join("z/1_k").exists(), "refused before anything is copied");
    assert_eq!(std::fs::read_to_string(out.join("z/.s4-provenance")).unwrap(), kept);
    other.ok(&["cp", "-r", "--provenance", &path("z"), "s4://d/z/"]);
    assert_eq!(why(&other, &["s4://d/z/0_k"])[0]["job"]["cmd"], "cat");
    // What a daemon that was killed meanwhile left writable, the same copy makes right.
    let key = (0..2).map(|node| other.data(node).join("d/z/0_k")).find(|key| key.exists()).unwrap();
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    other.ok(&["cp", "-r", "--provenance", "--skip-existing", &path("z"), "s4://d/z/"]);
    assert_eq!(std::fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o444);
    // A key that was left out is not asked for.
    one.ok(&["cp", "-r", "--provenance", "s4://a/", &path("a")]);
    other.ok(&["cp", "-r", "--provenance", &path("a"), "s4://a/", "--exclude", "0_*"]);
    assert_eq!(listed(&other, "s4://a/"), ["1_k", "2_k"]);
    // A task of which not all inputs are known is not sent; the mark is.
    one.ok(&["cp", "-r", "--provenance", "s4://c/", &path("c")]);
    let file = out.join("c/.s4-provenance");
    let mut line: Value = serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
    line["task"]["inputs"].as_array_mut().unwrap().pop();
    std::fs::write(&file, format!("{line}\n")).unwrap();
    other.ok(&["cp", "-r", "--provenance", &path("c"), "s4://c/"]);
    let found = &why(&other, &["s4://c/1_x"])[0];
    assert!(found["made"] == true && found["job"] == Value::Null, "{found}");
}

#[test]
fn a_mount_tells_by_an_attribute_what_made_a_file() {
    let Some(setup) = setup() else { return };
    pipeline(&setup.cluster);
    let json = setup.bash("getfattr --only-values -n user.s4.why c/1_x");
    let found: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(found["task"]["job"]["cmd"], "xargs -d '\\n' cat | sort");
    assert_eq!(found["task"]["inputs"][0]["key"], "b/0_k/1_x");
    let json = setup.bash("getfattr --only-values -n user.s4.why in/0_k");
    assert_eq!(serde_json::from_str::<Value>(&json).unwrap()["mark"], Value::Null);
    setup.bash("! getfattr -n user.s4.why c 2> err; mv c/1_x c/1_y; getfattr --only-values -n user.s4.why c/1_y | grep -q sort");
}

/// How an input is taken away, its bytes before, and what takes it away.
type TakenAway<'a> = (&'a str, &'a [u8], &'a dyn Fn());

/// A merge whose command waits between its start and its read, while the test takes an input away and puts another.
#[test]
fn an_input_that_is_replaced_while_its_merge_runs_fails_the_task() {
    let Some(setup) = setup() else { return };
    let cluster = &setup.cluster;
    let (started, go) = (cluster.dir().join("started-1_k"), cluster.dir().join("go"));
    let wait = format!("touch {0}/started-$filename; until [ -e {0}/go ]; do sleep .01; done", cluster.dir().display());
    let cmd = format!("p=$(cat); {wait}; cat $p");
    let away: [TakenAway; 4] = [
        ("rm", b"old\n", &|| drop(cluster.ok(&["rm", "s4://in/1_k"]))),
        ("rm -r", b"old\n", &|| drop(cluster.ok(&["rm", "-r", "s4://in/1"]))),
        ("mv", b"old\n", &|| drop(setup.bash("mv in/1_k in/moved_k"))),
        ("an empty key is replaced", b"", &|| {}),
    ];
    for (how, old, take_away) in away {
        for path in [&started, &go] {
            let _ = std::fs::remove_file(path);
        }
        cluster.put("s4://in/0_k", b"zero\n");
        cluster.put("s4://in/1_k", old);
        let merge = ["map-from-n", "s4://in/", "s4://out/", &cmd];
        let running = cluster.command(&merge).stderr(std::process::Stdio::piped()).spawn().unwrap();
        eventually("the command runs", || started.exists().then_some(()));
        take_away();
        setup.bash("echo new > in/1_k");
        std::fs::write(&go, "").unwrap();
        let said = text(&running.wait_with_output().unwrap().stderr);
        let expected = "s4://in/1_k: deleted, renamed or replaced while its merge ran";
        assert!(said.contains(expected), "{how}: {said}");
        assert!(!listed(cluster, "s4://out/").contains(&"1_k".to_owned()), "{how}");
        cluster.ok(&["map-from-n", "s4://in/", "s4://out/", &cmd, "--resume"]);
        assert_eq!(cluster.get("s4://out/1_k"), b"new\n", "{how}");
        cluster.ok(&["rm", "-r", "s4://in/"]);
        cluster.ok(&["rm", "-r", "s4://out/"]);
    }
}

/// The output of `cat` over one input has the input's checksum, so the provenance tells which input was read.
#[test]
fn a_merge_records_the_bytes_that_its_command_read_while_inputs_are_replaced() {
    const ROUNDS: usize = 20;
    let cluster = Cluster::start(1);
    let content = |number: usize| number.to_string().repeat(1 << 20).into_bytes();
    cluster.put("s4://in/0_k", &content(10));
    let mut checksums = Vec::new();
    for round in 0..ROUNDS {
        let out = format!("s4://out{round}/");
        let started = cluster.dir().join(round.to_string());
        let cmd = format!("touch {}; sleep 0.0$((RANDOM % 10)); xargs cat", started.display());
        let merge = ["map-from-n", "s4://in/", &out, &cmd];
        let mut running = cluster.command(&merge).stderr(std::process::Stdio::null()).spawn().unwrap();
        eventually("the command runs", || started.exists().then_some(()));
        cluster.ok(&["rm", "s4://in/0_k"]);
        cluster.put("s4://in/0_k", &content(11 + round));
        if running.wait().unwrap().success() {
            let found = &why(&cluster, &[&format!("{out}0_k")])[0];
            checksums.push([&found["xxh3"], &found["inputs"][0]["xxh3"]].map(Value::to_string));
        }
    }
    eprintln!("{} of {ROUNDS} merges were done", checksums.len());
    assert!(checksums.iter().all(|[output, input]| output == input && output.len() == 18), "{checksums:?}");
}

#[test]
fn an_ordinary_users_key_is_read_only_after_its_provenance_came_even_if_the_daemon_is_killed() {
    let Some(mut cluster) = Cluster::unprivileged(1) else { return };
    let other = Cluster::start(1);
    other.put("s4://in/0_k", b"line\n");
    other.ok(&["map", "s4://in/", "s4://a/", "tr a-z A-Z"]);
    let tree = other.dir().join("a").display().to_string();
    other.ok(&["cp", "-r", "--provenance", "s4://a/", &tree]);
    cluster.ok(&["cp", "-r", "--provenance", &tree, "s4://a/"]);
    assert_eq!(why(&cluster, &["s4://a/0_k"])[0]["made"], true);
    let (key, marking) = (cluster.data(0).join("a/0_k"), cluster.data(0).join(".s4/marking"));
    let state = || {
        let mode = std::fs::metadata(&key).unwrap().permissions().mode() & 0o777;
        (mode, std::fs::read_dir(&marking).unwrap().count())
    };
    assert_eq!(state(), (0o444, 0));
    // As a daemon leaves it that is killed while the key is writable.
    cluster.kill_node(0);
    std::fs::hard_link(&key, marking.join("1")).unwrap();
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    cluster.start_node(0);
    assert_eq!(state(), (0o444, 0));
    assert_eq!(cluster.get("s4://a/0_k"), b"LINE\n");
}
