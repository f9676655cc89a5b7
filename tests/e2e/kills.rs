//! SIGKILL at any moment, of a daemon and of a client.

use crate::harness::{Cluster, Port, eventually, text};
use crate::observe::{Marker, Random, end_within, leftovers, listed, spawn};
use crate::programs::program;
use std::collections::BTreeMap;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

const FILES: u64 = 1000;
const ROUNDS: u64 = 6;

type Contents = BTreeMap<String, Vec<u8>>;

fn make_source(dir: &Path, random: &mut Random) -> Contents {
    let mut contents = Contents::new();
    for number in 0..FILES {
        let (name, len) = (format!("d{}/{number}_file", number % 7), random.below(3000));
        contents.insert(name, random.bytes(len));
    }
    for (name, bytes) in &contents {
        std::fs::create_dir_all(dir.join(name).parent().unwrap()).unwrap();
        std::fs::write(dir.join(name), bytes).unwrap();
    }
    contents
}

/// Every file below `dir`, by its path there.
fn read_tree(dir: &Path) -> Contents {
    let files = walkdir::WalkDir::new(dir).into_iter().map(Result::unwrap).filter(|entry| entry.file_type().is_file());
    files
        .map(|file| {
            let name = file.path().strip_prefix(dir).unwrap().to_str().unwrap().to_owned();
            (name, std::fs::read(file.path()).unwrap())
        })
        .collect()
}

/// Keys that node `node` holds of `bucket`.
fn count_keys(cluster: &Cluster, node: usize, bucket: &str) -> usize {
    let entries = walkdir::WalkDir::new(cluster.data(node).join(bucket)).into_iter().flatten();
    entries.filter(|entry| entry.file_type().is_file()).count()
}

#[test]
fn a_daemon_killed_among_puts_keeps_every_key_whole() {
    let mut random = Random::new();
    let mut cluster = Cluster::start(2);
    let source = cluster.dir().join("source");
    let contents = make_source(&source, &mut random);
    for round in 0..ROUNDS {
        let bucket = format!("round{round}");
        let after = random.below(FILES / 2) as usize;
        let mut client = spawn(&cluster, &["cp", "-r", source.to_str().unwrap(), &format!("s4://{bucket}/")]);
        eventually("the node holds some keys", || {
            let is_over = client.try_wait().unwrap().is_some();
            (is_over || count_keys(&cluster, 1, &bucket) >= after).then_some(())
        });
        cluster.kill_node(1);
        let end = end_within(Duration::from_secs(15), client);
        let stderr = text(&end.stderr);
        assert!(end.status.success() || stderr.contains(&cluster.name(1)), "round {round}: {stderr}");
        cluster.start_node(1);
        assert_eq!(leftovers(&cluster), Vec::<std::path::PathBuf>::new());
        // What the client had sent to the other node when it gave up may still be published.
        let keys = eventually("the listing and the tree are the same", || {
            let keys = listed(&cluster, &format!("s4://{bucket}/"));
            if keys.is_empty() {
                return Some(keys);
            }
            let fetched = cluster.dir().join(format!("fetched{round}"));
            cluster.ok(&["cp", "-r", &format!("s4://{bucket}/"), fetched.to_str().unwrap()]);
            let tree = read_tree(&fetched);
            let damaged: Vec<_> = tree.iter().filter(|(name, bytes)| contents.get(*name) != Some(bytes)).collect();
            assert!(damaged.is_empty(), "round {round}: not as they were put: {damaged:?}");
            std::fs::remove_dir_all(fetched).unwrap();
            keys.iter().eq(tree.keys()).then_some(keys)
        });
        eprintln!("round {round}: killed after {after}, {} keys stand", keys.len());
    }
    cluster.ok(&["cp", "-r", source.to_str().unwrap(), "s4://whole/"]);
    assert_eq!(listed(&cluster, "s4://whole/").len() as u64, FILES, "the cluster takes puts as before");
}

#[test]
fn a_daemon_killed_in_a_job_leaves_no_process_after_its_restart() {
    let mut cluster = Cluster::start(2);
    let marker = Marker::new();
    for key in ["0_a", "1_b", "3_c"] {
        cluster.put(&format!("s4://in/{key}"), b"x");
    }
    let number = marker.as_str();
    let cmd = format!("echo $$ > pid; setsid bash -c 'trap \"\" TERM; sleep {number}; :' & sleep {number}; wait");
    let client = spawn(&cluster, &["map", "s4://in/", "s4://out/", &cmd, "--deadline", "3"]);
    eventually("six sleeps", || (marker.sleepers().len() == 6).then_some(()));
    cluster.kill_node(1);
    let end = end_within(Duration::from_secs(5), client);
    let stderr = text(&end.stderr);
    assert_eq!(end.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains(&cluster.name(1)), "{stderr}");
    cluster.start_node(1);
    assert_eq!(marker.all(), Vec::<u32>::new(), "the commands of the dead daemon are gone");
    assert_eq!(leftovers(&cluster), Vec::<std::path::PathBuf>::new());
    cluster.fails(1, &["ls", "-r", "s4://out/"]);
    cluster.ok(&["map", "s4://in/", "s4://out/", "cat"]);
}

