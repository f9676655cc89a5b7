//! The mounts of a cluster that `s4 local` runs.

use crate::harness::eventually;
use crate::local::{Local, is_mounted, signal};
use crate::mounting::no_mounts;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Where a cluster can be mounted.
fn local() -> Option<Local> {
    if let Some(reason) = no_mounts() {
        eprintln!("skipped: {reason}");
        return None;
    }
    Some(Local::new())
}

#[test]
fn a_mount_comes_with_the_cluster_and_goes_with_it() {
    let Some(local) = local() else { return };
    let mountpoint = local.dir.path().join("M");
    std::fs::create_dir(&mountpoint).unwrap();
    for turn in 0..2 {
        assert_eq!(local.ok(&["-n", "3", "--detach", "--mount", "M"]), local.export_line());
        assert!(is_mounted(&mountpoint));
        if turn == 0 {
            local.put_keys();
        }
        assert_eq!(local.sh("cat M/b/*_key"), "content of 0\ncontent of 1\ncontent of 2\n");
        local.sh(&format!("echo made > M/b/{turn}_made"));
        assert_eq!(local.sh(&format!("s4 cp s4://b/{turn}_made -")), "made\n");
        local.ok(&["--stop"]);
        assert!(!is_mounted(&mountpoint));
        assert_eq!(std::fs::read_dir(&mountpoint).unwrap().count(), 0);
        eventually("s4-mount ends", || local.processes().is_empty().then_some(()));
    }
}

/// The mount hangs meanwhile, so that it hears of it only once the cluster would be stopped.
#[test]
fn what_was_closed_in_a_mount_is_published_before_the_nodes_stop() {
    let Some(local) = local() else { return };
    let dir = local.dir.path().join("M");
    let script = r#"
import ctypes, mmap, os, signal, sys
libc = ctypes.CDLL(None)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
# More than there are connections to the nodes, which take no new ones when they stop.
for n in range(100):
    out = os.open(f'{sys.argv[1]}/{n}_k', os.O_RDWR | os.O_CREAT)
    os.write(out, b'x' * 10000)
    libc.mmap(None, 10000, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_SHARED, out, 0)
    os.close(out)
os.kill(int(sys.argv[2]), signal.SIGSTOP)
"#;
    for detached in [true, false] {
        let mut child = match detached {
            true => local.local(&["-n", "2", "--detach", "--mount", "M"]).stdout(Stdio::null()).spawn().unwrap(),
            false => local.foreground(&["-n", "2", "--mount", "M"]),
        };
        if detached {
            assert!(child.wait().unwrap().success());
        }
        let (mount, bucket) = (local.mount_pid(&dir), format!("b-{detached}"));
        std::fs::create_dir(dir.join(&bucket)).unwrap();
        let mut python = Command::new("python3");
        python.args(["-I", "-S", "-c", script]).arg(dir.join(&bucket)).arg(mount.to_string());
        assert!(python.status().unwrap().success());
        match detached {
            true => child = local.local(&["--stop"]).spawn().unwrap(),
            false => signal(&child, "-INT"),
        }
        eventually("it is unmounted", || (!is_mounted(&dir)).then_some(()));
        // The nodes are still there after a while: a time has to pass.
        let until = Instant::now() + Duration::from_millis(500);
        while let Some(left) = until.checked_duration_since(Instant::now()) {
            std::thread::park_timeout(left);
        }
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(mount), nix::sys::signal::Signal::SIGCONT).unwrap();
        assert!(eventually("s4 local ends", || child.try_wait().unwrap()).success());
        local.ok(&["--detach"]);
        assert_eq!(local.sh(&format!("s4 ls s4://{bucket}/ | wc -l")), "100\n", "detached: {detached}");
        local.ok(&["--stop"]);
    }
}

#[test]
fn a_mount_in_the_foreground_goes_with_its_cluster() {
    let Some(local) = local() else { return };
    let mountpoint = local.dir.path().join("M");
    std::fs::create_dir(&mountpoint).unwrap();
    let mut child = local.foreground(&["-n", "3", "--mount", "M"]);
    assert!(is_mounted(&mountpoint));
    signal(&child, "-INT");
    assert!(eventually("s4 local ends", || child.try_wait().unwrap()).success());
    assert!(!is_mounted(&mountpoint));
    eventually("s4-mount ends", || local.processes().is_empty().then_some(()));
}

#[test]
fn mounts_that_were_made_by_hand_go_with_the_cluster_and_those_of_others_stay() {
    let Some(local) = local() else { return };
    let other = Local::new();
    local.ok(&["-n", "2", "--detach", "--mount", "M"]);
    other.ok(&["-n", "2", "--detach"]);
    local.sh("s4 mount 'by hand' --background; s4 mount second --background; ls 'by hand' second");
    let theirs = local.dir.path().join("theirs");
    other.sh(&format!("s4 mount {} --background", theirs.display()));
    local.ok(&["--stop"]);
    assert!(!is_mounted(&local.dir.path().join("M")) && !is_mounted(&local.dir.path().join("second")));
    assert!(std::fs::read_dir(local.dir.path().join("by hand")).unwrap().next().is_none());
    assert!(!std::fs::read_to_string("/proc/mounts").unwrap().contains("by\\040hand"));
    assert!(is_mounted(&theirs));
    eventually("s4-mount ends", || local.processes().is_empty().then_some(()));
    other.ok(&["--stop"]);
    assert!(!is_mounted(&theirs));
}

#[test]
fn a_mount_is_taken_away_by_umount() {
    let Some(local) = local() else { return };
    local.ok(&["-n", "1", "--detach"]);
    let at = local.dir.path().join("a mount");
    let seen = || std::fs::read_to_string("/proc/mounts").unwrap().contains("a\\040mount");
    local.sh("s4 mount 'a mount' --background; mkdir 'a mount/b'; echo x > 'a mount/b/k'");
    assert!(seen());
    let busy = "cd 'a mount/b'; ! s4 umount '../../a mount' 2> ../../why; cat ../../why; cd ../..";
    let told = local.sh(&format!("{busy}; ls 'a mount/b'"));
    assert!(told.contains("in use") && told.ends_with("\nk\n"), "{told}");
    local.sh("s4 umount 'a mount/'; s4 cp s4://b/k -");
    assert!(!seen());
    assert!(local.sh("s4 umount 'a mount' 2>&1 || true").contains("nothing is mounted there"));
    assert!(local.sh("s4 umount /proc 2>&1 || true").contains("no s4 cluster"));
    local.sh("s4 mount 'a mount' --background; cd 'a mount/b'; s4 umount --lazy \"$OLDPWD/a mount\"; cat k");
    assert!(!seen());
    // One that was killed is dead, and hangs nobody.
    local.sh("s4 mount 'a mount' --background");
    let pid = local.mount_pid(&at);
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).unwrap();
    eventually("the mount is dead", || std::fs::read_dir(&at).is_err().then_some(()));
    local.sh("s4 umount 'a mount'");
    assert!(!seen() && std::fs::read_dir(&at).unwrap().next().is_none());
    local.ok(&["--stop"]);
}
