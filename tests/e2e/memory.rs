//! How much memory daemons and clients take, whatever the data.

use crate::harness::{Cluster, eventually, own_kib, peak_kib, resident_kib};
use std::process::{Child, Stdio};

const MIB: u64 = 1024;
const GIB: u64 = 1 << 30;

/// Resident memory of an idle daemon, in KiB. Most of it is its program, which is larger without optimisation.
const WHOLE: u64 = match option_env!("CARGO_PROFILE_DEV_OPT_LEVEL") {
    Some(_) => 16 * MIB,
    None => 12 * MIB,
};

/// Makes the peak of a process its present size.
fn forget_peak(pid: u32) {
    std::fs::write(format!("/proc/{pid}/clear_refs"), "5").unwrap();
}

#[test]
fn an_idle_daemon_is_small() {
    let cluster = Cluster::start(3);
    cluster.ok(&["health"]);
    for node in 0..cluster.len() {
        let (own, all) = (own_kib(cluster.pid(node)), resident_kib(cluster.pid(node)));
        assert!(own <= 3 * MIB, "node {node} has {own} KiB besides its program");
        assert!(all <= WHOLE, "node {node} has {all} KiB");
    }
}

/// The largest peak, in KiB, of the daemons of a fresh cluster in a job over so many keys.
fn job_peak(cluster: Cluster, keys: usize, kind: &str, cmd: &str) -> u64 {
    let source = cluster.dir().join("source");
    std::fs::create_dir(&source).unwrap();
    for number in 0..keys {
        std::fs::write(source.join(format!("{number}_key")), format!("{number}\n")).unwrap();
    }
    cluster.ok(&["cp", "-r", "source", "s4://in/"]);
    let pids: Vec<u32> = (0..cluster.len()).map(|node| cluster.pid(node)).collect();
    pids.iter().for_each(|&pid| forget_peak(pid));
    cluster.ok(&[kind, "s4://in/", "s4://out/", cmd]);
    assert_eq!(cluster.ok(&["ls", "-r", "s4://out/"]).lines().count(), keys);
    pids.into_iter().map(peak_kib).max().unwrap()
}

#[test]
fn memory_does_not_grow_with_the_keys_of_a_job() {
    let spread = "cat > ${filename%_key}9_out; echo *";
    for (kind, cmd) in [("map", "cat"), ("map-to-n", spread)] {
        // Fewer than 200 do not bring all of the daemon's threads to work.
        let [few, many] = [200, 2000].map(|keys| job_peak(Cluster::start(3), keys, kind, cmd));
        assert!(many <= few + 4 * MIB, "{kind}: {few} KiB with 200 keys, {many} KiB with 2000");
    }
}

/// Runs a client to its end; returns its peak in KiB.
fn client_peak(mut client: Child) -> u64 {
    let mut peak = 0;
    let status = eventually("the client ends", || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", client.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or("0 kB");
        peak = peak.max(line.trim().trim_end_matches(" kB").parse::<u64>().unwrap());
        client.try_wait().unwrap()
    });
    assert!(status.success());
    peak
}

#[test]
fn a_key_of_a_gibibyte_passes_through_little_memory() {
    let cluster = Cluster::start(1);
    let large = cluster.dir().join("0_large");
    std::fs::File::create(&large).unwrap().set_len(GIB).unwrap();
    let copies: [&[&str]; 4] = [
        &["cp", "0_large", "s4://b/"],
        &["cp", "s4://b/0_large", "-"],
        &["cp", "s4://b/0_large", "copy"],
        &["eval", "s4://b/0_large", "cat"],
    ];
    for args in copies {
        let client = client_peak(cluster.command(args).stdout(Stdio::null()).spawn().unwrap());
        let daemon = peak_kib(cluster.pid(0));
        assert!(client > 0 && client < 48 * MIB, "{args:?}: the client had {client} KiB");
        assert!(daemon < 48 * MIB, "{args:?}: the daemon had {daemon} KiB");
    }
    assert_eq!(std::fs::metadata(cluster.dir().join("copy")).unwrap().len(), GIB);
}

#[test]
fn a_file_that_travels_with_a_job_passes_through_little_memory() {
    let cluster = Cluster::start(1);
    cluster.put("s4://in/0_k", b"k");
    std::fs::File::create(cluster.dir().join("table")).unwrap().set_len(200 << 20).unwrap();
    for args in [&["--dry-run"][..], &[]] {
        let args = [&["map", "--file", "table", "s4://in/", "s4://out/", "stat -c %s table"], args].concat();
        let client = client_peak(cluster.command(&args).stdout(Stdio::null()).spawn().unwrap());
        let daemon = peak_kib(cluster.pid(0));
        assert!(client > 0 && client < 48 * MIB, "{args:?}: the client had {client} KiB");
        assert!(daemon < 48 * MIB, "{args:?}: the daemon had {daemon} KiB");
    }
    assert_eq!(cluster.get("s4://out/0_k"), b"209715200\n");
}
