//! `s4 partition`: what it does with files of any shape, how it refuses, and how it serves maps.

use crate::harness::{Cluster, assert_no_crash, text};
use crate::mounts::Mounted;
use crate::programs::{directory, program};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// Runs a script in `dir`, in which `s4` is the one under test.
fn bash(dir: &Path, script: &str) -> Output {
    let path = format!("{}:{}", directory().display(), std::env::var("PATH").unwrap_or_default());
    let mut command = Command::new("bash");
    command.args(["-euo", "pipefail", "-c", script]).env("PATH", path).env("LC_ALL", "C").current_dir(dir);
    let output = command.stdin(Stdio::null()).output().expect("bash runs");
    assert_no_crash(&output);
    output
}

/// Runs a script that is to succeed, and returns what it prints.
fn ok(dir: &Path, script: &str) -> String {
    let output = bash(dir, script);
    assert!(output.status.success() && output.stderr.is_empty(), "{script}: {}", text(&output.stderr));
    text(&output.stdout)
}

/// Runs a script that is to fail with `code`, and returns its error.
fn fails(dir: &Path, code: i32, script: &str) -> String {
    let output = bash(dir, script);
    assert_eq!(output.status.code(), Some(code), "{script}: {}", text(&output.stderr));
    assert!(output.stdout.is_empty(), "{script}: {}", text(&output.stdout));
    text(&output.stderr)
}

fn entries(dir: &Path) -> Vec<String> {
    let names = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.collect();
    names.sort();
    names
}

#[test]
fn lines_go_to_files_whose_names_sort_and_are_printed() {
    let dir = tempfile::tempdir().unwrap();
    let printed = ok(dir.path(), "seq 100 | s4 partition -n 12");
    assert_eq!(printed, "00\n01\n02\n03\n04\n05\n06\n07\n08\n09\n10\n11\n");
    assert_eq!(ok(dir.path(), "cat ?? | sort -n | cmp - <(seq 100) && ls"), printed);
    assert_eq!(ok(dir.path(), "s4 partition -n 12 < /dev/null"), "", "no lines, no files");
    let named =
        ok(dir.path(), "printf 'a\\tb\\n' | filename=in.tsv; s4 partition -n 1 --names \"{}_${filename-x}\" <<< a");
    assert_eq!(named, "0_x\n");
    // The last line gets its newline, so that files can be put together.
    assert_eq!(ok(dir.path(), "mkdir d && cd d && printf 'a\\nb' | s4 partition -n 1 && cat 0"), "0\na\nb\n");
}

#[test]
fn the_hash_is_what_the_page_says() {
    let dir = tempfile::tempdir().unwrap();
    for (line, options, key) in [("x\tAA\ty", "-k2", "AA"), ("1|2|3", "-d '|' -k3,1", "3\t1"), ("a\tb", "", "a\tb")] {
        let number = s4::checksum::hash(key.as_bytes()) % 1000;
        let script = format!("s4 partition -n 1000 {options} <<< '{line}'");
        assert_eq!(ok(dir.path(), &script), format!("{number:03}\n"), "{script}");
        std::fs::remove_file(dir.path().join(format!("{number:03}"))).unwrap();
    }
}

#[test]
fn the_files_of_ranges_are_in_global_order_one_after_the_other() {
    let dir = tempfile::tempdir().unwrap();
    ok(dir.path(), "seq -f '%.1f' -500 0.7 500 | awk '{ print NR * 7919 % 1009 \"\\t\" $1 }' > in");
    for (options, sort) in [("-k1", "sort -k1,1"), ("-k2 --numeric", "sort -n -k2,2"), ("", "sort")] {
        let numeric = if options.contains("numeric") { "-n" } else { "" };
        let field = options.split_whitespace().next().map_or(String::new(), |k| format!("| cut -f{}", &k[2..]));
        let script = format!(
            "shuf -n 9 --random-source=in in {field} | sort {numeric} > splitters
             mkdir d && cd d && s4 partition --ranges ../splitters {options} < ../in > ../names
             while read -r name; do {sort} \"$name\"; done < ../names | cmp - <({sort} ../in)
             cd .. && rm -r d && wc -l < names"
        );
        assert_eq!(ok(dir.path(), &script), "10\n", "{options}");
    }
}

#[test]
fn rows_of_csv_stay_whole_and_each_file_has_the_header() {
    let dir = tempfile::tempdir().unwrap();
    let rows = "name,\"no\nte\"\r\n\"Smith, J\",1\r\nSmith,2\r\n\"Smith, J\",\"a\n\"\"b\"\"\"\r\n";
    std::fs::write(dir.path().join("in.csv"), rows).unwrap();
    let names = ok(dir.path(), "s4 partition --csv --header -k1 -n 1000 --names {}_x.csv < in.csv");
    let files: Vec<String> =
        names.lines().map(|name| std::fs::read_to_string(dir.path().join(name)).unwrap()).collect();
    let header = "name,\"no\nte\"\r\n";
    assert_eq!(files.len(), 2, "{names}");
    assert!(files.contains(&format!("{header}Smith,2\r\n")), "{files:?}");
    assert!(files.contains(&format!("{header}\"Smith, J\",1\r\n\"Smith, J\",\"a\n\"\"b\"\"\"\r\n")), "{files:?}");
}

#[test]
fn ten_thousand_files_take_few_descriptors_and_little_memory() {
    let dir = tempfile::tempdir().unwrap();
    // Each file is opened again and again; 64 MiB of buffers and what a program takes.
    let script = "seq -f '%01000.0f' 60000 > ../in; ulimit -n 100 -v 400000; s4 partition -n 10000 < ../in | wc -l";
    let inner = dir.path().join("d");
    std::fs::create_dir(&inner).unwrap();
    let count: usize = ok(&inner, script).trim().parse().unwrap();
    assert!(count > 9_900, "{count} files");
    assert_eq!(entries(&inner).len(), count);
    ok(&inner, "cat * | sort | cmp - ../in");
}

