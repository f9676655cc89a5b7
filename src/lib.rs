//! s4: write-once keys on a cluster of plain machines, and ordinary commands that run next to them.
//!
//! The layers, lowest first. A module may use the modules above it in this list, and some in its own line:
//!
//! - [`bounds`]: bounds for values that peers send; [`error`], [`error_summary`]: kinds of error, and their meaning at every
//!   boundary
//! - [`key`], [`pattern`], [`size`], [`time`]: text parsed once into types; [`aligned`], [`budget`], [`file`],
//!   [`limits`], [`mounts`], [`ports`], [`preallocation`], [`runtime`], [`pool`], [`tcp`], [`timeout`]: the system
//! - [`checksum`], [`blocks`], [`hasher`]: checksums of keys and of their parts
//! - [`placement`], [`cluster`], [`listen_address`]: the node list, the node of a name, and this machine's; [`resize`]:
//!   two lists; [`skew`]: whether names spread over the nodes
//! - [`protocol`], [`role`], [`body`], [`wire`]: everything that crosses the wire; [`browsers`]: requests that servers
//!   refuse; [`attribute`], [`stored`], [`directory`]: what is stored on disks
//! - [`partition`]: splits lines into files; a filter that does not know the cluster
//! - [`client`]: the client of a cluster, used by the programs, and by daemons for requests to each other
//!
//! The programs are `s4` (`main.rs`, `cli.rs`, `commands/`), `s4-server` (`daemon/`), `s4-mount` (`fuse/`) and `s4-s3`
//! (`s3/`). The last three are packages of their own. They use this library, and cannot use each other.

pub mod aligned;
pub mod attribute;
pub mod blocks;
pub mod body;
pub mod bounds;
pub mod browsers;
pub mod budget;
pub mod checksum;
pub mod client;
pub mod cluster;
pub mod directory;
pub mod error;
pub mod error_summary;
pub mod file;
pub mod hasher;
pub mod key;
pub mod limits;
pub mod listen_address;
pub mod mounts;
pub mod partition;
pub mod pattern;
pub mod placement;
pub mod pool;
pub mod ports;
pub mod preallocation;
pub mod protocol;
pub mod resize;
pub mod role;
pub mod runtime;
pub mod size;
pub mod skew;
pub mod stored;
pub mod tcp;
pub mod time;
pub mod timeout;
pub mod wire;
