//! The rules of the 1:n and n:1 maps, and of the placement that they rest on.

use crate::harness::{Cluster, text};
use crate::observe::{leftovers, listed};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The node that holds the file of a key, given without its scheme.
fn holder(cluster: &Cluster, key: &str) -> usize {
    let holders: Vec<usize> = (0..cluster.len()).filter(|&node| cluster.data(node).join(key).is_file()).collect();
    assert_eq!(holders.len(), 1, "{key} is on {holders:?}");
    holders[0]
}

#[test]
fn outputs_go_to_the_nodes_that_their_names_say() {
    let cluster = Cluster::start(3);
    cluster.put("s4://in/d/000_a", b"x");
    let cmd = "for n in 0_x 1_x 002_y 10_z 99999999999999999999_w name; do echo $n > $n; echo $n; done";
    cluster.ok(&["map-to-n", "s4://in/", "s4://out/", cmd]);
    // 99999999999999999999 is a multiple of 3.
    for (name, node) in [("0_x", 0), ("1_x", 1), ("002_y", 2), ("10_z", 1), ("99999999999999999999_w", 0)] {
        assert_eq!(holder(&cluster, &format!("out/000_a/{name}")), node, "{name}");
        assert_eq!(cluster.get(&format!("s4://out/000_a/{name}")), format!("{name}\n").as_bytes());
    }
    assert_eq!(listed(&cluster, "s4://out/").len(), 6);
    assert_eq!(leftovers(&cluster), Vec::<PathBuf>::new());
}

#[test]
fn a_command_that_prints_no_names_has_no_outputs() {
    let cluster = Cluster::start(2);
    cluster.put("s4://in/0_a", b"x");
    let output = cluster.run(&["map-to-n", "s4://in/", "s4://out/", "echo x > 0_unnamed; echo x > 1_unnamed"]);
    let said = text(&output.stderr);
    assert!(output.status.success() && said.contains("0 outputs") && said.contains("printed none"), "{said}");
    assert_eq!(listed(&cluster, "s4://out/"), [""; 0]);
}

#[test]
fn a_printed_name_that_is_not_there_fails_the_task_whole() {
    let cluster = Cluster::start(3);
    cluster.put("s4://in/0_a", b"x");
    cluster.put("s4://in/1_good", b"x");
    // More names than are sent at a time, and the one that is missing at their end.
    let names = "seq -f '%05g_x' 0 4999 | tee names | xargs touch; cat names";
    for missing in ["2_missing", "no/such/dir", "."] {
        let cmd = format!("[ $filename = 1_good ] || {{ {names}; echo {missing}; exit 0; }}; echo x > 0_y; echo 0_y");
        let stderr = cluster.fails(1, &["map-to-n", "--keep-going", "s4://in/", "s4://out/", &cmd]);
        for part in ["s4://in/0_a", missing, &cluster.name(0)] {
            assert!(stderr.contains(part), "no '{part}' in: {stderr}");
        }
        assert_eq!(listed(&cluster, "s4://out/"), ["1_good/0_y"], "nothing of the task that failed");
        cluster.ok(&["rm", "-r", "s4://out"]);
    }
}

#[test]
fn a_failing_command_publishes_none_of_the_names_it_printed() {
    let cluster = Cluster::start(2);
    cluster.put("s4://in/0_a", b"x");
    cluster.fails(1, &["map-to-n", "s4://in/", "s4://out/", "echo x | tee 0_x > 1_x; ls; exit 3"]);
    assert_eq!(listed(&cluster, "s4://out/"), [""; 0]);
    assert_eq!(leftovers(&cluster), Vec::<PathBuf>::new());
}

#[test]
fn two_inputs_of_one_basename_are_refused_before_anything_runs() {
    let cluster = Cluster::start(2);
    for key in ["in/x/1_same", "in/y/z/1_same", "in/0_a"] {
        cluster.put(&format!("s4://{key}"), b"x");
    }
    let trace = cluster.dir().join("trace");
    let cmd = format!("touch {}; echo x > 0_x; echo 0_x", trace.display());
    let stderr = cluster.fails(1, &["map-to-n", "s4://in/", "s4://out/", &cmd]);
    for part in ["s4://in/x/1_same", "s4://in/y/z/1_same"] {
        assert!(stderr.contains(part), "no '{part}' in: {stderr}");
    }
    assert!(!trace.exists(), "a command has run");
    assert_eq!(listed(&cluster, "s4://out/"), [""; 0]);
}

