//! The standard streams: messages on stderr, and stdin and stdout as unbuffered files.

use s4::error::{Error, Result};
use std::fmt::Display;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};

/// Prints a message on stderr. Ignores errors, since stderr may be closed.
pub fn print_message(text: impl Display) {
    let _ = writeln!(std::io::stderr(), "s4: {text}");
}

/// A standard stream without a buffer: bytes are written at once.
pub fn unbuffered(stream: impl AsFd) -> Result<File> {
    let owned: std::io::Result<OwnedFd> = stream.as_fd().try_clone_to_owned();
    owned.map(File::from).map_err(|e| Error::io("a standard stream", &e))
}
