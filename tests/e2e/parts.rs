//! Parts of keys: each is compared with what was recorded when the key was published, before a byte of it is delivered.

use crate::harness::{Cluster, eventually, text};
use crate::mounting::{Mount, no_mounts};
use s4::blocks::{BLOCKS_ATTRIBUTE, LEAF, Table, leaf_sum};
use s4::checksum::Checksum;
use std::fs::{OpenOptions, Permissions};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;

const LEN: usize = 5 * LEAF as usize + 1234;

fn content() -> Vec<u8> {
    (0..LEN as u64).map(|at| (at.wrapping_mul(at) >> 11) as u8).collect()
}

/// Changes bytes of a key's file in place.
fn flip(path: &Path, offsets: &[u64]) {
    std::fs::set_permissions(path, Permissions::from_mode(0o644)).unwrap();
    let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
    for &offset in offsets {
        let mut byte = [0];
        file.read_exact_at(&mut byte, offset).unwrap();
        file.write_all_at(&[byte[0] ^ 1], offset).unwrap();
    }
    std::fs::set_permissions(path, Permissions::from_mode(0o444)).unwrap();
}

/// Reads parts of a key through `mount` in many ways; what comes must be of `content`, and an error where a leaf of it is `damaged`.
fn check_parts(mount: &Mount, key: &str, content: &[u8], damaged: &[u64]) {
    let mib = 1 << 20;
    let parts = [
        (0, 1),
        (0, 4096),
        (0, mib),
        (100, 3 * LEAF as usize),
        (LEAF as usize - 1, 2),
        (2 * mib, 100_000),
        (LEN - 1, 1),
        (0, LEN),
    ];
    let mut wrong = Vec::new();
    for (start, len) in parts {
        for script in [
            format!("dd if={key} iflag=skip_bytes,count_bytes skip={start} count={len} bs=64K status=none"),
            format!("tail -c +{} {key} | head -c {len}", start + 1),
            format!(
                "python3 -c 'import mmap,sys; f=open(\"{key}\"); m=mmap.mmap(f.fileno(),0,prot=1); sys.stdout.buffer.write(m[{start}:{}])'",
                start + len
            ),
        ] {
            let output = mount.sh(&script);
            let wanted = &content[start..start + len];
            let is_damaged = damaged
                .iter()
                .any(|at| at / LEAF * LEAF < (start + len) as u64 && at / LEAF * LEAF + LEAF > start as u64);
            let is_right = match is_damaged {
                false => output.stdout == wanted,
                // Before the error, only what was stored.
                true => output.stdout.len() < len && wanted.starts_with(&output.stdout),
            };
            if !is_right {
                wrong.push(format!(
                    "{script}: {} bytes, {}: {}",
                    output.stdout.len(),
                    output.status,
                    text(&output.stderr)
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "damaged at {damaged:?}: {wrong:#?}");
}

fn check_damage(offsets: &[u64], prepare: impl Fn(&Path)) {
    let cluster = Cluster::start(2);
    let content = content();
    cluster.put("s4://b/1_k", &content);
    let file = cluster.data(1).join("b/1_k");
    prepare(&file);
    flip(&file, offsets);
    let mount = Mount::with_remote_nodes(&cluster, "m", &[0, 1], &[]);
    check_parts(&mount, "b/1_k", &content, offsets);
}

#[test]
fn a_flipped_byte_is_never_delivered_through_a_remote_mount_and_harms_no_other_part() {
    if let Some(reason) = no_mounts() {
        eprintln!("skipped: {reason}");
        return;
    }
    check_damage(&[], |_| {});
    check_damage(&[0], |_| {});
    check_damage(&[2 * LEAF + 77], |_| {});
    check_damage(&[LEN as u64 - 1], |_| {});
}

#[test]
fn a_key_without_sums_of_its_parts_is_compared_whole_before_a_part_is_delivered() {
    if let Some(reason) = no_mounts() {
        eprintln!("skipped: {reason}");
        return;
    }
    let without = |file: &Path| xattr::remove(file, BLOCKS_ATTRIBUTE).unwrap();
    let with_others = |file: &Path| xattr::set(file, BLOCKS_ATTRIBUTE, &[1; 32]).unwrap();
    check_damage(&[], without);
    check_damage(&[], with_others);
    let cluster = Cluster::start(2);
    cluster.put("s4://b/1_k", &content());
    let file = cluster.data(1).join("b/1_k");
    without(&file);
    flip(&file, &[LEN as u64 - 1]);
    let mount = Mount::with_remote_nodes(&cluster, "m", &[0, 1], &[]);
    assert!(mount.fails("head -c 1 b/1_k").contains("Input/output error"));
}

/// Fails unless the key at `file` has the sums of its parts.
fn assert_has_sums(file: &Path, how: &str) {
    let bytes = std::fs::read(file).unwrap();
    let table = xattr::get(file, BLOCKS_ATTRIBUTE).unwrap().unwrap_or_else(|| panic!("{how}: no table"));
    let expected = Table::of(bytes.chunks(LEAF as usize).map(leaf_sum).collect());
    assert_eq!(Table::decode(&table, Checksum::of(&bytes)), Some(expected), "{how}");
}

#[test]
fn every_way_to_make_a_key_records_the_sums_of_its_parts() {
    let cluster = Cluster::start(2);
    let content = content();
    let source = cluster.dir().join("0_source");
    std::fs::write(&source, &content).unwrap();
    let path = source.to_str().unwrap();
    let in_tree = cluster.dir().join("tree");
    std::fs::create_dir(&in_tree).unwrap();
    std::fs::copy(&source, in_tree.join("0_k")).unwrap();
    cluster.ok(&["cp", path, "s4://b/0_handed_over"]);
    cluster.put("s4://b/0_from_a_pipe", &content);
    cluster.ok(&["cp", "-r", in_tree.to_str().unwrap(), "s4://b/tree/"]);
    cluster.ok(&["map", "s4://b/*over", "s4://b/map/", "cat"]);
    cluster.ok(&["map", "s4://b/*over", "s4://b/map2/", "cat; echo more"]);
    cluster.ok(&[
        "map-to-n",
        "s4://b/*over",
        "s4://b/to/",
        "cat > 0_x; cp 0_x 1_x; ln 0_x 2_x; echo 0_x 1_x 2_x | tr ' ' '\\n'",
    ]);
    cluster.ok(&["map-from-n", "s4://b/*over", "s4://b/from/", "xargs cat"]);
    let at = |node: usize, name: &str| cluster.data(node).join("b").join(name);
    for name in
        ["0_handed_over", "0_from_a_pipe", "tree/0_k", "map/0_handed_over", "map2/0_handed_over", "from/0_handed_over"]
    {
        assert_has_sums(&at(0, name), name);
    }
    for (node, name) in [(0, "0_x"), (1, "1_x"), (0, "2_x")] {
        assert_has_sums(&at(node, &format!("to/0_handed_over/{name}")), name);
    }
    cluster.separate(0..2);
    cluster.ok(&["cp", path, "s4://b/0_sent"]);
    cluster.ok(&["map-to-n", "s4://b/*over", "s4://b/sent/", "cat > 1_x; echo 1_x"]);
    assert_has_sums(&at(0, "0_sent"), "sent");
    assert_has_sums(&at(1, "sent/0_handed_over/1_x"), "an output that was sent");
}

#[test]
fn what_a_mount_makes_has_the_sums_of_its_parts() {
    if let Some(reason) = no_mounts() {
        eprintln!("skipped: {reason}");
        return;
    }
    let cluster = Cluster::start(2);
    let source = cluster.dir().join("source");
    std::fs::write(&source, content()).unwrap();
    let mount = Mount::with_remote_nodes(&cluster, "m", &[1], &[]);
    mount.ok(&format!("mkdir b; cp {0} b/0_k; cat {0} > b/1_k", source.display()));
    for node in 0..2 {
        assert_has_sums(&cluster.data(node).join(format!("b/{node}_k")), "by the mount");
    }
}

#[test]
fn what_the_disk_does_not_give_is_said_with_node_and_key_and_shown_by_health() {
    let Some(disk) = crate::mounts::Mounted::ext4(96 << 20) else { return };
    let cluster = Cluster::on_disk(&disk, &["--reserve", "0"]);
    let content = content();
    cluster.put("s4://b/1_good", b"good");
    cluster.put("s4://b/1_bad", &content);
    cluster.ok(&["health"]);
    disk.lose_end_of(&disk.data().join("b/1_bad"), 3 * LEAF);
    for args in [&["cp", "s4://b/1_bad", "-"][..], &["cp", "-r", "s4://b/", "tree"], &["eval", "s4://b/1_bad", "cat"]] {
        let stderr = cluster.fails(1, args);
        assert!(stderr.contains(&cluster.name(1)) && stderr.contains("s4://b/1_bad"), "{args:?}: {stderr}");
        assert!(stderr.contains("disk read error"), "{args:?}: {stderr}");
    }
    let read = cluster.run(&["cp", "s4://b/1_bad", "-"]).stdout;
    assert!(content.starts_with(&read), "{} bytes, and others than were stored", read.len());
    assert_eq!(cluster.get("s4://b/1_good"), b"good");
    assert!(cluster.log_text(1).contains("s4://b/1_bad: disk read error"), "{}", cluster.log_text(1));
    let health = cluster.run(&["health"]);
    assert_eq!(health.status.code(), Some(1));
    let said = text(&health.stdout);
    assert!(said.contains("1 127.0.0.1") && said.contains("failing: ") && said.contains("disk"), "{said}");
}

#[test]
fn a_disk_that_became_read_only_is_shown_by_health() {
    let Some(disk) = crate::mounts::Mounted::ext4(64 << 20) else { return };
    let cluster = Cluster::on_disk(&disk, &["--reserve", "0"]);
    cluster.put("s4://b/1_k", b"content");
    cluster.ok(&["health"]);
    disk.make_read_only();
    eventually("health tells of it", || {
        text(&cluster.run(&["health"]).stdout).to_lowercase().contains("read-only").then_some(())
    });
    assert_eq!(cluster.run(&["health"]).status.code(), Some(1));
    assert_eq!(cluster.get("s4://b/1_k"), b"content", "what is there can be read");
    assert!(text(&cluster.put_output("s4://b/1_new", b"new").stderr).to_lowercase().contains("read-only"));
}