#[test]
fn an_output_of_a_shuffle_never_replaces_a_key() {
    let cluster = Cluster::start(3);
    cluster.put("s4://in/0_a", b"x");
    for taken in ["s4://out/0_a/0_x", "s4://out/0_a/1_x"] {
        cluster.put(taken, b"before");
        let stderr = cluster.fails(1, &["map-to-n", "s4://in/", "s4://out/", "echo x | tee 0_x > 1_x; ls"]);
        assert!(stderr.contains("already exists") && stderr.contains(taken), "{stderr}");
        assert_eq!(cluster.get(taken), b"before");
        cluster.ok(&["rm", "-r", "s4://out"]);
    }
}

#[test]
fn outputs_may_be_links_or_in_subdirectories() {
    let cluster = Cluster::start(2);
    cluster.put("s4://in/0_a", b"input");
    let cmd = "mkdir -p d/e; echo deep > d/e/0_deep; echo d/e/0_deep
        ln -s d/e/0_deep 1_link; echo 1_link; ln -s ../../1_link d/e/1_up; echo d/e/1_up
        echo twice > 0_hard; ln 0_hard 1_hard; ln 0_hard 2_hard; echo 0_hard; echo 1_hard; echo 2_hard
        echo plain > ./1_dot; echo ./1_dot";
    cluster.ok(&["map-to-n", "s4://in/", "s4://out/", cmd]);
    let contents = [
        ("0_deep", "deep\n"),
        ("1_link", "deep\n"),
        ("1_up", "deep\n"),
        ("0_hard", "twice\n"),
        ("1_hard", "twice\n"),
        ("2_hard", "twice\n"),
        ("1_dot", "plain\n"),
    ];
    assert_eq!(listed(&cluster, "s4://out/").len(), contents.len());
    for (name, content) in contents {
        assert_eq!(text(&cluster.get(&format!("s4://out/0_a/{name}"))), content, "{name}");
        let file = cluster.data(holder(&cluster, &format!("out/0_a/{name}"))).join("out/0_a").join(name);
        let found = std::fs::symlink_metadata(file).unwrap();
        assert!(found.is_file() && found.permissions().readonly(), "{name}: a key is a plain file of mode 0444");
    }
}

#[test]
fn an_output_that_is_the_input_itself_is_a_copy() {
    let cluster = Cluster::start(2);
    cluster.put("s4://in/0_a", b"input");
    let input = cluster.data(0).join("in/0_a");
    cluster.ok(&["map-to-n", "s4://in/", "s4://out/", &format!("ln {} 2_x; echo 2_x", input.display())]);
    assert_eq!(cluster.get("s4://out/0_a/2_x"), b"input");
    cluster.ok(&["rm", "s4://out/0_a/2_x"]);
    assert_eq!(cluster.get("s4://in/0_a"), b"input");
}

#[test]
fn one_task_may_have_thousands_of_outputs() {
    let cluster = Cluster::start(3);
    cluster.put("s4://in/1_a", b"x");
    cluster.ok(&["map-to-n", "s4://in/", "s4://out/", "for n in {00000..04999}; do echo $n > ${n}_x; done; ls"]);
    assert_eq!(listed(&cluster, "s4://out/").len(), 5000);
    cluster.ok(&["cp", "-r", "s4://out/1_a/", "all"]);
    for number in 0..5000 {
        let name = format!("{number:05}_x");
        let content = std::fs::read_to_string(cluster.dir().join("all").join(&name)).unwrap();
        assert_eq!(content, format!("{number:05}\n"));
        assert!(cluster.data(number % 3).join("out/1_a").join(&name).is_file(), "{name}");
    }
    assert_eq!(leftovers(&cluster), Vec::<PathBuf>::new());
}

/// Has an output for each of two nodes, which holds the number of its own inode.
const INODES: &str = "for f in 0_a 1_b; do : > $f; stat -c %i $f >> $f; echo $f; done";

/// Checks whether the output `name` of `0_in` is the file that the command wrote. Either way it belongs to the daemon, and nobody may write
/// to it.
fn check_inode(cluster: &Cluster, node: usize, name: &str, is_same: bool) {
    let written: u64 = text(&cluster.get(&format!("s4://out/0_in/{name}"))).trim().parse().unwrap();
    let found = std::fs::metadata(cluster.data(node).join("out/0_in").join(name)).unwrap();
    assert_eq!(found.ino() == written, is_same, "{name}");
    assert_eq!((found.mode() & 0o7777, found.uid()), (0o444, nix::unistd::geteuid().as_raw()), "{name}");
}

#[test]
fn an_output_for_the_tasks_own_node_is_the_file_that_the_command_wrote() {
    let cluster = Cluster::start(2);
    cluster.put("s4://in/0_in", b"");
    cluster.ok(&["map-to-n", "s4://in/", "s4://out/", INODES]);
    check_inode(&cluster, 0, "0_a", true);
    check_inode(&cluster, 1, "1_b", false);
    assert_eq!(leftovers(&cluster), Vec::<PathBuf>::new());
}

