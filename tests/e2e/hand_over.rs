//! Outputs of a shuffle for nodes of the same machine: linked, and not sent.

use crate::harness::{Cluster, text};
use crate::observe::{leftovers, listed};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Has an output for each of three nodes, which holds the number of its own inode, and is long with `LARGE`.
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
fn a_node_that_is_started_anew_links_again() {
    let mut cluster = Cluster::start(2);
    cluster.put("s4://in/0_in", b"");
    let cmd = INODES.replace(" 2_c", "");
    for round in ["first", "second"] {
        cluster.ok(&["map-to-n", "s4://in/", &format!("s4://{round}/"), &cmd]);
        let (said, is) = inodes(&cluster, round, "0_in", 1, "1_b");
        assert_eq!(said, is, "{round}");
        for node in 0..2 {
            cluster.stop_node(node);
            cluster.start_node(node);
        }
    }
}

#[test]
fn outputs_go_to_a_node_of_the_same_machine_by_their_bytes_where_it_cannot_link_them() {
    if !nix::unistd::geteuid().is_root() {
        return eprintln!("skipped: not root, who alone can give a directory to another user");
    }
    let cluster = Cluster::start(3);
    cluster.put("s4://in/0_in", b"");
    // Node 1 would link files of another user.
    std::os::unix::fs::chown(cluster.data(0), Some(65_534), None).unwrap();
    cluster.ok(&["map-to-n", "s4://in/", "s4://out/", INODES]);
    for (node, name) in [(1, "1_b"), (2, "2_c")] {
        let (said, is) = inodes(&cluster, "out", "0_in", node, name);
        assert_ne!(said, is, "{name}");
    }
}

/// A file that looks like an output of a task of node 1.
fn output(cluster: &Cluster, name: &str, mode: u32, sum: Option<&str>) -> PathBuf {
    let dir = cluster.data(1).join(".s4/tasks/job/task");
    std::fs::create_dir_all(&dir).unwrap();
    let path = dir.join(name);
    std::fs::write(&path, "hello\n").unwrap();
    if let Some(sum) = sum {
        xattr::set(&path, "user.s4.checksum", sum.as_bytes()).unwrap();
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
    let job = cluster.ok(&["map-to-n", "--detach", "s4://in/", "s4://out/", "sleep 1000"]);
    let ask = |from: u32, path: &str, key: &str, sum: &str| {
        let body = format!(r#"{{"from":{from},"outputs":[{{"path":"{path}","key":"{key}","checksum":"{sum}"}}]}}"#);
        let head = format!(
            "POST /v1/pack/link?job={} HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\ns4-cluster: {}\r\ncontent-length: {}\r\n\r\n",
            job.trim(),
            cluster.digest(),
            body.len()
        );
        cluster.raw(0, &[head.as_bytes(), body.as_bytes()].concat())
    };
    output(&cluster, "sealed", 0o444, Some(SUM));
    output(&cluster, "writable", 0o644, Some(SUM));
    output(&cluster, "unsealed", 0o444, None);
    output(&cluster, "other", 0o444, Some("0123456789abcdef 6"));
    let named_twice = output(&cluster, "twice", 0o444, Some(SUM));
    std::fs::hard_link(&named_twice, cluster.dir().join("second")).unwrap();
    std::os::unix::fs::symlink("sealed", named_twice.with_file_name("link")).unwrap();
    let absolute = named_twice.with_file_name("sealed");
    for (path, why) in [
        ("job/task/writable", "not as its node seals it"),
        ("job/task/unsealed", "another one"),
        ("job/task/other", "another one"),
        ("job/task/twice", "not as its node seals it"),
        ("job/task/link", "not as its node seals it"),
        ("job/task", "not as its node seals it"),
        ("job/task/absent", "not there"),
        ("../../in/1_k", "not below the tasks'"),
        ("./job/task/sealed", "not below the tasks'"),
        ("", "not as its node seals it"),
        (absolute.to_str().unwrap(), "not below the tasks'"),
    ] {
        let answer = ask(1, path, "out/0_new", SUM);
        assert!(answer.contains(r#""published":0,"failed":1"#) && answer.contains(why), "{path}: {answer}");
    }
    let answer = ask(1, "job/task/sealed", "out/1_new", SUM);
    assert!(answer.contains("belongs on node 1"), "{answer}");
    let answer = ask(1, "job/task/sealed", "in/0_k", SUM);
    assert!(answer.contains("already exists"), "{answer}");
    let answer = ask(7, "job/task/sealed", "out/0_new", SUM);
    assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("there is none"), "{answer}");
    assert_eq!(listed(&cluster, "s4://out/"), Vec::<String>::new());
    let answer = ask(1, "job/task/sealed", "out/0_new", SUM);
    assert!(answer.contains(r#""published":1,"failed":0"#), "{answer}");
    assert_eq!(cluster.get("s4://out/0_new"), b"hello\n");
    cluster.ok(&["cancel", job.trim()]);
    output(&cluster, "late", 0o444, Some(SUM));
    let answer = ask(1, "job/task/late", "out/0_late", SUM);
    assert!(answer.contains("the job has ended"), "{answer}");
    assert!(!Path::new(&cluster.data(0)).join("out/0_late").exists());
}
