//! End to end: real processes, one file a subject.

mod bytes;
mod copying;
mod damage;
mod disks;
mod faults;
mod harness;
mod kills;
mod local;
mod maps;
mod memory;
mod mount_basics;
mod mounting;
mod mounts;
mod observe;
mod processes;
mod races;
mod real_job;
mod shuffles;
mod starts;
mod tour;