#[test]
fn wrong_usage_is_refused_with_what_is_right() {
    let dir = tempfile::tempdir().unwrap();
    for (options, said) in [
        ("", "-n N or --ranges FILE is missing"),
        ("-n 0", "0 is not in 1..=100000"),
        ("-n 5 -k0", "-k 0: fields are numbers from 1"),
        ("-n 5 -k x", "-k x: fields are numbers from 1"),
        ("-n 5 -d ab", "-d ab: a delimiter is one byte"),
        ("-n 5 -d ''", "a delimiter is one byte"),
        ("-n 5 --names out", "--names out: a name begins with the bucket's number"),
        ("-n 5 --names {}.csv", "--names {}.csv: the number alone chooses the node"),
        ("-n 5 --numeric", "cannot be used with"),
        ("-n 5 --ranges f", "cannot be used with"),
    ] {
        let error = fails(dir.path(), 2, &format!("s4 partition {options} <<< line"));
        assert!(error.contains(said), "{options}: {error}");
    }
    assert!(entries(dir.path()).is_empty());
}

#[test]
fn splitters_that_cannot_be_used_are_refused_by_name_and_line() {
    let dir = tempfile::tempdir().unwrap();
    let error = fails(dir.path(), 1, "s4 partition --ranges absent <<< line");
    assert_eq!(error, "s4: absent: No such file or directory\n");
    std::fs::write(dir.path().join("splitters"), "b\nc\na\n").unwrap();
    let error = fails(dir.path(), 1, "s4 partition --ranges splitters <<< line");
    assert_eq!(error, "s4: splitters: line 3: below the line before it; sort the file with 'LC_ALL=C sort'\n");
    assert_eq!(entries(dir.path()), ["splitters"]);
}

#[test]
fn a_failure_leaves_what_was_there_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("7"), "mine\n").unwrap();
    let error = fails(dir.path(), 1, "seq 1000 | s4 partition -n 10");
    assert!(error.starts_with("s4: 7: File exists; it is left as it was"), "{error}");
    assert_eq!(entries(dir.path()), ["7"]);
    assert_eq!(std::fs::read(dir.path().join("7")).unwrap(), b"mine\n");
    fails(dir.path(), 1, "seq 1000 | s4 partition -n 5 > /dev/full");
    fails(dir.path(), 1, "s4 partition -n 5 < /");
    let silent = fails(dir.path(), 1, "exec 3> >(exec true); wait $!; seq 1000 | s4 partition -n 5 >&3");
    assert_eq!(silent, "");
    assert_eq!(entries(dir.path()), ["7"]);
}

#[test]
fn a_full_disk_is_named() {
    let Some(disk) = Mounted::ext4(8 << 20) else { return };
    std::fs::create_dir(disk.data()).unwrap();
    let error = fails(&disk.data(), 1, "seq 5000000 | s4 partition -n 3");
    assert!(error.ends_with(": No space left on device\n") && error.len() < 40, "{error}");
    assert!(entries(&disk.data()).is_empty());
}

#[test]
fn equal_keys_of_all_inputs_meet_and_no_line_is_lost() {
    let cluster = Cluster::start(3);
    let mut wanted = BTreeMap::<String, u64>::new();
    for input in 0..4 {
        let mut lines = String::new();
        for line in 0..500 {
            let key = format!("key{}", (input * 31 + line * 17) % 97);
            *wanted.entry(key.clone()).or_default() += line;
            writeln!(lines, "{line},{key}").unwrap();
        }
        cluster.put(&format!("s4://in/{input}_lines"), lines.as_bytes());
    }
    cluster.ok(&["map-to-n", "s4://in/", "s4://parts/", "s4 partition -n 12 -d, -k2"]);
    for node in 0..3 {
        let parts = cluster.data(node).join("parts");
        for part in entries(&parts).iter().flat_map(|input| entries(&parts.join(input))) {
            assert_eq!(part.parse::<usize>().unwrap() % 3, node, "part {part}");
        }
    }
    let sum = r#"xargs -d '\n' cat | awk -F, '{ sum[$2] += $1 } END { for (key in sum) print key, sum[key] }'"#;
    cluster.ok(&["map-from-n", "s4://parts/", "s4://sums/", sum]);
    let sums = cluster.ok(&["cp", "-r", "s4://sums/", "-"]);
    assert_eq!(sums.lines().count(), wanted.len(), "each key is in one part");
    for line in sums.lines() {
        let (key, sum) = line.split_once(' ').unwrap();
        assert_eq!(wanted[key].to_string(), sum, "{key}");
    }
}

#[test]
fn a_command_finds_the_s4_that_lies_beside_its_daemon() {
    let cluster = Cluster::start(1);
    cluster.put("s4://in/k", b"a\n");
    let found = cluster.ok(&["eval", "s4://in/k", "command -v s4"]);
    assert_eq!(found.trim(), program("s4"));
    assert_eq!(cluster.ok(&["run", "command -v s4"]).split_whitespace().last(), Some(program("s4")));
    cluster.ok(&["map", "s4://in/", "s4://found/", "command -v s4"]);
    assert_eq!(text(&cluster.get("s4://found/k")).trim(), program("s4"));
    // A job may have a PATH of its own.
    cluster.ok(&["map", "--env", "PATH=/usr/bin:/bin", "s4://in/", "s4://own/", "echo $PATH"]);
    assert_eq!(text(&cluster.get("s4://own/k")), "/usr/bin:/bin\n");
}
