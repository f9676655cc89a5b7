//! The door of a local cluster: `s4-s3 serve`, which shows it as S3.

use super::programs::program;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use s4::client::Secret;
use s4::error::{Error, ErrorKind, Result};
use s4::file::{lock, lock_holder};
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The timeout for the end of a door, after which it is killed: longer than its own grace period.
const STOP_TIMEOUT: Duration = Duration::from_secs(15);
const PAUSE: Duration = Duration::from_millis(10);
/// The longest line with which a door says that it listens.
const MAX_LINE: u64 = 1024;

/// A running door.
pub struct Door {
    child: Child,
    /// `http://127.0.0.1:PORT`
    url: String,
}

/// Locked while a door runs; it has the id of its process.
fn lock_path(dir: &Path) -> PathBuf {
    dir.join("s3.lock")
}

impl Door {
    /// Starts a door on a free port, for the cluster in `dir` with the cluster file `conf`.
    pub fn start(dir: &Path, conf: &Path, secret: &Path) -> Result<Self> {
        let name = program("s4-s3");
        let failed = |e: std::io::Error| Error::io(format!("cannot start {}", name.display()), &e);
        let open = |path: &Path| OpenOptions::new().create(true).append(true).read(true).mode(0o600).open(path);
        let (log, held) = (open(&dir.join("s3.log")).map_err(failed)?, open(&lock_path(dir)).map_err(failed)?);
        if !lock(&held).map_err(failed)? {
            return Err(Error::new(ErrorKind::AlreadyExists, format!("{}: a door runs already", dir.display())));
        }
        let mut command = Command::new(&name);
        command.arg("serve").args(["--listen", "127.0.0.1:0"]).arg("--conf-path").arg(conf).arg("--secret").arg(secret);
        // As its stdin, the door holds the lock for as long as it lives. In its own process group: Ctrl-C in the
        // terminal goes to this program, which then ends the door in order.
        let stdin = held.try_clone().map_err(failed)?;
        command.stdin(stdin).stdout(Stdio::piped()).stderr(log).process_group(0);
        let mut child = command.spawn().map_err(failed)?;
        let mut line = String::new();
        let read = match child.stdout.take() {
            Some(stdout) => BufReader::new(stdout.take(MAX_LINE)).read_line(&mut line),
            None => Ok(0),
        };
        let url = line.trim_end().split_once("on ").map(|(_, url)| url.to_owned());
        let mut door = Self { child, url: url.clone().unwrap_or_default() };
        read.map_err(failed)?;
        if url.is_none() {
            door.stop();
            let log = std::fs::read_to_string(dir.join("s3.log")).unwrap_or_default();
            let last = log.lines().last().unwrap_or("it printed nothing").to_owned();
            return Err(Error::new(ErrorKind::Config, format!("the door did not come up: {last}")));
        }
        held.set_len(0).and_then(|()| (&held).write_all(door.child.id().to_string().as_bytes())).map_err(failed)?;
        Ok(door)
    }

    /// The lines that point clients of S3 at the door. The secret is read when a shell evaluates them.
    pub fn export(&self, conf: &Path) -> String {
        let secret = Secret::beside(conf);
        format!(
            "export AWS_ENDPOINT_URL={}\nexport AWS_ACCESS_KEY_ID=s4\nexport AWS_SECRET_ACCESS_KEY=$(head -n 1 {})\n\
             export AWS_REGION=us-east-1\n",
            self.url,
            secret.display()
        )
    }

    /// Ends the door, and waits until requests in progress are over.
    pub fn stop(&mut self) {
        // This fails if the process has ended already.
        let _ = kill(Pid::from_raw(self.child.id() as i32), Signal::SIGTERM);
        let _ = self.child.wait();
    }
}

/// Ends the door that runs in `dir`, if any.
pub async fn stop(dir: &Path) {
    let holder = || lock_holder(&File::options().read(true).write(true).open(lock_path(dir)).ok()?).ok()?;
    let Some(pid) = holder() else { return };
    let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
    let began = Instant::now();
    while holder() == Some(pid) {
        if began.elapsed() > STOP_TIMEOUT {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        tokio::time::sleep(PAUSE).await;
    }
}