#[test]
fn outputs_that_a_command_gave_to_another_user_are_copied_and_the_daemons_own() {
    if !nix::unistd::geteuid().is_root() {
        return eprintln!("skipped: not root, who alone can give files to another user");
    }
    let cluster = Cluster::start(2);
    cluster.put("s4://in/0_in", b"");
    cluster.ok(&["map-to-n", "s4://in/", "s4://out/", &INODES.replace("; echo $f", "; chown 65534 $f; echo $f")]);
    check_inode(&cluster, 0, "0_a", false);
    check_inode(&cluster, 1, "1_b", false);
}

#[test]
fn merges_are_named_by_number_and_common_suffix() {
    let cluster = Cluster::start(3);
    let keys = ["a/002_p", "b/002_p", "a/003_p", "b/003_q", "a/7", "a/name_x", "b/name_x", "b/02_p", "b/10_p_q"];
    for key in keys {
        cluster.put(&format!("s4://in/{key}"), format!("{key}\n").as_bytes());
    }
    cluster.ok(&["map-from-n", "s4://in/", "s4://out/", "xargs -d '\\n' cat"]);
    let merged = [
        ("002_p", "a/002_p\nb/002_p\n"),
        ("003", "a/003_p\nb/003_q\n"),
        ("02_p", "b/02_p\n"),
        ("10_p_q", "b/10_p_q\n"),
        ("7", "a/7\n"),
        ("name_x", "a/name_x\nb/name_x\n"),
    ];
    assert_eq!(listed(&cluster, "s4://out/"), merged.map(|(name, _)| name));
    for (name, content) in merged {
        assert_eq!(text(&cluster.get(&format!("s4://out/{name}"))), content, "{name}");
    }
}

#[test]
fn a_merge_reads_the_sorted_local_paths_of_its_inputs() {
    let cluster = Cluster::start(2);
    // '-' and '.' sort before '/', digits and letters after it.
    let dirs = ["b", "a", "a-b", "a.b", "a0", "a/sub", "B"];
    for dir in dirs {
        cluster.put(&format!("s4://in/{dir}/1_x"), b"x");
        cluster.put(&format!("s4://in/{dir}/0_x"), b"x");
    }
    cluster.ok(&["map-from-n", "s4://in/", "s4://out/", "cat"]);
    for (node, name) in ["0_x", "1_x"].into_iter().enumerate() {
        let stdin = text(&cluster.get(&format!("s4://out/{name}")));
        let root = cluster.data(node).canonicalize().unwrap();
        let mut expected: Vec<String> = dirs.iter().map(|dir| format!("{}/in/{dir}/{name}", root.display())).collect();
        expected.sort();
        assert_eq!(stdin.lines().collect::<Vec<_>>(), expected);
        assert!(stdin.lines().all(|path| Path::new(path).is_file()));
    }
}

#[test]
fn a_merge_takes_thousands_of_inputs() {
    let cluster = Cluster::start(1);
    let source = cluster.dir().join("source");
    for number in 0..3000 {
        let dir = source.join(format!("{number:04}"));
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join("0_x"), format!("{number:04}\n")).unwrap();
    }
    cluster.ok(&["cp", "-r", "source", "s4://in/"]);
    cluster.ok(&["map-from-n", "s4://in/", "s4://out/", "xargs -d '\\n' cat"]);
    let expected: String = (0..3000).map(|number| format!("{number:04}\n")).collect();
    assert!(cluster.get("s4://out/0_x") == expected.as_bytes());
}

#[test]
fn a_temporary_name_is_placed_with_its_target() {
    let cluster = Cluster::start(3);
    for target in ["origin_EWR.csv", "000_a", "001_a", "2", "a.b.c", "name"] {
        let temporary = format!(".{target}.a1B2c3");
        cluster.put(&format!("s4://b/{target}"), b"x");
        cluster.put(&format!("s4://b/{temporary}"), b"x");
        let node = holder(&cluster, &format!("b/{target}"));
        assert_eq!(holder(&cluster, &format!("b/{temporary}")), node, "{temporary}");
    }
    // Without the form it is a name like any other, so that some of these are elsewhere.
    let elsewhere = (0..20).filter(|number| {
        cluster.put(&format!("s4://c/.{number}00_a.short"), b"x");
        holder(&cluster, &format!("c/.{number}00_a.short")) != *number * 100 % 3
    });
    assert!(elsewhere.count() > 0);
}
