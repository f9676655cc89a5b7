//! Hints for failed commands that need the user's own directory, or the end of a stderr that was passed on.

use super::console::{print_message, unbuffered};
use s4::bounds::tail;
use s4::error::Result;
use s4::protocol::{CommandText, JobFile, Runner, hint};
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

/// Bytes of a stderr that are kept for a hint.
const KEPT: usize = 4096;

/// The file in the current directory that the command did not find on its node, since it was not sent.
pub fn unsent_file(stderr: &str, cmd: &CommandText, sent: &[JobFile]) -> Option<String> {
    let cmd = cmd.as_os_str().to_string_lossy();
    let complaints = stderr.lines().filter(|line| line.contains("No such file") || line.contains("not found"));
    let words = complaints.flat_map(|line| line.split(|c: char| c.is_whitespace() || "'\"`‘’:,()".contains(c)));
    let is_unsent = |name: &&str| {
        !name.is_empty()
            && cmd.contains(*name)
            && !sent.iter().any(|file| file.name == *name)
            && Path::new(name).is_file()
    };
    let name = words.filter_map(name_in_task).find(is_unsent)?;
    Some(format!(
        "{0} is in your directory, and not on the nodes: send it with '--file {0}', and run a program as ./{0}",
        name.escape_debug()
    ))
}

/// The name of a file in the directory of its task.
fn name_in_task(word: &str) -> Option<&str> {
    let word = word.strip_prefix("./").unwrap_or(word);
    match word.rsplit_once('/') {
        None => Some(word),
        Some((dir, name)) => dir.contains("/.s4/tasks/").then_some(name),
    }
}

/// Prints a hint about a command that has ended with `code`, if there is one.
pub fn print_hint(code: i32, stderr: &Tail, cmd: &CommandText, sent: &[JobFile], runner: Runner) {
    let stderr = stderr.text();
    let found = unsent_file(&stderr, cmd, sent);
    if let Some(text) = found.or_else(|| hint(&format!("exit status {code}"), &stderr, cmd, runner)) {
        print_message(format_args!("hint: {text}"));
    }
}

/// Passes bytes on to stderr, and keeps the last of them.
#[derive(Clone)]
pub struct Tail {
    to: Arc<File>,
    kept: Arc<Mutex<Vec<u8>>>,
}

impl Tail {
    pub fn of_stderr() -> Result<Self> {
        Ok(Self { to: Arc::new(unbuffered(std::io::stderr())?), kept: Arc::default() })
    }

    fn text(&self) -> String {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        tail(&String::from_utf8_lossy(&kept), KEPT).to_owned()
    }
}

impl Write for Tail {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = (&*self.to).write(bytes)?;
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.extend_from_slice(&bytes[..written]);
        let excess = kept.len().saturating_sub(KEPT);
        kept.drain(..excess);
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_was_not_sent_is_named() {
        // The tests run in the directory of the package.
        let told = |stderr: &str, sent: &[JobFile]| {
            let cmd = CommandText::new("awk -f build.rs; python3 README.md".into()).unwrap();
            unsent_file(stderr, &cmd, sent)
        };
        for stderr in [
            "awk: fatal: cannot open source file `build.rs' for reading: No such file or directory\n",
            "x\nbash: line 1: ./build.rs: No such file or directory",
            "bash: line 1: build.rs: command not found",
            "python3: can't open file '/data/.s4/tasks/1-2/0/build.rs': [Errno 2] No such file or directory",
        ] {
            let told = told(stderr, &[]).unwrap_or_default();
            assert!(
                told.starts_with("build.rs is in your directory") && told.contains("'--file build.rs'"),
                "{stderr}"
            );
        }
        let sent = JobFile { name: "build.rs".into(), digest: String::new(), len: 0, executable: false };
        assert_eq!(told("cat: build.rs: No such file or directory", &[sent]), None);
        for stderr in
            ["cat: Cargo.toml: No such file or directory", "cat: /etc/build.rs: No such file or directory", "build.rs"]
        {
            assert_eq!(told(stderr, &[]), None, "{stderr}");
        }
    }
}
