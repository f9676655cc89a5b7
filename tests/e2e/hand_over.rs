//! Outputs of a shuffle for nodes of the same machine: linked, and not sent.

use crate::harness::{Cluster, eventually, text};
use crate::observe::{leftovers, listed};
use crate::strange_bodies::ask as ask_node;
use s4::attribute::{KeyRecord, Mark};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;

/// Has an output for each of three nodes, which holds the number of its own inode, and is long for the input `1_in`.
const INODES: &str = r#"for f in 0_a 1_b 2_c; do : > $f; stat -c %i $f >> $f; [ "$filename" = 1_in ] && head -c 5000000 /dev/zero >> $f; echo $f; done"#;

/// The inode that an output says it had, and the one that the key has.
fn inodes(cluster: &Cluster, outdir: &str, input: &str, node: usize, name: &str) -> (u64, u64) {
    let content = cluster.get(&format!("s4://{outdir}/{input}/{name}"));
    let said = text(&content).lines().next().unwrap().parse().unwrap();
    (said, std::fs::metadata(cluster.data(node).join(outdir).join(input).join(name)).unwrap().ino())
}

#[test]
fn outputs_for_a_node_of_the_same_machine_are_the_files_that_the_command_wrote() {
    let cluster = Cluster::start(3);
    cluster.put("s4://in/0_in", b"");
    cluster.put("s4://in/1_in", b"");
    cluster.ok(&["map-to-n", "s4://in/", "s4://here/", INODES]);
    cluster.separate(0..3);
    cluster.ok(&["map-to-n", "s4://in/", "s4://away/", INODES]);
    for (number, input) in ["0_in", "1_in"].into_iter().enumerate() {
        for (node, name) in ["0_a", "1_b", "2_c"].into_iter().enumerate() {
            let (said, is) = inodes(&cluster, "here", input, node, name);
            assert_eq!(said, is, "{input} {name}: linked");
            let (said, is) = inodes(&cluster, "away", input, node, name);
            assert_eq!(said == is, number == node, "{input} {name}: linked at home, sent elsewhere");
            let file = cluster.data(node).join("here").join(input).join(name);
            assert_eq!(std::fs::metadata(file).unwrap().permissions().mode() & 0o7777, 0o444);
        }
    }
    assert_eq!(leftovers(&cluster), Vec::<PathBuf>::new());
    let again = cluster.fails(1, &["map-to-n", "s4://in/", "s4://here/", INODES]);
    assert!(again.contains("already exist"), "{again}");
}

#[test]
fn nodes_that_sync_each_key_link_too() {
    let cluster = Cluster::with_options(2, &["--reserve", "0", "--fsync"]);
    cluster.put("s4://in/1_in", b"");
    cluster.ok(&["map-to-n", "s4://in/", "s4://out/", &INODES.replace(" 2_c", "")]);
    let (said, is) = inodes(&cluster, "out", "1_in", 0, "0_a");
    assert_eq!(said, is);
}

#[test]
fn a_node_that_is_started_anew_is_linked_from_and_links_again() {
    let mut cluster = Cluster::start(2);
    // So that the node may have its data elsewhere later.
    cluster.stop_node(0);
    let places = [cluster.dir().join("one"), cluster.dir().join("two")];
    std::fs::rename(cluster.data(0), &places[0]).unwrap();
    std::fs::create_dir(&places[1]).unwrap();
    std::os::unix::fs::symlink(&places[0], cluster.data(0)).unwrap();
    cluster.start_node(0);
    let cmd = INODES.replace(" 2_c", "");
    let check = |cluster: &Cluster, round: &str| {
        cluster.put(&format!("s4://{round}-in/0_in"), b"");
        cluster.put(&format!("s4://{round}-in/1_in"), b"");
        cluster.ok(&["map-to-n", &format!("s4://{round}-in/"), &format!("s4://{round}/"), &cmd]);
        for (input, node, name) in [("0_in", 1, "1_b"), ("1_in", 0, "0_a")] {
            let (said, is) = inodes(cluster, round, input, node, name);
            assert_eq!(said, is, "{round}: {input} {name}");
        }
    };
    check(&cluster, "first");
    for node in 0..2 {
        cluster.stop_node(node);
        cluster.start_node(node);
        check(&cluster, &format!("restart{node}"));
    }
    cluster.stop_node(0);
    std::fs::remove_file(cluster.data(0)).unwrap();
    std::os::unix::fs::symlink(&places[1], cluster.data(0)).unwrap();
    cluster.start_node(0);
    assert!(places[0].join(".s4/token").exists(), "the old place looks as before");
    check(&cluster, "elsewhere");
}

