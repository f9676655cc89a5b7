//! The standard streams: messages on stderr, and the others as plain files.

use s4::error::{Error, Result};
use std::fmt::Display;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};

/// Says something on stderr. Nobody may be reading it.
pub fn say(text: impl Display) {
    let _ = writeln!(std::io::stderr(), "s4: {text}");
}

/// A standard stream without a buffer: what is written is written.
pub fn unbuffered(stream: impl AsFd) -> Result<File> {
    let owned: std::io::Result<OwnedFd> = stream.as_fd().try_clone_to_owned();
    owned.map(File::from).map_err(|e| Error::io("a standard stream", &e))
}
