//! `ls` and `rm`: what is there, and its end.

use crate::harness::{Cluster, text};
use crate::library::Library;
use crate::observe::listed;
use s4::client::ListOptions;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

/// The names that a listing that is not recursive shows.
fn names(cluster: &Cluster, prefix: &str) -> Vec<String> {
    let shown = cluster.ok(&["ls", prefix]);
    shown.lines().map(|line| line.split_whitespace().last().unwrap().to_owned()).collect()
}

fn put_all(cluster: &Cluster, keys: &[&str]) {
    keys.iter().for_each(|key| cluster.put(&format!("s4://{key}"), key.as_bytes()));
}

#[test]
fn ls_prints_date_time_size_and_name() {
    let cluster = Cluster::start(2);
    cluster.put("s4://bucket/1_key", &[0; 12_345]);
    cluster.put("s4://bucket/dir/0_below", b"");
    let file = cluster.data(1).join("bucket/1_key");
    let date = Command::new("date").args(["-u", "+%F %T", "-r"]).arg(&file).output().unwrap();
    let date = String::from_utf8(date.stdout).unwrap();
    let expected = format!("{}      12345 1_key\n                           PRE dir/\n", date.trim());
    assert_eq!(cluster.ok(&["ls", "s4://bucket/"]), expected);
    assert_eq!(cluster.ok(&["ls"]), "bucket\n");
    assert_eq!(cluster.ok(&["ls", "s4://"]), "bucket\n");
    let recursive = cluster.ok(&["ls", "-r", "s4://bucket/"]);
    let lines: Vec<Vec<&str>> = recursive.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines.len(), 2);
    assert_eq!(lines[0][2..], ["12345", "1_key"]);
    assert_eq!(lines[1][2..], ["0", "dir/0_below"]);
    assert!(lines.iter().all(|fields| fields[0].len() == 10 && fields[1].len() == 8), "{recursive}");
}

#[test]
fn a_prefix_of_ls_is_a_string() {
    let cluster = Cluster::start(3);
    put_all(&cluster, &["ab/0_x", "ab/dir/1_y", "ab/dir2/2_z", "ab/dip", "abc/0_x", "b/0_x"]);
    assert_eq!(names(&cluster, "s4://a"), ["ab", "abc"]);
    assert_eq!(names(&cluster, "s4://ab"), ["ab", "abc"]);
    assert_eq!(names(&cluster, "s4://ab/"), ["0_x", "dip", "dir/", "dir2/"]);
    assert_eq!(names(&cluster, "s4://ab/di"), ["dip", "dir/", "dir2/"]);
    assert_eq!(names(&cluster, "s4://ab/dir"), ["dir/", "dir2/"]);
    assert_eq!(names(&cluster, "s4://ab/dir/"), ["1_y"]);
    assert_eq!(names(&cluster, "s4://ab/dir/1_y"), ["1_y"]);
    assert_eq!(listed(&cluster, "s4://ab/di"), ["dip", "dir/1_y", "dir2/2_z"]);
    assert_eq!(listed(&cluster, "s4://ab"), ["ab/0_x", "ab/dip", "ab/dir/1_y", "ab/dir2/2_z", "abc/0_x"]);
    assert_eq!(listed(&cluster, "s4://").len(), 6);
}

#[test]
fn ls_is_in_byte_order_across_nodes() {
    let cluster = Cluster::start(3);
    let mut keys: Vec<String> = Vec::new();
    for name in ["a", "a-b", "a.b", "a0", "a_b", "aé", "b", "ä", "日本", "Z", "🦀", "~", "!", "a+", "10", "9", "é"]
    {
        keys.extend((0..3).map(|node| format!("o/{node}_{name}")));
        keys.push(format!("o/dir{name}/{name}"));
        keys.push(format!("o{name}/0_x"));
        keys.push(format!("o/{name}/deep/{name}"));
    }
    put_all(&cluster, &keys.iter().map(String::as_str).collect::<Vec<_>>());
    keys.sort_unstable();
    assert_eq!(listed(&cluster, "s4://"), keys);
    let mut below: Vec<String> = keys.iter().filter_map(|key| key.strip_prefix("o/")).map(top).collect();
    below.dedup();
    assert_eq!(names(&cluster, "s4://o/"), below);
    let mut buckets: Vec<String> = keys.iter().map(|key| top(key).trim_end_matches('/').to_owned()).collect();
    buckets.dedup();
    assert_eq!(names(&cluster, "s4://"), buckets);
}