#[test]
fn outputs_go_to_a_node_of_the_same_machine_by_their_bytes_where_it_cannot_link_them() {
    if !nix::unistd::geteuid().is_root() {
        return eprintln!("skipped: not root, who alone can give a directory to another user");
    }
    let cluster = Cluster::start(3);
    cluster.put("s4://in/0_in", b"");
    // Nodes 1 and 2 would link files of another user.
    std::os::unix::fs::chown(cluster.data(0), Some(65_534), None).unwrap();
    cluster.ok(&["map-to-n", "s4://in/", "s4://out/", INODES]);
    for (node, name) in [(1, "1_b"), (2, "2_c")] {
        let (said, is) = inodes(&cluster, "out", "0_in", node, name);
        assert_ne!(said, is, "{name}");
    }
}

#[test]
fn outputs_that_a_command_gave_to_another_user_are_copied_and_the_daemons_own() {
    if !nix::unistd::geteuid().is_root() {
        return eprintln!("skipped: not root, who alone can give files to another user");
    }
    let cluster = Cluster::start(2);
    cluster.put("s4://in/0_in", b"");
    let cmd = INODES.replace(" 2_c", "").replace("; echo $f", "; chown 65534 $f; echo $f");
    cluster.ok(&["map-to-n", "s4://in/", "s4://out/", &cmd]);
    for (node, name) in [(0, "0_a"), (1, "1_b")] {
        let (said, is) = inodes(&cluster, "out", "0_in", node, name);
        assert_ne!(said, is, "{name}");
        assert_eq!(std::fs::metadata(cluster.data(node).join("out/0_in").join(name)).unwrap().uid(), 0, "{name}");
    }
}

/// A file of node 1 that looks like the output of a task, with the mode, checksum and mark of one that is sealed.
fn output(cluster: &Cluster, name: &str, mode: u32, sum: &str, mark: Mark) -> PathBuf {
    let dir = cluster.data(1).join(".s4/tasks/job/task");
    std::fs::create_dir_all(&dir).unwrap();
    let path = dir.join(name);
    std::fs::write(&path, "hello\n").unwrap();
    if let Ok(checksum) = sum.parse() {
        let file = std::fs::File::open(&path).unwrap();
        s4::stored::set_record(&file, &KeyRecord { checksum, mark: Some(mark) }).unwrap();
    }
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    path
}

