//! Commands that leave trees behind which are hard to delete: file systems mounted in them, directories nested by the ten
//! thousand, links. Nothing outside their directory is touched, and nothing of them is left.

use crate::harness::{Cluster, eventually, text};
use crate::observe::{Marker, end_within, leftovers, spawn};
use crate::strange_bodies::ask;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Directories, each in the one before: more than any stack, path or table of descriptors holds.
const DEPTHS: [u32; 2] = [16_000, 100_000];

fn nest(depth: u32) -> String {
    format!("perl -e 'for (1..{depth}) {{ mkdir \"d\" or die; chdir \"d\" or die }}'")
}

/// A directory that nothing may delete from.
fn precious(cluster: &Cluster) -> PathBuf {
    let dir = cluster.dir().join("precious");
    std::fs::create_dir_all(dir.join("sub")).unwrap();
    for file in ["file", "sub/file"] {
        std::fs::write(dir.join(file), "kept").unwrap();
    }
    // The daemon's user could delete them.
    let owner = std::fs::metadata(cluster.data(0)).unwrap();
    for path in [dir.clone(), dir.join("sub"), dir.join("file"), dir.join("sub/file")] {
        std::os::unix::fs::chown(path, Some(owner.uid()), Some(owner.gid())).unwrap();
    }
    dir
}

fn assert_kept(dir: &Path) {
    for file in ["file", "sub/file"] {
        assert_eq!(std::fs::read_to_string(dir.join(file)).unwrap_or_default(), "kept", "{file} is gone");
    }
}

/// What the daemon sees mounted in its data directory.
fn mounted(cluster: &Cluster) -> Vec<String> {
    let table = std::fs::read_to_string(format!("/proc/{}/mountinfo", cluster.pid(0))).unwrap();
    let data = cluster.data(0);
    table.lines().filter(|line| line.contains(data.to_str().unwrap())).map(str::to_owned).collect()
}

/// Waits until also what is deleted in the background is gone.
fn await_trash(cluster: &Cluster) {
    eventually("the trash is emptied", || {
        std::fs::read_dir(cluster.data(0).join(".s4/trash")).unwrap().next().is_none().then_some(())
    });
}

fn assert_clean(cluster: &Cluster) {
    assert_eq!(mounted(cluster), [""; 0]);
    assert_eq!(leftovers(cluster), Vec::<PathBuf>::new());
}

/// Every user whom a daemon can run as here.
fn clusters() -> impl Iterator<Item = Cluster> {
    [Some(Cluster::start(1)), Cluster::unprivileged(1)].into_iter().flatten()
}

#[test]
fn a_file_system_left_mounted_fails_the_task_and_keeps_its_files() {
    for cluster in clusters() {
        let precious = precious(&cluster);
        let dir = precious.display();
        cluster.put("s4://in/0_a", b"x");
        let bind = cluster.ok(&["eval", "s4://in/0_a", "id -u"]).trim() == "0";
        let mount = if bind { "mount --bind" } else { "bindfs --no-allow-other" };
        let mut left = vec![
            (format!("mkdir m; {mount} {dir} m; cat m/file"), "m"),
            (format!("mkdir -p a/b/m; touch a/b/x; chmod 500 a/b; {mount} {dir} a/b/m"), "a/b/m"),
            (format!("mkdir m n; {mount} {dir} m; {mount} m n"), "m"),
            (format!("mkdir 'a b'; {mount} {dir} 'a b'; touch x"), "a b"),
        ];
        if bind {
            left.push((format!("{mount} {dir} $PWD"), ""));
            left.push((format!("touch f; {mount} {dir}/file f"), "f"));
            left.push((format!("mkdir m; for i in {{1..200}}; do {mount} {dir} m; done"), "m"));
        }
        for (cmd, point) in &left {
            for kind in ["map", "map-to-n", "map-from-n"] {
                let cmd = if kind == "map-to-n" { format!("{cmd} > /dev/null") } else { cmd.clone() };
                let told = cluster.fails(1, &[kind, "s4://in/", "s4://out/", &cmd]);
                assert!(told.contains(&format!("left a file system mounted at {point}")), "{cmd}: {told}");
                assert_kept(&precious);
                eventually("nothing is left", || (leftovers(&cluster).is_empty()).then_some(()));
                assert_clean(&cluster);
            }
            cluster.run(&["eval", "s4://in/0_a", cmd]);
            assert_kept(&precious);
            assert_clean(&cluster);
        }
        cluster.fails(1, &["ls", "s4://out/"]);
        cluster.ok(&["map", "s4://in/", "s4://out/", "cat"]);
    }
}

