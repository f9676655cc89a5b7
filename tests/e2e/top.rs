//! `s4 top`: once as text, and full-screen in a terminal.

use crate::harness::{Cluster, eventually, text};
use crate::programs::program;
use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

#[test]
fn a_snapshot_has_every_node_and_the_job() {
    let mut cluster = Cluster::start(3);
    cluster.put("s4://in/0_a", b"x");
    cluster.fails(1, &["map", "s4://in/", "s4://out/", "false"]);
    cluster.kill_node(2);
    for args in [&["top", "--once"][..], &["top"]] {
        let told = cluster.ok(args);
        assert!(told.starts_with("2 of 3 nodes up, 0 tasks running, 0 jobs running\n"), "{told}");
        for (node, state) in [(0, "up"), (1, "up"), (2, "down")] {
            let line = told.lines().skip(1).find(|line| line.split_whitespace().next() == Some(&node.to_string()));
            let line = line.unwrap_or_else(|| panic!("no node {node}: {told}"));
            assert_eq!(line.split_whitespace().nth(1), Some(state), "{line}");
            assert!(line.contains(&format!(":{}", cluster.port(node))), "{line}");
        }
        let job = told.lines().find(|line| line.contains("s4://in/")).expect("the job");
        assert!(job.ends_with(" failed map s4://in/ s4://out/"), "{job}");
        assert!(told.contains("    0 of 1 done, 1 failed") && told.contains("\n    false\n"), "{told}");
    }
}

/// A shell line in a terminal of its own, of 80 columns and 24 rows, until it is dropped.
struct Terminal {
    child: Child,
    shown: Arc<Mutex<Vec<u8>>>,
}

impl Terminal {
    /// `None`, having said why, where no terminal can be had.
    fn run(cluster: &Cluster, line: &str) -> Option<Self> {
        if Command::new("script").arg("--version").stdout(Stdio::null()).status().is_err() {
            eprintln!("skipped: script is not installed");
            return None;
        }
        let line = format!("stty rows 24 cols 80; {line}");
        let mut child = Command::new("script")
            .args(["-qec", &line, "/dev/null"])
            .env("S4_CONF_PATH", cluster.conf())
            .env("TERM", "xterm-256color")
            .env("SHELL", "/bin/bash")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let shown = Arc::new(Mutex::new(Vec::new()));
        let (mut output, all) = (child.stdout.take().unwrap(), shown.clone());
        std::thread::spawn(move || {
            let mut chunk = [0; 4096];
            while let Ok(len @ 1..) = output.read(&mut chunk) {
                all.lock().unwrap().extend_from_slice(&chunk[..len]);
            }
        });
        Some(Self { child, shown })
    }

    fn shown(&self) -> String {
        text(&self.shown.lock().unwrap())
    }

    fn await_text(&self, part: &str) {
        eventually(part, || self.shown().contains(part).then_some(()));
    }

    fn press(&mut self, keys: &str) {
        self.child.stdin.as_mut().unwrap().write_all(keys.as_bytes()).unwrap();
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("shown: {:?}", self.shown());
        }
    }
}

#[test]
fn the_full_screen_draws_and_gives_the_terminal_back() {
    let cluster = Cluster::start(2);
    cluster.put("s4://in/0_a", b"x");
    cluster.ok(&["map", "s4://in/", "s4://out/", "cat"]);
    let line = format!("{} top; echo \"status $?\"; stty -a", program("s4"));
    for end in ["q", "\x1b", "\x03"] {
        let Some(mut terminal) = Terminal::run(&cluster, &line) else { return };
        // The alternate screen, the nodes, the job.
        for part in ["\x1b[?1049h", "quit", "up", "s4://out/:", "done"] {
            terminal.await_text(part);
        }
        terminal.press("sjk\x1b[B");
        // In the head of its column, and now as the order too.
        eventually("it is sorted by CPU", || (terminal.shown().matches("CPU").count() >= 2).then_some(()));
        terminal.press(end);
        terminal.await_text("status 0");
        terminal.await_text("-extproc");
        let shown = terminal.shown();
        let after = shown.split("\x1b[?1049l").nth(1).expect("it left the alternate screen");
        assert!(shown.contains("\x1b[?25h"), "the cursor is shown again: {shown:?}");
        assert!(after.contains(" icanon") && after.contains(" echo ") && !after.contains("-icanon"), "{after:?}");
    }
}

#[test]
fn a_job_is_opened_its_stderr_read_and_a_running_one_cancelled() {
    let cluster = Cluster::start(2);
    cluster.put("s4://in/0_a", b"x");
    cluster.ok(&["map", "s4://in/", "s4://told/", "echo from the task >&2"]);
    let id = cluster.ok(&["map", "--detach", "s4://in/", "s4://slow/", "sleep 1000"]);
    let Some(mut terminal) = Terminal::run(&cluster, &format!("{} top", program("s4"))) else { return };
    terminal.await_text("s4://slow/");
    // The running job is the first.
    terminal.press("\t\r");
    terminal.await_text("UTC");
    terminal.press("c");
    terminal.await_text(&format!("cancel job {}?", id.trim()));
    terminal.press("y");
    terminal.await_text("is being cancelled");
    eventually("the job has ended", || cluster.ok(&["jobs"]).contains(" cancelled ").then_some(()));
    // Back, and to the job below.
    terminal.press("\x7fjl");
    terminal.await_text("from the task");
    terminal.press("q");
}
