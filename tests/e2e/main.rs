//! End to end: real processes, one file a subject.

mod harness;
mod mount_basics;
mod mounting;
mod tour;
