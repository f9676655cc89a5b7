//! Connections to hosts by the user's own `ssh`, with its configuration, agent and jump hosts: one connection for each
//! host, over which all commands run.

use super::parallel::on_all;
use s4::bounds;
use s4::error::reason;
use std::fs::File;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// How long a host may take to let us in, also through other hosts.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a script may take.
pub const SCRIPT_TIMEOUT: Duration = Duration::from_secs(60);
/// How long programs of some megabytes may take to arrive.
const COPY_TIMEOUT: Duration = Duration::from_secs(600);
/// The most that a script may print, in bytes.
const MAX_OUTPUT: u64 = 4 << 20;
/// Limit of bytes of a text of a host that is shown.
const SAID: usize = 300;
const PAUSE: Duration = Duration::from_millis(10);

/// Runs what follows as root if that is possible without a password.
const AS_ROOT: &str = r#"if [ "$(id -u)" = 0 ] || ! sudo -n true 2> /dev/null; then exec "$@"; else exec sudo -n env SSH_CONNECTION="${SSH_CONNECTION:-}" "$@"; fi"#;

/// How hosts are reached.
pub struct Ssh {
    /// Options of ssh, as typed after `-o`.
    pub options: Vec<String>,
    /// Never become root.
    pub as_user: bool,
}

/// A connection to a host, or why there is none. A drop closes it.
pub struct Host {
    /// As ssh knows it.
    pub name: String,
    as_user: bool,
    options: Vec<String>,
    socket: PathBuf,
    master: Child,
}

/// The connections to all hosts, in their order. A drop closes them.
pub struct Connections {
    pub hosts: Vec<std::result::Result<Host, String>>,
    /// Of the sockets. Only this user may enter it.
    _dir: tempfile::TempDir,
}

impl Ssh {
    /// Connects with all hosts at once.
    pub fn connect(&self, names: &[&str]) -> std::io::Result<Connections> {
        let dir = tempfile::Builder::new().prefix("s4-ssh-").tempdir()?;
        let hosts = on_all(names, |number, name| self.connect_one(name, dir.path().join(number.to_string())));
        Ok(Connections { hosts, _dir: dir })
    }

    fn connect_one(&self, name: &str, socket: PathBuf) -> Result<Host, String> {
        let errors = socket.with_extension("err");
        let mut command = ssh(&self.options, &socket);
        // It ends when its stdin does, and so with this process.
        command.args(["-o", "ControlMaster=yes", "--", name, "cat > /dev/null"]);
        command.stdin(Stdio::piped()).stdout(Stdio::null());
        command.stderr(File::create(&errors).map_err(|e| reason(&e))?);
        let master = command.spawn().map_err(|e| format!("ssh does not start: {}", reason(&e)))?;
        let mut host =
            Host { name: name.to_owned(), as_user: self.as_user, options: self.options.clone(), socket, master };
        let began = Instant::now();
        while !host.socket.exists() {
            let is_late = began.elapsed() > CONNECT_TIMEOUT;
            if is_late || !matches!(host.master.try_wait(), Ok(None)) {
                let said = std::fs::read(&errors).unwrap_or_default();
                let said = last_line(&said).unwrap_or_else(|| "ssh did not say why".to_owned());
                return Err(if is_late { format!("no connection within {CONNECT_TIMEOUT:?}") } else { said });
            }
            std::thread::sleep(PAUSE);
        }
        Ok(host)
    }
}

/// The command ssh; what the user has typed comes before what is usual here.
fn ssh(options: &[String], socket: &std::path::Path) -> Command {
    let mut command = Command::new("ssh");
    options.iter().for_each(|option| {
        command.args(["-o", option]);
    });
    command.args(["-T", "-o", "BatchMode=yes", "-o", "ConnectTimeout=10", "-o", "ServerAliveInterval=15"]);
    command.arg("-S").arg(socket);
    command
}

impl Host {
    /// Runs a POSIX shell script. Returns its stdout. Errors: it failed, with its last line on stderr.
    pub fn run(&self, script: &str) -> Result<String, String> {
        self.execute(&["sh", "-s"], Box::new(std::io::Cursor::new(script.as_bytes().to_vec())), SCRIPT_TIMEOUT)
    }

