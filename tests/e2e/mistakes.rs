//! What is answered to mistakes: one line, word for word, with the right next step. Nothing changes by any of them.

use crate::harness::{Cluster, text};
use crate::programs::program;
use std::process::Command;

/// Arguments, exit status, and what is said; `{0}` and `{1}` are the names of the nodes.
type Row<'a> = (&'a [&'a str], i32, &'a str);

/// The command line itself is wrong.
const TYPED: &[Row] = &[
    (
        &["map", "s4://in/", "s4://out/", "cut", "-d,", "-f1"],
        2,
        "CMD is one argument, so quote it: s4 map s4://in/ s4://out/ 'cut -d, -f1'",
    ),
    (
        &["map-to-n", "--keep-going", "s4://in/", "s4://out/", "ls", "a b"],
        2,
        "CMD is one argument, so quote it: s4 map-to-n … 'CMD'",
    ),
    (&["eval", "s4://in/0_k", "wc", "-l"], 2, "CMD is one argument, so quote it: s4 eval s4://in/0_k 'wc -l'"),
    (&["run", "echo", "-n", "hi"], 2, "CMD is one argument, so quote it: s4 run 'echo -n hi'"),
    (
        &["map", "s4://in/", "s4://out/"],
        2,
        "CMD is missing: s4 map INDIR OUTDIR CMD, as in s4 map s4://in/ s4://out/ 'sort'",
    ),
    (&["eval", "s4://in/0_k"], 2, "CMD is missing: s4 eval KEY CMD, as in s4 eval s4://in/flights.csv 'wc -l'"),
    (
        &["cp", "s4://in/0_k"],
        2,
        "DST is missing: 's4 cp s4://in/0_k .' copies it here, 's4 cp s4://in/0_k -' prints it",
    ),
    (&["cp", "file"], 2, "DST is missing: 's4 cp file s4://bucket/' copies it into the cluster"),
    (&["logs"], 2, "ID is missing: 'last' is the newest job, 's4 jobs' lists them all"),
    (&["mount"], 2, "DIR is missing; 's4 mount --help' shows what can be typed"),
    (&["cat", "s4://in/0_k"], 2, "there is no 's4 cat': 's4 cp s4://in/0_k -' prints a key"),
    (&["get", "s4://in/0_k"], 2, "there is no 's4 get': 's4 cp s4://in/0_k .' copies a key here"),
    (&["put", "file", "s4://in/"], 2, "there is no 's4 put': 's4 cp file s4://bucket/' copies a file into the cluster"),
    (
        &["mv", "s4://in/0_k", "s4://in/1_k"],
        2,
        "there is no 's4 mv': a key is not renamed: 's4 cp s4://in/0_k NEW', then 's4 rm s4://in/0_k'",
    ),
    (
        &["du", "s4://in/"],
        2,
        "there is no 's4 du': 's4 ls -r s4://in/' has the size of each key, 's4 health' what is free on each node",
    ),
    (&["head", "s4://in/0_k"], 2, "there is no 's4 head': 's4 eval s4://in/0_k CMD' runs CMD on a key, where it is"),
    (&["status"], 2, "there is no 's4 status': 's4 health' asks every node how it is"),
    (&["log", "last"], 2, "there is no 's4 log': 's4 logs last' has what a job's commands wrote to stderr"),
    (&["jop"], 2, "there is no 's4 jop': did you mean 's4 jobs'? 's4 --help' lists the commands"),
    (&["lss"], 2, "there is no 's4 lss': did you mean 's4 ls'? 's4 --help' lists the commands"),
    (&["nosuch"], 2, "there is no 's4 nosuch'; 's4 --help' lists the commands"),
    (&["ls", "-l"], 2, "'s4 ls' has no -l: times and sizes are shown without it; -r lists all that is below"),
    (
        &["rm", "-rf", "s4://in/"],
        2,
        "'s4 rm' has no -f: -r deletes all that begins with PREFIX, and nothing found is no error",
    ),
    (
        &["run", "--resume", "cat"],
        2,
        "'s4 run' has no --resume: it is an option of s4 cp, s4 map, s4 map-to-n, s4 map-from-n, s4 scrub",
    ),
    (&["map", "--resum", "s4://in/", "s4://out/", "cat"], 2, "there is no option --resum: did you mean --resume?"),
    (
        &["ls", "s4://in/", "s4://out/"],
        2,
        "'s4://out/' is one argument too many, maybe of a * that the shell has replaced; 's4 ls --help' shows what can be typed",
    ),
    (
        &["completions", "tcsh"],
        2,
        "invalid value 'tcsh' for '<SHELL>' [possible values: bash, zsh, fish]; 's4 completions --help' shows what can be typed",
    ),
    (
        &["local", "--stop", "--detach"],
        2,
        "the argument '--stop' cannot be used with '--detach'; 's4 local --help' shows what can be typed",
    ),
];