/// A daemon with `own` at `data`, in a mount namespace of its own.
fn daemon_in_a_namespace(own: &Path, data: &Path, conf: &Path, port: u16, more: &str) -> Command {
    let script = r#"mount --bind "$0" "$1" && exec "$2" --conf "$3" --data "$1" --port "$4" $5"#;
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c", script]).arg(own).arg(data).arg(program("s4-server")).arg(conf);
    command.args([&port.to_string(), more]).stdout(Stdio::null());
    command
}

#[test]
fn a_daemon_ends_no_commands_of_another_whose_data_has_the_same_path() {
    if !nix::unistd::geteuid().is_root() {
        return eprintln!("skipped: not root, who alone can make mount namespaces");
    }
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    std::fs::create_dir(&data).unwrap();
    let mut ran = Vec::new();
    for number in 0..2 {
        let (port, own) = (Port::claim(), dir.path().join(format!("own-{number}")));
        let conf = dir.path().join(format!("conf-{number}"));
        std::fs::create_dir(&own).unwrap();
        std::fs::write(&conf, format!("127.0.0.1:{}\n", port.number())).unwrap();
        let made =
            daemon_in_a_namespace(&own, &data, &conf, port.number(), "--init").stderr(Stdio::piped()).output().unwrap();
        assert!(made.status.success(), "{}", text(&made.stderr));
        let daemon = Ended(daemon_in_a_namespace(&own, &data, &conf, port.number(), "").spawn().unwrap());
        let s4 = move |args: &[&str]| {
            let mut command = Command::new(program("s4"));
            command.arg("-c").arg(&conf).args(args).stdin(Stdio::null());
            command
        };
        eventually("the daemon answers", || s4(&["health"]).output().unwrap().status.success().then_some(()));
        ran.push((daemon, s4, port));
    }
    let (mut second, _, _port) = ran.pop().unwrap();
    let (_first, s4, _first_port) = ran.pop().unwrap();
    let (begun, go) = (dir.path().join("begun"), dir.path().join("go"));
    nix::unistd::mkfifo(&go, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let cmd = format!("touch {}; cat {}", begun.display(), go.display());
    let run = s4(&["run", &cmd]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    eventually("the command runs", || begun.exists().then_some(()));
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(second.0.id() as i32), nix::sys::signal::Signal::SIGTERM)
        .unwrap();
    assert!(second.0.wait().unwrap().success(), "the other daemon ends");
    let open = || std::fs::OpenOptions::new().write(true).custom_flags(nix::libc::O_NONBLOCK).open(&go).ok();
    eventually("the command still reads", open).write_all(b"went on\n").unwrap();
    let output = run.wait_with_output().unwrap();
    assert_eq!(text(&output.stdout), "node 0: went on\n", "{}", text(&output.stderr));
}

/// Guard: kills the process when it is dropped.
struct Ended(std::process::Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Bytes in unnamed files that the daemon of `node` holds open: puts under way.
fn unnamed_bytes(cluster: &Cluster, node: usize) -> u64 {
    let data = cluster.data(node).canonicalize().unwrap();
    let descriptors = std::fs::read_dir(format!("/proc/{}/fd", cluster.pid(node))).unwrap().flatten();
    let unnamed = descriptors.filter(|fd| {
        let target = std::fs::read_link(fd.path()).unwrap_or_default();
        target.starts_with(&data) && target.to_string_lossy().ends_with(" (deleted)")
    });
    unnamed.filter_map(|fd| std::fs::metadata(fd.path()).ok()).map(|found| found.len()).sum()
}

#[test]
fn a_client_killed_in_a_put_leaves_no_key() {
    let cluster = Cluster::start(1);
    let mut command = cluster.command(&["cp", "-", "s4://b/0_large"]);
    let mut client = command.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = client.stdin.take().unwrap();
    stdin.write_all(&vec![7; 8 << 20]).unwrap();
    eventually("the node has megabytes of the key", || (unnamed_bytes(&cluster, 0) > 4 << 20).then_some(()));
    client.kill().unwrap();
    assert_eq!(client.wait().unwrap().signal(), Some(9));
    drop(stdin);
    eventually("the node has given the bytes up", || (unnamed_bytes(&cluster, 0) == 0).then_some(()));
    cluster.fails(1, &["ls", "-r", "s4://b/"]);
    assert!(!cluster.data(0).join("b/0_large").exists());
    cluster.put("s4://b/0_large", b"another");
    assert_eq!(cluster.get("s4://b/0_large"), b"another");
}