/// The first part of a path, with the `/` if there is more.
fn top(path: &str) -> String {
    path.split_inclusive('/').next().unwrap().to_owned()
}

#[test]
fn a_listing_begins_after_any_path_and_goes_on_in_byte_order() {
    let cluster = Cluster::start(3);
    let mut keys = Vec::new();
    for dir in ["a", "a-b", "a/b", "a0", "a/b/c", "ä"] {
        keys.extend((0..3).map(|node| format!("o/{dir}/{node}_k")));
        keys.push(format!("{dir}/0_in-another-bucket"));
    }
    keys.extend(["o/0_a", "o/1_a-", "o/a!", "o/b"].map(str::to_owned));
    put_all(&cluster, &keys.iter().map(String::as_str).collect::<Vec<_>>());
    keys.sort_unstable();
    let library = Library::of(&cluster);
    // Every key, every directory, and paths just before and after them, which nothing has.
    let dirs = keys.iter().flat_map(|key| key.match_indices('/').map(|(slash, _)| key[..=slash].to_owned()));
    let mut points: Vec<String> = keys.iter().cloned().chain(dirs).collect();
    points.sort_unstable();
    points.dedup();
    let near =
        points.iter().flat_map(|point| ["", "!", "~", "/", "/~", " \u{7f}"].map(|more| format!("{point}{more}")));
    let short = points.iter().map(|point| point[..point.len() - 1].to_owned());
    for point in near.chain(short).chain(["".to_owned(), "~".to_owned(), "o".to_owned()]) {
        for prefix in ["", "o", "o/", "o/a", "o/a/", "o/a/b/"] {
            let after: Vec<&String> = keys.iter().filter(|key| key.starts_with(prefix) && **key > point).collect();
            let listed = |recursive| {
                let options =
                    ListOptions { recursive, details: recursive, after: Some(&point), ..ListOptions::default() };
                library.paths(prefix, options)
            };
            assert!(listed(true).iter().eq(after.iter().copied()), "{prefix:?} after {point:?}: {:?}", listed(true));
            let dir = prefix.rfind('/').map_or(0, |slash| slash + 1);
            let mut tops: Vec<String> = after.iter().map(|key| key[..dir].to_owned() + &top(&key[dir..])).collect();
            tops.dedup();
            tops.retain(|top| *top != point);
            assert_eq!(listed(false), tops, "{prefix:?} after {point:?}");
        }
    }
}

#[test]
fn a_listing_reads_no_directory_that_lies_before_its_point() {
    let Some(cluster) = Cluster::unprivileged(1) else { return };
    put_all(&cluster, &["b/a/0_x", "b/m/0_x", "b/m/deep/0_x", "b/z/0_x"]);
    for dir in ["b/a", "b/m/deep"] {
        std::fs::set_permissions(cluster.data(0).join(dir), std::fs::Permissions::from_mode(0o000)).unwrap();
    }
    assert!(cluster.fails(1, &["ls", "-r", "s4://b/"]).contains("Permission denied"), "a listing of all reads them");
    let library = Library::of(&cluster);
    let options = ListOptions { recursive: true, details: true, after: Some("b/m/f"), ..ListOptions::default() };
    assert_eq!(library.paths("b/", options), ["b/z/0_x"]);
}

#[test]
fn ls_of_nothing_is_exit_1() {
    let cluster = Cluster::start(2);
    let nothing = |args: &[&str]| {
        let output = cluster.run(args);
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        assert!(output.stdout.is_empty(), "{args:?}");
    };
    nothing(&["ls"]);
    nothing(&["ls", "-r"]);
    cluster.put("s4://b/0_k", b"content");
    nothing(&["ls", "s4://b/1"]);
    nothing(&["ls", "s4://b/0_k/"]);
    nothing(&["ls", "s4://c"]);
    nothing(&["ls", "-r", "s4://b/0_kk"]);
}