/// The names are wrong.
const NAMED: &[Row] = &[
    (&["map", "in/", "s4://out/", "cat"], 2, "'in/': a name in the cluster begins with s4://; did you mean s4://in/?"),
    (&["ls", "s4:in/"], 2, "'s4:in/': a name in the cluster begins with s4://; did you mean s4://in/?"),
    (&["ls", "S4://in/"], 2, "'S4://in/': a name in the cluster begins with s4://; did you mean s4://in/?"),
    (
        &["ls", "s3://in/"],
        2,
        "'s3://in/': a name in the cluster begins with s4://; another store's keys are copied in first",
    ),
    (&["ls", "/s4/in/"], 2, "'/s4/in/': a name in the cluster begins with s4://; this is a local path"),
    (
        &["cp", "file", "in/file"],
        2,
        "neither SRC nor DST begins with s4://: 'in/file': a name in the cluster begins with s4://; did you mean s4://in/file?",
    ),
    (&["map", "sort -n", "s4://in/", "s4://out/"], 2, "CMD comes last: s4 map s4://in/ s4://out/ 'sort -n'"),
    (&["map", "s4://in/", "sort -n", "s4://out/"], 2, "CMD comes last: s4 map s4://in/ s4://out/ 'sort -n'"),
    (&["map", "s4://in/", "s4://out/", "s4://x/"], 2, "'s4://x/' is a name in the cluster, and CMD is a command"),
    (&["eval", "wc -l", "s4://in/0_k"], 2, "CMD comes last: s4 eval s4://in/0_k 'wc -l'"),
    (
        &["map", "s4://in/0_k", "s4://out/", "cat"],
        1,
        "s4://in/0_k/: no keys in it; s4://in/0_k is a key, and its directory is s4://in/",
    ),
    (&["map", "s4://nosuch/", "s4://out/", "cat"], 1, "s4://nosuch/: no keys in it; 's4 ls' lists the buckets"),
    (
        &["ls", "s4://in/0_k/"],
        1,
        "s4://in/0_k/: nothing found; s4://in/0_k is a key, without a / at its end, and its directory is s4://in/",
    ),
    (&["ls", "s4://nosuch/"], 1, "s4://nosuch/: nothing found; 's4 ls' lists the buckets"),
    (
        &["cp", "s4://in/0_d", "x"],
        1,
        "{0}: s4://in/0_d: no such key, it is a directory ('s4 ls s4://in/0_d/' lists it, cp -r copies it)",
    ),
    (
        &["cp", "s4://in/0_d/", "x"],
        2,
        "'s4://in/0_d/': it is a directory, and one key is wanted; cp, ls and rm take directories with -r",
    ),
    (&["rm", "s4://in/0_d"], 1, "{0}: s4://in/0_d: no such key, it is a directory (rm -r deletes those)"),
    (&["rm", "s4://in"], 2, "'s4://in': it names a bucket; a key is s4://bucket/key"),
    (&["cp", "file", "s4://"], 2, "'s4://': no part of a name is empty; name a bucket, as in s4://bucket/key"),
    (&["cp", "file", "s4://h3"], 2, "'s4://h3': it names a bucket; name the key, as in s4://h3/file"),
    (&["cp", "-", "s4://h3"], 2, "'s4://h3': it names a bucket; name the key, as in s4://h3/NAME"),
    (&["cp", "s4://in/0_k", "s4://h3"], 2, "'s4://h3': it names a bucket; name the key, as in s4://h3/0_k"),
    (&["cp", "tree", "s4://in/"], 2, "tree: is a directory; -r copies those"),
    (&["cp", "nosuch", "s4://in/"], 1, "nosuch: No such file or directory"),
    (
        &["cp", "file", "s4://in/0_k"],
        1,
        "{0}: s4://in/0_k: key already exists; choose another name, or delete it first with 's4 rm'",
    ),
    (&["wait", "nosuch"], 1, "no job 'nosuch'; 's4 jobs' lists them"),
    (&["cancel", "last"], 1, "no job 'last': the nodes know of no job; 's4 map' starts one"),
    (
        &["mount", "tree"],
        2,
        "tree: it is not empty, and the mount would hide what is in it; choose an empty directory, or add -o nonempty",
    ),
    (&["umount", "tree"], 1, "tree: nothing is mounted there"),
];

