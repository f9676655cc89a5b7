//! `s4 run`: runs a command on every node. Prints whole lines, each with the number of its node.

use super::console::{print_message, unbuffered};
use super::files;
use crate::cli::RunArgs;
use s4::client::Client;
use s4::error::{ErrorKind, ExitStatus, Result};
use s4::placement::NodeId;
use s4::protocol::CommandText;
use s4::wire::CommandEnd;
use std::fs::File;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::sync::{Arc, Mutex, PoisonError};

/// Limit of bytes of a line; a longer one is broken.
const LINE: usize = 64 * 1024;

pub async fn run(client: &Client, args: RunArgs) -> Result<ExitStatus> {
    let cmd = CommandText::new(args.cmd)?.as_os_str().as_bytes().to_vec();
    let files = files::describe(&args.files).await?;
    let lock = Arc::new(Mutex::new(()));
    let (stdout, stderr) = (Arc::new(unbuffered(std::io::stdout())?), Arc::new(unbuffered(std::io::stderr())?));
    let ran = client.on_every_node(|client, node| {
        let (cmd, files) = (cmd.clone(), files.clone());
        let marked = |file: &Arc<File>| Marked::new(node, file.clone(), lock.clone());
        let (stdout, stderr) = (marked(&stdout), marked(&stderr));
        async move {
            let files = files::send_to(&client, node, files).await?;
            client.run_on(node, cmd, files, stdout, stderr).await
        }
    });
    let mut status = ExitStatus::Done;
    for (node, end) in ran.await.into_iter().enumerate() {
        let name = client.cluster().name(node);
        let failed = match end {
            Ok(CommandEnd::Exit(0)) => continue,
            Ok(CommandEnd::Exit(code)) => format!("{name}: exit status {code}"),
            Ok(CommandEnd::Signal(signal)) => format!("{name}: the command was ended by signal {signal}"),
            Ok(CommandEnd::Error(error)) => error.by(name).to_string(),
            Err(error) if error.kind() == ErrorKind::OutputClosed => return Err(error),
            Err(error) => error.to_string(),
        };
        status = ExitStatus::Failed;
        print_message(failed);
    }
    Ok(status)
}

/// One stream of one node. Prefixes each line with the node.
struct Marked {
    mark: String,
    /// The beginning of a line that is incomplete yet.
    partial: Vec<u8>,
    file: Arc<File>,
    /// Locked while lines are written to stdout or stderr, since both may be the same terminal.
    lock: Arc<Mutex<()>>,
}

impl Marked {
    fn new(node: NodeId, file: Arc<File>, lock: Arc<Mutex<()>>) -> Self {
        Self { mark: format!("node {node}: "), partial: Vec::new(), file, lock }
    }

    /// Writes prefixed lines.
    fn put(&self, lines: &[u8]) -> std::io::Result<()> {
        let _held = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        (&*self.file).write_all(lines)
    }

    /// The lines that are complete with `bytes`.
    fn lines(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut lines = Vec::with_capacity(bytes.len());
        for mut piece in bytes.split_inclusive(|&byte| byte == b'\n') {
            while !piece.is_empty() {
                if self.partial.len() == LINE && piece != b"\n" {
                    self.end_line(&mut lines);
                }
                // A line of this length may still get its newline.
                let room = LINE - self.partial.len() + usize::from(piece.ends_with(b"\n"));
                let len = if piece.len() <= room { piece.len() } else { LINE - self.partial.len() };
                let (part, rest) = piece.split_at(len);
                piece = rest;
                self.partial.extend_from_slice(part);
                if part.ends_with(b"\n") {
                    self.end_line(&mut lines);
                }
            }
        }
        lines
    }

    fn end_line(&mut self, lines: &mut Vec<u8>) {
        lines.extend_from_slice(self.mark.as_bytes());
        lines.append(&mut self.partial);
        if !lines.ends_with(b"\n") {
            lines.push(b'\n');
        }
    }
}

impl Write for Marked {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let lines = self.lines(bytes);
        self.put(&lines).map(|()| bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Drop for Marked {
    /// Writes the last line, which may have no newline.
    fn drop(&mut self) {
        if !self.partial.is_empty() {
            let mut last = Vec::new();
            self.end_line(&mut last);
            // The reader may be gone.
            let _ = self.put(&last);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Seek};

    fn marked(pieces: &[&[u8]]) -> String {
        let mut file = tempfile::tempfile().unwrap();
        let mut stream = Marked::new(3, Arc::new(file.try_clone().unwrap()), Arc::default());
        pieces.iter().for_each(|piece| stream.write_all(piece).unwrap());
        drop(stream);
        let mut text = String::new();
        file.rewind().unwrap();
        file.read_to_string(&mut text).unwrap();
        text
    }

    #[test]
    fn every_line_has_the_mark() {
        assert_eq!(marked(&[b"a\nb", b"c\n\nd"]), "node 3: a\nnode 3: bc\nnode 3: \nnode 3: d\n");
        assert_eq!(marked(&[]), "");
        assert_eq!(marked(&[b"", b"\n"]), "node 3: \n");
    }

    #[test]
    fn a_line_without_an_end_takes_bounded_memory() {
        let long = vec![b'x'; 3 * LINE + 5];
        let text = marked(&[&long, b"y\n"]);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines.iter().all(|line| line.starts_with("node 3: ") && line.len() <= "node 3: ".len() + LINE));
        assert_eq!(lines.concat().replace("node 3: ", ""), format!("{}y", "x".repeat(3 * LINE + 5)));
    }

    #[test]
    fn a_line_of_the_longest_length_is_followed_by_no_empty_one() {
        let long = vec![b'x'; LINE];
        let whole = [&long[..], b"\ny"].concat();
        let expected = format!("node 3: {}\nnode 3: y\n", "x".repeat(LINE));
        assert!(marked(&[&whole]) == expected);
        assert!(marked(&[&long, b"\n", b"y"]) == expected);
        assert!(marked(&[&long, b"y"]) == expected);
        assert!(marked(&[&long[1..], b"x\ny"]) == expected);
    }
}
