//! What is refused: each with one line, the right exit status, and nothing changed.

use crate::harness::{Cluster, assert_no_crash, text};
use crate::programs::program;
use std::path::Path;

/// Arguments, exit status, and a fragment of the error.
type Row<'a> = (&'a [&'a str], i32, &'a str);

/// One node with one key and one local file, for rows to leave as they are.
fn cluster() -> Cluster {
    let cluster = Cluster::start(1);
    cluster.put("s4://in/dir/000_key", b"kept\n");
    std::fs::write(cluster.dir().join("file"), "local\n").unwrap();
    std::fs::create_dir(cluster.dir().join("empty")).unwrap();
    std::fs::create_dir(cluster.dir().join("tree")).unwrap();
    std::fs::write(cluster.dir().join("tree/name"), "local\n").unwrap();
    cluster
}

fn local_names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn refuse_all(cluster: &Cluster, rows: &[Row]) {
    let before = (cluster.ok(&["ls", "-r"]), local_names(cluster.dir()));
    let wrong: Vec<String> = rows.iter().filter_map(|row| wrongs_of(cluster, row)).collect();
    assert!(wrong.is_empty(), "{} of {} rows:\n{}", wrong.len(), rows.len(), wrong.join("\n"));
    assert_eq!((cluster.ok(&["ls", "-r"]), local_names(cluster.dir())), before);
    assert_eq!(cluster.get("s4://in/dir/000_key"), b"kept\n");
}

/// What is wrong with the refusal of one row.
fn wrongs_of(cluster: &Cluster, (args, code, fragment): &Row) -> Option<String> {
    let output = cluster.run(args);
    let stderr = text(&output.stderr);
    let one_line = stderr.starts_with("s4: ") && stderr.ends_with('\n') && stderr.lines().count() == 1;
    let from_clap = *code == 2 && stderr.starts_with("error: ");
    let right = output.status.code() == Some(*code)
        && (one_line || from_clap)
        && stderr.contains(fragment)
        && output.stdout.is_empty();
    let shown: Vec<String> = args.iter().map(|arg| arg.chars().take(60).collect()).collect();
    let told = output.status;
    (!right).then(|| format!("{shown:?}: wanted {code} and '{fragment}', had {told}: {stderr}{}", text(&output.stdout)))
}

#[test]
fn a_bad_key_is_refused_with_the_rule_that_it_breaks() {
    let cluster = cluster();
    let long_part = format!("s4://in/{}", "a".repeat(256));
    let wide_part = format!("s4://in/{}", "é".repeat(128));
    let long_key = format!("s4://in/{}", "abcdefg/".repeat(128) + "end");
    let rows: &[Row] = &[
        (&["cp", "file", "s4://"], 2, "s4://"),
        (&["cp", "file", "s4://in"], 2, "it names a bucket"),
        (&["cp", "file", "s4:///key"], 2, "no part of a name is empty"),
        (&["cp", "file", "s4://in//key"], 2, "no part of a name is empty"),
        (&["cp", "file", "s4://in/dir//"], 2, "no part of a name is empty"),
        (&["cp", "file", "s4://in/./key"], 2, "'.' or '..'"),
        (&["cp", "file", "s4://in/.."], 2, "'.' or '..'"),
        (&["cp", "file", "s4://in/../../etc/passwd"], 2, "'.' or '..'"),
        (&["cp", "file", "s4://../key"], 2, "does not begin with '.' or '_'"),
        (&["cp", "file", "s4://.s4/key"], 2, "does not begin with '.' or '_'"),
        (&["cp", "file", "s4://_in/key"], 2, "does not begin with '.' or '_'"),
        (&["cp", "file", "s4://in/a b"], 2, "no whitespace or control characters"),
        (&["cp", "file", "s4://in/a\tb"], 2, "no whitespace or control characters"),
        (&["cp", "file", "s4://in/a\nb"], 2, "no whitespace or control characters"),
        (&["cp", "file", "s4://in/a\rb"], 2, "no whitespace or control characters"),
        (&["cp", "file", "s4://in/a\u{7f}b"], 2, "no whitespace or control characters"),
        (&["cp", "file", "s4://in/a\u{1b}[2J"], 2, "no whitespace or control characters"),
        (&["cp", "file", "s4://in/a\u{a0}b"], 2, "no whitespace or control characters"),
        (&["cp", "file", "s4://in/a\u{2028}b"], 2, "no whitespace or control characters"),
        (&["cp", "file", "s4://i n/key"], 2, "no whitespace or control characters"),
        (&["cp", "file", &long_part], 2, "at most 255 bytes"),
        (&["cp", "file", &wide_part], 2, "at most 255 bytes"),
        (&["cp", "file", &long_key], 2, "at most 1024 bytes"),
        (&["cp", "s4://in/dir/", "-"], 2, "with -r"),
        (&["cp", "s4://in/../x", "-"], 2, "'.' or '..'"),
        (&["cp", "s4://in", "got"], 2, "it names a bucket"),
        (&["rm", "s4://in/dir/"], 2, "with -r"),
        (&["rm", "s4://in"], 2, "it names a bucket"),
        (&["rm", "in/dir/000_key"], 2, "begins with s4://"),
        (&["rm", "S4://in/dir/000_key"], 2, "begins with s4://"),
        (&["rm", ""], 2, "begins with s4://"),
        (&["eval", "s4://in/../x", "cat"], 2, "'.' or '..'"),
        (&["eval", "in/dir/000_key", "cat"], 2, "begins with s4://"),
        (&["eval", "s4://in/dir/", "cat"], 2, "with -r"),
    ];
    refuse_all(&cluster, rows);
}

