//! s4: write-once keys on a cluster of plain machines, and ordinary commands run next to them.
//!
//! The layers, lowest first; each knows only those above it in this list, and some of its own line:
//!
//! - [`bounds`]: what a peer says, brought into bounds; [`error`]: kinds of error and what each means at every boundary
//! - [`key`], [`pattern`], [`size`], [`time`]: values parsed once into types; [`aligned`], [`budget`], [`file`], [`limits`], [`mounts`], [`ports`], [`preallocation`], [`runtime`], [`stock`], [`tcp`], [`timeout`]: of the system
//! - [`checksum`], [`blocks`], [`hasher`]: sums of a key and of its parts, and what computes them
//! - [`placement`], [`cluster`]: the node list, and which node a name lives on; [`skew`]: whether names spread over the nodes
//! - [`protocol`], [`side`], [`body`], [`wire`]: what crosses the wire; [`attribute`], [`stored`]: what lies on a disk
//! - [`partition`]: splitting lines into files; a filter, which knows no cluster
//! - [`client`]: talking to a cluster; used by the programs and by the daemons among themselves
//!
//! The programs are `s4` (`main.rs`, `cli.rs`, `commands/`), `s4-server` (`daemon/`) and `s4-mount` (`fuse/`). The last two are packages of
//! their own: they use this library, and cannot use each other.

pub mod aligned;
pub mod attribute;
pub mod blocks;
pub mod body;
pub mod bounds;
pub mod budget;
pub mod checksum;
pub mod client;
pub mod cluster;
pub mod directory;
pub mod error;
pub mod file;
pub mod hasher;
pub mod key;
pub mod limits;
pub mod mounts;
pub mod partition;
pub mod pattern;
pub mod placement;
pub mod ports;
pub mod preallocation;
pub mod protocol;
pub mod runtime;
pub mod side;
pub mod size;
pub mod skew;
pub mod stock;
pub mod stored;
pub mod tcp;
pub mod time;
pub mod timeout;
pub mod wire;
