//! Power cuts: the kernel's memory is lost, and what the disk has of it is what comes back. Needs root, for an ext4 in a file.

use crate::harness::{Cluster, eventually, text};
use crate::mounts::Mounted;
use crate::observe::{Random, end_within, listed, spawn};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

const MIB: usize = 1 << 20;

/// Cuts the power of node 1's machine, and boots it.
fn cut_and_boot(cluster: &mut Cluster, disk: &Mounted) {
    disk.cut_power();
    cluster.kill_node(1);
    disk.boot();
}

/// Keys of node 1, of many lengths.
fn contents() -> BTreeMap<String, Vec<u8>> {
    let lens = [0, 1, 100, 5000, 70_000, 300_000, 3 * MIB];
    let content = |number: usize| (0..lens[number % lens.len()]).map(|at| (at * 31 + number) as u8).collect();
    (0..40).map(|number| (format!("s4://b/d{}/{}_k{number}", number % 3, 2 * number + 1), content(number))).collect()
}

/// Those of `contents` that are not whole on the disk of node 1.
fn damaged(cluster: &Cluster, contents: &BTreeMap<String, Vec<u8>>) -> usize {
    let on_disk = |key: &str| std::fs::read(cluster.data(1).join(key.strip_prefix("s4://").unwrap()));
    contents.iter().filter(|(key, bytes)| on_disk(key).is_ok_and(|found| found != **bytes)).count()
}

#[test]
fn keys_that_a_power_cut_damaged_are_taken_away_at_the_start() {
    let Some(disk) = Mounted::ext4(128 << 20) else { return };
    let mut cluster = Cluster::on_disk(&disk, &["--reserve", "0"]);
    let contents = contents();
    for (key, bytes) in &contents {
        cluster.put(key, bytes);
    }
    disk.commit_names();
    cut_and_boot(&mut cluster, &disk);
    let damaged = damaged(&cluster, &contents);
    assert!(damaged > 0, "the names are there and the bytes are not, or this shows nothing");
    cluster.start_node(1);
    let whole = listed(&cluster, "s4://b/");
    assert!(whole.len() < contents.len());
    for key in &whole {
        let key = format!("s4://b/{}", key.trim_start_matches("s4://b/").trim_start_matches("b/"));
        assert!(Some(&cluster.get(&key)) == contents.get(&key), "{key}");
    }
    let health = cluster.ok(&["health"]);
    assert!(health.contains(&format!("{damaged} keys that a power cut damaged")), "{health}");
    assert!(cluster.log_text(1).contains("not whole, taken away"), "{}", cluster.log_text(1));
    for (key, bytes) in &contents {
        let put = cluster.put_output(key, bytes);
        assert!(put.status.success() || text(&put.stderr).contains("already exists"), "{}", text(&put.stderr));
        assert!(cluster.get(key) == *bytes, "{key}");
    }
    // What was made later is on the disk by an orderly stop and boot, and none of it is in question then.
    cluster.stop_node(1);
    disk.boot();
    cluster.start_node(1);
    assert_eq!(listed(&cluster, "s4://b/").len(), contents.len());
    assert!(!cluster.ok(&["health"]).contains("power cut"));
}

#[test]
fn keys_made_shortly_before_an_orderly_end_are_looked_at_after_a_power_cut() {
    let Some(disk) = Mounted::ext4(128 << 20) else { return };
    let mut cluster = Cluster::on_disk(&disk, &["--reserve", "0"]);
    // From here on the note of the last sync is on the disk.
    cluster.stop_node(1);
    cluster.start_node(1);
    let contents = contents();
    for (key, bytes) in &contents {
        cluster.put(key, bytes);
    }
    disk.commit_names();
    cluster.stop_node(1);
    disk.cut_power();
    disk.boot();
    assert!(damaged(&cluster, &contents) > 0, "the names are there and the bytes are not, or this shows nothing");
    cluster.start_node(1);
    assert_eq!(damaged(&cluster, &contents), 0, "{}", cluster.log_text(1));
    assert!(!cluster.log_text(1).contains("synced is damaged"), "{}", cluster.log_text(1));
}

