//! `s4 cluster resize`: every key and directory is on its node afterwards as it was before, whatever happens meanwhile.

use crate::harness::{Cluster, eventually, text};
use crate::library::Library;
use crate::mounts::Mounted;
use crate::observe::{Marker, spawn};
use s4::client::{ListOptions, PutOptions};
use s4::key::Key;
use s4::placement::{node_of, node_of_basename};
use s4::protocol::{Change, CompletedPart, Metadata, PartNumber, UploadPart};
use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const MIB: usize = 1 << 20;

/// A key's file: checksum of its bytes, mode, mtime, and extended attributes.
type File = (u64, u32, i64, String);

/// All files of all nodes, by path. Panics if one lies on two nodes, or on a wrong one.
fn files(cluster: &Cluster, nodes: usize) -> BTreeMap<String, File> {
    let mut files = BTreeMap::new();
    for node in 0..cluster.len() {
        let attributes = attributes(&cluster.data(node));
        for path in below(&cluster.data(node)).into_iter().filter(|path| path.is_file()) {
            let name = path.strip_prefix(cluster.data(node)).unwrap().to_str().unwrap().to_owned();
            assert_eq!(node, node_of(&Key::parse(&name).unwrap(), nodes), "{name} lies on a wrong node");
            let found = path.metadata().unwrap();
            let mtime = found.mtime() * 1_000_000_000 + found.mtime_nsec();
            let sum = s4::checksum::hash(&std::fs::read(&path).unwrap());
            let file = (sum, found.mode(), mtime, attributes[&name].clone());
            assert!(files.insert(name.clone(), file).is_none(), "{name} lies on two nodes");
        }
    }
    files
}

/// Everything in a data directory, without s4's own.
fn below(data: &Path) -> Vec<PathBuf> {
    let walk = walkdir::WalkDir::new(data).min_depth(1).into_iter();
    let walk = walk.filter_entry(|entry| entry.depth() > 1 || entry.file_name() != ".s4");
    walk.map(|entry| entry.unwrap().into_path()).collect()
}

/// The extended attributes of all files below a directory, by their paths.
fn attributes(data: &Path) -> BTreeMap<String, String> {
    let code = "
import os, sys
for top, dirs, names in os.walk(sys.argv[1]):
    dirs[:] = [name for name in dirs if name != '.s4']
    for name in names:
        path = os.path.join(top, name)
        shown = ' '.join(f'{x}={os.getxattr(path, x).hex()}' for x in sorted(os.listxattr(path)))
        print(os.path.relpath(path, sys.argv[1]), shown, sep='\\t')";
    let output = Command::new("python3").args(["-c", code]).arg(data).output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    let lines = text(&output.stdout);
    lines.lines().map(|line| line.split_once('\t').unwrap()).map(|(name, shown)| (name.into(), shown.into())).collect()
}

