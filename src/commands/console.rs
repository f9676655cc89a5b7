//! The standard streams: messages on stderr, and stdin and stdout as unbuffered files.

use s4::error::{Error, Result};
use std::fmt::Display;
use std::fs::File;
use std::io::{IsTerminal, Write};
use std::os::fd::{AsFd, OwnedFd};

/// Prints a message on stderr. Ignores errors, since stderr may be closed.
pub fn print_message(text: impl Display) {
    let _ = writeln!(std::io::stderr(), "s4: {text}");
}

/// The width of the terminal on stdout; no limit if stdout is no terminal.
pub fn stdout_width() -> usize {
    let stdout = std::io::stdout();
    let size = stdout.is_terminal().then(|| terminal_size::terminal_size_of(&stdout)).flatten();
    size.map_or(usize::MAX, |(terminal_size::Width(width), _)| width.into())
}

/// A standard stream without a buffer: bytes are written at once.
pub fn unbuffered(stream: impl AsFd) -> Result<File> {
    let owned: std::io::Result<OwnedFd> = stream.as_fd().try_clone_to_owned();
    owned.map(File::from).map_err(|e| Error::io("a standard stream", &e))
}