/// Ways to delete what is in `s4://b/d/`: keys of both nodes, and a directory whose home is node 0.
const DELETIONS: [&[&str]; 2] = [&["rm", "-r", "s4://b/0_d/"], &["rm", "s4://b/0_d/1_k"]];

/// A cluster in which the disk has `s4://b/0_d/1_k`, on node 1, and its deletion was answered.
fn deleted(disk: &Mounted, options: &[&str], deletion: &[&str]) -> Cluster {
    let cluster = Cluster::on_disk(disk, &[&["--reserve", "0"], options].concat());
    cluster.put("s4://b/0_d/1_k", b"content");
    disk.sync();
    cluster.ok(deletion);
    assert_eq!(listed(&cluster, "s4://b/"), [""; 0]);
    cluster
}

#[test]
fn with_fsync_a_deleted_key_does_not_come_back_after_a_power_cut() {
    for deletion in DELETIONS {
        let Some(disk) = Mounted::ext4(64 << 20) else { return };
        let mut cluster = deleted(&disk, &["--fsync"], deletion);
        cut_and_boot(&mut cluster, &disk);
        cluster.start_node(1);
        assert_eq!(listed(&cluster, "s4://b/"), [""; 0], "{deletion:?}");
    }
}

/// The home of its directory has dropped it with the deletion.
#[test]
fn a_key_whose_deletion_is_lost_in_a_power_cut_is_back_with_its_directory() {
    for deletion in DELETIONS {
        let Some(disk) = Mounted::ext4(64 << 20) else { return };
        let mut cluster = deleted(&disk, &[], deletion);
        cut_and_boot(&mut cluster, &disk);
        cluster.start_node(1);
        assert_eq!(listed(&cluster, "s4://b/").len(), 1, "the disk had no deletion, or this shows nothing");
        eventually("its home knows the directory", || cluster.data(0).join("b/0_d").is_dir().then_some(()));
        assert!(cluster.fails(1, &["cp", "s4.conf", "s4://b/0_d"]).contains("directory of this name exists"));
        cluster.ok(&["rm", "-r", "s4://b/"]);
        assert!(!cluster.data(0).join("b").exists(), "the directory goes with the key");
    }
}

#[test]
fn a_directory_that_came_back_is_told_to_its_home_however_often_the_daemon_starts_before() {
    let Some(disk) = Mounted::ext4(64 << 20) else { return };
    let mut cluster = deleted(&disk, &[], DELETIONS[1]);
    cut_and_boot(&mut cluster, &disk);
    cluster.stop_node(0);
    cluster.start_node(1);
    cluster.kill_node(1);
    cluster.start_node(1);
    cluster.stop_node(1);
    cluster.start_node(1);
    cluster.start_node(0);
    assert_eq!(listed(&cluster, "s4://b/").len(), 1, "the disk had no deletion, or this shows nothing");
    eventually("its home knows the directory", || cluster.data(0).join("b/0_d").is_dir().then_some(()));
}

#[test]
fn a_daemon_that_is_killed_reads_nothing_at_its_start() {
    let mut cluster = Cluster::start(1);
    cluster.put("s4://b/0_k", &vec![7; 3 * MIB]);
    cluster.kill_node(0);
    cluster.start_node(0);
    assert!(!cluster.log_text(0).contains("are read"), "{}", cluster.log_text(0));
    assert_eq!(cluster.get("s4://b/0_k").len(), 3 * MIB);
}

#[test]
fn a_damaged_note_of_the_last_sync_has_the_last_keys_read() {
    let mut cluster = Cluster::start(1);
    cluster.put("s4://b/0_whole", b"whole");
    cluster.put("s4://b/0_cut", b"to be cut");
    cluster.kill_node(0);
    std::fs::write(cluster.data(0).join(".s4/synced"), "").unwrap();
    let cut = cluster.data(0).join("b/0_cut");
    std::fs::write(&cut, "to").unwrap();
    cluster.start_node(0);
    assert!(!cut.exists(), "{}", cluster.log_text(0));
    assert_eq!(cluster.get("s4://b/0_whole"), b"whole");
}