#[test]
fn a_start_after_a_kill_deletes_no_file_system_that_is_mounted() {
    for mut cluster in clusters() {
        let precious = precious(&cluster);
        cluster.put("s4://in/0_a", b"x");
        let bind = cluster.ok(&["eval", "s4://in/0_a", "id -u"]).trim() == "0";
        let mount = if bind { "mount --bind" } else { "bindfs --no-allow-other" };
        for place in [".", "../..", "../../../idle", "../../../jobs"] {
            // An ordinary user may not cover what is not empty.
            if !bind && place != "." {
                continue;
            }
            let marker = Marker::new();
            let cmd = format!(
                "cd {place}; mkdir -p m/n; {mount} {} m/n; touch mounted; sleep {}",
                precious.display(),
                marker.as_str()
            );
            let id = cluster.ok(&["map", "--detach", "s4://in/", "s4://out/", &cmd]);
            eventually("it is mounted", || (!marker.sleepers().is_empty()).then_some(()));
            cluster.kill_node(0);
            cluster.start_node(0);
            assert_kept(&precious);
            assert_eq!(marker.all(), Vec::<u32>::new());
            let left: Vec<_> = leftovers(&cluster);
            assert_eq!(left, Vec::<PathBuf>::new(), "{place}");
            let told = cluster.fails(1, &["wait", id.trim()]);
            assert!(told.contains("interrupted"), "{place}: {told}");
        }
        assert_eq!(cluster.get("s4://in/0_a"), b"x");
    }
}

#[test]
fn directories_nested_by_the_ten_thousand_are_deleted() {
    for cluster in Cluster::in_memory() {
        cluster.put("s4://in/0_a", b"x");
        for depth in DEPTHS {
            let began = std::time::Instant::now();
            cluster.ok(&["map", "s4://in/", "s4://out/", &format!("{}; echo done", nest(depth))]);
            cluster.ok(&["eval", "s4://in/0_a", &nest(depth)]);
            assert_eq!(leftovers(&cluster), Vec::<PathBuf>::new());
            await_trash(&cluster);
            eprintln!("{depth} levels made and deleted twice: {:?}", began.elapsed());
            assert_eq!(cluster.get("s4://out/0_a"), b"done\n");
            cluster.ok(&["rm", "-r", "s4://out"]);
        }
    }
}

#[test]
fn a_start_deletes_directories_nested_by_the_ten_thousand() {
    for mut cluster in Cluster::in_memory() {
        cluster.put("s4://in/0_a", b"x");
        for depth in DEPTHS {
            let marker = Marker::new();
            let cmd = format!("{}; sleep {}", nest(depth), marker.as_str());
            let id = cluster.ok(&["map", "--detach", "s4://in/", "s4://out/", &cmd]);
            eventually("they are made", || (!marker.sleepers().is_empty()).then_some(()));
            cluster.kill_node(0);
            cluster.start_node(0);
            assert_eq!(leftovers(&cluster), Vec::<PathBuf>::new());
            await_trash(&cluster);
            cluster.fails(1, &["wait", id.trim()]);
        }
    }
}

#[test]
fn deep_directories_among_the_keys_harm_no_listing_and_no_start() {
    for mut cluster in Cluster::in_memory() {
        for key in ["b/0_a", "b/d/0_b"] {
            cluster.put(&format!("s4://{key}"), b"x");
        }
        let bucket = cluster.data(0).join("b");
        cluster.ok(&["eval", "s4://b/0_a", &format!("cd {}/d; {}", bucket.display(), nest(16_000))]);
        for _ in 0..2 {
            let listed = cluster.ok(&["ls", "-r", "s4://b/"]);
            assert_eq!(listed.lines().count(), 2, "{listed}");
            cluster.ok(&["map", "s4://b/", "s4://out/", "cat"]);
            cluster.ok(&["rm", "-r", "s4://out"]);
            cluster.ok(&["health"]);
            cluster.kill_node(0);
            cluster.start_node(0);
        }
        cluster.ok(&["rm", "-r", "s4://b"]);
        cluster.fails(1, &["ls", "-r", "s4://b/"]);
        // Whoever made them has to take them away again.
        cluster.put("s4://c/0_a", b"x");
        let away = format!("rm -rf {} 2>&1 || find {} -depth -delete", bucket.display(), bucket.display());
        cluster.ok(&["eval", "s4://c/0_a", &away]);
    }
}

