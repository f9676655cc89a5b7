//! What was closed just before a mount was taken away is published when `s4 umount` returns.

use crate::harness::eventually;
use crate::mounting::Mount;
use crate::scripting::{LOCAL, REMOTE, Setup, finish_python, next_line, send_line, setup, setup_with, spawn_python};
use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, connect, listen, socket};
use std::os::fd::AsRawFd;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The mapping outlives the close, so that only the process's end publishes, which hears nothing of that.
const MAPS: &str = r#"
out = os.open(sys.argv[1], RW | os.O_CREAT)
os.write(out, b'x' * 300_000)
mapped = mmap.mmap(out, 300_000)
os.close(out)
mapped[:3] = b'all'
tell('closed')
await_word()
"#;

fn umount(setup: &Setup) -> Child {
    let mut command = setup.cluster.command(&["umount", setup.mount.dir().to_str().unwrap()]);
    command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().expect("s4 starts")
}

#[test]
fn what_was_closed_is_a_key_once_s4_umount_has_returned() {
    let Some(mut setup) = setup() else { return };
    for round in 0..5 {
        setup.mount = Mount::new(&setup.cluster, &format!("mnt{round}"), &[]);
        let keys = [format!("{LOCAL}{round}"), format!("{REMOTE}{round}")];
        let mut writers: Vec<_> = keys.iter().map(|key| spawn_python(&setup.mount, MAPS, &[key])).collect();
        writers.iter_mut().for_each(|writer| assert_eq!(next_line(writer), "closed"));
        writers.iter_mut().for_each(|writer| send_line(writer, "end"));
        writers.into_iter().for_each(|writer| drop(finish_python(writer)));
        let output = umount(&setup).wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        for (node, key) in keys.iter().enumerate() {
            let made = std::fs::read(setup.cluster.data(node).join(key));
            assert!(made.is_ok_and(|made| made.starts_with(b"allxxx") && made.len() == 300_000), "{key}");
        }
    }
}

#[test]
fn s4_umount_waits_for_a_key_whose_node_is_slow() {
    let Some(setup) = setup_with(2, &[1], &["--deadline", "20"]) else { return };
    let mut writer = setup.spawn_python(MAPS, &[REMOTE]);
    assert_eq!(next_line(&mut writer), "closed");
    setup.cluster.signal(1, "STOP");
    send_line(&mut writer, "end");
    finish_python(writer);
    let mut umounting = umount(&setup);
    let dir = setup.mount.dir().to_owned();
    eventually("it is unmounted", || s4::mounts::at(&dir).is_none().then_some(()));
    // It is still there after a while: a time has to pass.
    let until = Instant::now() + Duration::from_millis(500);
    while let Some(left) = until.checked_duration_since(Instant::now()) {
        std::thread::park_timeout(left);
    }
    assert!(umounting.try_wait().unwrap().is_none(), "it did not wait");
    setup.cluster.signal(1, "CONT");
    assert!(umounting.wait().unwrap().success());
    assert!(setup.cluster.data(1).join(REMOTE).exists());
}

/// Closed in order, but the node whose key it is hangs.
fn with_a_publish_that_waits() -> Option<Setup> {
    let setup = setup_with(2, &[1], &["--deadline", "20"])?;
    let mut writer = setup.spawn_python(MAPS, &[REMOTE]);
    assert_eq!(next_line(&mut writer), "closed");
    setup.cluster.signal(1, "STOP");
    send_line(&mut writer, "end");
    finish_python(writer);
    Some(setup)
}

fn assert_told_of_loss(umounting: Child) {
    let output = umounting.wait_with_output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && told.contains("files that were closed"), "{}: {told}", output.status);
}

#[test]
fn s4_umount_fails_if_s4_mount_is_killed_before_all_is_published() {
    let Some(mut setup) = with_a_publish_that_waits() else { return };
    let umounting = umount(&setup);
    let dir = setup.mount.dir().to_owned();
    eventually("it is unmounted", || s4::mounts::at(&dir).is_none().then_some(()));
    setup.mount.kill();
    assert_told_of_loss(umounting);
    setup.cluster.signal(1, "CONT");
}

