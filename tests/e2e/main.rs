//! End to end: real processes, one file a subject.

mod harness;
mod mount_basics;
mod mount_closing;
mod mounting;
mod scripting;
mod tour;
