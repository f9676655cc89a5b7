//! systemd's automount: whoever looks at the directory waits until the program that systemd starts has mounted there, and
//! that program must not wait for itself.

use crate::programs::program;
use crate::scripting::setup;
use std::process::{Command, Stdio};

/// What systemd does, over a directory of its own: it answers the kernel's question by starting `mount.s4` in its own process
/// group, which alone is let through, and tells the kernel how that ended.
const SYSTEMD: &str = r#"
import ctypes, fcntl, os, select, signal, struct, subprocess, sys
program, conf, dir = sys.argv[1:]
libc = ctypes.CDLL(None, use_errno=True)
def mounted(*args):
    if libc.mount(*args) != 0:
        print('skipped: autofs cannot be mounted:', os.strerror(ctypes.get_errno()))
        sys.exit(0)
os.setsid()
asked, asks = os.pipe()
options = f'fd={asks},pgrp={os.getpgrp()},minproto=5,maxproto=5,direct'
mounted(b's4-test', dir.encode(), b'autofs', 0, options.encode())
root = os.open(dir, os.O_RDONLY | os.O_CLOEXEC)
READY, FAIL, CATATONIC = 0x9360, 0x9361, 0x9362
try:
    # A group of its own, as any user of the directory has.
    user = subprocess.Popen(['ls', dir + '/'], stdout=subprocess.PIPE, start_new_session=True, close_fds=True)
    assert select.select([asked], [], [], 20)[0], 'nobody asked for the mount'
    packet = os.read(asked, 4096)
    version, kind, token = struct.unpack_from('iiI', packet)
    assert (version, kind) == (5, 5), (version, kind)
    status = None
    try:
        status = subprocess.run([program, 's4', dir, '-o', f'conf={conf},x-systemd.automount'], timeout=20,
                                stdin=subprocess.DEVNULL).returncode
    finally:
        fcntl.ioctl(root, READY if status == 0 else FAIL, token)
    assert status == 0, status
    listed = user.communicate(timeout=20)[0].decode()
    assert listed == 'b\n', listed
    made = subprocess.run(['sh', '-c', f'echo made > {dir}/b/0_k; cat {dir}/b/0_k'], capture_output=True, timeout=20)
    assert made.stdout == b'made\n', made
    print('mounted')
finally:
    libc.umount2(dir.encode(), 2)
    fcntl.ioctl(root, CATATONIC, 0)
    os.close(root)
    libc.umount2(dir.encode(), 2)
"#;

#[test]
fn an_automount_is_mounted_and_does_not_hang() {
    if !nix::unistd::geteuid().is_root() {
        return eprintln!("skipped: not root, who alone can mount autofs");
    }
    let Some(setup) = setup() else { return };
    let (dir, linked) = (setup.cluster.dir().join("auto"), setup.cluster.dir().join("mount.s4"));
    std::fs::create_dir(&dir).unwrap();
    std::os::unix::fs::symlink(program("s4-mount"), &linked).unwrap();
    let output = Command::new("timeout")
        .args(["60", "python3", "-I", "-S", "-c", SYSTEMD])
        .arg(&linked)
        .arg(setup.cluster.conf())
        .arg(&dir)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let told = crate::harness::text(&output.stdout);
    if told.starts_with("skipped") {
        return eprintln!("{told}");
    }
    assert!(output.status.success() && told == "mounted\n", "{told}{}", crate::harness::text(&output.stderr));
}
