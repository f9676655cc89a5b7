//! Each name has one owner: it is a key or a directory over the whole cluster, and a directory goes with what is in it.

use crate::frames::{connect, exchange, message};
use crate::harness::{Cluster, eventually, text};
use crate::programs::directory;
use std::net::TcpStream;
use std::sync::Barrier;

/// Rounds of the race.
const ROUNDS: usize = 10_000;
/// Rounds between two kills.
const KILL_EACH: usize = 50;

fn put(session: &mut TcpStream, key: &str) -> bool {
    let answer = exchange(session, &crate::frames::put(key, "99fc819aaba2462a 6", b"hello\n"));
    assert!(answer.contains("stored") || answer.contains("already_exists"), "{key}: {answer}");
    answer.contains("stored")
}

/// `true` if `path` is one on that node's disk.
fn is_key(cluster: &Cluster, node: usize, path: &str) -> bool {
    cluster.data(node).join(path).is_file()
}

#[test]
fn a_key_and_a_directory_of_one_name_never_both_come_to_be() {
    let cluster = Cluster::start(3);
    let (line, mut keys, mut dirs) = (Barrier::new(2), 0, 0);
    let race = |session: &mut TcpStream, key: String| {
        line.wait();
        put(session, &key)
    };
    let [a, b] = &mut [connect(&cluster, 0), connect(&cluster, 1)];
    std::thread::scope(|scope| {
        let makes_key = scope.spawn(|| (0..ROUNDS).map(|n| race(a, format!("b/{}_r", 3 * n))).collect::<Vec<bool>>());
        let makes_dir =
            scope.spawn(|| (0..ROUNDS).map(|n| race(b, format!("b/{}_r/1_x", 3 * n))).collect::<Vec<bool>>());
        for (n, (key, dir)) in makes_key.join().unwrap().into_iter().zip(makes_dir.join().unwrap()).enumerate() {
            assert!(key != dir, "round {n}: key {key}, directory {dir}");
            assert_eq!(is_key(&cluster, 0, &format!("b/{}_r", 3 * n)), key, "round {n}");
            assert_eq!(is_key(&cluster, 1, &format!("b/{}_r/1_x", 3 * n)), dir, "round {n}");
            (keys, dirs) = (keys + usize::from(key), dirs + usize::from(dir));
        }
    });
    println!("{ROUNDS} races: {keys} keys and {dirs} directories");
    assert!(keys > 0 && dirs > 0, "one always wins: {keys} keys and {dirs} directories");
}

#[test]
fn nor_where_the_home_is_killed_in_between() {
    let mut cluster = Cluster::start(3);
    for turn in 0..8 {
        let names: Vec<String> = (0..KILL_EACH).map(|n| format!("b/{}_r", 3 * (turn * KILL_EACH + n))).collect();
        let puts = |below: &str| {
            let urls: Vec<String> = names.iter().map(|name| format!("s4://{name}{below}")).collect();
            let script = urls
                .iter()
                .map(|url| format!("echo x | s4 cp - {url} 2> /dev/null && echo {url}\n"))
                .collect::<String>();
            let mut command = std::process::Command::new("bash");
            let bin = directory();
            let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
            command.args(["-c", &script]).env("S4_CONF_PATH", cluster.conf()).env("PATH", path);
            command.stdout(std::process::Stdio::piped()).spawn().unwrap()
        };
        let (keys, dirs) = (puts(""), puts("/1_x"));
        let made = || std::fs::read_dir(cluster.data(0).join("b")).map_or(0, Iterator::count);
        eventually("some are made", || (made() >= turn * KILL_EACH + 5 * turn).then_some(()));
        cluster.kill_node(0);
        cluster.start_node(0);
        let told = [keys, dirs].map(|child| text(&child.wait_with_output().unwrap().stdout));
        for name in &names {
            let (is_key, is_dir) = (is_key(&cluster, 0, name), is_key(&cluster, 1, &format!("{name}/1_x")));
            assert!(!(is_key && is_dir), "{name} is both");
            assert!(is_key || !told[0].contains(&format!("s4://{name}\n")), "{name}: the key was acknowledged");
            assert!(is_dir || !told[1].contains(&format!("s4://{name}/1_x\n")), "{name}/1_x was acknowledged");
            assert_eq!(cluster.data(0).join(name).is_dir(), is_dir, "{name}: what its home knows");
        }
    }
}