/// What is wrong with the answer to one row.
fn wrong(cluster: &Cluster, (args, code, message): &Row) -> Option<String> {
    let output = cluster.run(args);
    let said = (text(&output.stderr), text(&output.stdout), output.status.code());
    let message = message.replace("{0}", &cluster.name(0)).replace("{1}", &cluster.name(1));
    let wanted = (format!("s4: {message}\n"), String::new(), Some(*code));
    (said != wanted).then(|| format!("{args:?}:\n  {said:?} instead of\n  {wanted:?}"))
}

#[test]
fn mistakes_answer_with_the_next_step() {
    let cluster = Cluster::start(2);
    cluster.put("s4://in/0_k", b"kept\n");
    cluster.put("s4://in/0_d/1_x", b"kept\n");
    std::fs::write(cluster.dir().join("file"), "local\n").unwrap();
    std::fs::create_dir(cluster.dir().join("tree")).unwrap();
    std::fs::write(cluster.dir().join("tree/name"), "local\n").unwrap();
    let before = cluster.ok(&["ls", "-r"]);
    let wrong: Vec<String> = TYPED.iter().chain(NAMED).filter_map(|row| wrong(&cluster, row)).collect();
    assert!(wrong.is_empty(), "{} rows:\n{}", wrong.len(), wrong.join("\n"));
    assert_eq!(cluster.ok(&["ls", "-r"]), before);
}

#[test]
fn an_empty_cluster_says_how_to_begin() {
    let cluster = Cluster::start(1);
    let begin = "the cluster has no key yet: 's4 cp -r DIR s4://bucket/' copies some in";
    for (args, what) in [
        (&["ls"][..], "s4://: nothing found"),
        (&["ls", "s4://in/"], "s4://in/: nothing found"),
        (&["map", "s4://in/", "s4://out/", "cat"], "s4://in/: no keys in it"),
    ] {
        assert_eq!(cluster.fails(1, args), format!("s4: {what}; {begin}\n"), "{args:?}");
    }
}

#[test]
fn without_a_cluster_s4_local_is_named() {
    let home = tempfile::tempdir().unwrap();
    for args in [&["ls"][..], &["map", "s4://in/", "s4://out/", "cat"], &["run", "uptime"]] {
        let mut s4 = Command::new(program("s4"));
        let output = s4.args(args).env_remove("S4_CONF_PATH").env("HOME", home.path()).output().unwrap();
        let conf = home.path().join(".s4.conf");
        let message = "no such cluster file; write one host:port a line, or try 's4 local'";
        // Other tests may run a cluster of 's4 local', which is named after it.
        let said = text(&output.stderr);
        assert!(said.starts_with(&format!("s4: {}: {message}", conf.display())), "{said}");
        assert_eq!((output.status.code(), said.lines().count()), (Some(1), 1));
    }
}

#[test]
fn help_and_version_are_no_mistakes() {
    for args in [&["--help"][..], &["help", "map"], &["map", "--help"], &["--version"]] {
        let output = Command::new(program("s4")).args(args).output().unwrap();
        assert!(output.status.success() && output.stderr.is_empty() && !output.stdout.is_empty(), "{args:?}");
    }
    let output = Command::new(program("s4")).output().unwrap();
    assert!(output.status.code() == Some(2) && text(&output.stderr).contains("Commands:"), "{}", text(&output.stderr));
}
