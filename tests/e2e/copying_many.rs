//! `s4 cp` of several sources and of trees: what is left out, what is refused, in what order, and what is told.

use crate::harness::{Cluster, text};
use crate::terminal::OnTerminal;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

fn write(cluster: &Cluster, path: &str, content: &str) {
    let path = cluster.dir().join(path);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, content).unwrap();
}

fn read(cluster: &Cluster, path: &str) -> String {
    std::fs::read_to_string(cluster.dir().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The names of all keys that begin with `url`, below its bucket.
fn keys(cluster: &Cluster, url: &str) -> Vec<String> {
    let listing = cluster.run(&["ls", "-r", url]);
    text(&listing.stdout).lines().map(|line| line.split_whitespace().last().unwrap().to_owned()).collect()
}

#[test]
fn several_sources_come_under_their_basenames() {
    let cluster = Cluster::start(3);
    write(&cluster, "a/x", "x");
    write(&cluster, "b/y", "y");
    write(&cluster, "b/sub/z", "z");
    cluster.ok(&["cp", "a/x", "b/y", "s4://in/"]);
    assert_eq!(keys(&cluster, "s4://in/"), ["x", "y"]);
    cluster.ok(&["cp", "-r", "a/", "b", "a/x", "s4://trees/d/"]);
    assert_eq!(keys(&cluster, "s4://trees/"), ["d/a/x", "d/b/sub/z", "d/b/y", "d/x"]);
    cluster.ok(&["cp", "s4://in/x", "s4://trees/d/b/y", "out/"]);
    assert_eq!((read(&cluster, "out/x"), read(&cluster, "out/y")), ("x".to_owned(), "y".to_owned()));
    cluster.ok(&["cp", "-r", "s4://trees/d/b", "s4://in", "s4://trees/d/x", "out2/"]);
    for (path, content) in [("out2/b/sub/z", "z"), ("out2/b/y", "y"), ("out2/in/x", "x"), ("out2/x", "x")] {
        assert_eq!(read(&cluster, path), content, "{path}");
    }
    assert_eq!(cluster.ok(&["cp", "s4://in/y", "s4://in/x", "-"]), "yx", "in the order of the arguments");
}

#[test]
fn several_sources_need_a_directory_and_names_that_differ() {
    let cluster = Cluster::start(2);
    write(&cluster, "a/x", "x");
    write(&cluster, "b/x", "other");
    write(&cluster, "y", "y");
    cluster.put("s4://b/a/x", b"x");
    let cases: [(&[&str], &str); 8] = [
        (&["cp", "a/x", "y", "s4://in/z"], "ends in /"),
        (&["cp", "a/x", "b/x", "s4://in/"], "become x"),
        (&["cp", "a/x", "-", "s4://in/"], "stdin"),
        (&["cp", "a", "y", "s4://in/"], "-r"),
        (&["cp", "y", "s4://b/a/x", "s4://in/"], "local"),
        (&["cp", "s4://b/a/x", "s4://b/y", "y"], "ends in /"),
        (&["cp", "s4://b/a/x", "s4://c/x", "out/"], "become x"),
        (&["cp", "-r", "s4://b/a", "s4://c/", "s4://b/"], "itself"),
    ];
    for (args, said) in cases {
        let error = cluster.fails(2, args);
        assert!(error.contains(said), "{args:?}: {error}");
    }
    assert!(keys(&cluster, "s4://in").is_empty() && !cluster.dir().join("out").exists());
}

#[test]
fn existing_keys_and_files_are_left_out_and_counted() {
    let cluster = Cluster::start(3);
    for number in 0..40 {
        write(&cluster, &format!("tree/d/{number}_file"), &format!("new {number}"));
    }
    write(&cluster, "tree/d/0_large", &"x".repeat(3 << 20));
    let existing = ["0_file", "1_file", "38_file", "0_large"];
    existing.iter().for_each(|name| cluster.put(&format!("s4://b/d/{name}"), b"old"));
    let told = |args: &[&str]| {
        let output = cluster.run(args);
        assert!(output.status.success(), "{args:?}: {}", text(&output.stderr));
        text(&output.stderr)
    };
    let said = told(&["cp", "-r", "--skip-existing", "tree", "s4://b/"]);
    assert!(said.contains("37 keys copied") && said.contains("4 existing keys left out"), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    existing.iter().for_each(|name| assert_eq!(cluster.get(&format!("s4://b/d/{name}")), b"old", "{name}"));
    assert_eq!(cluster.get("s4://b/d/2_file"), b"new 2");
    // Failures of one kind are told together.
    for (src, dst, more) in [("tree", "s4://b/", 38), ("s4://b/", "s4://b2/", 38)] {
        if src != "tree" {
            cluster.ok(&["cp", "-r", src, dst]);
        }
        let said = cluster.fails(1, &["cp", "-r", src, dst]);
        let more = format!("s4: {more} more keys already exist; --skip-existing leaves such keys out\n");
        assert!(said.contains("key already exists\n") && said.contains(&more) && said.lines().count() == 4, "{said}");
    }
    cluster.ok(&["rm", "-r", "s4://b2/"]);

    write(&cluster, "back/d/3_file", "mine");
    let said = told(&["cp", "-r", "--skip-existing", "s4://b/", "back"]);
    assert!(said.contains("40 keys copied") && said.contains("1 existing key left out"), "{said}");
    assert_eq!((read(&cluster, "back/d/3_file"), read(&cluster, "back/d/4_file")), ("mine".into(), "new 4".into()));

    cluster.put("s4://c/d/5_file", b"old");
    let said = told(&["cp", "-r", "--skip-existing", "s4://b/", "s4://c/"]);
    assert!(said.contains("40 keys copied") && said.contains("1 existing key left out"), "{said}");
    assert_eq!(cluster.get("s4://c/d/5_file"), b"old");

    // One source too; and a directory of the name is no key.
    assert!(told(&["cp", "--skip-existing", "tree/d/5_file", "s4://c/d/5_file"]).contains("left out"));
    assert!(told(&["cp", "--skip-existing", "s4://b/d/6_file", "s4://c/d/5_file"]).contains("left out"));
    assert!(told(&["cp", "--skip-existing", "s4://b/d/6_file", "back/d/3_file"]).contains("left out"));
    assert_eq!((cluster.get("s4://c/d/5_file"), read(&cluster, "back/d/3_file")), (b"old".to_vec(), "mine".into()));
    // Out of the cluster, a directory is no file that exists either.
    cluster.put("s4://flat/d", b"x");
    let said = cluster.fails(1, &["cp", "-r", "--skip-existing", "s4://flat/", "back"]);
    assert!(said.contains("back/d: is a directory here"), "{said}");
    write(&cluster, "other/d", "x");
    assert!(cluster.fails(1, &["cp", "-r", "--skip-existing", "other", "s4://c/"]).contains("directory"));
}

#[test]
fn what_a_glob_matches_is_left_out() {
    let cluster = Cluster::start(3);
    for path in ["a/x.csv", "a/x.tmp", "a/.git/config", "a/b/y.csv", "b/y.csv", "not a name.tmp"] {
        write(&cluster, &format!("tree/{path}"), path);
    }
    let globs = ["--exclude", "*.tmp", "--exclude", ".git", "--exclude", "b/*.csv"];
    cluster.ok(&[&["cp", "-r", "tree", "s4://in/"], &globs[..]].concat());
    assert_eq!(keys(&cluster, "s4://in/"), ["a/b/y.csv", "a/x.csv"]);
    cluster.ok(&["cp", "-r", "s4://in/", "back", "--exclude", "a/b"]);
    assert!(cluster.dir().join("back/a/x.csv").exists() && !cluster.dir().join("back/a/b").exists());
    cluster.ok(&["cp", "-r", "--exclude", "x*", "s4://in/", "s4://other/"]);
    assert_eq!(keys(&cluster, "s4://other/"), ["a/b/y.csv"]);
    assert_eq!(cluster.ok(&["cp", "-r", "--exclude", "b", "s4://in/", "-"]), "a/x.csv");
    cluster.ok(&["cp", "tree/a/x.csv", "tree/a/x.tmp", "s4://few/", "--exclude", "*.tmp"]);
    assert_eq!(keys(&cluster, "s4://few/"), ["x.csv"]);
    assert!(cluster.fails(2, &["cp", "-r", "tree", "s4://x/", "--exclude", "[a"]).contains("[a"));
}

#[test]
fn every_file_that_cannot_be_a_key_is_told_before_anything_is_copied() {
    let cluster = Cluster::start(3);
    for number in 0..10 {
        write(&cluster, &format!("tree/{number}_good"), "x");
        write(&cluster, &format!("tree/white space {number}"), "x");
    }
    write(&cluster, "tree/line\nend", "x");
    std::fs::write(cluster.dir().join("tree").join(Path::new(std::ffi::OsStr::from_bytes(b"latin\xe9"))), "x").unwrap();
    nix::unistd::mkfifo(&cluster.dir().join("tree/fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let deep = format!(
        "tree/{}",
        ["d".repeat(200), "e".repeat(200), "f".repeat(200), "g".repeat(200), "h".repeat(200), "i".repeat(200)]
            .join("/")
    );
    write(&cluster, &format!("{deep}/too_long"), "x");
    let error = cluster.fails(1, &["cp", "-r", "tree", "s4://b/"]);
    for said in [
        "white space 7: a name has no whitespace",
        "line\\nend: ",
        "latin",
        "UTF-8",
        "fifo: is not a regular file",
        "1024 bytes",
    ] {
        assert!(error.contains(said), "{said}: {error}");
    }
    assert!(error.lines().last().unwrap().contains("14 files cannot be copied"), "{error}");
    assert!(keys(&cluster, "s4://b").is_empty());
    for number in 10..100 {
        write(&cluster, &format!("tree/white space {number}"), "x");
    }
    let error = cluster.fails(1, &["cp", "-r", "tree", "s4://b/"]);
    assert_eq!(error.lines().count(), 22, "20, how many more, and what to do: {error}");
    assert!(error.contains("and 84 more") && error.contains("104 files"), "{error}");
    let rest =
        ["--exclude", "white*", "--exclude", "line*", "--exclude", "latin*", "--exclude", "fifo", "--exclude", "ddd*"];
    cluster.ok(&[&["cp", "-r", "tree", "s4://b/"], &rest[..]].concat());
    assert_eq!(keys(&cluster, "s4://b/").len(), 10);
    // The same for several sources.
    let error = cluster.fails(1, &["cp", "tree/0_good", "tree/white space 1", "tree/white space 2", "s4://c/"]);
    assert!(error.contains("white space 1") && error.contains("white space 2"), "{error}");
    assert!(keys(&cluster, "s4://c").is_empty());
}

#[test]
fn a_tree_to_stdout_is_in_byte_order_whatever_the_sizes() {
    let cluster = Cluster::apart(3);
    let mut expected = Vec::new();
    let mut names: Vec<String> = (0..120).map(|n| format!("{}{n}_k", ["", "d/", "d-", "d.x/"][n % 4])).collect();
    names.sort();
    for (at, name) in names.iter().enumerate() {
        // Some are larger than what is fetched ahead, and some empty.
        let content = format!("{name}\n").repeat([1, 0, 100, 9000, 150_000][at % 5]);
        write(&cluster, &format!("tree/{name}"), &content);
        expected.extend(content.into_bytes());
    }
    cluster.ok(&["cp", "-r", "tree", "s4://in/"]);
    assert_eq!(keys(&cluster, "s4://in/"), names);
    let printed = cluster.run(&["cp", "-r", "s4://in/", "-"]);
    assert!(
        printed.status.success() && printed.stdout == expected,
        "{} bytes: {}",
        printed.stdout.len(),
        text(&printed.stderr)
    );
    // A key that is damaged ends the output before its first byte.
    let file = cluster.data(0).join("in").join(names.iter().find(|name| name.ends_with("3_k")).unwrap());
    if file.exists() {
        std::fs::write(&file, "damaged").unwrap();
        let output = cluster.run(&["cp", "-r", "s4://in/", "-"]);
        assert!(!output.status.success() && expected.starts_with(&output.stdout), "{}", text(&output.stderr));
    }
}

#[test]
fn keys_are_copied_to_keys_whole_and_once() {
    let cluster = Cluster::apart(3);
    let large = "0123456789abcdef".repeat(200_000);
    write(&cluster, "tree/0_large", &large);
    write(&cluster, "tree/d/1_small", "small");
    write(&cluster, "tree/d/2_empty", "");
    cluster.ok(&["cp", "-r", "tree", "s4://a/"]);
    cluster.ok(&["cp", "s4://a/0_large", "s4://b/x/1_other"]);
    assert!(cluster.get("s4://b/x/1_other") == large.as_bytes());
    cluster.ok(&["cp", "s4://a/d/1_small", "s4://b/"]);
    assert_eq!(cluster.get("s4://b/1_small"), b"small");
    assert!(cluster.fails(1, &["cp", "s4://a/0_large", "s4://b/1_small"]).contains("already exists"));
    assert_eq!(cluster.get("s4://b/1_small"), b"small");
    cluster.ok(&["cp", "-r", "s4://a/", "s4://c/copy/"]);
    assert_eq!(keys(&cluster, "s4://c/"), ["copy/0_large", "copy/d/1_small", "copy/d/2_empty"]);
    assert!(cluster.get("s4://c/copy/0_large") == large.as_bytes() && cluster.get("s4://c/copy/d/2_empty").is_empty());
    cluster.ok(&["cp", "s4://a/0_large", "s4://a/d/1_small", "s4://d/"]);
    assert_eq!(keys(&cluster, "s4://d/"), ["0_large", "1_small"]);
    // What is damaged at its source becomes no key.
    let mut damaged = large.into_bytes();
    damaged[3_000_000] ^= 1;
    std::fs::write(cluster.data(0).join("a/0_large"), damaged).unwrap();
    for args in [&["cp", "s4://a/0_large", "s4://e/0_x"][..], &["cp", "-r", "s4://a/", "s4://e/"]] {
        let error = cluster.fails(1, args);
        assert!(error.contains("s4://a/0_large") && error.contains("checksum"), "{args:?}: {error}");
    }
    assert_eq!(keys(&cluster, "s4://e/"), ["d/1_small", "d/2_empty"]);
}

#[test]
fn a_terminal_is_shown_counts_and_nothing_else_is() {
    let cluster = Cluster::start(2);
    for number in 0..30 {
        write(&cluster, &format!("tree/{number}_file"), &"x".repeat(number * 100_000));
    }
    let quiet = cluster.run(&["cp", "-r", "tree", "s4://quiet/"]);
    assert!(quiet.status.success() && quiet.stderr.is_empty() && quiet.stdout.is_empty(), "{}", text(&quiet.stderr));
    for args in
        [&["cp", "-r", "tree", "s4://in/"][..], &["cp", "-r", "s4://in/", "back"], &["cp", "-r", "s4://in/", "s4://b/"]]
    {
        let (code, _, lines) = OnTerminal::start(&cluster, (80, 24), args).finish();
        assert_eq!(code, 0, "{args:?}: {lines:?}");
        assert!(lines.len() == 1 && lines[0].contains("30 keys copied, 41.5M in "), "{args:?}: {lines:?}");
    }
    cluster.signal(1, "STOP");
    let showing = OnTerminal::start(&cluster, (80, 24), &["cp", "-r", "tree", "s4://new/"]);
    crate::harness::eventually("the bar is drawn", || {
        let shown = showing.text();
        (shown.contains("/30 keys, ") && shown.contains("of 41.5M") && shown.contains("[#")).then_some(())
    });
    cluster.signal(1, "CONT");
    let (code, _, lines) = showing.finish();
    assert!(code == 0 && lines.len() == 1 && lines[0].contains("30 keys copied"), "{lines:?}");
}

#[test]
fn names_that_choose_one_node_are_warned_of_once() {
    let cluster = Cluster::start(3);
    for month in 1..13 {
        write(&cluster, &format!("skewed/2023_{month:02}.csv"), "x");
        write(&cluster, &format!("spread/{month:02}_2023.csv"), "x");
    }
    let output = cluster.run(&["cp", "-r", "skewed", "s4://in/"]);
    let said = text(&output.stderr);
    assert!(output.status.success() && said.lines().count() == 1, "{said}");
    for part in ["warning", "12 of 12 keys", "1 of 3 nodes", "2023_"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert!(cluster.run(&["cp", "-r", "spread", "s4://in/"]).stderr.is_empty());
}

#[test]
fn outputs_that_choose_one_node_are_warned_of_at_the_end() {
    let cluster = Cluster::apart(3);
    (0..4).for_each(|number| cluster.put(&format!("s4://in/{number}_k"), b"x\n"));
    let end = |out: &str, cmd: &str| text(&cluster.run(&["map-to-n", "s4://in/", out, cmd]).stderr);
    let skewed = end("s4://skewed/", "for m in 01 02 03; do echo x >2023_$m; echo 2023_$m; done");
    assert!(skewed.contains("12 of 12 keys") && skewed.contains("1 of 3 nodes"), "{skewed}");
    assert_eq!(skewed.lines().count(), 2, "{skewed}");
    let args = ["map", "--to-name", "2023_{/}", "s4://in/", "s4://named/", "cat"];
    let named = text(&cluster.run(&args).stderr);
    assert!(named.contains("4 of 4 keys") && named.contains("1 of 3 nodes"), "{named}");
    let spread = end("s4://spread/", "for m in 0 1 2; do echo x >${m}_2023; echo ${m}_2023; done");
    assert_eq!(spread.lines().count(), 1, "{spread}");
}
