//! FIFOs and sockets in the mount, which are local to it, and regular files that are made by mknod.

use crate::harness::text;
use crate::scripting::setup;
use std::process::Command;

#[test]
fn fifos_carry_data_and_are_local_to_their_mount() {
    let Some(setup) = setup() else { return };
    let other = setup.other_mount();
    let told = setup.bash(
        "mkdir b/d; mkfifo -m 640 b/d/0_pipe b/1_pipe
        (echo through > b/d/0_pipe) & cat b/d/0_pipe; wait
        gzip -c < b/1_pipe > b/0_packed.gz & seq 1000 > b/1_pipe; wait; zcat b/0_packed.gz | tail -1
        stat -c '%F %a %n' b/d/0_pipe b/1_pipe; ls -F b
        mv b/1_pipe b/d/moved; chmod 600 b/d/moved; touch -d @1000000000 b/d/moved; stat -c '%F %a %Y' b/d/moved
        cp -a b/d/moved b/copy; test -p b/copy; find b -type p | sort
        ! mkfifo b/copy; ! mkdir b/copy; ! mv b/0_packed.gz b/d 2>/dev/null || mv b/d/0_packed.gz b
        ! mv -T --no-copy --update=none-fail b/0_packed.gz b/copy; ! rmdir b/d
        (echo again > b/d/moved) & cat < b/d/moved; wait
        rm b/d/moved b/copy b/d/0_pipe; rmdir b/d; ls b",
    );
    let expected = "through\n1000\nfifo 640 b/d/0_pipe\nfifo 640 b/1_pipe\n0_packed.gz\n1_pipe|\nd/\n\
        fifo 600 1000000000\nb/copy\nb/d/0_pipe\nb/d/moved\nagain\n0_packed.gz\n";
    assert_eq!(told, expected);
    setup.bash("mkfifo b/0_mine");
    assert_eq!(text(&other.sh("ls b; test -e b/0_mine || echo none").stdout), "0_packed.gz\nnone\n");
    assert!(!setup.is_key("b/0_mine"));
}

#[test]
fn sockets_connect() {
    let Some(setup) = setup() else { return };
    let script = r#"
import socket
server = socket.socket(socket.AF_UNIX)
server.bind('b/socket')
server.listen()
assert stat.S_ISSOCK(os.stat('b/socket').st_mode)
client = socket.socket(socket.AF_UNIX)
client.connect('b/socket')
client.sendall(b'hello')
assert server.accept()[0].recv(9) == b'hello'
assert errno_of(lambda: socket.socket(socket.AF_UNIX).bind('b/socket')) == 'EADDRINUSE'
os.unlink('b/socket')
assert os.listdir('b') == []
"#;
    setup.python(script, &[]);
}

#[test]
fn mknod_makes_regular_files_and_no_devices() {
    let Some(setup) = setup() else { return };
    let other = setup.other_mount();
    let script = r#"
theirs = sys.argv[1]
os.umask(0)
for key in ('b/0_k', 'b/1_k'):
    os.mknod(key, 0o100640)
    found = os.stat(theirs + '/' + key)
    assert (found.st_size, stat.S_IMODE(found.st_mode)) == (0, 0o440), found
    assert errno_of(os.mknod, key, 0o100640) == 'EEXIST'
    assert errno_of(os.mkfifo, key) == 'EEXIST'
assert errno_of(os.mknod, 'b/2_k', 0o644) == 'ok'
assert errno_of(os.mknod, 'b/dev', stat.S_IFCHR | 0o644, os.makedev(1, 3)) == 'EPERM'
assert errno_of(os.mknod, 'b/dev', stat.S_IFBLK | 0o644, os.makedev(8, 0)) == 'EPERM'
assert errno_of(os.mkfifo, 'b/a b') == 'EINVAL'
assert errno_of(os.mkfifo, 'pipe') == 'EINVAL', 'no bucket is a FIFO'
assert errno_of(os.mkfifo, '.s4/map/x') == 'EPERM'
os.mkfifo('b/1_pipe')
assert errno_of(os.open, 'b/1_pipe', NEW | os.O_EXCL) == 'EEXIST'
assert errno_of(os.rename, 'b/0_k', 'b/1_pipe') == 'EEXIST'
assert errno_of(os.rename, 'b/1_pipe', 'b/0_k') == 'EEXIST'
assert errno_of(os.listdir, 'b/1_pipe') == 'ENOTDIR'
assert errno_of(os.link, 'b/1_pipe', 'b/l') == 'EPERM'
"#;
    setup.python(script, &[other.dir().to_str().unwrap()]);
    setup.cluster.fails(1, &["ls", "s4://b/1_pipe"]);
}

/// What shell programs do in a directory of work.
#[test]
fn a_script_with_named_pipes_runs_in_the_mount() {
    let Some(setup) = setup() else { return };
    let script =
        "cd b; mkfifo in out; tr a-z A-Z < in > out & (echo words > in) & cat out > 0_result; wait; rm in out; ls";
    assert_eq!(setup.bash(script), "0_result\n");
    assert_eq!(setup.key("b/0_result"), b"WORDS\n");
    let tar = "mkdir b/t; cd b/t; mkfifo p; echo x > 0_f; tar cf ../1_t.tar .; rm p 0_f; tar xf ../1_t.tar; test -p p; cat 0_f";
    assert_eq!(setup.bash(tar), "x\n");
    // A program that makes its file by mknod, as an NFS server does.
    let made = Command::new("mknod").arg(setup.mount.path("b/made")).arg("p").status();
    assert!(made.is_ok_and(|status| status.success()));
}

/// It has many connections to the node, which are all broken then.
#[test]
fn mknod_makes_a_file_also_after_its_node_was_restarted() {
    let Some(mut setup) = setup() else { return };
    let script = r#"
def make_node(number):
    assert errno_of(os.mknod, f'b/{sys.argv[1]}/1_{number}', 0o644) == 'ok'
os.mkdir(f'b/{sys.argv[1]}')
threads = [threading.Thread(target=make_node, args=(number,)) for number in range(30)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
assert len(os.listdir(f'b/{sys.argv[1]}')) == 30
"#;
    for round in ["0_first", "0_second", "0_third"] {
        setup.python(script, &[round]);
        setup.cluster.kill_node(1);
        setup.cluster.start_node(1);
    }
}