#[test]
fn rm_deletes_one_key_and_no_other() {
    let cluster = Cluster::start(3);
    put_all(&cluster, &["b/0_x", "b/0_xx", "b/1_x", "b/d/0_x"]);
    cluster.ok(&["rm", "s4://b/0_x"]);
    assert_eq!(listed(&cluster, "s4://"), ["b/0_xx", "b/1_x", "b/d/0_x"]);
    for missing in ["s4://b/0_x", "s4://b/0", "s4://b/d", "s4://c/0_x"] {
        let stderr = cluster.fails(1, &["rm", missing]);
        assert!(stderr.contains(missing) && stderr.contains("no such key"), "{stderr}");
    }
    assert_eq!(listed(&cluster, "s4://").len(), 3);
    // Its name is free again.
    cluster.put("s4://b/0_x", b"again");
    assert_eq!(cluster.get("s4://b/0_x"), b"again");
}

#[test]
fn rm_r_deletes_all_that_begins_with_a_string() {
    let cluster = Cluster::start(3);
    put_all(
        &cluster,
        &["step1/0_x", "step1/d/1_y", "step2/2_z", "step/name", "ste/0_x", "astep/0_x", "other/step1/0_x"],
    );
    cluster.ok(&["rm", "-r", "s4://step"]);
    assert_eq!(listed(&cluster, "s4://"), ["astep/0_x", "other/step1/0_x", "ste/0_x"]);
    cluster.ok(&["rm", "-r", "s4://step"]);
    put_all(&cluster, &["b/dir/0_x", "b/dir/1_y", "b/dir2/0_x", "b/dirt"]);
    cluster.ok(&["rm", "-r", "s4://b/dir/"]);
    assert_eq!(listed(&cluster, "s4://b/"), ["dir2/0_x", "dirt"]);
    cluster.ok(&["rm", "-r", "s4://b/dir2/0_x"]);
    assert_eq!(listed(&cluster, "s4://b/"), ["dirt"]);
    assert_eq!(cluster.fails(2, &["rm", "-r", "s4://"]).lines().count(), 1);
    assert_eq!(listed(&cluster, "s4://").len(), 4, "everything at once is not to be deleted by a slip");
}

#[test]
fn directories_that_become_empty_vanish() {
    let cluster = Cluster::start(3);
    put_all(&cluster, &["b/d/e/0_x", "b/d/1_y", "c/d/0_x", "c/d/1_x", "c/d/2_x"]);
    cluster.ok(&["rm", "s4://b/d/e/0_x"]);
    assert_eq!(names(&cluster, "s4://b/d/"), ["1_y"]);
    cluster.ok(&["rm", "s4://b/d/1_y"]);
    cluster.ok(&["rm", "-r", "s4://c/"]);
    for node in 0..3 {
        for bucket in ["b", "c"] {
            assert!(!cluster.data(node).join(bucket).exists(), "node {node} has {bucket}");
        }
    }
    assert_eq!(cluster.run(&["ls"]).status.code(), Some(1), "no bucket is left");
}

#[test]
fn rm_r_removes_empty_buckets_and_directories_too() {
    let cluster = Cluster::start(2);
    let make = |dir: &str| {
        let head = format!("PUT /v1/dirs/{dir} HTTP/1.1\r\nHost: 127.0.0.1\r\ns4-cluster: {}\r\n", cluster.digest());
        let request = format!("{head}Connection: close\r\nContent-Length: 0\r\n\r\n");
        let made = (0..2).filter(|&node| cluster.raw(node, request.as_bytes()).starts_with("HTTP/1.1 200")).count();
        assert_eq!(made, 1, "its home, and no other, makes {dir}");
    };
    for dir in ["empty", "b", "b/made", "b/made/deep", "other", "step1", "step2/x"] {
        make(dir);
    }
    put_all(&cluster, &["b/made/0_x", "b/stays/0_x"]);
    cluster.ok(&["rm", "-r", "s4://empty/"]);
    cluster.ok(&["rm", "-r", "s4://b/made/"]);
    cluster.ok(&["rm", "-r", "s4://step"]);
    assert_eq!(cluster.ok(&["ls"]), "b\nother\n");
    assert_eq!(names(&cluster, "s4://b/"), ["stays/"]);
    cluster.ok(&["rm", "-r", "s4://b/"]);
    assert_eq!(cluster.ok(&["ls"]), "other\n");
}

