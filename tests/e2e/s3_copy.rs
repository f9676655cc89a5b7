//! `s4 cp -r` between S3 and the cluster, and one object with `s4-s3 get` and `put`, against real servers of S3.

use crate::door::Door;
use crate::harness::{Cluster, text};
use crate::programs::program;
use crate::s3_servers::{ACCESS_KEY, S3Server, SECRET_KEY};
use std::io::Write;
use std::process::{Command, Output, Stdio};

/// A command with the credentials of the servers in its environment.
pub fn with_credentials(mut command: Command) -> Command {
    command
        .env("AWS_ACCESS_KEY_ID", ACCESS_KEY)
        .env("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
        .env("AWS_REGION", "us-east-1");
    command.env("AWS_EC2_METADATA_DISABLED", "true");
    command
}

/// `s4-s3` with these arguments, against the server at `url`.
pub fn s4_s3(url: &str, args: &[&str]) -> Command {
    let mut command = with_credentials(Command::new(program("s4-s3")));
    command.args(args).args(["--endpoint-url", url]);
    command
}

pub fn put_object(url: &str, key: &str, bytes: &[u8]) -> Output {
    let mut command = s4_s3(url, &["put", &format!("s3://data/{key}")]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // It may end before it has read everything.
    let _ = child.stdin.take().unwrap().write_all(bytes);
    child.wait_with_output().unwrap()
}

pub fn get_object(url: &str, key: &str) -> Output {
    s4_s3(url, &["get", &format!("s3://data/{key}")]).output().unwrap()
}

fn made(url: &str, key: &str, bytes: &[u8]) {
    let output = put_object(url, key, bytes);
    assert!(output.status.success(), "{key}: {}", text(&output.stderr));
}

/// `s4 cp -r` with the credentials of the servers, sent to the nodes.
pub fn copy(cluster: &Cluster, url: &str, args: &[&str]) -> Output {
    let mut command = with_credentials(cluster.command(&["cp", "-r", "--send-credentials", "--endpoint-url", url]));
    command.args(args).output().unwrap()
}

pub fn copied(cluster: &Cluster, url: &str, args: &[&str]) -> String {
    let output = copy(cluster, url, args);
    assert!(output.status.success(), "{args:?}: {}", text(&output.stderr));
    text(&output.stderr)
}

/// Bytes that no compression and no two offsets make alike.
pub fn bytes(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let word = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    (0..len.div_ceil(8)).flat_map(word).take(len).collect()
}

#[test]
fn an_object_is_put_and_got_whole_whatever_its_size() {
    for server in S3Server::all() {
        let url = server.url();
        for (key, len) in [("empty", 0), ("one", 1), ("part", 8 << 20), ("more", (8 << 20) + 1), ("large", 40_000_001)]
        {
            let wanted = bytes(len);
            made(&url, key, &wanted);
            let got = get_object(&url, key);
            assert!(got.status.success() && got.stdout == wanted, "{key}: {}", text(&got.stderr));
            // The same again succeeds, other bytes are refused and change nothing.
            made(&url, key, &wanted);
            let other = put_object(&url, key, &[&wanted[..], b"x"].concat());
            assert_eq!(other.status.code(), Some(1), "{key}");
            assert!(text(&other.stderr).contains("exists with other content"), "{}", text(&other.stderr));
            assert!(get_object(&url, key).stdout == wanted, "{key}");
        }
        let absent = get_object(&url, "absent");
        assert_eq!((absent.status.code(), absent.stdout.len()), (Some(1), 0));
        assert_eq!(server.unfinished_uploads(), 0);
    }
}

/// moto keeps any name as it is.
#[test]
fn odd_names_of_s3_are_copied_or_told_one_by_one() {
    let Some(server) = S3Server::moto() else { return };
    let (cluster, url) = (Cluster::start(3), server.url());
    for key in ["d/plain", "d/sub/pl+us", "d/sub/pc%2F", "d/ünï", "d/a&b=c?d#e"] {
        made(&url, key, key.as_bytes());
    }
    for key in ["d/a//b", "d/../x", "d/sp ace"] {
        made(&url, key, b"bad");
    }
    made(&url, "d/dir/", b"");
    made(&url, "dother", b"not below the prefix");
    let output = copy(&cluster, &url, &["s3://data/d/", "s4://in/", "--dry-run"]);
    assert_eq!((output.status.code(), cluster.run(&["ls"]).stdout.len()), (Some(1), 0), "nothing is copied");
    for args in [&["s3://data/d", "s4://in/"][..], &["s3://data/d/", "s4://in/", "--resume"]] {
        let output = copy(&cluster, &url, args);
        let told = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{told}");
        for bad in ["d/a//b", "d/../x", "d/sp ace"] {
            assert!(told.contains(&format!("s3://data/{bad}: no key can have its name")), "{bad}: {told}");
        }
        assert!(told.contains("5 of 8 objects done, 3 failed"), "{told}");
    }
    let told = copied(&cluster, &url, &["s3://data/d/", "s4://in/", "--resume", "--skip-bad-names"]);
    assert!(told.contains("5 objects done") && told.contains("5 of them were there before"), "{told}");
    for key in ["plain", "sub/pl+us", "sub/pc%2F", "ünï", "a&b=c?d#e"] {
        assert_eq!(text(&cluster.get(&format!("s4://in/{key}"))), format!("d/{key}"));
    }
    copied(&cluster, &url, &["s4://in/", "s3://data/back/"]);
    for key in ["plain", "sub/pl+us", "sub/pc%2F", "ünï", "a&b=c?d#e"] {
        assert_eq!(text(&get_object(&url, &format!("back/{key}")).stdout), format!("d/{key}"));
    }
}

#[test]
fn a_copy_in_and_out_keeps_bytes_types_and_metadata() {
    for server in S3Server::all() {
        let (cluster, url) = (Cluster::start(3), server.url());
        let large = bytes(30_000_000);
        made(&url, "src/large", &large);
        for number in 0..60 {
            made(&url, &format!("src/{number}/f_{number}"), format!("{number}\n").as_bytes());
        }
        let options = ["put", "--content-type", "text/x-told", "--metadata", "Colour=green", "s3://data/src/described"];
        assert!(s4_s3(&url, &options).stdin(Stdio::null()).status().unwrap().success());
        let told = copied(&cluster, &url, &["s3://data/src/", "s4://in/"]);
        assert!(told.contains("62 objects done"), "{told}");
        assert!(cluster.get("s4://in/large") == large);
        assert_eq!(cluster.get("s4://in/7/f_7"), b"7\n");
        // Again: the bytes are compared; with --resume, nothing is read.
        let told = copied(&cluster, &url, &["s3://data/src/", "s4://in/"]);
        assert!(told.contains("62 of them were there before"), "{told}");
        let told = copied(&cluster, &url, &["s3://data/src/", "s4://in/", "--resume"]);
        assert!(told.contains("62 of them were there before"), "{told}");
        copied(&cluster, &url, &["s4://in/", "s3://data/out/"]);
        assert!(get_object(&url, "out/large").stdout == large);
        let head = server.curl(&["-I"], "data/out/described").to_lowercase();
        assert!(head.contains("content-type: text/x-told") && head.contains("x-amz-meta-colour: green"), "{head}");
        for more in [&[][..], &["--resume"], &["--overwrite"]] {
            let told = copied(&cluster, &url, &[&["s4://in/", "s3://data/out/"], more].concat());
            assert!(told.contains("62 objects done"), "{told}");
        }
        assert_eq!(server.unfinished_uploads(), 0);
    }
}

#[test]
fn what_exists_with_other_bytes_is_refused_and_stays() {
    for server in S3Server::all() {
        let (cluster, url) = (Cluster::start(3), server.url());
        for key in ["a", "b"] {
            made(&url, &format!("src/{key}"), b"of s3");
            cluster.put(&format!("s4://out/{key}"), b"of the cluster");
        }
        cluster.put("s4://in/a", b"other");
        for more in [&[][..], &["--resume"]] {
            let output = copy(&cluster, &url, &[&["s3://data/src/", "s4://in/"], more].concat());
            let told = text(&output.stderr);
            assert_eq!(output.status.code(), Some(1), "{told}");
            assert!(told.contains("s4://in/a: exists with other content"), "{told}");
            assert_eq!((cluster.get("s4://in/a"), cluster.get("s4://in/b")), (b"other".to_vec(), b"of s3".to_vec()));
            let output = copy(&cluster, &url, &[&["s4://out/", "s3://data/src/"], more].concat());
            let told = text(&output.stderr);
            assert_eq!(output.status.code(), Some(1), "{told}");
            assert!(told.contains("s3://data/src/a: exists with other content"), "{told}");
            assert_eq!(text(&get_object(&url, "src/a").stdout), "of s3");
        }
        copied(&cluster, &url, &["s4://out/", "s3://data/src/", "--overwrite"]);
        assert_eq!(text(&get_object(&url, "src/a").stdout), "of the cluster");
    }
}

/// It has neither MD5 nor CRC64NVME of its keys.
#[test]
fn what_the_door_of_another_cluster_has_already_is_known_by_its_etag() {
    let (cluster, other) = (Cluster::start(2), Cluster::start(2));
    let Some(door) = Door::start(&other) else { return };
    let output = |mut command: Command, sent: &[u8]| {
        command.env("AWS_SECRET_ACCESS_KEY", "s4").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let _ = child.stdin.take().unwrap().write_all(sent);
        child.wait_with_output().unwrap()
    };
    other.put("s4://data/first", b"makes the bucket");
    for (name, content) in [("small", b"small".to_vec()), ("large", bytes(40 << 20))] {
        cluster.put(&format!("s4://in/{name}"), &content);
        for _ in 0..2 {
            let put = output(s4_s3(&door.url, &["put", &format!("s3://data/put/{name}")]), &content);
            assert!(put.status.success(), "{}", text(&put.stderr));
        }
        let put = output(s4_s3(&door.url, &["put", &format!("s3://data/put/{name}")]), &content[1..]);
        assert!(text(&put.stderr).contains("exists with other content"), "{}", text(&put.stderr));
    }
    let copy = ["cp", "-r", "--send-credentials", "--endpoint-url", &door.url, "s4://in/", "s3://data/out/"];
    let resumed = [&copy[..], &["--resume"]].concat();
    let told =
        [&copy[..], &copy, &resumed].map(|args| text(&output(with_credentials(cluster.command(args)), b"").stderr));
    assert!(told[0].contains("2 objects done"), "{}", told[0]);
    assert!(told[1].contains("2 of them were there before"), "{}", told[1]);
    assert!(told[2].contains("2 of them were there before"), "{}", told[2]);
    assert!(other.get("s4://data/out/large") == cluster.get("s4://in/large"));
}

#[test]
fn an_object_that_changed_is_not_taken_for_the_one_that_was_copied() {
    let Some(server) = S3Server::moto() else { return };
    let (cluster, url) = (Cluster::start(1), server.url());
    made(&url, "src/a", b"first");
    copied(&cluster, &url, &["s3://data/src/", "s4://in/"]);
    assert!(s4_s3(&url, &["put", "--overwrite", "s3://data/src/a"]).stdin(Stdio::null()).status().unwrap().success());
    let output = copy(&cluster, &url, &["s3://data/src/", "s4://in/", "--resume"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(cluster.get("s4://in/a"), b"first");
}

/// The reference program's idea: addresses as keys, fetch, select, count, merge, push back.
#[test]
fn a_map_over_addresses_fetches_them_and_another_pushes_back() {
    let Some(server) = S3Server::moto() else { return };
    // The commands of maps have the environment of the daemons.
    let (mut cluster, url) = (Cluster::start(3), server.url());
    let _ = &mut cluster;
    let env = |name: &str, value: &str| format!("{name}={value}");
    let options = [
        env("AWS_ACCESS_KEY_ID", ACCESS_KEY),
        env("AWS_SECRET_ACCESS_KEY", SECRET_KEY),
        env("AWS_REGION", "us-east-1"),
        env("AWS_ENDPOINT_URL", &url),
        env("PATH", &format!("{}:{}", crate::programs::directory().display(), std::env::var("PATH").unwrap())),
    ];
    let options: Vec<&str> = options.iter().flat_map(|option| ["--env", option]).collect();
    for number in 0..9 {
        let lines: String =
            (0..100).map(|line| format!("{line},{}\n", ["red", "green", "blue"][(line + number) % 3])).collect();
        made(&url, &format!("rows/{number}.csv"), lines.as_bytes());
        let address = format!("s3://data/rows/{number}.csv");
        cluster.put(&format!("s4://addresses/{number:03}_rows"), address.as_bytes());
    }
    let map = |args: &[&str]| cluster.ok(&[&[args[0]], &options[..], &args[1..]].concat());
    map(&["map", "s4://addresses/", "s4://fetched/", "s4-s3 get \"$(cat)\""]);
    map(&["map", "s4://fetched/", "s4://colours/", "cut -d, -f2"]);
    map(&[
        "map-to-n",
        "s4://colours/",
        "s4://parts/",
        "awk '{ f = sprintf(\"%03d\", length($0)); print > f } END { print \"003\\n004\\n005\" }'",
    ]);
    map(&["map-from-n", "s4://parts/", "s4://counts/", "xargs cat | sort | uniq -c | awk '{ print $2, $1 }'"]);
    map(&["map", "s4://counts/", "s4://pushed/", "s4-s3 put s3://data/counts/$filename && echo done"]);
    let counts: String =
        ["003", "004", "005"].iter().map(|name| text(&get_object(&url, &format!("counts/{name}")).stdout)).collect();
    assert_eq!(counts, "red 300\nblue 300\ngreen 300\n");
    // An address that leads nowhere fails its task.
    cluster.put("s4://wrong/000_rows", b"s3://data/rows/none");
    cluster.fails(1, &[&["map"], &options[..], &["s4://wrong/", "s4://none/", "s4-s3 get \"$(cat)\""]].concat());
}

#[test]
fn wrong_uses_are_told_before_anything_is_asked() {
    let cluster = Cluster::start(1);
    for args in [
        &["cp", "s3://b/k", "s4://in/k"][..],
        &["cp", "-r", "s3://b/", "s3://c/"],
        &["cp", "-r", "s3://b/", "/tmp"],
        &["cp", "-r", "s3://b c/", "s4://in/"],
        &["cp", "-r", "--exclude", "x", "s3://b/", "s4://in/"],
        &["cp", "-r", "--resume", "s4://in/", "s4://out/"],
    ] {
        let output = cluster.run(args);
        assert!(matches!(output.status.code(), Some(1 | 2)), "{args:?}");
        assert_eq!(output.stdout.len(), 0, "{args:?}");
    }
}
