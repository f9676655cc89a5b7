//! End to end: real processes, one file a subject.

mod harness;
mod mount_basics;
mod mount_tools;
mod mount_tools_data;
mod mounting;
mod tour;
mod twins;