/// Everything below a bucket, as all nodes have it.
fn listed(cluster: &Cluster, dir: &str) -> String {
    text(&cluster.run(&["ls", &format!("s4://{dir}/")]).stdout)
}

#[test]
fn a_directory_goes_with_its_last_key_on_whatever_node() {
    let cluster = Cluster::start(3);
    for node in 0..3 {
        cluster.put(&format!("s4://b/1_d/2_e/{node}_key"), b"content");
    }
    for node in [1, 0, 2] {
        assert!(listed(&cluster, "b").contains("1_d/"));
        cluster.ok(&["rm", &format!("s4://b/1_d/2_e/{node}_key")]);
    }
    assert_eq!(listed(&cluster, "b"), "");
    for node in 0..3 {
        assert!(!cluster.data(node).join("b").exists(), "node {node} still has the bucket");
    }
    // Free again for a key.
    cluster.put("s4://b/1_d", b"content");
}

#[test]
fn what_a_killed_node_entered_and_did_not_make_is_forgotten() {
    let mut cluster = Cluster::start(3);
    cluster.put("s4://b/0_stays", b"content");
    // As if node 1 had been killed after it told the home, and before it made its copy.
    for node in [0, 2] {
        let dir = if node == 0 { "b/0_ghost" } else { "b/2_ghost" };
        let body = format!(r#"{{"node":1,"dirs":["{dir}"]}}"#);
        assert!(post(&cluster, node, "/v1/names/enter", &body).starts_with("HTTP/1.1 200"), "{dir}");
    }
    assert!(listed(&cluster, "b").contains("0_ghost/"));
    cluster.kill_node(1);
    cluster.start_node(1);
    eventually("the ghosts are gone", || (!listed(&cluster, "b").contains("ghost")).then_some(()));
    assert!(listed(&cluster, "b").contains("0_stays"));
}

#[test]
fn a_home_that_lost_its_disk_learns_what_others_hold() {
    let mut cluster = Cluster::start(3);
    for n in 0..20 {
        cluster.put(&format!("s4://b/{}_dir/1_key", 3 * n), b"content");
    }
    cluster.kill_node(0);
    std::fs::remove_dir_all(cluster.data(0)).unwrap();
    cluster.start_node(0);
    for n in 0..20 {
        let mut session = connect(&cluster, 0);
        let stat = exchange(&mut session, &message(&format!(r#"{{"stat":{{"path":"b/{}_dir"}}}}"#, 3 * n)));
        assert!(stat.contains(r#""is":"dir""#), "{n}: {stat}");
    }
    eventually("it knows all", || cluster.data(0).join(".s4/knows-dirs").exists().then_some(()));
    assert!(cluster.data(0).join("b/57_dir").is_dir());
}

#[test]
fn a_node_that_is_down_does_not_hold_up_deletes_of_others() {
    let mut cluster = Cluster::start(3);
    cluster.put("s4://b/2_dir/1_key", b"content");
    cluster.put("s4://b/2_dir/0_key", b"content");
    cluster.kill_node(2);
    let began = std::time::Instant::now();
    cluster.ok(&["rm", "s4://b/2_dir/1_key"]);
    assert!(began.elapsed().as_secs() < 8, "{:?}", began.elapsed());
    cluster.start_node(2);
    cluster.ok(&["rm", "s4://b/2_dir/0_key"]);
    // The first was told to nobody: the home asks.
    eventually("the directory goes", || (!listed(&cluster, "b").contains("2_dir")).then_some(()));
}

/// The head and the body of the answer.
fn post(cluster: &Cluster, node: usize, path: &str, body: &str) -> String {
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: 127.0.0.1:{}\r\ns4-cluster: {}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        cluster.port(node),
        cluster.digest(),
        body.len()
    );
    cluster.raw(node, format!("{head}{body}").as_bytes())
}

#[test]
fn a_put_that_fails_leaves_none_of_the_directories_that_were_made_for_it() {
    let mut cluster = Cluster::start(3);
    cluster.put("s4://b/1_here", b"x");
    cluster.kill_node(2);
    // Below the first directory, whose home is the key's own node, is one whose home is down.
    let refused = cluster.put_output("s4://b/1_made/2_not/1_k", b"x");
    assert!(!refused.status.success() && text(&refused.stderr).contains(&cluster.name(2)), "{}", text(&refused.stderr));
    assert!(!cluster.data(1).join("b/1_made").exists(), "nothing is in it");
}

#[test]
fn a_home_that_was_down_when_a_killed_holder_came_back_is_asked_later() {
    let mut cluster = Cluster::start(2);
    cluster.put("s4://b/0_dir/1_key", b"content");
    // It has nothing to ask at its next start.
    eventually("the home ends in order", || {
        cluster.stop_node(0);
        let is_settled = cluster.data(0).join(".s4/settled").exists();
        if !is_settled {
            cluster.start_node(0);
        }
        is_settled.then_some(())
    });
    cluster.kill_node(1);
    // As if node 1 had been killed after it deleted the key, and before it told the home.
    std::fs::remove_dir_all(cluster.data(1).join("b/0_dir")).unwrap();
    cluster.start_node(1);
    // By then, node 1 has given up to reach the home.
    assert!(!cluster.put_output("s4://b/0_other/1_key", b"content").status.success(), "the home is down");
    cluster.start_node(0);
    eventually("the directory goes", || (!cluster.data(0).join("b/0_dir").exists()).then_some(()));
}

#[test]
fn a_directory_is_not_called_absent_before_all_have_been_heard() {
    let mut cluster = Cluster::start(3);
    cluster.put("s4://b/0_dir/1_key", b"content");
    [0, 1].into_iter().for_each(|node| cluster.kill_node(node));
    std::fs::remove_dir_all(cluster.data(0)).unwrap();
    cluster.start_node(0);
    let rmdir = |cluster: &Cluster| crate::strange_bodies::ask(cluster, "DELETE", "/v1/dirs/b/0_dir", b"");
    // The first may wait for longer than a test reads: a node that refuses connections may just restart.
    let told = eventually("an answer", || Some(rmdir(&cluster)).filter(|told| !told.is_empty()));
    assert!(told.starts_with("HTTP/1.1 5") && told.contains(&cluster.name(1)), "{told}");
    cluster.start_node(1);
    eventually("it is known", || rmdir(&cluster).contains("not empty").then_some(()));
}

#[test]
fn no_directory_is_reached_by_a_link_in_the_data_directory() {
    let cluster = Cluster::start(2);
    cluster.put("s4://b/0_here", b"x");
    let outside = cluster.dir().join("outside");
    std::fs::create_dir_all(outside.join("0_empty")).unwrap();
    std::os::unix::fs::symlink(&outside, cluster.data(0).join("b/0_link")).unwrap();
    // Node 1 would enter the directory at its home, where the link is.
    for key in ["s4://b/0_link/1_k", "s4://b/0_link/0_empty/1_k"] {
        assert!(!cluster.put_output(key, b"x").status.success(), "{key}");
    }
    for (method, dir) in [("POST", "b/0_link"), ("DELETE", "b/0_link/0_empty"), ("POST", "b/0_link/0_empty")] {
        let told = crate::strange_bodies::ask(&cluster, method, &format!("/v1/dirs/{dir}"), b"{\"mode\":448}");
        assert!(told.starts_with("HTTP/1.1 4") || told.starts_with("HTTP/1.1 5"), "{method} {dir}: {told}");
    }
    for path in [outside.clone(), outside.join("0_empty")] {
        assert_eq!(xattr::list(&path).unwrap().count(), 0, "{} was written to", path.display());
    }
}

#[test]
fn a_directory_that_version_0_1_made_stays_when_it_is_empty() {
    let mut cluster = Cluster::start(2);
    cluster.put("s4://b/1_key", b"x");
    cluster.stop_node(0);
    for name in [".s4/settled", ".s4/knows-dirs"] {
        let _ = std::fs::remove_file(cluster.data(0).join(name));
    }
    let old = cluster.data(0).join("b/0_old");
    std::fs::create_dir_all(&old).unwrap();
    xattr::set(&old, "user.s4.made", b"1").unwrap();
    std::fs::create_dir(cluster.data(0).join("b/0_left")).unwrap();
    cluster.start_node(0);
    // One that nobody made goes at such a start.
    eventually("the start has looked at all", || (!cluster.data(0).join("b/0_left").exists()).then_some(()));
    assert!(old.is_dir());
    cluster.put("s4://b/0_old/1_k", b"x");
    cluster.ok(&["rm", "s4://b/0_old/1_k"]);
    assert!(old.is_dir(), "it went with its last key");
}

/// Directories in which so many keys are put at once.
const SHARED: usize = 1000;
const MAKERS: usize = 8;

#[test]
fn directories_that_many_keys_entered_at_once_go_with_them() {
    let cluster = Cluster::start(2);
    let line = Barrier::new(MAKERS);
    std::thread::scope(|scope| {
        for maker in 0..MAKERS {
            let (line, mut session) = (&line, connect(&cluster, 1));
            scope.spawn(move || {
                for n in 0..SHARED {
                    line.wait();
                    assert!(put(&mut session, &format!("b/{}_d/1_{maker}", 2 * n)), "{n}: {maker}");
                }
            });
        }
    });
    cluster.ok(&["rm", "-r", "s4://b/"]);
    assert_no_bucket(&cluster, "b");
}

#[track_caller]
fn assert_no_bucket(cluster: &Cluster, bucket: &str) {
    for node in 0..cluster.len() {
        let left = std::fs::read_dir(cluster.data(node).join(bucket)).map(|dir| dir.flatten().collect::<Vec<_>>());
        assert!(left.is_err(), "node {node} still has the bucket, and in it {left:?}");
    }
}

#[test]
fn a_bucket_is_gone_once_rm_r_has_ended_right_after_a_map() {
    let cluster = Cluster::start(3);
    for n in 0..24 {
        cluster.put(&format!("s4://in/{n}_k"), b"content\n");
    }
    let scatter = "for n in 1 2 3 4 5 6; do echo > ${n}_$filename; echo ${n}_$filename; done";
    for _ in 0..10 {
        cluster.ok(&["map-to-n", "s4://in/", "s4://deep/", scatter]);
        cluster.ok(&["rm", "-r", "s4://deep/"]);
        assert_no_bucket(&cluster, "deep");
        cluster.ok(&["map", "--to-name", "p/q/{/}/r/{/}z", "s4://in/", "s4://deep/", "cat"]);
        cluster.ok(&["rm", "-r", "s4://deep/"]);
        assert_no_bucket(&cluster, "deep");
    }
}

#[test]
fn a_made_directory_is_removed_once_it_is_empty() {
    let cluster = Cluster::start(2);
    let ask = |method: &str, path: &str| {
        let answer = crate::strange_bodies::ask(&cluster, method, path, b"");
        answer.split(' ').nth(1).unwrap_or_default().to_owned()
    };
    let release = || ask("DELETE", "/v1/dirs/b/0_made?once_empty=true");
    assert_eq!(ask("PUT", "/v1/dirs/b/0_made"), "200");
    cluster.put("s4://b/0_made/0_key", b"content");
    cluster.put("s4://b/0_made/1_key", b"content");
    assert_eq!(release(), "200", "it has keys");
    cluster.ok(&["rm", "s4://b/0_made/0_key"]);
    assert_eq!(cluster.ok(&["ls", "-r", "s4://b/"]).lines().count(), 1, "the other key is there");
    cluster.ok(&["rm", "s4://b/0_made/1_key"]);
    let gone = || (0..2).all(|node| !cluster.data(node).join("b").exists()).then_some(());
    eventually("the bucket is gone", gone);

    assert_eq!(release(), "404", "there is none");
    assert_eq!(ask("PUT", "/v1/dirs/b/0_made"), "200");
    assert_eq!(release(), "200", "it is empty");
    eventually("the bucket is gone again", gone);
}

#[test]
fn rm_r_removes_a_made_directory_whichever_node_deletes_first() {
    for first in [0, 1] {
        let cluster = Cluster::start(2);
        let made = crate::strange_bodies::ask(&cluster, "PUT", "/v1/dirs/b/0_made", b"");
        assert!(made.starts_with("HTTP/1.1 200"), "{made}");
        // Its home has a directory in it, which goes with the key of the other node.
        cluster.put("s4://b/0_made/0_below/1_key", b"content");
        for node in [first, 1 - first] {
            let deleted = post(&cluster, node, "/v1/delete?prefix=b/", "");
            assert!(deleted.starts_with("HTTP/1.1 200"), "{deleted}");
        }
        assert_no_bucket(&cluster, "b");
    }
}
