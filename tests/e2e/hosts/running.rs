//! Commands whose duration a test looks at.

use super::print_now;
use crate::harness::{PATIENCE, assert_no_crash, eventually, text};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// The duration and the output of a command. A command is killed if it does not end within twice [`PATIENCE`].
pub struct Timed {
    pub took: Duration,
    pub output: Output,
}

/// A running command.
pub struct Running {
    child: Option<Child>,
    pub pid: u32,
}

impl Running {
    pub fn start(mut command: Command) -> Self {
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
        Self { pid: child.id(), child: Some(child) }
    }

    /// Starts the command, and returns once it `is_under_way`: one that ends before it was seen so is started anew.
    pub fn under_way(mut command: impl FnMut() -> Command, is_under_way: impl Fn(u32) -> bool) -> Self {
        let mut running = Self::start(command());
        eventually("it is under way", || {
            if running.child.as_mut().unwrap().try_wait().unwrap().is_some() {
                running = Self::start(command());
            }
            is_under_way(running.pid).then_some(())
        });
        running
    }

    /// Waits for the end. The duration counts from `since`.
    pub fn end(mut self, since: Instant) -> Timed {
        let (pid, child) = (self.pid, self.child.take().unwrap());
        let (sender, receiver) = std::sync::mpsc::channel();
        std::thread::spawn(move || sender.send((child.wait_with_output(), Instant::now())));
        let (output, ended) = receiver.recv_timeout(2 * PATIENCE).unwrap_or_else(|_| {
            let _ = kill(Pid::from_raw(pid as i32), Signal::SIGKILL);
            receiver.recv().unwrap()
        });
        let output = output.unwrap();
        assert_no_crash(&output);
        Timed { took: ended.saturating_duration_since(since), output }
    }
}

impl Timed {
    /// Asserts that the command failed at most a second after `deadline`, and prints the duration with `what`. Returns
    /// its stderr.
    pub fn fails_within(self, what: &str, deadline: Duration) -> String {
        let stderr = text(&self.output.stderr);
        print_now(&format!("{what}: {:.2} s to the error: {}", self.took.as_secs_f64(), stderr.trim()));
        assert!(!self.output.status.success(), "{what}: it succeeded");
        assert!(self.took <= deadline + Duration::from_secs(1), "{what}: {:?}, over {deadline:?}: {stderr}", self.took);
        stderr
    }

    /// Asserts that the command succeeded, and prints the duration with `what`. Returns its stdout.
    pub fn succeeds(self, what: &str) -> String {
        print_now(&format!("{what}: {:.2} s", self.took.as_secs_f64()));
        assert!(self.output.status.success(), "{what}: {}: {}", self.output.status, text(&self.output.stderr));
        text(&self.output.stdout)
    }
}