#[test]
fn a_file_on_a_wrong_node_is_no_key_and_can_be_removed() {
    let cluster = Cluster::start(2);
    put_all(&cluster, &["b/0_x", "b/1_y"]);
    std::fs::copy(cluster.data(0).join("b/0_x"), cluster.data(1).join("b/0_x")).unwrap();
    let stray = cluster.data(1).join("b/0_stray");
    std::fs::write(&stray, "put there by hand").unwrap();
    assert_eq!(listed(&cluster, "s4://b/"), ["0_x", "1_y"]);
    for (kind, outdir) in [("map", "s4://map/"), ("map-from-n", "s4://from/")] {
        cluster.ok(&[kind, "s4://b/", outdir, "cat > /dev/null"]);
    }
    cluster.ok(&["rm", "s4://b/0_x"]);
    assert_eq!(listed(&cluster, "s4://b/"), ["1_y"]);
    assert!(cluster.log_text(1).contains("belongs on node 0"), "{}", cluster.log_text(1));
    cluster.ok(&["rm", "-r", "s4://b/"]);
    assert!(!cluster.data(1).join("b").exists(), "what is no key is removed with the rest");
}

#[test]
fn ls_shows_sizes_for_people_and_sums() {
    let cluster = Cluster::start(3);
    for (key, len) in [("s4://in/0_a", 10), ("s4://in/d/1_b", 2048), ("s4://in/d/e/2_c", 0), ("s4://other/3_d", 5)] {
        cluster.put(key, &vec![b'x'; len]);
    }
    let last = |args: &[&str]| cluster.ok(&[&["ls"], args].concat()).lines().last().unwrap().to_owned();
    assert_eq!(last(&["--total"]), "total: 0 keys, 0 bytes, 0 directories, 2 buckets");
    assert_eq!(last(&["-r", "--total"]), "total: 4 keys, 2063 bytes, 2 directories, 2 buckets");
    assert_eq!(last(&["--total", "s4://in/"]), "total: 1 key, 10 bytes, 1 directory");
    assert_eq!(last(&["-r", "--total", "--human", "s4://in/d"]), "total: 2 keys, 2.0K, 2 directories");
    assert!(cluster.ok(&["ls", "--human", "s4://in/d/"]).contains("       2.0K 1_b\n"));
    let nothing = cluster.run(&["ls", "--total", "s4://none/"]);
    assert_eq!(nothing.status.code(), Some(1));
    assert_eq!(text(&nothing.stdout), "total: 0 keys, 0 bytes, 0 directories\n");
}

#[test]
fn rm_says_what_it_deleted_and_a_dry_run_what_it_would() {
    let cluster = Cluster::start(3);
    for number in 0..30 {
        cluster.put(&format!("s4://step{}/d/{number}_k", number % 2), &[b'x'; 100]);
    }
    cluster.put("s4://stay/0_k", b"x");
    let said = |args: &[&str]| {
        let output = cluster.run(args);
        assert!(output.status.success(), "{args:?}: {}", text(&output.stderr));
        (text(&output.stdout), text(&output.stderr))
    };
    let (keys, told) = said(&["rm", "-r", "--dry-run", "s4://step"]);
    assert_eq!(told, "s4: would delete 30 keys, 2.9K, 2 buckets\n");
    assert!(keys.lines().count() == 30 && keys.starts_with("s4://step0/d/0_k\n"), "{keys}");
    assert_eq!(
        said(&["rm", "--dry-run", "s4://stay/0_k"]),
        ("s4://stay/0_k\n".into(), "s4: would delete 1 key, 1B\n".into())
    );
    cluster.fails(1, &["rm", "--dry-run", "s4://stay/1_k"]);
    assert_eq!(cluster.ok(&["ls", "-r"]).lines().count(), 31);
    assert_eq!(said(&["rm", "s4://step1/d/1_k"]).1, "s4: deleted 1 key, 100B\n");
    assert_eq!(said(&["rm", "-r", "s4://step0/d/"]).1, "s4: deleted 15 keys, 1.5K, 1 bucket\n");
    assert_eq!(said(&["rm", "-r", "s4://s"]), (String::new(), "s4: deleted 15 keys, 1.4K, 2 buckets\n".to_owned()));
    assert_eq!(said(&["rm", "-r", "s4://step"]).1, "s4: deleted 0 keys: none begins with s4://step\n");
}
