//! A daemon without root's privileges, which file modes bind.

use crate::harness::{Port, eventually, text};
use crate::programs::program;
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};

const NOBODY: u32 = 65_534;

struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn what_a_command_leaves_read_only_is_published_and_removed() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: not root, who alone can start a daemon as another user");
        return;
    }
    let dir = tempfile::Builder::new().prefix("s4-test-").tempdir().unwrap();
    std::os::unix::fs::chown(dir.path(), Some(NOBODY), Some(NOBODY)).unwrap();
    let claim = Port::claim();
    let port = claim.number();
    let (conf, data) = (dir.path().join("s4.conf"), dir.path().join("data"));
    std::fs::write(&conf, format!("127.0.0.1:{port}\n")).unwrap();
    let server = || {
        let mut command = Command::new("setpriv");
        command.args([format!("--reuid={NOBODY}"), format!("--regid={NOBODY}"), "--clear-groups".to_owned()]);
        command.arg(program("s4-server")).arg("--conf").arg(&conf).arg("--data").arg(&data);
        command
    };
    assert!(server().arg("--init").status().unwrap().success());
    let _daemon = Daemon(server().args(["--reserve", "0"]).stdout(Stdio::null()).spawn().unwrap());
    eventually("the daemon listens", || TcpStream::connect(("127.0.0.1", port)).ok());
    let s4 = |args: &[&str]| {
        let output = Command::new(program("s4"))
            .args(args)
            .env("S4_CONF_PATH", &conf)
            .stdin(std::fs::File::open(&conf).unwrap())
            .output()
            .unwrap();
        assert!(output.status.success(), "{args:?}: {}", text(&output.stderr));
        text(&output.stdout)
    };
    s4(&["cp", "-", "s4://in/k"]);
    let command = "echo out > f; chmod 444 f; mkdir -p d/e; touch d/e/x; chmod 555 d/e d; echo f";
    s4(&["map-to-n", "s4://in/", "s4://out/", command]);
    assert_eq!(s4(&["cp", "s4://out/k/f", "-"]), "out\n");
    eventually("nothing is left of the task", || {
        std::fs::read_dir(data.join(".s4/tasks")).unwrap().next().is_none().then_some(())
    });
}