#[test]
fn a_bad_prefix_directory_or_pattern_is_refused() {
    let cluster = cluster();
    let rows: &[Row] = &[
        (&["ls", "in/"], 2, "begins with s4://"),
        (&["ls", "s4:/in/"], 2, "begins with s4://"),
        (&["ls", "s4://in//"], 2, "no part of a name is empty"),
        (&["ls", "s4://in/../"], 2, "'.' or '..'"),
        (&["ls", "s4://.s4/"], 2, "does not begin with '.' or '_'"),
        (&["ls", "-r", "s4://_x"], 2, "does not begin with '.' or '_'"),
        (&["ls", "-r", "s4://in/a b"], 2, "no whitespace or control characters"),
        (&["rm", "-r", "s4://"], 2, "name at least the beginning of a bucket"),
        (&["rm", "-r", "s4:///"], 2, "no part of a name is empty"),
        (&["rm", "-r", "s4://."], 2, "does not begin with '.' or '_'"),
        (&["rm", "-r", "s4://in//dir"], 2, "no part of a name is empty"),
        (&["rm", "-r", "/"], 2, "begins with s4://"),
        (&["map", "in/", "s4://out/", "cat"], 2, "begins with s4://"),
        (&["map", "s4://in/", "out/", "cat"], 2, "begins with s4://"),
        (&["map", "s4://", "s4://out/", "cat"], 2, "no part of a name is empty"),
        (&["map", "s4://in/", "s4://", "cat"], 2, "no part of a name is empty"),
        (&["map", "s4://in//", "s4://out/", "cat"], 2, "no part of a name is empty"),
        (&["map", "s4://in/", "s4://.out/", "cat"], 2, "does not begin with '.' or '_'"),
        (&["map", "s4://in/", "s4://out/../x/", "cat"], 2, "'.' or '..'"),
        (&["map", "s4://in/[", "s4://out/", "cat"], 2, "s4://in/["),
        (&["map", "s4://in/[]/x", "s4://out/", "cat"], 2, "s4://in/[]"),
        (&["map", "s4://in/**/x", "s4://out/", "cat"], 2, "s4://in/**"),
        (&["map", "s4://in/***", "s4://out/", "cat"], 2, "s4://in/***"),
        (&["map", "s4://in/a**b", "s4://out/", "cat"], 2, "s4://in/a**b"),
        (&["map-to-n", "s4://in/[a-", "s4://out/", "cat"], 2, "s4://in/[a-"),
        (&["map-from-n", "s4://in/[!", "s4://out/", "cat"], 2, "s4://in/[!"),
        (&["map-from-n", "s4://in/", "s4://o ut/", "cat"], 2, "no whitespace or control characters"),
    ];
    refuse_all(&cluster, rows);
}