#[test]
fn nothing_is_deleted_behind_a_link_in_the_data_directory() {
    let cluster = Cluster::start(1);
    let precious = precious(&cluster);
    std::fs::rename(precious.join("file"), precious.join("0_file")).unwrap();
    std::fs::write(precious.join("file"), "kept").unwrap();
    cluster.put("s4://b/0_a", b"x");
    std::os::unix::fs::symlink(&precious, cluster.data(0).join("b/link")).unwrap();
    let told = cluster.fails(1, &["rm", "s4://b/link/0_file"]);
    assert!(told.contains("s4://b/link/0_file") && told.contains("link"), "{told}");
    cluster.run(&["rm", "-r", "s4://b/link/"]);
    assert_eq!(std::fs::read_to_string(precious.join("0_file")).unwrap_or_default(), "kept");
    cluster.ok(&["rm", "-r", "s4://b/0"]);
    assert_kept(&precious);
}

#[test]
fn nothing_is_made_behind_a_link_in_the_data_directory() {
    let cluster = Cluster::start(1);
    let precious = precious(&cluster);
    cluster.put("s4://b/0_key", b"bytes");
    std::os::unix::fs::symlink(&precious, cluster.data(0).join("b/link")).unwrap();
    let content = cluster.dir().join("content");
    std::fs::write(&content, "new").unwrap();
    let content = content.to_str().unwrap();
    for key in ["s4://b/link/0_new", "s4://b/link/sub/0_new", "s4://b/link/new/deep/0_new"] {
        let told = cluster.fails(1, &["cp", content, key]);
        assert!(told.contains(key) && told.contains("is a link, which is not followed"), "{told}");
    }
    for key in ["link/0_key", "link/new/0_key"] {
        let told = ask(&cluster, "POST", &format!("/v1/rename/b/0_key?to=b/{key}"), b"");
        assert!(told.contains("is a link, which is not followed"), "{told}");
    }
    let told = ask(&cluster, "PUT", "/v1/dirs/b/link/new", b"");
    assert!(told.contains("is a link, which is not followed"), "{told}");
    assert_kept(&precious);
    let names = std::fs::read_dir(&precious).unwrap().flatten().map(|entry| entry.file_name());
    assert_eq!(names.collect::<std::collections::BTreeSet<_>>(), ["file", "sub"].map(Into::into).into());
    assert_eq!(std::fs::read_dir(precious.join("sub")).unwrap().count(), 1);
    assert_eq!(cluster.get("s4://b/0_key"), b"bytes");
}

#[test]
fn a_file_system_mounted_among_the_keys_is_not_deleted_from() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: not root, who alone can mount");
        return;
    }
    let cluster = Cluster::start(1);
    let precious = precious(&cluster);
    std::fs::write(precious.join("0_file"), "kept").unwrap();
    cluster.put("s4://b/0_a", b"x");
    cluster.put("s4://b/m/0_b", b"x");
    let at = cluster.data(0).join("b/m");
    let mount = format!("mount --bind {} {}", precious.display(), at.display());
    cluster.ok(&["eval", "s4://b/0_a", &mount]);
    for args in [["rm", "s4://b/m/0_file"].as_slice(), &["rm", "-r", "s4://b"]] {
        let end = end_within(Duration::from_secs(10), spawn(&cluster, args));
        assert_eq!(end.status.code(), Some(1), "{}", text(&end.stderr));
        assert_eq!(std::fs::read_to_string(precious.join("0_file")).unwrap_or_default(), "kept");
        assert_kept(&precious);
    }
    assert!(std::process::Command::new("umount").arg(&at).status().unwrap().success());
}