#[test]
fn keys_that_the_disk_refused_to_take_are_taken_away_at_the_next_start() {
    let Some(disk) = Mounted::ext4_that_fills(64 << 20) else { return };
    let mut cluster = Cluster::on_disk(&disk, &["--reserve", "0"]);
    cluster.put("s4://b/1_before", &vec![6; 3 * MIB]);
    disk.fill_disk();
    cluster.put("s4://b/1_refused", &vec![7; 3 * MIB]);
    // As any program may sync: the kernel has told somebody then, and tells none who opens the disk later.
    assert!(disk.try_sync().is_err(), "the disk refuses it, or this shows nothing");
    disk.empty_disk();
    let began = Instant::now();
    while !cluster.log_text(1).contains("cannot sync") {
        assert!(began.elapsed() < Duration::from_secs(60), "the daemon's own sync: {}", cluster.log_text(1));
        std::thread::park_timeout(Duration::from_millis(50));
    }
    // Its next one succeeds, which means nothing for what was refused.
    cluster.put("s4://b/1_after", b"after");
    let health = || text(&cluster.run(&["health"]).stdout);
    assert!(health().contains("refused a write"), "{}", health());
    cluster.stop_node(1);
    cluster.start_node(1);
    let health = cluster.ok(&["health"]);
    assert!(!health.contains("refused a write"), "{health}");
    assert!(cluster.log_text(1).contains("s4://b/1_refused: not whole, taken away"), "{}", cluster.log_text(1));
    assert!(cluster.fails(1, &["cp", "s4://b/1_refused", "-"]).contains("no such key"));
    assert!(cluster.get("s4://b/1_before") == vec![6; 3 * MIB]);
    assert_eq!(cluster.get("s4://b/1_after"), b"after");
}

#[test]
fn with_fsync_a_power_cut_loses_no_key_and_not_whose_the_directory_is() {
    let Some(disk) = Mounted::ext4(128 << 20) else { return };
    let mut cluster = Cluster::on_disk(&disk, &["--reserve", "0", "--fsync"]);
    let contents = contents();
    for (key, bytes) in &contents {
        cluster.put(key, bytes);
    }
    cut_and_boot(&mut cluster, &disk);
    cluster.start_node(1);
    assert_eq!(listed(&cluster, "s4://b/").len(), contents.len());
    for (key, bytes) in &contents {
        assert!(cluster.get(key) == *bytes, "{key}");
    }
    assert!(!cluster.log_text(1).contains(".s4/node"), "{}", cluster.log_text(1));
}

/// How often the power is cut in each mode and in each kind of work; `S4_TEST_POWER_CUTS` asks for more.
fn cuts() -> u64 {
    std::env::var("S4_TEST_POWER_CUTS").map_or(1, |cuts| cuts.parse().unwrap())
}

const INPUTS: usize = 60;

/// A bucket of inputs on both nodes, on the disk.
fn make_inputs(cluster: &Cluster, disk: &Mounted) {
    let tree = cluster.dir().join("tree");
    std::fs::create_dir(&tree).unwrap();
    for number in 0..INPUTS {
        std::fs::write(tree.join(format!("{number}_in")), format!("{number}\n").repeat(3000)).unwrap();
    }
    cluster.ok(&["cp", "-r", tree.to_str().unwrap(), "s4://in/"]);
    disk.sync();
}

/// What `command` makes of the inputs when nothing happens, by the keys below `outdir`, and is to make when the power is cut.
fn outputs(cluster: &Cluster, outdir: &str) -> BTreeMap<String, Vec<u8>> {
    listed(cluster, outdir).into_iter().map(|key| (key.clone(), cluster.get(&format!("{outdir}{key}")))).collect()
}