#[test]
fn s4_umount_fails_if_what_was_closed_could_not_be_published() {
    let Some(mut setup) = with_a_publish_that_waits() else { return };
    setup.cluster.kill_node(1);
    assert_told_of_loss(umount(&setup));
    assert!(!setup.cluster.data(1).join(REMOTE).exists());
}

/// Where another has taken a name by which the mount's process might be found, and answers nobody.
#[test]
fn s4_umount_does_not_wait_to_be_heard() {
    let Some(setup) = setup() else { return };
    let device = s4::mounts::at(setup.mount.dir()).expect("it is mounted").device;
    // As long as it is open, no other mount gets that number.
    let _open = std::fs::File::open(setup.mount.dir()).unwrap();
    let name = UnixAddr::new_abstract(format!("s4-mount {device} 1").as_bytes()).unwrap();
    let made = || socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_NONBLOCK, None).unwrap();
    let deaf = made();
    bind(deaf.as_raw_fd(), &name).unwrap();
    listen(&deaf, Backlog::new(0).unwrap()).unwrap();
    let callers: Vec<_> =
        std::iter::repeat_with(made).take_while(|caller| connect(caller.as_raw_fd(), &name).is_ok()).collect();
    assert!(!callers.is_empty());
    let mut umounting = setup.cluster.command(&["umount", "--lazy", setup.mount.dir().to_str().unwrap()]);
    let mut umounting = umounting.stderr(Stdio::piped()).spawn().expect("s4 starts");
    eventually("s4 umount ends", || umounting.try_wait().unwrap());
    assert_told_of_loss(umounting);
    assert!(s4::mounts::at(setup.mount.dir()).is_none());
}

/// Nobody can tell it which process serves the mount.
#[test]
fn s4_umount_takes_away_a_mount_that_hangs_or_is_dead() {
    let Some(mut setup) = setup() else { return };
    setup.mount.signal("STOP");
    let umounting = umount(&setup);
    let dir = setup.mount.dir().to_owned();
    eventually("it is unmounted", || s4::mounts::at(&dir).is_none().then_some(()));
    setup.mount.signal("CONT");
    let output = umounting.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    setup.mount = Mount::new(&setup.cluster, "dead", &[]);
    setup.mount.kill();
    let output = umount(&setup).wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(s4::mounts::at(setup.mount.dir()).is_none());
}

/// As one in a container is to a mount of another: the kernel tells no number of the process that asks.
#[test]
fn a_writer_that_the_mount_cannot_see_publishes_at_its_last_close() {
    if !nix::unistd::geteuid().is_root() {
        return eprintln!("skipped: not root, who alone can make a PID namespace");
    }
    let Some(mut setup) = setup() else { return };
    setup.mount = Mount::in_pid_namespace(&setup.cluster, "unseen");
    for key in [LOCAL, REMOTE] {
        let key = |more: &str| format!("{key}_{more}");
        let became = |name: &str, content: &str| {
            eventually("it is a key", || setup.is_key(&key(name)).then_some(()));
            eventually("it has its bytes", || (setup.key(&key(name)) == content.as_bytes()).then_some(()));
        };
        setup.bash(&format!("echo one > {}; (echo one; cat /etc/hostname; echo two) > {}", key("one"), key("more")));
        became("one", "one\n");
        became("more", &format!("one\n{}two\n", std::fs::read_to_string("/etc/hostname").unwrap()));
        setup.bash(&format!("(exec 3> {}; (exec 4>&1 1>&3; bash -c 'echo late') & exec 3>&-)", key("child")));
        became("child", "late\n");
        setup.bash(&format!("touch {0}; until echo content > {0}; do :; done", key("touched")));
        became("touched", "content\n");
        assert!(setup.mount.fails(&format!("echo again > {}", key("one"))).contains("not permitted"));
    }
    let status = Command::new("umount").arg(setup.mount.dir()).status().unwrap();
    assert!(status.success());
}