#[test]
fn bad_arguments_and_paths_are_refused() {
    let cluster = cluster();
    let key = "s4://in/dir/000_key";
    let rows: &[Row] = &[
        (&["cp", "file", "other"], 2, "neither SRC nor DST begins with s4://"),
        (&["cp", "-", "s4://in/"], 2, "stdin has no name to keep"),
        (&["cp", "tree", "s4://in/"], 2, "-r copies those"),
        (&["cp", "-r", "file", "s4://in/"], 2, "is no directory; leave out -r"),
        (&["cp", "..", "s4://in/"], 2, ".."),
        (&["cp", "absent", "s4://in/"], 1, "absent"),
        (&["cp", "", "s4://in/000_x"], 1, "s4: "),
        (&["cp", "-r", "absent", "s4://in/"], 1, "absent"),
        (&["cp", "-r", "empty", "s4://in/"], 1, "no file in it"),
        (&["cp", "file", key], 1, "already exists"),
        (&["cp", key, "file/got"], 1, "file"),
        (&["cp", "s4://in/absent", "got"], 1, "s4://in/absent"),
        (&["cp", "-r", "s4://absent/", "got"], 1, "nothing found"),
        (&["ls", "s4://absent"], 1, "nothing found"),
        (&["rm", "s4://in/absent"], 1, "s4://in/absent"),
        (&["eval", "s4://in/absent", "cat"], 1, "s4://in/absent"),
        (&["eval", key, ""], 2, "CMD is empty"),
        (&["eval", key, " \n"], 2, "CMD is empty"),
        (&["map", "s4://in/", "s4://out/", ""], 2, "CMD is empty"),
        (&["map", "s4://absent/", "s4://out/", "cat"], 1, "no keys in it"),
        (&["map", "s4://in/", "s4://in/", "cat"], 2, "overlap"),
        (&["map", "s4://in/", "s4://out/"], 2, "CMD"),
        (&["map", "--timeout", "0", "s4://in/", "s4://out/", "cat"], 2, "above 0"),
        (&["map", "--timeout", "-1", "s4://in/", "s4://out/", "cat"], 2, "-1"),
        (&["map", "--timeout", "soon", "s4://in/", "s4://out/", "cat"], 2, "above 0"),
        (&["--deadline", "0", "ls"], 2, "above 0"),
        (&["--deadline", "NaN", "ls"], 2, "above 0"),
        (&["--deadline", "1e99", "ls"], 2, "above 0"),
        (&["--secret", "absent", "ls"], 1, "absent"),
        (&["--secret", "empty", "ls"], 1, "empty"),
        (&["--secret", "file", "ls"], 1, "file"),
        (&["cp"], 2, "SRC"),
        (&["frobnicate"], 2, "frobnicate"),
        (&["ls", "--frobnicate"], 2, "--frobnicate"),
        (&["ls", "s4://in", "s4://out"], 2, "s4://out"),
        (&["completions", "tcsh"], 2, "tcsh"),
        (&["local", "-n", "0"], 2, "0"),
        (&["local", "--jobs", "0"], 2, "0"),
        (&["local", "--stop", "--detach"], 2, "--detach"),
        (&["local", "--stop", "--dir", "absent"], 1, "absent"),
    ];
    refuse_all(&cluster, rows);
}

