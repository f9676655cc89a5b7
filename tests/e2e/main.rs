//! End to end: real processes, one file a subject.

mod damage;
mod disks;
mod faults;
mod harness;
mod kills;
mod maps;
mod memory;
mod mount_basics;
mod mount_closing;
mod mount_control;
mod mount_errnos;
mod mount_faults;
mod mount_freshness;
mod mount_model;
mod mount_table;
mod mounting;
mod mounts;
mod observe;
mod processes;
mod races;
mod scripting;
mod shuffles;
mod starts;
mod tour;
