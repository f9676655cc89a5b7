//! What was closed just before a mount was taken away is published when `s4 umount` returns.

use crate::harness::eventually;
use crate::mounting::Mount;
use crate::scripting::{LOCAL, REMOTE, Setup, finish_python, next_line, send_line, setup, setup_with, spawn_python};
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
