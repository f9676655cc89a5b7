//! End to end: real processes, one file a subject.

mod damage;
mod disks;
mod faults;
mod harness;
mod help;
mod http_docs;
mod kills;
mod maps;
mod memory;
mod mount_basics;
mod mounting;
mod mounts;
mod observe;
mod processes;
mod races;
mod refusals;
mod shuffles;
mod starts;
mod strange_bodies;
mod strangers;
mod tour;
