//! A data directory that goes away under a running daemon: everything that would need it is an error, and nothing is an empty
//! listing.

use crate::harness::{Cluster, eventually, text};
use crate::mounting::{Mount, no_mounts};
use crate::mounts::Mounted;
use crate::observe::listed;
use std::path::Path;
use std::process::{Command, Stdio};

/// How a data directory goes away.
#[derive(Debug, Clone, Copy)]
enum Loss {
    Moved,
    Removed,
    /// Another is in its place.
    Replaced,
}

impl Loss {
    fn happens_to(self, data: &Path) {
        match self {
            Self::Moved => std::fs::rename(data, data.with_extension("moved")).unwrap(),
            Self::Removed => std::fs::remove_dir_all(data).unwrap(),
            Self::Replaced => {
                Self::Moved.happens_to(data);
                std::fs::create_dir_all(data.join(".s4/drafts")).unwrap();
            }
        }
    }
}

fn put_keys(cluster: &Cluster) {
    for number in 0..8 {
        cluster.put(&format!("s4://b/d/{number}_k"), b"content\n");
    }
}

/// Everything that needs node 1 fails, with a reason that names the node and its data directory.
fn assert_all_fails(cluster: &Cluster, how: &str) {
    let ways: [&[&str]; 18] = [
        &["ls"],
        &["ls", "s4://b/"],
        &["ls", "-r", "s4://b/"],
        &["ls", "-r", "s4://none/"],
        &["cp", "s4://b/d/1_k", "-"],
        &["cp", "s4://b/d/1_none", "-"],
        &["cp", "-r", "s4://b/", "tree"],
        &["cp", "s4.conf", "s4://b/d/1_new"],
        &["cp", "s4.conf", "s4://new/1_new"],
        &["eval", "s4://b/d/1_k", "cat"],
        &["map", "s4://b/", "s4://out/", "cat"],
        &["map", "--dry-run", "s4://b/", "s4://out/", "cat"],
        &["map-to-n", "s4://b/", "s4://out/", "cat > 0_x; echo 0_x"],
        &["map-from-n", "s4://b/", "s4://out/", "xargs cat"],
        &["rm", "s4://b/d/1_k"],
        &["rm", "-r", "s4://none"],
        &["rm", "-r", "s4://b"],
        &["health"],
    ];
    let mut wrong = Vec::new();
    for way in ways {
        let output = cluster.run(way);
        let said = format!("{}{}", text(&output.stdout), text(&output.stderr));
        if output.status.code() != Some(1)
            || !said.contains("data directory")
            || !said.contains(&cluster.port(1).to_string())
        {
            wrong.push(format!("{way:?}: {}: {said}", output.status));
        }
    }
    assert!(wrong.is_empty(), "{how}: {wrong:#?}");
    assert!(
        !cluster.data(1).join("new").exists() && !cluster.data(1).join("b").exists(),
        "{how}: nothing is made in its place"
    );
}

fn assert_all_fails_after(loss: Loss) {
    let cluster = Cluster::start(2);
    put_keys(&cluster);
    loss.happens_to(&cluster.data(1));
    assert_all_fails(&cluster, &format!("{loss:?}"));
    // The removals that failed took what the other node has.
    assert!(cluster.fails(1, &["cp", "s4://b/d/0_k", "-"]).contains("no such key"));
}

#[test]
fn a_data_directory_that_is_moved_is_an_error_everywhere_until_it_is_back() {
    let cluster = Cluster::start(2);
    put_keys(&cluster);
    let moved = cluster.data(1).with_extension("moved");
    Loss::Moved.happens_to(&cluster.data(1));
    assert_all_fails(&cluster, "moved");
    std::fs::rename(moved, cluster.data(1)).unwrap();
    cluster.ok(&["health"]);
    assert_eq!(listed(&cluster, "s4://b/").len(), 4, "node 1's keys");
    assert_eq!(cluster.get("s4://b/d/1_k"), b"content\n");
    cluster.put("s4://b/d/1_new", b"new");
}

/// Its commands go on, write logs, and others would begin.
#[test]
fn a_job_makes_nothing_in_place_of_a_data_directory_that_is_moved() {
    let cluster = Cluster::start(2);
    put_keys(&cluster);
    let (go, started) = (cluster.dir().join("go"), cluster.dir().join("started"));
    let cmd = format!(
        "touch {}.$S4_NODE; until [ -e {} ]; do sleep 0.02; done; echo one >&2; cat",
        started.display(),
        go.display()
    );
    let mut map = cluster.command(&["map", "--jobs", "1", "--keep-going", "s4://b/", "s4://out/", &cmd]);
    let map = map.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    eventually("both nodes run a command", || {
        let all = (0..2).all(|node| started.with_extension(node.to_string()).exists());
        all.then_some(())
    });
    Loss::Moved.happens_to(&cluster.data(1));
    std::fs::write(&go, "").unwrap();
    let output = map.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    assert!(!cluster.data(1).exists(), "{}", text(&output.stderr));
    std::fs::rename(cluster.data(1).with_extension("moved"), cluster.data(1)).unwrap();
    cluster.ok(&["map", "--resume", "s4://b/", "s4://out/", &cmd]);
    assert_eq!(listed(&cluster, "s4://out/").len(), 8);
}

#[test]
fn a_data_directory_that_is_removed_is_an_error_everywhere() {
    assert_all_fails_after(Loss::Removed);
}

#[test]
fn a_data_directory_with_an_empty_one_in_its_place_is_an_error_everywhere() {
    assert_all_fails_after(Loss::Replaced);
}

#[test]
fn a_data_directory_whose_disk_is_unmounted_is_an_error_everywhere() {
    let Some(disk) = Mounted::ext4(64 << 20) else { return };
    let cluster = Cluster::on_disk(&disk, &["--reserve", "0"]);
    put_keys(&cluster);
    let status = Command::new("umount").arg("-l").arg(disk.data().parent().unwrap()).status();
    assert!(status.unwrap().success());
    assert_all_fails(&cluster, "unmounted");
}

#[test]
fn a_mount_gives_eio_for_what_was_in_a_data_directory_that_is_gone() {
    if let Some(reason) = no_mounts() {
        eprintln!("skipped: {reason}");
        return;
    }
    let cluster = Cluster::start(2);
    put_keys(&cluster);
    // Node 1 is local to it, so that it reads the directory itself.
    let mount = Mount::new(&cluster, "m", &[]);
    mount.ok("cat b/d/1_k");
    let data = cluster.data(1);
    Loss::Replaced.happens_to(&data);
    for script in [
        "ls b",
        "ls b/d",
        "cat b/d/1_k",
        "cat b/d/3_k",
        "stat b/d/1_none",
        "stat b/none",
        "echo x > b/d/1_new",
        "rm b/d/5_k",
        "find b",
        "mkdir b/1_dir",
        "cp -r b copy",
    ] {
        let said = mount.fails(script);
        assert!(said.contains("Input/output error"), "{script}: {said}");
    }
    std::fs::remove_dir_all(&data).unwrap();
    std::fs::rename(data.with_extension("moved"), &data).unwrap();
    mount.ok("cat b/d/*_k && echo x > b/d/1_new && rm b/d/5_k");
}
