//! End to end: real processes, one file a subject.

mod harness;
mod mount_attributes;
mod mount_basics;
mod mount_closing;
mod mount_control;
mod mount_errnos;
mod mount_faults;
mod mount_freshness;
mod mount_holders;
mod mount_model;
mod mount_table;
mod mounting;
mod scripting;
mod tour;
