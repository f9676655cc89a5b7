//! `s4 cp`, `s4 ls` and `s4 rm`, as a user of `cp` and `aws s3` would expect them.

use crate::harness::{Cluster, text};
use std::path::Path;
use std::process::Command;

/// Writes a file in the cluster's directory, and makes the directories above it.
fn write(cluster: &Cluster, path: &str, content: &str) {
    let path = cluster.dir().join(path);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, content).unwrap();
}

fn read(cluster: &Cluster, path: &str) -> String {
    std::fs::read_to_string(cluster.dir().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The names that `s4 ls` prints, in its order; with `PRE ` before a directory's.
fn names(cluster: &Cluster, args: &[&str]) -> Vec<String> {
    let listing = cluster.ok(&[&["ls"], args].concat());
    let name = |line: &str| match line.trim_start().starts_with("PRE ") {
        true => line.trim_start().to_owned(),
        // A bucket is its bare name.
        false => line.split_whitespace().last().expect("a name").to_owned(),
    };
    listing.lines().map(name).collect()
}

/// Asserts that the cluster holds no key.
fn assert_empty(cluster: &Cluster) {
    cluster.fails(1, &["ls", "-r"]);
}

/// Names in a directory, sorted.
fn files_in(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_destination_that_ends_in_a_slash_keeps_the_basename() {
    let cluster = Cluster::start(3);
    write(&cluster, "deep/1_name", "content");
    cluster.ok(&["cp", "deep/1_name", "s4://b/"]);
    cluster.ok(&["cp", "deep/1_name", "s4://b/dir/"]);
    cluster.ok(&["cp", "deep/1_name", "s4://b/dir/2_other"]);
    assert_eq!(names(&cluster, &["-r", "s4://b/"]), ["1_name", "dir/1_name", "dir/2_other"]);
    cluster.ok(&["cp", "s4://b/dir/1_name", "new/dir/"]);
    assert_eq!(read(&cluster, "new/dir/1_name"), "content");
    cluster.ok(&["cp", "s4://b/dir/2_other", "new/dir"]);
    assert_eq!(read(&cluster, "new/dir/2_other"), "content");
}

#[test]
fn a_destination_of_a_dot_means_here() {
    let cluster = Cluster::start(2);
    cluster.put("s4://b/dir/1_key", b"content");
    cluster.ok(&["cp", "s4://b/dir/1_key", "."]);
    assert_eq!(read(&cluster, "1_key"), "content");
    cluster.put("s4://b/dir/sub/0_key", b"below");
    cluster.ok(&["cp", "-r", "s4://b/dir/", "."]);
    assert_eq!(read(&cluster, "dir/sub/0_key"), "below");
}

#[test]
fn a_dash_is_stdin_and_stdout() {
    let cluster = Cluster::start(2);
    let put = cluster.put_output("s4://b/1_key", b"piped\n");
    assert!(put.status.success() && put.stdout.is_empty() && put.stderr.is_empty());
    let get = cluster.run(&["cp", "s4://b/1_key", "-"]);
    assert_eq!((text(&get.stdout), text(&get.stderr)), ("piped\n".to_owned(), String::new()));
    assert!(cluster.fails(2, &["cp", "-", "s4://b/"]).contains("s4://b/"));
    assert!(!cluster.dir().join("-").exists());
}

#[test]
fn a_nested_tree_of_500_files_is_equal_after_cp_r_there_and_back() {
    let cluster = Cluster::start(3);
    for number in 0..500 {
        let dir = ["", "a/", "a/b/", "a/b/c-d.e/", "é/"][number % 5];
        let content = format!("{number}\n").repeat(number % 7 * 300);
        write(&cluster, &format!("tree/{dir}{number}_file"), &content);
    }
    for (src, dst, back) in [("tree", "s4://b/", "back1"), ("tree/", "s4://c/some/dir", "back2")] {
        cluster.ok(&["cp", "-r", src, dst]);
        assert_eq!(names(&cluster, &["-r", dst]).len(), 500);
        cluster.ok(&["cp", "-r", dst, back]);
        let diff = Command::new("diff").args(["-r", "tree", back]).current_dir(cluster.dir()).output().unwrap();
        assert!(diff.status.success(), "{}{}", text(&diff.stdout), text(&diff.stderr));
    }
}

#[test]
fn an_existing_key_is_an_error_and_left_as_it_was() {
    let cluster = Cluster::start(2);
    cluster.put("s4://b/1_key", b"first");
    write(&cluster, "tree/0_new", "new");
    write(&cluster, "tree/1_key", "second");
    for args in
        [&["cp", "tree/1_key", "s4://b/1_key"][..], &["cp", "tree/1_key", "s4://b/"], &["cp", "-r", "tree", "s4://b/"]]
    {
        let error = cluster.fails(1, args);
        assert!(error.contains("already exists") && error.contains("s4://b/1_key"), "{args:?}: {error}");
        assert_eq!(error.lines().count(), 1, "{error}");
    }
    let piped = cluster.put_output("s4://b/1_key", b"third");
    assert_eq!(piped.status.code(), Some(1));
    assert_eq!(cluster.get("s4://b/1_key"), b"first");
    // What came beside it is not held up.
    assert_eq!(cluster.get("s4://b/0_new"), b"new");
}

#[test]
fn an_existing_local_file_is_replaced_only_by_whole_content() {
    let cluster = Cluster::start(2);
    let content = vec![b'x'; 300_000];
    cluster.put("s4://b/1_good", &content);
    cluster.put("s4://b/1_bad", &content);
    let mut damaged = content.clone();
    damaged[299_999] = b'y';
    std::fs::write(cluster.data(1).join("b/1_bad"), damaged).unwrap();
    for args in [&["cp", "s4://b/1_bad", "out/file"][..], &["cp", "s4://b/9_missing", "out/file"]] {
        write(&cluster, "out/file", "as it was");
        cluster.fails(1, args);
        assert_eq!(read(&cluster, "out/file"), "as it was", "{args:?}");
        assert_eq!(files_in(&cluster.dir().join("out")), ["file"], "{args:?}");
    }
    write(&cluster, "out/1_bad", "as it was");
    write(&cluster, "out/1_good", "old");
    assert!(cluster.fails(1, &["cp", "-r", "s4://b/", "out"]).contains("s4://b/1_bad"));
    assert_eq!(read(&cluster, "out/1_bad"), "as it was");
    assert_eq!(files_in(&cluster.dir().join("out")), ["1_bad", "1_good", "file"]);
    cluster.ok(&["cp", "s4://b/1_good", "out/file"]);
    for file in ["out/1_good", "out/file"] {
        assert!(std::fs::read(cluster.dir().join(file)).unwrap() == content, "{file}");
    }
}

#[test]
fn one_bad_file_name_refuses_the_whole_copy_before_anything_is_sent() {
    let cluster = Cluster::start(3);
    for number in 0..50 {
        write(&cluster, &format!("tree/{number}_file"), "x");
    }
    write(&cluster, "tree/z/bad name", "x");
    let error = cluster.fails(1, &["cp", "-r", "tree", "s4://b/"]);
    assert!(error.contains("bad name") && error.contains("whitespace"), "{error}");
    assert_empty(&cluster);
}

#[test]
fn a_loop_of_links_refuses_the_whole_copy() {
    let cluster = Cluster::start(2);
    write(&cluster, "tree/a/0_file", "x");
    std::os::unix::fs::symlink("..", cluster.dir().join("tree/a/loop")).unwrap();
    let error = cluster.fails(1, &["cp", "-r", "tree", "s4://b/"]);
    assert!(error.contains("tree/a/loop"), "{error}");
    assert_empty(&cluster);
    std::fs::remove_file(cluster.dir().join("tree/a/loop")).unwrap();
    std::os::unix::fs::symlink("loop", cluster.dir().join("tree/a/loop")).unwrap();
    assert!(cluster.fails(1, &["cp", "-r", "tree", "s4://b/"]).contains("tree/a/loop"));
    assert_empty(&cluster);
}

#[test]
fn a_copy_that_makes_no_sense_is_refused() {
    let cluster = Cluster::start(2);
    write(&cluster, "dir/file", "x");
    cluster.put("s4://b/key", b"x");
    let cases: [(i32, &[&str], &str); 10] = [
        (1, &["cp", "missing", "s4://b/"], "missing"),
        (1, &["cp", "-r", "missing", "s4://b/"], "missing"),
        (1, &["cp", "s4://b/missing", "."], "s4://b/missing"),
        (1, &["cp", "-r", "s4://missing/", "."], "s4://missing"),
        (2, &["cp", "dir/file", "copy"], "s4://"),
        (1, &["cp", "s4://b/missing", "s4://b/other"], "s4://b/missing"),
        (2, &["cp", "-r", "s4://b/", "s4://b/dir/"], "into itself"),
        (2, &["cp", "dir", "s4://b/"], "-r"),
        (2, &["cp", "-r", "dir/file", "s4://b/"], "-r"),
        (2, &["cp", "dir/file"], "DST"),
    ];
    for (code, args, said) in cases {
        let error = cluster.fails(code, args);
        assert!(error.contains(said), "{args:?}: {error}");
    }
    assert_eq!(names(&cluster, &["-r", "s4://b/"]), ["key"]);
    assert!(!cluster.dir().join("copy").exists() && !cluster.dir().join("missing").exists());
}

#[test]
fn ls_prints_date_time_size_and_name() {
    let cluster = Cluster::start(2);
    cluster.put("s4://bucket/1_key", &[0; 1234]);
    cluster.put("s4://bucket/dir/0_key", b"");
    let listing = cluster.ok(&["ls", "s4://bucket/"]);
    let lines: Vec<Vec<&str>> = listing.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[0][2..], ["1234", "1_key"]);
    let shape = |text: &str| text.replace(|c: char| c.is_ascii_digit(), "9");
    assert_eq!((shape(lines[0][0]), shape(lines[0][1])), ("9999-99-99".to_owned(), "99:99:99".to_owned()));
    assert_eq!(lines[1], ["PRE", "dir/"]);
    let published = std::fs::metadata(cluster.data(1).join("bucket/1_key")).unwrap().modified().unwrap();
    let seconds = published.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let date = Command::new("date").args(["-u", &format!("-d@{seconds}"), "+%F %T"]).output().unwrap();
    assert_eq!(format!("{} {}", lines[0][0], lines[0][1]), text(&date.stdout).trim());
    assert_eq!(cluster.ok(&["ls"]).split_whitespace().collect::<Vec<_>>(), ["bucket"]);
}

#[test]
fn the_prefix_of_ls_is_the_beginning_of_a_string() {
    let cluster = Cluster::start(3);
    for key in ["step1/a", "step1/ab", "step1/abc/1_x", "step1/b", "step2/dir/a", "other/a"] {
        cluster.put(&format!("s4://{key}"), b"x");
    }
    let cases: [(&[&str], &[&str]); 9] = [
        (&[], &["other", "step1", "step2"]),
        (&["s4://"], &["other", "step1", "step2"]),
        (&["s4://ste"], &["step1", "step2"]),
        (&["s4://step1"], &["step1"]),
        (&["s4://step1/"], &["a", "ab", "PRE abc/", "b"]),
        (&["s4://step1/a"], &["a", "ab", "PRE abc/"]),
        (&["s4://step1/abc/"], &["1_x"]),
        (&["-r", "s4://step1/a"], &["a", "ab", "abc/1_x"]),
        (&["-r", "s4://step"], &["step1/a", "step1/ab", "step1/abc/1_x", "step1/b", "step2/dir/a"]),
    ];
    for (args, wanted) in cases {
        assert_eq!(names(&cluster, args), wanted, "{args:?}");
    }
    for args in [&["ls", "s4://x"][..], &["ls", "s4://step1/x"], &["ls", "-r", "s4://step3/"]] {
        let output = cluster.run(args);
        assert_eq!((output.status.code(), text(&output.stdout)), (Some(1), String::new()), "{args:?}");
        assert!(text(&output.stderr).contains(args.last().unwrap()), "{args:?}: {}", text(&output.stderr));
    }
}

#[test]
fn ls_sorts_by_bytes_across_nodes() {
    let cluster = Cluster::start(5);
    let mut keys: Vec<String> =
        ["a-1", "a.1", "a/0_x", "a/b/1_x", "a/b-c", "a0", "aA", "a_1", "aé", "a~", "A", "Z", "é", "日本"]
            .iter()
            .map(ToString::to_string)
            .chain((0..40).map(|number| format!("{number}_n")))
            .collect();
    for key in &keys {
        cluster.put(&format!("s4://b/{key}"), b"");
    }
    keys.sort_unstable();
    assert_eq!(names(&cluster, &["-r", "s4://b/"]), keys);
    let mut level: Vec<String> = keys.iter().filter(|key| !key.contains('/')).cloned().collect();
    level.push("a/".to_owned());
    level.sort_unstable();
    let shown: Vec<String> =
        names(&cluster, &["s4://b/"]).iter().map(|name| name.trim_start_matches("PRE ").to_owned()).collect();
    assert_eq!(shown, level);
    assert_eq!(names(&cluster, &["s4://b/a/"]), ["0_x", "b-c", "PRE b/"]);
}

#[test]
fn rm_deletes_one_key_and_no_other() {
    let cluster = Cluster::start(3);
    for key in ["s4://b/1_key", "s4://b/1_key2", "s4://b/1_dir/0_key"] {
        cluster.put(key, b"x");
    }
    cluster.ok(&["rm", "s4://b/1_key"]);
    assert_eq!(names(&cluster, &["-r", "s4://b/"]), ["1_dir/0_key", "1_key2"]);
    for missing in ["s4://b/1_key", "s4://b/1_ke", "s4://b/1_dir", "s4://none/1_key"] {
        assert!(cluster.fails(1, &["rm", missing]).contains(missing));
    }
    assert_eq!(names(&cluster, &["-r", "s4://b/"]), ["1_dir/0_key", "1_key2"]);
    cluster.put("s4://b/1_key", b"again");
    assert_eq!(cluster.get("s4://b/1_key"), b"again");
}

#[test]
fn rm_r_deletes_all_that_begins_with_a_prefix_over_buckets() {
    let cluster = Cluster::start(3);
    for bucket in ["step1", "step2/deep/er", "stay", "ste"] {
        for number in 0..9 {
            cluster.put(&format!("s4://{bucket}/{number}_key"), b"x");
        }
    }
    cluster.ok(&["rm", "-r", "s4://step"]);
    assert_eq!(names(&cluster, &[]), ["stay", "ste"]);
    cluster.ok(&["rm", "-r", "s4://stay/1"]);
    assert_eq!(names(&cluster, &["s4://stay/"]).len(), 8);
    cluster.ok(&["rm", "-r", "s4://step"]);
    cluster.fails(2, &["rm", "-r", "s4://"]);
    assert_eq!(names(&cluster, &["-r"]).len(), 17);
}

#[test]
fn directories_vanish_with_their_last_key() {
    let cluster = Cluster::start(3);
    for number in 0..3 {
        cluster.put(&format!("s4://b/a/c/{number}_key"), b"x");
    }
    cluster.put("s4://b/a/0_key", b"x");
    for number in 0..3 {
        assert_eq!(names(&cluster, &["s4://b/a/"]), ["0_key", "PRE c/"]);
        cluster.ok(&["rm", &format!("s4://b/a/c/{number}_key")]);
    }
    assert_eq!(names(&cluster, &["s4://b/a/"]), ["0_key"]);
    cluster.ok(&["rm", "-r", "s4://b/"]);
    cluster.fails(1, &["ls"]);
    for node in 0..3 {
        assert!(!cluster.data(node).join("b").exists(), "node {node} keeps the bucket's directory");
    }
}

#[test]
fn a_tree_copied_here_keeps_its_directory_and_one_to_stdout_is_in_the_order_of_names() {
    let cluster = Cluster::start(3);
    let keys = ["dir1/1_a", "dir2/0_b", "dir2/deep/2_c", "dir2/deep.x", "dir2/a"];
    for key in keys {
        cluster.put(&format!("s4://b/{key}"), format!("{key}\n").as_bytes());
    }
    let copied = |url: &str, dst: &str| {
        let dir = tempfile::tempdir().unwrap();
        let output = cluster.command(&["cp", "-r", url, dst]).current_dir(dir.path()).output().unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
        let files = walkdir::WalkDir::new(dir.path()).sort_by_file_name().into_iter().flatten();
        let files = files.filter(|entry| entry.file_type().is_file());
        let name = |path: &std::path::Path| path.strip_prefix(dir.path()).unwrap().display().to_string();
        files.map(|entry| name(entry.path())).collect::<Vec<_>>()
    };
    assert_eq!(copied("s4://b", "."), ["dir1/1_a", "dir2/0_b", "dir2/a", "dir2/deep/2_c", "dir2/deep.x"]);
    for url in ["s4://b/dir2", "s4://b/dir2/"] {
        assert_eq!(copied(url, "."), ["dir2/0_b", "dir2/a", "dir2/deep/2_c", "dir2/deep.x"]);
    }
    assert_eq!(copied("s4://b/dir2/deep", "."), ["deep/2_c"]);
    assert_eq!(copied("s4://b/dir2/deep/", "to"), ["to/2_c"]);
    assert_eq!(cluster.ok(&["cp", "-r", "s4://b/dir2/", "-"]), "dir2/0_b\ndir2/a\ndir2/deep.x\ndir2/deep/2_c\n");
    cluster.fails(1, &["cp", "-r", "s4://none/", "-"]);
}

#[test]
fn a_get_that_is_killed_leaves_nothing() {
    let cluster = Cluster::start(1);
    let large = cluster.dir().join("0_large");
    std::fs::File::create(&large).unwrap().set_len(1 << 30).unwrap();
    cluster.ok(&["cp", "0_large", "s4://b/"]);
    let to = cluster.dir().join("to");
    for args in [["cp", "s4://b/0_large", "to/copy"].as_slice(), &["cp", "-r", "s4://b/", "to"]] {
        let killed = (0..20).any(|_| {
            let _ = std::fs::remove_dir_all(&to);
            std::fs::create_dir(&to).unwrap();
            let mut child = cluster.command(args).spawn().unwrap();
            while crate::observe::longest_open(child.id()) == 0 && child.try_wait().unwrap().is_none() {}
            child.kill().unwrap();
            // One that was too quick is tried again.
            !child.wait().unwrap().success()
        });
        assert!(killed, "{args:?} was always too quick");
        let left: Vec<_> = std::fs::read_dir(&to).unwrap().flatten().map(|entry| entry.file_name()).collect();
        assert!(left.is_empty(), "{args:?} left {left:?}");
    }
}

#[test]
fn a_get_takes_the_place_of_a_file() {
    let cluster = Cluster::start(1);
    cluster.put("s4://b/0_x", b"new");
    std::fs::write(cluster.dir().join("0_x"), "old").unwrap();
    cluster.ok(&["cp", "s4://b/0_x", "."]);
    assert_eq!(std::fs::read(cluster.dir().join("0_x")).unwrap(), b"new");
    let left = std::fs::read_dir(cluster.dir()).unwrap().flatten();
    assert!(!left.into_iter().any(|entry| entry.file_name().to_str().unwrap().starts_with(".s4.")));
}