/// Cuts the power of node 1 in the middle of `work` into a bucket, and has it finished by `resumed`.
fn cut_in(random: &mut Random, options: &[&str], work: &[&str], resumed: &[&str]) {
    let Some(disk) = Mounted::ext4(256 << 20) else { return };
    let mut cluster = Cluster::on_disk(&disk, options);
    make_inputs(&cluster, &disk);
    let tree = cluster.dir().join("tree").to_str().unwrap().to_owned();
    let with = |args: &[&str], outdir: &str| -> Vec<String> {
        args.iter().map(|arg| arg.replace("OUT", outdir).replace("TREE", &tree)).collect()
    };
    let run = |cluster: &Cluster, args: &[String]| cluster.run(&args.iter().map(String::as_str).collect::<Vec<_>>());
    assert!(run(&cluster, &with(work, "s4://clean/")).status.success());
    let clean = outputs(&cluster, "s4://clean/");
    for cut in 0..cuts() {
        let bucket = format!("out{cut}");
        let outdir = format!("s4://{bucket}/");
        let (after, commits) = (random.below(INPUTS as u64 / 2) as usize, random.below(2) == 0);
        let mut client = {
            let args = with(work, &outdir);
            spawn(&cluster, &args.iter().map(String::as_str).collect::<Vec<_>>())
        };
        let made = |cluster: &Cluster| {
            let files = walkdir::WalkDir::new(cluster.data(1).join(&bucket)).into_iter().flatten();
            files.filter(|entry| entry.file_type().is_file()).count()
        };
        eventually("some outputs", || (made(&cluster) >= after || client.try_wait().unwrap().is_some()).then_some(()));
        if commits {
            disk.commit_names();
        }
        cut_and_boot(&mut cluster, &disk);
        let end = end_within(Duration::from_secs(40), client);
        cluster.start_node(1);
        let mended = run(&cluster, &with(resumed, &outdir));
        let how = format!(
            "{options:?} {work:?}, cut {cut} after {after} outputs, names committed: {commits}; before: {}",
            end.status
        );
        // A second put of a key that was whole says so.
        let said = text(&mended.stderr);
        assert!(mended.status.success() || work[0] == "cp" && said.contains("already exists"), "{how}: {said}");
        let found = outputs(&cluster, &outdir);
        let differing: Vec<_> =
            clean.iter().filter(|(key, bytes)| found.get(*key) != Some(bytes)).map(|(key, _)| key).collect();
        assert!(
            differing.is_empty() && found.len() == clean.len(),
            "{how}: {} of {}: {differing:?}",
            found.len(),
            clean.len()
        );
        eprintln!("{how}: whole");
    }
}

fn cut_in_both_modes(work: &[&str], resumed: &[&str]) {
    let mut random = Random::new();
    cut_in(&mut random, &["--reserve", "0"], work, resumed);
    cut_in(&mut random, &["--reserve", "0", "--fsync"], work, resumed);
}

#[test]
fn puts_in_which_the_power_is_cut_are_made_whole_by_the_same_command() {
    let work = ["cp", "-r", "TREE", "OUT"];
    cut_in_both_modes(&work, &work);
}

#[test]
fn a_map_in_which_the_power_is_cut_is_made_whole_by_resume() {
    let work = ["map", "s4://in/", "OUT", "sleep 0.02; cat; echo end"];
    cut_in_both_modes(&work, &["map", "--resume", "s4://in/", "OUT", "sleep 0.02; cat; echo end"]);
}

#[test]
fn a_shuffle_in_which_the_power_is_cut_is_made_whole_by_resume() {
    let cmd = "for n in 0 1 2; do tail -c +$n > ${n}_x; done; cat > 3_x; echo 0_x 1_x 2_x 3_x | tr ' ' '\\n'";
    let work = ["map-to-n", "s4://in/", "OUT", cmd];
    cut_in_both_modes(&work, &["map-to-n", "--resume", "s4://in/", "OUT", cmd]);
}

#[test]
fn a_merge_in_which_the_power_is_cut_is_made_whole_by_resume() {
    let cmd = "sleep 0.02; xargs -d '\\n' cat | sort -n";
    let work = ["map-from-n", "s4://in/", "OUT", cmd];
    cut_in_both_modes(&work, &["map-from-n", "--resume", "s4://in/", "OUT", cmd]);
}