fn request(cluster: &Cluster, node: usize, method: &str, path: &str, body: &str) -> String {
    let head =
        format!("{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\ns4-cluster: {}", cluster.digest());
    cluster.raw(node, format!("{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).as_bytes())
}

/// What the home of a directory says of it.
fn dir_stat(cluster: &Cluster, dir: &str, nodes: usize) -> String {
    let home = node_of_basename(dir.rsplit('/').next().unwrap(), nodes);
    let answer = request(cluster, home, "GET", &format!("/v1/stat/{dir}"), "");
    answer.rsplit("\r\n\r\n").next().unwrap().to_owned()
}

fn make_dir(cluster: &Cluster, dir: &str, nodes: usize, change: &str) {
    let home = node_of_basename(dir.rsplit('/').next().unwrap(), nodes);
    let answer = request(cluster, home, "PUT", &format!("/v1/dirs/{dir}"), change);
    assert!(answer.starts_with("HTTP/1.1 200"), "{dir}: {answer}");
}

/// Keys of hashed and numbered names, nested, empty, large, with marks, modes and times, `count` of each kind.
fn fill(cluster: &Cluster, count: usize) {
    let tree = cluster.dir().join("tree");
    for dir in ["deep/er/and/er", "num", "hash"] {
        std::fs::create_dir_all(tree.join(dir)).unwrap();
    }
    for number in 0..count {
        std::fs::write(tree.join(format!("num/{number:04}_n")), format!("numbered {number}")).unwrap();
        std::fs::write(tree.join(format!("hash/name{number}")), format!("hashed {number}")).unwrap();
        std::fs::write(tree.join(format!("deep/er/and/er/d{number}")), vec![b'd'; number % 5000]).unwrap();
    }
    for (name, len) in [("large", 5 * MIB + 3), ("7_large", 2 * MIB), ("empty", 0), ("0_leaf", 700_000)] {
        std::fs::write(tree.join(name), vec![b'l'; len]).unwrap();
    }
    cluster.ok(&["cp", "-r", "tree", "s4://in/"]);
    cluster.ok(&["map", "s4://in/num/", "s4://out/", "cat; echo made"]);
    cluster.ok(&["map-to-n", "s4://in/num/000*", "s4://split/", "cat > a; echo hi > 3_b; ls"]);
}

/// Keys with metadata, and an upload whose key stays on its node.
fn describe(cluster: &Cluster) -> UploadPart {
    let library = Library::of(cluster);
    for number in 0..40 {
        let key = Key::parse(&format!("in/described/name{number}")).unwrap();
        let user = BTreeMap::from([("number".to_owned(), number.to_string())]);
        let metadata = Metadata::new(Some("text/csv".to_owned()), user, None).unwrap();
        let options = PutOptions { metadata, ..PutOptions::default() };
        library.wait(library.client.put_with(&key, &b"described"[..], "the test", options)).unwrap();
    }
    let upload = library.wait(library.client.create_upload(&staying(), &Metadata::default())).unwrap();
    let part = UploadPart { upload, number: PartNumber::try_from(1).unwrap() };
    library.wait(library.client.put_part(&staying(), part.clone(), &b"before and "[..], "the test")).unwrap();
    part
}

/// Number 0 has node 0 in every cluster.
fn staying() -> Key {
    Key::parse("in/0_upload").unwrap()
}

/// Ends an upload with a second part.
fn complete(cluster: &Cluster, UploadPart { upload, number: first }: UploadPart) {
    let library = Library::of(cluster);
    let number = PartNumber::try_from(2).unwrap();
    let part = UploadPart { upload: upload.clone(), number };
    let second = library.wait(library.client.put_part(&staying(), part, &b"after"[..], "the test")).unwrap();
    let parts = [
        CompletedPart { number: first, xxh3: s4::checksum::hash(b"before and ") },
        CompletedPart { number, xxh3: second.xxh3 },
    ];
    library.wait(library.client.complete_upload(&staying(), &upload, &parts, Change::default())).unwrap();
    assert_eq!(cluster.get("s4://in/0_upload"), b"before and after");
}

/// The directories that mkdir made.
fn made(cluster: &Cluster) -> Vec<String> {
    let options = ListOptions { recursive: true, made: true, ..ListOptions::default() };
    let paths = Library::of(cluster).paths("", options);
    paths.into_iter().filter(|path| path.ends_with('/')).collect()
}

fn resize(cluster: &Cluster, new: &Path) -> Output {
    cluster.run(&["cluster", "resize", new.to_str().unwrap()])
}

/// Resizes, and returns what the command reports.
fn resized(cluster: &Cluster, new: &Path) -> String {
    let output = resize(cluster, new);
    let told = text(&output.stderr);
    assert!(output.status.success(), "{told}");
    println!("{}", told.trim_end());
    told
}

/// How many keys were moved of how many.
fn moved(told: &str) -> (u64, u64) {
    let words: Vec<&str> = told.split_whitespace().collect();
    (words[2].parse().unwrap(), words[4].parse().unwrap())
}

/// Directories that were made, some with attributes, keys with attributes, and a damaged one. Returns directories.
fn fill_more(cluster: &Cluster) -> Vec<String> {
    fill(cluster, 700);
    make_dir(cluster, "made", 3, "");
    let mut dirs: Vec<String> = ["made", "in/deep/er", "in/hash", "out"].map(str::to_owned).into();
    for number in 0..20 {
        let (dir, below) = (format!("in/made{number}"), format!("in/made{number}/below"));
        make_dir(cluster, &dir, 3, r#"{"mode":448,"mtime":1234567890000000000}"#);
        make_dir(cluster, &below, 3, "");
        dirs.extend([dir, below]);
    }
    let home = node_of_basename("er", 3);
    assert!(request(cluster, home, "POST", "/v1/dirs/in/deep/er", r#"{"mode":488}"#).starts_with("HTTP/1.1 200"));
    for name in ["name1", "name2", "name3", "name4"] {
        let path = format!("/v1/change/in/hash/{name}");
        let change = r#"{"mode":64,"mtime":1000000000000000001}"#;
        assert!(request(cluster, node_of_basename(name, 3), "POST", &path, change).starts_with("HTTP/1.1 200"));
    }
    // A damaged key stays one, and so does a file without a checksum.
    let damaged = cluster.data(node_of_basename("name7", 3)).join("in/hash/name7");
    std::fs::remove_file(&damaged).unwrap();
    std::fs::write(&damaged, "by hand").unwrap();
    std::fs::set_permissions(&damaged, std::fs::Permissions::from_mode(0o444)).unwrap();
    dirs
}

/// What the homes of directories say of them, without the times that nobody has set: those are of the copies.
fn stats(cluster: &Cluster, dirs: &[String], nodes: usize) -> Vec<String> {
    let shown = dirs.iter().map(|dir| dir_stat(cluster, dir, nodes));
    let without_time = |stat: String| match stat.contains("1234567890000000000") {
        true => stat,
        false => stat.split("mtime").next().unwrap().to_owned() + stat.split("\"mode\"").last().unwrap(),
    };
    shown.map(without_time).collect()
}

#[test]
fn a_cluster_grows_and_shrinks_with_every_key_and_directory() {
    let mut cluster = Cluster::start(3);
    let dirs = fill_more(&cluster);
    let upload = describe(&cluster);
    let before = files(&cluster, 3);
    let (listed, dirs_before) = (cluster.ok(&["ls", "-r", "s4://"]), stats(&cluster, &dirs, 3));
    let made_before = made(&cluster);
    assert_eq!(made_before.len(), 41, "{made_before:?}");
    assert!(before.len() > 2500 && dirs_before.iter().all(|stat| stat.contains("dir")), "{dirs_before:?}");
    let why = cluster.ok(&["why", "s4://out/0003_n"]);
    let old = cluster.dir().join("old.conf");
    std::fs::copy(cluster.conf(), &old).unwrap();

    let new = cluster.start_more(2);
    moves_what_it_must(&cluster, &new, (3, 5), &before);
    check(&cluster, 5, &before, &listed);
    assert_eq!(stats(&cluster, &dirs, 5), dirs_before);
    assert_eq!(made(&cluster), made_before);
    assert_eq!(cluster.ok(&["why", "s4://out/0003_n"]).split("on node").next(), why.split("on node").next());
    assert!(text(&resize(&cluster, &new).stderr).contains("the cluster has these 5 nodes"));
    refuses_the_list_before(&mut cluster, &old);

    let fewer = cluster.dir().join("fewer.conf");
    cluster.write_list(&fewer, 4);
    moves_what_it_must(&cluster, &fewer, (5, 4), &before);
    cluster.wait_for_end(4);
    assert_eq!(below(&cluster.data(4)), Vec::<PathBuf>::new(), "nothing is left on the node that has left");
    check(&cluster, 4, &before, &listed);
    assert_eq!(stats(&cluster, &dirs, 4), dirs_before);
    assert_eq!(made(&cluster), made_before);
    let described = Key::parse("in/described/name17").unwrap();
    let library = Library::of(&cluster);
    let head = library.wait(library.client.head(&described)).unwrap().expect("the key");
    assert_eq!(head.metadata.user()["number"], "17");
    complete(&cluster, upload);
    let found = cluster.run(&["scrub"]);
    assert_eq!(text(&found.stdout).lines().count(), 1, "{}", text(&found.stdout));
    assert!(cluster.fails(1, &["cp", "s4://in/hash/name7", "-"]).contains("no checksum is recorded"));

    // Directories go with their last keys, also those that have a new home.
    remove_all(&cluster);
    eventually("no directory is left", || (0..4).all(|node| below(&cluster.data(node)).is_empty()).then_some(()));
}

/// Resizes, and compares what has moved with what placement demands.
fn moves_what_it_must(cluster: &Cluster, new: &Path, (from, to): (usize, usize), before: &BTreeMap<String, File>) {
    let keys = before.keys().map(|path| Key::parse(path).unwrap());
    let demanded = keys.filter(|key| node_of(key, from) != node_of(key, to)).count() as u64;
    let (moved, all) = moved(&resized(cluster, new));
    println!("from {from} to {to} nodes: moved {moved} of {all} keys, of which placement demands {demanded}");
    assert_eq!((moved, all), (demanded, before.len() as u64));
}

/// Clients and daemons with the list before the resize are refused, as they always were.
fn refuses_the_list_before(cluster: &mut Cluster, old: &Path) {
    let refused = cluster.command(&["-c", old.to_str().unwrap(), "ls"]).output().unwrap();
    assert!(text(&refused.stderr).contains("another node list"), "{}", text(&refused.stderr));
    cluster.stop_node(1);
    std::fs::rename(cluster.conf(), cluster.dir().join("kept.conf")).unwrap();
    std::fs::copy(old, cluster.conf()).unwrap();
    let daemon = cluster.server(1).output().unwrap();
    let told = text(&daemon.stderr);
    let why = "it holds keys of node 1 of 5, and this is node 1 of 3";
    assert!(!daemon.status.success() && told.contains(why), "{told}");
    std::fs::rename(cluster.dir().join("kept.conf"), cluster.conf()).unwrap();
    cluster.start_node(1);
}

fn remove_all(cluster: &Cluster) {
    for bucket in cluster.ok(&["ls"]).lines() {
        cluster.ok(&["rm", "-r", &format!("s4://{bucket}/")]);
    }
}

/// Every key is on its node as it was, and listed once.
fn check(cluster: &Cluster, nodes: usize, before: &BTreeMap<String, File>, listed: &str) {
    let after = files(cluster, nodes);
    assert_eq!(after.len(), before.len());
    for (path, file) in before {
        assert_eq!(after.get(path), Some(file), "{path}");
    }
    assert_eq!(cluster.ok(&["ls", "-r", "s4://"]), listed);
    let key = before.keys().next().unwrap();
    cluster.ok(&["cp", &format!("s4://{key}"), "-"]);
}

/// Starts a resize of a filled cluster, does `harm` in the middle, and lets it be ended by the same command.
fn interrupted(harm: impl Fn(&mut Cluster, &mut std::process::Child) -> Option<usize>) {
    let mut cluster = Cluster::start(3);
    fill(&cluster, 700);
    let before = files(&cluster, 3);
    let listed = cluster.ok(&["ls", "-r", "s4://"]);
    let new = cluster.start_more(2);
    let mut client = spawn(&cluster, &["cluster", "resize", new.to_str().unwrap()]);
    eventually("the first keys arrive", || below(&cluster.data(3)).iter().any(|path| path.is_file()).then_some(()));
    let killed = harm(&mut cluster, &mut client);
    let output = client.wait_with_output().unwrap();
    assert!(!output.status.success(), "{}", text(&output.stderr));
    assert!((0..5).all(|node| cluster.data(node).join(".s4/resize").exists()), "it is interrupted in the middle");
    if let Some(node) = killed {
        assert!(text(&output.stderr).contains("the same command goes on"), "{}", text(&output.stderr));
        cluster.start_node(node);
    }
    for conf in [cluster.conf(), new.clone()] {
        let refused = cluster.command(&["-c", conf.to_str().unwrap(), "ls"]).output().unwrap();
        let told = text(&refused.stderr);
        assert!(!refused.status.success() && told.contains("the cluster is being resized from 3 to 5 nodes"), "{told}");
    }
    assert!(resized(&cluster, &new).contains(" that were left, "));
    check(&cluster, 5, &before, &listed);
    remove_all(&cluster);
    eventually("no directory is left", || (0..5).all(|node| below(&cluster.data(node)).is_empty()).then_some(()));
}

#[test]
fn a_killed_new_node_loses_nothing() {
    interrupted(|cluster, _| {
        cluster.kill_node(3);
        Some(3)
    });
}

#[test]
fn a_killed_old_node_loses_nothing() {
    interrupted(|cluster, _| {
        cluster.kill_node(0);
        Some(0)
    });
}

#[test]
fn a_killed_client_loses_nothing() {
    interrupted(|_, client| {
        client.kill().unwrap();
        None
    });
}

#[test]
fn a_resize_that_cannot_be_is_refused_and_the_cluster_serves() {
    let mut cluster = Cluster::start(2);
    for name in ["0_a", "1_b", "x"] {
        cluster.put(&format!("s4://b/{name}"), name.as_bytes());
    }
    let new = cluster.start_more(1);
    let refused = |cluster: &Cluster, conf: &Path, why: &str| {
        let output = resize(cluster, conf);
        let told = text(&output.stderr);
        assert!(!output.status.success() && told.contains(why), "expected '{why}': {told}");
        assert_eq!(cluster.get("s4://b/1_b"), b"1_b");
        assert!((0..3).all(|node| !cluster.data(node).join(".s4/resize").exists()), "nothing has begun: {why}");
    };
    let lines: Vec<String> = std::fs::read_to_string(&new).unwrap().lines().map(str::to_owned).collect();
    let other = cluster.dir().join("other.conf");
    std::fs::write(&other, [&*lines[1], &lines[0], &lines[2]].join("\n")).unwrap();
    refused(&cluster, &other, "node 0 is ");
    std::fs::write(&other, [&*lines[0], &lines[2]].join("\n")).unwrap();
    refused(&cluster, &other, "node 1 is ");

    let marker = Marker::new();
    cluster.ok(&["map", "--detach", "s4://b/0_*", "s4://slow/", &format!("sleep {}", marker.as_str())]);
    refused(&cluster, &new, "has not ended; wait for it, or cancel it");
    cluster.ok(&["cancel", "last"]);

    // 4 goes from node 0 of 2 to node 1 of 3.
    let library = Library::of(&cluster);
    let key = Key::parse("b/4_upload").unwrap();
    let upload = library.wait(library.client.create_upload(&key, &Metadata::default())).unwrap();
    refused(&cluster, &new, "s4://b/4_upload: its upload ");
    library.wait(library.client.abort_upload(&key, &upload)).unwrap();

    // It lies on node 1 and would become a key there: a number that is 4 modulo 6.
    std::fs::write(cluster.data(1).join("b/4_stray"), "by hand").unwrap();
    refused(&cluster, &new, "s4://b/4_stray: a file of this name lies here");
    std::fs::remove_file(cluster.data(1).join("b/4_stray")).unwrap();

    std::fs::create_dir(cluster.data(2).join("bucket")).unwrap();
    refused(&cluster, &new, "its data directory is not empty");
    std::fs::remove_dir(cluster.data(2).join("bucket")).unwrap();

    cluster.stop_node(2);
    refused(&cluster, &new, &cluster.name(2));
    cluster.start_node(2);
    resized(&cluster, &new);
    assert_eq!(cluster.get("s4://b/x"), b"x");
}

#[test]
fn a_disk_without_room_is_refused_before_and_named_if_it_fills() {
    let Some(disk) = Mounted::ext4(64 << 20) else { return };
    let mut cluster = Cluster::on_disk(&disk, &["--reserve", "0"]);
    // Of two nodes, odd numbers are on the small disk. Of three, 4, 10 and 16 come and 3, 9 and 15 go.
    for number in [3, 4, 9, 10, 15, 16] {
        cluster.put(&format!("s4://b/{number}_k"), &vec![number; 13 * MIB]);
    }
    for number in [22, 28] {
        cluster.put(&format!("s4://much/{number}_k"), &vec![number; 20 * MIB]);
    }
    let new = cluster.start_more(1);
    let told = text(&resize(&cluster, &new).stderr);
    assert!(told.contains(&format!("{}: no space: it would get ", cluster.name(1))), "{told}");
    assert_eq!(cluster.get("s4://b/3_k"), vec![3; 13 * MIB], "the cluster serves");
    cluster.ok(&["rm", "-r", "s4://much/"]);
    let before = files(&cluster, 2);
    eventually("there is room once keys have gone", || {
        let output = resize(&cluster, &new);
        let told = text(&output.stderr).to_lowercase();
        assert!(output.status.success() || told.contains("no space") && told.contains(&cluster.name(1)), "{told}");
        output.status.success().then_some(())
    });
    assert_eq!(files(&cluster, 3), before);
}