#[test]
fn a_bad_cluster_file_is_refused_with_its_name_and_line() {
    let cluster = Cluster::start(1);
    let bad = cluster.dir().join("bad.conf");
    let rows = [
        ("", 1, "no node in the file"),
        ("\n\n\n", 3, "no node in the file"),
        ("# one\n  # two\n", 2, "no node in the file"),
        ("a:1\n\n# x\nb:0\n", 4, "from 1 to 65535"),
        ("a:65536\n", 1, "from 1 to 65535"),
        ("a:1\nb:abc\n", 2, "from 1 to 65535"),
        ("a:1\nb:\n", 2, "from 1 to 65535"),
        ("a:+1\n", 1, "from 1 to 65535"),
        ("a:01\n", 1, "from 1 to 65535"),
        ("a:-1\n", 1, "from 1 to 65535"),
        ("a:1 # why\n", 1, "from 1 to 65535"),
        ("a:1\nhost\n", 2, "it is not host:port"),
        (":1\n", 1, "the host is empty"),
        ("a b:1\n", 1, "a character that no host name has"),
        ("http://a:1\n", 1, "brackets"),
        ("a:1\nb:2\na:1\n", 3, "is node 0 already"),
        ("a:1\n[::1:2\n", 2, "a bracket is not closed"),
        ("[a]:1\n", 1, "not an IPv6 address"),
        ("[]:1\n", 1, "not an IPv6 address"),
        ("a:1\n::1:80\n", 2, "an IPv6 address is written in brackets"),
    ];
    for (content, line, why) in rows {
        std::fs::write(&bad, content).unwrap();
        let stderr = cluster.fails(1, &["ls", "-c", "bad.conf"]);
        assert!(stderr.starts_with(&format!("s4: bad.conf:{line}: ")), "{content:?}: {stderr}");
        assert!(stderr.contains(why) && stderr.lines().count() == 1, "{content:?}: {stderr}");
    }
    std::fs::write(&bad, b"a:1\n\xff:2\n").unwrap();
    let stderr = cluster.fails(1, &["config", "-c", "bad.conf"]);
    assert!(stderr.starts_with("s4: bad.conf: ") && stderr.contains("not UTF-8"), "{stderr}");
    for path in ["absent.conf", "."] {
        let stderr = cluster.fails(1, &["config", "-c", path]);
        assert!(stderr.starts_with(&format!("s4: {path}: ")) && stderr.lines().count() == 1, "{stderr}");
    }
}

#[test]
fn a_daemon_refuses_the_same_bad_cluster_files() {
    let dir = tempfile::tempdir().unwrap();
    for (content, fragment) in
        [("", "s4.conf:1: no node"), ("127.0.0.1:0\n", "s4.conf:1: "), ("127.0.0.1:1\n127.0.0.1:1\n", "s4.conf:2: ")]
    {
        std::fs::write(dir.path().join("s4.conf"), content).unwrap();
        let output = std::process::Command::new(program("s4-server"))
            .args(["--conf", "s4.conf", "--data", "data"])
            .current_dir(dir.path())
            .output()
            .unwrap();
        assert_no_crash(&output);
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        assert!(stderr.starts_with(&format!("s4-server: {fragment}")), "{content:?}: {stderr}");
        assert!(!dir.path().join("data").exists(), "{content:?} left a data directory");
    }
}

#[test]
fn a_cluster_file_in_another_order_is_refused_with_the_line_that_differs() {
    let cluster = Cluster::start(3);
    cluster.put("s4://in/000_key", b"kept\n");
    let before = cluster.ok(&["ls", "-r"]);
    std::fs::write(cluster.dir().join("file"), "local\n").unwrap();
    let port = |node| format!("127.0.0.1:{}", cluster.port(node));
    std::fs::write(cluster.dir().join("other"), format!("{}\n{}\n{}\n", port(0), port(2), port(1))).unwrap();
    let difference = format!("another node list: node 1 is {} here and {} there", port(2), port(1));
    let commands: [&[&str]; 6] = [
        &["cp", "file", "s4://in/001_new"],
        &["cp", "s4://in/000_key", "got"],
        &["ls", "-r"],
        &["rm", "s4://in/000_key"],
        &["map", "s4://in/", "s4://out/", "cat"],
        &["eval", "s4://in/000_key", "cat"],
    ];
    for args in commands {
        let stderr = cluster.fails(1, &[&["-c", "other"], args].concat());
        assert!(stderr.starts_with("s4: node ") && stderr.contains(&difference), "{args:?}: {stderr}");
    }
    let output = cluster.run(&["-c", "other", "health"]);
    assert_eq!(output.status.code(), Some(1));
    let told = text(&output.stdout) + &text(&output.stderr);
    assert!(told.contains(&difference), "{told}");
    assert_eq!(cluster.ok(&["ls", "-r"]), before);
    assert!(!cluster.dir().join("got").exists());
}