    /// Writes a file of the host. `mode` is octal.
    pub fn write(&self, path: &str, content: impl Read + Send + 'static, mode: &str) -> Result<(), String> {
        let script = format!("umask 077 && cat > {0} && chmod {mode} {0}", quoted(path));
        self.execute(&["sh", "-c", &script], Box::new(content), COPY_TIMEOUT).map(|_| ())
    }

    /// Starts a command whose stdin and stdout stay open.
    pub fn start(&self, args: &[&str]) -> Result<Child, String> {
        let mut command = self.command(args);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        command.spawn().map_err(|e| reason(&e))
    }

    fn command(&self, args: &[&str]) -> Command {
        let args: Vec<String> = args.iter().map(|arg| quoted(arg)).collect();
        let run = match self.as_user {
            true => args.join(" "),
            false => format!("sh -c {} sh {}", quoted(AS_ROOT), args.join(" ")),
        };
        let mut command = ssh(&self.options, &self.socket);
        command.args(["-o", "ControlMaster=no", "--", &self.name, &run]);
        command
    }

    fn execute(&self, args: &[&str], mut input: Box<dyn Read + Send>, limit: Duration) -> Result<String, String> {
        let mut command = self.command(args);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|e| reason(&e))?;
        let mut stdin = child.stdin.take().expect("a pipe");
        // A host that reads no further has failed, which its exit status says.
        std::thread::spawn(move || std::io::copy(&mut input, &mut stdin).and_then(|_| stdin.flush()));
        let (sender, receiver) = mpsc::channel();
        for (is_stdout, mut pipe) in [
            (true, Box::new(child.stdout.take().expect("a pipe")) as Box<dyn Read + Send>),
            (false, Box::new(child.stderr.take().expect("a pipe"))),
        ] {
            let sender = sender.clone();
            std::thread::spawn(move || {
                let mut bytes = Vec::new();
                let _ = pipe.by_ref().take(MAX_OUTPUT).read_to_end(&mut bytes);
                let _ = sender.send((is_stdout, bytes));
            });
        }
        let (until, mut out, mut err) = (Instant::now() + limit, Vec::new(), Vec::new());
        for _ in 0..2 {
            match receiver.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok((true, bytes)) => out = bytes,
                Ok((false, bytes)) => err = bytes,
                Err(_) => {
                    let _ = child.kill();
                    let _ = child.wait();
                    return Err(format!("no answer within {limit:?}"));
                }
            }
        }
        let status = child.wait().map_err(|e| reason(&e))?;
        let out = String::from_utf8_lossy(&out).into_owned();
        match status.success() {
            true => Ok(out),
            false => Err(match out.lines().find_map(|line| line.strip_prefix("problem ")) {
                Some(problem) => one_line(problem),
                None => last_line(&err).unwrap_or_else(|| format!("the command ended with {status}")),
            }),
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        drop(self.master.stdin.take());
        let began = Instant::now();
        while matches!(self.master.try_wait(), Ok(None)) && began.elapsed() < Duration::from_secs(1) {
            std::thread::sleep(PAUSE);
        }
        let _ = self.master.kill();
        let _ = self.master.wait();
    }
}

impl Drop for Connections {
    fn drop(&mut self) {
        // All close at once.
        for host in self.hosts.iter_mut().flatten() {
            drop(host.master.stdin.take());
        }
    }
}

/// The last line that is not empty.
fn last_line(bytes: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(bytes);
    text.lines().rev().map(str::trim).find(|line| !line.is_empty()).map(one_line)
}

/// What a host has said, fit for a terminal.
pub fn one_line(text: &str) -> String {
    bounds::one_line(bounds::beginning(text, SAID).to_owned())
}

/// A word for a POSIX shell.
pub fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quoted_word_is_one_word_to_a_shell() {
        for word in ["", "a b", "it's", "$(id) `id` \\ \"", "*"] {
            let output = Command::new("sh").args(["-c", &format!("printf %s {}", quoted(word))]).output().unwrap();
            assert_eq!(String::from_utf8(output.stdout).unwrap(), word);
        }
    }

    #[test]
    fn a_message_of_a_host_is_one_line_without_control_characters() {
        assert_eq!(last_line(b"first\n\x1b[31mit's \"red\"\x07\n\n").unwrap(), "\\u{1b}[31mit's \"red\"\\u{7}");
    }
}