#[test]
fn only_what_is_sealed_below_the_tasks_of_a_neighbour_is_linked() {
    const SUM: &str = "99fc819aaba2462a 6";
    let cluster = Cluster::start(2);
    cluster.put("s4://in/0_k", b"input");
    cluster.put("s4://in/1_k", b"hello\n");
    // Its first output tells its mark.
    let job = cluster.ok(&[
        "map-to-n",
        "--detach",
        "s4://in/",
        "s4://out/",
        "echo x > 1_x; [ $filename = 1_k ] && sleep 1000; echo 1_x",
    ]);
    let first = cluster.data(1).join("out/0_k/1_x");
    let mark = || s4::stored::record_at(&first).ok().flatten().and_then(|record| record.mark);
    let mark = eventually("an output stands", mark);
    let token = std::fs::read_to_string(cluster.data(1).join(".s4/token")).unwrap();
    let delivery = format!("job={}&inputs={:016x}&outputs={}", job.trim(), mark.inputs, mark.outputs);
    let ask_with = |from: u32, token: &str, path: &str, inode: u64, key: &str| {
        let body = format!(
            r#"{{"from":{from},"token":"{token}","outputs":[{{"path":"{path}","inode":{inode},"key":"{key}","checksum":"{SUM}"}}]}}"#
        );
        ask_node(&cluster, "POST", &format!("/v1/pack/link?{delivery}"), body.as_bytes())
    };
    let tasks = cluster.data(1).join(".s4/tasks");
    let ask = |path: &str, key: &str| {
        let inode = std::fs::metadata(tasks.join(path)).map_or(0, |found| found.ino());
        ask_with(1, &token, path, inode, key)
    };
    let sealed = output(&cluster, "sealed", 0o444, SUM, mark);
    output(&cluster, "writable", 0o644, SUM, mark);
    output(&cluster, "unsealed", 0o444, "", mark);
    output(&cluster, "other", 0o444, "0123456789abcdef 6", mark);
    output(&cluster, "strange", 0o444, SUM, Mark { job: 12345678, ..mark });
    let named_twice = output(&cluster, "twice", 0o444, SUM, mark);
    std::fs::hard_link(&named_twice, cluster.dir().join("second")).unwrap();
    std::os::unix::fs::symlink("sealed", sealed.with_file_name("link")).unwrap();
    std::os::unix::fs::symlink(cluster.data(1).join("in"), sealed.with_file_name("dir")).unwrap();
    for (path, why) in [
        ("job/task/writable", "not as its node seals it"),
        ("job/task/unsealed", "another one"),
        ("job/task/other", "another one"),
        ("job/task/strange", "another one"),
        ("job/task/twice", "not as its node seals it"),
        ("job/task/link", "cannot be opened"),
        ("job/task", "not as its node seals it"),
        ("job/task/absent", "cannot be opened"),
        ("job/task/dir/1_k", "not below the tasks"),
        ("absent/task/sealed", "not there"),
        ("../../in/1_k", "not below the tasks"),
        ("./job/task/sealed", "not below the tasks"),
        ("", "not as its node seals it"),
        (sealed.to_str().unwrap(), "not below the tasks"),
    ] {
        let answer = ask(path, "out/0_new");
        assert!(answer.contains(r#""published":0,"failed":1"#) && answer.contains(why), "{path}: {answer}");
    }
    let inode = std::fs::metadata(&sealed).unwrap().ino();
    let answer = ask_with(1, &token, "job/task/sealed", inode + 1, "out/0_new");
    assert!(answer.contains("another one"), "{answer}");
    let answer = ask("job/task/sealed", "out/1_new");
    assert!(answer.contains("belongs on node 1"), "{answer}");
    let answer = ask("job/task/sealed", "in/0_k");
    assert!(answer.contains("already exists"), "{answer}");
    for (from, token, why) in [(7, &*token, "there is none"), (1, "old", "not on this machine")] {
        let answer = ask_with(from, token, "job/task/sealed", inode, "out/0_new");
        assert!(answer.starts_with("HTTP/1.1 400") && answer.contains(why), "{answer}");
    }
    assert_eq!(listed(&cluster, "s4://out/"), ["0_k/1_x"]);
    let answer = ask("job/task/sealed", "out/0_new");
    assert!(answer.contains(r#""published":1,"failed":0"#), "{answer}");
    assert_eq!(cluster.get("s4://out/0_new"), b"hello\n");
    cluster.ok(&["cancel", job.trim()]);
    output(&cluster, "late", 0o444, SUM, mark);
    let answer = ask("job/task/late", "out/0_late");
    assert!(answer.contains("the job has ended"), "{answer}");
    assert!(!cluster.data(0).join("out/0_late").exists());
}
